"""What was made lately, kept within a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Values by key, the least lately used given up first; several threads may use it at once.

    The latest value is kept even where it is larger than all the room: alone, then.
    """

    def __init__(self, room: int) -> None:
        self.room = room  # bytes
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._full = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._full

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep a value of so many bytes."""
        with self._lock:
            self._remove(key)
            self._kept[key] = (value, size)
            self._full += size
            while self._full > self.room and len(self._kept) > 1:
                self._remove(next(iter(self._kept)))

    def make_room(self, size: int) -> None:
        """Give up what is oldest, so that so many bytes can be made and then kept."""
        with self._lock:
            while self._kept and self._full + size > self.room:
                self._remove(next(iter(self._kept)))

    def drop(self, chosen: Callable[[K], bool]) -> None:
        """Give up what has a key like this."""
        with self._lock:
            for key in [key for key in self._kept if chosen(key)]:
                self._remove(key)

    def _remove(self, key: K) -> None:
        _, size = self._kept.pop(key, (None, 0))
        self._full -= size
