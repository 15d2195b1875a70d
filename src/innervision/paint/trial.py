"""A painting tried in small: what a few evaluations take of time, and of memory."""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from innervision import memory
from innervision.errors import InnervisionError, OutOfMemory, out_of_memory
from innervision.images import Size
from innervision.paint.goals import Goals
from innervision.paint.sitting import Pictures
from innervision.paint.work import SMALL, Tally, held

if TYPE_CHECKING:
    from innervision.paint.gatys import Painting

TRIAL = 320
"""The side of the largest trial, in pixels: it takes every way of computing that a larger picture takes."""

SAFE = 3  # times what an evaluation holds on few pixels: surely more than is needed
_EVALUATIONS = 4  # of a trial: two whose tensors are counted, two that are timed


@dataclass(frozen=True)
class Trial:
    """What a few evaluations at one size took."""

    pixels: int
    seconds: float  # an evaluation
    first: float  # what the first took more: looking at the pictures
    live: int  # bytes of tensors alive at once, less those that stay


@dataclass(frozen=True)
class Tried:
    """Two trials, or one twice, and what the system gave for the larger."""

    small: Trial
    large: Trial
    base: int  # bytes in use before the larger one
    top: int | None  # and at most during it


def try_out(painting: Painting, room: int | None) -> Tried | None:
    """Paint a little at one or two sizes; None for a guest that can be tried at none."""
    device = painting.network.device
    for sizes in _sizes(painting, room):
        try:
            _warm(painting, sizes[-1])
            trials: list[Trial] = []
            begun = memory.in_use(device)
            for size in sizes[:-1]:
                with memory.kept():
                    trials.append(_evaluate(painting, size))
            with memory.kept():  # afresh: what the first one made for good is no part of what this one takes
                base = begun if device.type == "cuda" else memory.in_use(device)  # a GPU keeps what was freed
                memory.peak(device, afresh=True)
                trials.append(_evaluate(painting, sizes[-1]))
            return Tried(trials[0], trials[-1], base, memory.peak(device))
        except InnervisionError:
            raise
        except Exception as error:  # a guest may refuse in any way
            if out_of_memory(error):
                h, w = sizes[-1]
                raise OutOfMemory(
                    f"a trial at {w}x{h} px ran out of memory: choose a smaller --size, or free some"
                ) from error
            continue
    return None


def _sizes(painting: Painting, room: int | None) -> Iterator[list[Size]]:
    """Yield a size or two to try, small to large: squares where stages are larger, then the stages' own."""
    own = sorted({size for size, _ in painting.sitting.stages}, key=lambda size: size[0] * size[1])
    (h, w), each, share = own[-1], held_by(painting), style_share(painting)
    side = TRIAL / share**0.5  # the style is looked at in proportion
    if room is not None and each:  # the trial must fit too
        left = max(0, room - memory.in_use(painting.network.device))
        side = min(side, (left / (SAFE * each * share)) ** 0.5)
    side = max(SMALL, int(side))
    if h * w > side**2:
        yield [(side // 2, side // 2), (side, side)]
    yield own if len(own) == 1 else [own[0], own[-1]]


def held_by(painting: Painting) -> float | None:
    """Return about how many bytes a pixel one evaluation holds; None where a guest does not tell."""
    goals = painting.goals
    return held(painting.network, painting.sitting.size, (*goals.content_layers, *goals.style_layers))


def style_share(painting: Painting) -> float:
    """Return how many pixels are looked at of the largest style for one of the painting, 1 at least."""
    h, w = painting.sitting.size
    return max(1.0, style_pixels(painting) / (h * w))


def style_pixels(painting: Painting) -> int:
    """Return how many pixels are looked at of the largest style."""
    sitting, size = painting.sitting, painting.sitting.size
    pictures = Pictures(sitting, painting.recipe, torch.device("cpu"))
    looks = [size if each is None else pictures.style_size(each, size) for each in sitting.styles]
    return max(h * w for h, w in looks)


def _warm(painting: Painting, size: Size) -> None:
    """Look once, so that what is done once (kernels made ready) is not counted as an evaluation's."""
    own, goals = painting.network, painting.goals
    with torch.no_grad():
        own.features(goals.content(size), (*goals.content_layers, *goals.style_layers))


def _evaluate(painting: Painting, size: Size) -> Trial:
    """Paint a few evaluations at one size as the painting would, and measure them."""
    sketch = _sketch(painting, size)
    tally, clock = Tally(), time.perf_counter
    spans: list[float] = []
    for number in range(_EVALUATIONS):
        begun = clock()
        # counting slows a small evaluation down: those that are timed are not counted
        with tally if number < 2 else contextlib.nullcontext():
            next(sketch)
        spans.append(clock() - begun)
    del sketch
    seconds = statistics.median(spans[2:])
    return Trial(size[0] * size[1], seconds, max(0.0, spans[0] - seconds), tally.top - tally.now)


def _sketch(painting: Painting, size: Size) -> Painting:
    """Return the same painting at one size, with the style in the same proportion."""
    style_size = painting.goals.style_side(size)
    sketch = copy.copy(painting)
    sketch.recipe = replace(painting.recipe, style_size=style_size, every=1, until=None, late_steps=0)
    sketch.sitting = replace(painting.sitting, size=size, stages=((size, _EVALUATIONS),))
    sketch.goals = Goals(painting.network, sketch.sitting, sketch.recipe)
    sketch.best, sketch.latest, sketch.changes, sketch.settled, sketch._compared = None, None, [], False, None
    sketch._frames = sketch._descent(None)
    return sketch


def between(small: Trial, large: Trial, pixels: int, name: str) -> float:
    """Return a figure for so many pixels, on the line through two trials if it rises from 0 or more."""
    low, high = getattr(small, name), getattr(large, name)
    rise = (high - low) / (large.pixels - small.pixels) if large.pixels > small.pixels else 0.0
    start = high - rise * large.pixels
    if start < 0 or rise <= 0:
        return high * pixels / large.pixels
    return start + rise * pixels
