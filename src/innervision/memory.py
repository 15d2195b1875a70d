"""Memory as the system tells it: what this process has had at most, has now, and may have."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

# of glibc's mallopt(): what is set, as far as it goes, and where it ends up by itself
_TRIM_THRESHOLD, _MOST_KEPT, _USUALLY_KEPT = -1, 2**31 - 1, 2**26
_MMAP_THRESHOLD, _MOST_HELD, _USUALLY_HELD, _LEAST_HELD = -3, 2**30, 2**25, 2**18


def gib(size: float) -> str:
    """Return bytes as a person reads them: 1.1 GiB, 640 MiB."""
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


def peak(device: torch.device, *, afresh: bool = False) -> int | None:
    """Return the most bytes used so far: by this process, or of the GPU. None where no one tells.

    afresh: from now on count from what is in use now, where the system can.
    """
    if device.type == "cuda":
        most = torch.cuda.max_memory_reserved(device)
        if afresh:
            torch.cuda.reset_peak_memory_stats(device)
        return most
    try:
        most = _proc("/proc/self/status", "VmHWM")  # getrusage() may also count the parent, before exec()
        if afresh:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        return most
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_use(device: torch.device) -> int:
    """Return the bytes in use now; where the system does not tell, the most so far, or 0."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return _proc("/proc/self/status", "VmRSS")
    except (OSError, ValueError, IndexError):
        return peak(device) or 0


class _Heap:
    """What glibc's heap is told, by several at once perhaps; elsewhere it is told nothing."""

    def __init__(self) -> None:
        self._keeping = 0  # how many want what is freed kept
        self._lock = threading.RLock()  # an abandoned generator may end in the midst of this

    def keep(self, more: int) -> None:
        """Take in one more who wants what is freed kept, or, by -1, one less; give back what is free now."""
        with self._lock:
            self._keeping += more
            self.tell(_TRIM_THRESHOLD, _MOST_KEPT if self._keeping else _USUALLY_KEPT)
            self.hold()
            self.trim()

    def tell(self, option: int, value: int) -> None:
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).mallopt(option, value)

    def hold(self, size: int | None = None) -> None:
        """Let blocks below this size lie in the heap, larger ones apart; None: as those who keep want it."""
        self.tell(_MMAP_THRESHOLD, size or (_MOST_HELD if self._keeping else _USUALLY_HELD))

    def trim(self) -> None:
        with contextlib.suppress(AttributeError, OSError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)


_heap = _Heap()


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Let glibc keep what is freed for what is asked for next, and give it back at the end.

    By itself it gives large blocks back at once, and each evaluation waits for the system to clear the
    same pages anew: a fifth of its time at 1024 px. Elsewhere this does nothing. What was freed before
    is given back first, so that growth is seen. Where several keep at once, until the last one ends.
    """
    _heap.keep(1)
    try:
        yield
    finally:
        _heap.keep(-1)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Give what is made now a place of its own outside glibc's heap, from 256 KiB: what lives long.

    In the midst of what comes and goes it would leave holes that nothing fits into again.
    """
    _heap.hold(_LEAST_HELD)
    try:
        yield
    finally:
        _heap.hold()


def available(device: torch.device) -> int | None:
    """Return the bytes this process may have, with those it has: of memory, or of the GPU's own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + in_use(device)
    try:
        free = _proc("/proc/meminfo", "MemAvailable") + in_use(device)
    except (OSError, ValueError, IndexError):
        try:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, ValueError, OSError):
            return None
    return min([free, *_limits()])


def _proc(path: str, name: str) -> int:
    """Return a figure of /proc, in bytes."""
    return int(Path(path).read_text(encoding="ascii").split(f"{name}:")[1].split()[0]) * 1024


def _limits(
    groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Yield the memory limits of this process's control groups (version 2 or 1), and of those above."""
    with contextlib.suppress(OSError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, kinds, inner = line.split(":", 2)
            if kinds and "memory" not in kinds.split(","):
                continue
            root = mounted / "memory" if kinds else mounted
            group = root / inner.strip("/")
            # a container may see its group's full path, and of the groups themselves only its own, as root
            for folder in (group, *group.parents):
                with contextlib.suppress(OSError, ValueError):  # ValueError: "max", no limit
                    name = "memory.limit_in_bytes" if kinds else "memory.max"
                    yield int((folder / name).read_text(encoding="ascii"))
                if folder == root:
                    break
