"""What a painting will cost, before it is begun: multiply-adds, seconds, and memory at its peak.

The work is counted on torch's device "meta", which knows shapes and computes nothing. Time and memory are
measured on what will run: a few evaluations of the same painting, at its own size where that is small
enough and else at two smaller ones, from which the full size follows by its pixels.

Memory is the peak resident set of the whole process: libraries, pictures, weights, and what the allocator
keeps of what was freed. The start is what the system has counted by the end of the trial, with its
fragmentation and what is allocated once (kernels made ready); a size that was tried itself needs no more
but the pairs of L-BFGS. Each further pixel costs what the tensors alive at once take more at the larger
trial than at the smaller, times half way to what the system had to give for them: the holes grow, but
not all that is beyond the tensors does. Encoding the picture needs little, and comes when the
evaluation's memory is free again.

Measured against fresh processes (glibc, float32, one thread): 128 to 384 px within 5 %; 768 and 1024 px,
from smaller trials, within 8 %.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import statistics
import sys
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from innervision.errors import OutOfMemory
from innervision.images import Size
from innervision.network import Network
from innervision.paint.gatys import Painting
from innervision.paint.goals import Goals

TRIAL = 320
"""The side of the largest trial, in pixels: it takes every way of computing that a larger picture takes."""

_SAFE = 3  # times what an evaluation holds on few pixels: surely more than is needed
_EVALUATIONS = 4  # of a trial: two whose tensors are counted, two that are timed
_KERNELS = 8  # times the weights: kernels made ready, and what making them takes
_MMAP_THRESHOLD, _LARGE = -3, 2**25  # of glibc's mallopt(); where its threshold ends up by itself
_SPARE = 0.8  # of what is available is filled by the size that is proposed: a forecast may err


@dataclass(frozen=True)
class Estimate:
    """What a painting costs on this machine."""

    multiply_adds: int | None
    """Of all evaluations, forward and back to the picture; None for a module that needs numbers to run."""
    seconds: float
    """From the first step to the last; reading pictures and weights, already done, is not in it."""
    memory: int | None
    """Bytes at the peak: of the process, or of a GPU's own memory. None where the system does not tell."""
    available: int | None
    """Bytes that may be had, those in use by this process included."""
    longest: int
    """The longest side that would fit into what is available; 0 if none does."""
    fits: bool
    """Whether what is still to come will fit, as far as the system tells."""


def estimate(painting: Painting) -> Estimate:
    """Return what a painting will cost, from a trial of a few seconds that leaves it as it was."""
    sitting, device = painting.sitting, painting.network.device
    room = available(device)
    longest = max(max(size) for size, _ in sitting.stages)
    if painting.recipe.color == "transfer-only":
        return Estimate(0, 0.0, peak(device), room, longest, fits=True)
    stages = [(h * w, steps) for (h, w), steps in sitting.stages]
    sizes = _trial_sizes(painting, room)
    _warm(painting, sizes[-1])
    with _to_scale(sizes[-1][0] * sizes[-1][1] / max(pixels for pixels, _ in stages)):
        base, before = _in_use(device), peak(device, afresh=True)
        trials = [_try(painting, size) for size in sizes]
    small, large = trials[0], trials[-1]
    seconds = sum(
        _between(small, large, pixels, "seconds") * steps + _between(small, large, pixels, "first")
        for pixels, steps in stages
    )

    top, memory, fits = peak(device), None, True
    more = large.pixels - small.pixels
    slope = (large.live - small.live) / more if more else large.live / large.pixels
    if top is not None:  # half way between what tensors take, and what the system had to give for them
        slope *= (1 + max(1.0, (top - base) / large.live)) / 2

    def need(pixels: float, steps: int) -> float:
        """Return what one stage needs more than the larger trial did."""
        return (pixels - large.pixels) * slope + pixels * _memories(painting, steps)

    pixels, steps = max(stages, key=lambda stage: need(*stage))
    if top is not None and before is not None:
        coming = round(top + need(pixels, steps))
        memory, fits = max(before, coming), room is None or coming <= room
        if room is not None and not fits:
            over = (_SPARE * room - top + large.pixels * slope) / (slope + _memories(painting, steps))
            longest = int(longest * (max(0.0, over) / pixels) ** 0.5)
    forward = [multiply_adds(painting, size) for size, _ in sitting.stages]
    known = [2 * work * steps for work, (_, steps) in zip(forward, stages, strict=True) if work is not None]
    work = sum(known) if len(known) == len(stages) else None
    return Estimate(work, seconds, memory, room, longest, fits)


def check_memory(painting: Painting) -> None:
    """Raise OutOfMemory, which names a size, where a painting would not fit; at once where it surely does."""
    room = available(painting.network.device)
    if room is None or painting.recipe.color == "transfer-only" or _bound(painting) <= room:
        return
    refuse(painting, estimate(painting))


def refuse(painting: Painting, cost: Estimate) -> None:
    """Raise OutOfMemory unless a painting fits."""
    if cost.fits:
        return
    assert cost.memory is not None and cost.available is not None
    h, w = max((size for size, _ in painting.sitting.stages), key=lambda size: size[0] * size[1])
    where = "GPU memory" if painting.network.device.type == "cuda" else "memory"
    what = "no stage longer than" if isinstance(painting.recipe.stages, tuple) else "--size"
    remedy = f"choose {what} {cost.longest} or less, or free some" if cost.longest else "free some"
    raise OutOfMemory(
        f"a painting of {w}x{h} px needs about {gib(cost.memory)} of {where}, and {gib(cost.available)} "
        f"are available: {remedy}"
    )


def gib(size: float) -> str:
    """Return bytes as a person reads them: 1.1 GiB, 640 MiB."""
    return f"{size / 2**20:.0f} MiB" if size < 2**30 else f"{size / 2**30:.1f} GiB"


# work


class _Tally(TorchDispatchMode):
    """Counts what torch does: multiply-adds, and the bytes of tensors alive, `now` and at most (`top`)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.top = self.multiply_adds = 0
        self._met: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler for it: a second, and 30 MiB

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in tree_leaves((args, kwargs)):
            self._meet(each, known=True)  # what comes in unmet was there before
        answer = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.multiply_adds += formula(*args, **(kwargs or {}), out_val=answer) // 2
        for each in tree_leaves(answer):
            self._meet(each)
        return answer

    def _meet(self, value: Any, *, known: bool = False) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, 0 if known else storage.nbytes()
        if key in self._met:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._met[key]

        self._met[key] = weakref.ref(storage, gone)
        self.now += size
        self.top = max(self.top, self.now)


def multiply_adds(painting: Painting, size: Size) -> int | None:
    """Count those of a forward pass at a size to the deepest layer wanted; None if it needs numbers.

    Back to the picture is as many again: the kernel transposed meets the same positions. Convolutions and
    matrix products count as they are defined, whatever quicker way is taken; Gram matrices are not in it.
    """
    own, goals = painting.network, painting.goals
    ghosts: dict[int, Any] = {}  # stand in for the weights, which are not copied
    for tensor in own.module.buffers():
        ghosts[id(tensor)] = tensor.to("meta")
    for tensor in own.module.parameters():
        ghosts[id(tensor)] = torch.nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
    module = copy.deepcopy(own.module, ghosts)
    ghost = _Plain(module, name=own.name, preprocessing=own.preprocessing)
    image = torch.empty(1, 3, *size, device="meta")
    tally = _Tally()
    with torch.no_grad(), tally, contextlib.suppress(Exception):  # a guest may do anything
        ghost.features(image, dict.fromkeys((*goals.content_layers, *goals.style_layers)))
        return tally.multiply_adds
    return None


class _Plain(Network):
    """A network that takes no short cut: modules run as they stand."""

    def _chain(self, wanted: tuple[str, ...], device: torch.device) -> None:
        return None


# memory


def _bound(painting: Painting) -> float:
    """Return more bytes than a painting will surely need, found in no time; infinite where it cannot be."""
    size, steps = max(painting.sitting.stages, key=lambda stage: stage[0][0] * stage[0][1])
    weights = sum(tensor.nbytes for tensor in painting.network.module.parameters())
    used, pixels = _in_use(painting.network.device), size[0] * size[1]
    return used + _KERNELS * weights + pixels * (_SAFE * _held(painting) + _memories(painting, steps))


def _held(painting: Painting) -> float:
    """Return about how many bytes a pixel one evaluation holds, on a small picture; or infinity."""
    own, goals, tally = painting.network, painting.goals, _Tally()
    image = torch.zeros(1, 3, 64, 64, device=own.device, requires_grad=True)
    try:
        with tally:
            found = own.features(image, dict.fromkeys((*goals.content_layers, *goals.style_layers)))
            torch.autograd.backward([answer.sum() for answer in found.values()])
            del found
    except Exception:  # a guest may refuse so small a picture in any way
        return float("inf")
    return (tally.top - tally.now) / 64**2


def _memories(painting: Painting, steps: int) -> float:
    """Return the bytes a pixel of the pairs that L-BFGS has gathered when its last evaluation begins."""
    pairs = min(painting.recipe.history, max(0, steps - 2)) if painting.recipe.optimiser == "lbfgs" else 0
    return pairs * 2 * 3 * 4


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


def _in_use(device: torch.device) -> int:
    """Return the bytes in use now; where the system does not tell, the most so far, or 0."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        return _proc("/proc/self/status", "VmRSS")
    except (OSError, ValueError, IndexError):
        return peak(device) or 0


@contextlib.contextmanager
def _to_scale(share: float) -> Iterator[None]:
    """Let glibc treat the blocks of a trial as it will those of the full size; elsewhere do nothing.

    It gives back at once what is 32 MiB or more, and keeps holes of what is less: blocks `share` times as
    large are to meet a limit as much lower. What was freed before goes back, so that growth is seen.
    """
    malloc: Any = None
    with contextlib.suppress(AttributeError, OSError, TypeError):
        malloc = ctypes.CDLL(None)
        malloc.mallopt(_MMAP_THRESHOLD, int(_LARGE * min(1.0, share)))
        malloc.malloc_trim(0)
    try:
        yield
    finally:
        with contextlib.suppress(AttributeError):
            malloc.mallopt(_MMAP_THRESHOLD, _LARGE)


def available(device: torch.device) -> int | None:
    """Return the bytes this process may have, with those it has: of memory, or of the GPU's own."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + _in_use(device)
    try:
        free = _proc("/proc/meminfo", "MemAvailable") + _in_use(device)
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


# trials


@dataclass(frozen=True)
class _Trial:
    """What a few evaluations at one size took."""

    pixels: int
    seconds: float  # an evaluation
    first: float  # what the first took more: looking at the pictures
    live: int  # bytes of tensors alive at once, less those that stay


def _trial_sizes(painting: Painting, room: int | None) -> list[Size]:
    """Return one or two sizes to try, small to large: the stages' own if small enough, else squares."""
    sizes = sorted({size for size, _ in painting.sitting.stages}, key=lambda size: size[0] * size[1])
    (h, w), side = sizes[-1], TRIAL
    if room is not None:  # the trial must fit too
        left = max(0, room - _in_use(painting.network.device))
        side = max(64, min(side, int((left / (_SAFE * _held(painting))) ** 0.5)))
    if h * w <= side**2:
        return sizes if len(sizes) == 1 else [sizes[0], sizes[-1]]
    return [(side // 2, side // 2), (side, side)]


def _warm(painting: Painting, size: Size) -> None:
    """Look once, so that what is done once (kernels made ready) is not counted as an evaluation's."""
    own, goals = painting.network, painting.goals
    with torch.no_grad():
        own.features(goals.content(size), dict.fromkeys((*goals.content_layers, *goals.style_layers)))


def _try(painting: Painting, size: Size) -> _Trial:
    """Paint a few evaluations at one size as the painting would, and measure them."""
    sketch = _sketch(painting, size)
    tally, clock = _Tally(), time.perf_counter
    spans: list[float] = []
    for number in range(_EVALUATIONS):
        begun = clock()
        # counting slows a small evaluation down: those that are timed are not counted
        with tally if number < 2 else contextlib.nullcontext():
            next(sketch)
        spans.append(clock() - begun)
    del sketch
    seconds = statistics.median(spans[2:])
    return _Trial(size[0] * size[1], seconds, max(0.0, spans[0] - seconds), tally.top - tally.now)


def _sketch(painting: Painting, size: Size) -> Painting:
    """Return the same painting at one size, with the style in the same proportion."""
    recipe, (h, w) = painting.recipe, painting.sitting.size
    style_size = recipe.style_size and max(1, round(recipe.style_size * (size[0] * size[1] / (h * w)) ** 0.5))
    sketch = copy.copy(painting)
    sketch.recipe = replace(recipe, style_size=style_size, every=1, until=None, late_steps=0)
    sketch.sitting = replace(painting.sitting, size=size, stages=((size, _EVALUATIONS),))
    sketch.goals = Goals(painting.network, sketch.sitting, sketch.recipe)
    sketch.changes, sketch._compared = [], None
    sketch._frames = sketch._paint(None)
    return sketch


def _between(small: _Trial, large: _Trial, pixels: int, name: str) -> float:
    """Return a figure for so many pixels, on the line through two trials if it rises from 0 or more."""
    low, high = getattr(small, name), getattr(large, name)
    rise = (high - low) / (large.pixels - small.pixels) if large.pixels > small.pixels else 0.0
    start = high - rise * large.pixels
    if start < 0 or rise <= 0:
        return high * pixels / large.pixels
    return start + rise * pixels
