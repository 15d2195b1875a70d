"""What happens to a job, numbered and bounded in memory: one thread writes it, many listeners follow."""

from __future__ import annotations

import asyncio
import bisect
import json
import math
import secrets
import threading
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

MOST = 4000  # events kept of a job


@dataclass(frozen=True)
class Event:
    """Something that happened: `state`, `step`, `note`, `file` or `end`."""

    number: int
    kind: str
    data: Mapping[str, Any]


class History:
    """A job's events. Where they become too many, every second, every fourth … step is kept, and the last."""

    def __init__(self, most: int = MOST) -> None:
        self.token = secrets.token_hex(4)  # numbers of another server's life are not these
        self.open = True  # whether more is to come
        self._hung_up = False
        self._most, self._stride = most, 1
        self._events: list[Event] = []
        self._next = 1
        self._lock = threading.Lock()
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def add(self, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event, and wake whoever follows; of a file, and of the state, only the latest is kept."""
        with self._lock:
            if kind in ("file", "state"):
                same = data.get("name")
                self._events = [e for e in self._events if e.kind != kind or e.data.get("name") != same]
            self._events.append(Event(self._next, kind, data))
            self._next += 1
            self.open = kind != "end"
            if len(self._events) > self._most:
                self._thin()
        self._wake()

    def end(self, data: Mapping[str, Any]) -> None:
        """Add the last event: who follows is done after it."""
        self.add("end", data)

    def reopen(self) -> None:
        """Let the job go on."""
        with self._lock:
            self.open = True
            self._events = [event for event in self._events if event.kind != "end"]

    def hang_up(self) -> None:
        """Let everyone who follows go; the job may go on."""
        with self._lock:
            self._hung_up = True
        self._wake()

    def since(self, number: int) -> list[Event]:
        """Return the events after a number, oldest first."""
        with self._lock:
            first = bisect.bisect_right(self._events, number, key=lambda event: event.number)
            return self._events[first:]

    @property
    def listeners(self) -> int:
        """How many follow."""
        return len(self._listeners)

    async def follow(self, after: int = 0, *, beat: float = 15.0) -> AsyncGenerator[Event | None]:
        """Yield the events after a number and all that come, to the last; None where `beat` seconds pass."""
        woken = asyncio.Event()
        listener = (asyncio.get_running_loop(), woken)
        with self._lock:
            self._listeners.add(listener)
        try:
            while True:
                woken.clear()
                over = self._hung_up or not self.open  # asked first: what was last is then there
                for event in self.since(after):
                    after = event.number
                    yield event
                    if event.kind == "end":
                        return
                if over:
                    return
                try:
                    await asyncio.wait_for(woken.wait(), beat)
                except TimeoutError:
                    yield None
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def resumed(self, last: str) -> int:
        """Return the number that a listener has seen, of what it says; 0 where that was another history's."""
        token, _, number = last.partition("-")
        return int(number) if token == self.token and number.isdecimal() and len(number) < 12 else 0

    def message(self, event: Event | None) -> bytes:
        """Return an event as server-sent events have it; None is a beat that keeps the line open."""
        if event is None:
            return b": \n\n"
        data = json.dumps(event.data, allow_nan=False)
        return f"id: {self.token}-{event.number}\nevent: {event.kind}\ndata: {data}\n\n".encode()

    def _thin(self) -> None:
        last = max((event.number for event in self._events if event.kind == "step"), default=0)
        for stride in (self._stride, 2 * self._stride):
            self._stride = stride
            self._events = [
                e for e in self._events if e.kind != "step" or e.number in (last,) or not e.number % stride
            ]
            if len(self._events) <= self._most // 2:
                return
        self._events = self._events[-self._most :]  # if it was not the steps

    def _wake(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for loop, woken in listeners:
            try:
                loop.call_soon_threadsafe(woken.set)
            except RuntimeError:  # its loop is closed: it will not come again
                with self._lock:
                    self._listeners.discard((loop, woken))


def told(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a command's event as a step {step, of, text, terms}; None where it tells of none.

    Events come from standard output or from a run's events.jsonl: "step" of commands that look and train,
    "frame" of painting, "epoch" of training. terms: name -> number, whatever is drawn as a curve.
    """
    kind = event.get("event")
    step = event.get("step") if kind == "step" and "step" in event else event.get("count")
    if kind not in ("step", "frame", "epoch") or not _whole(step):
        return None
    of, text = event.get("steps" if kind == "frame" else "of"), event.get("text", "")
    values = event.get("values")
    terms = {**event, **(values if isinstance(values, dict) else {})}
    size = event.get("size")
    if kind == "frame" and isinstance(size, list) and len(size) == 2:
        text = f"{size[1]} × {size[0]} px"
    if kind == "epoch" and not text:
        text = f"epoch {event.get('epoch')}"
    numbers = {str(k)[:80]: v for k, v in terms.items() if k not in _NO_TERMS and _finite(v)}
    return {
        "step": step,
        "of": of if _whole(of) else None,
        "text": str(text)[:300],
        "seconds": event["seconds"] if _finite(event.get("seconds")) else None,
        "terms": dict(list(numbers.items())[:40]),
    }


_NO_TERMS = {"event", "step", "of", "count", "steps", "stage", "size", "seconds", "text", "values", "best"}


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
