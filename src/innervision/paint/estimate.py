"""What a painting will cost, before it is begun: multiply-adds, seconds, and memory at its peak.

The work is counted on torch's device "meta", which knows shapes and computes nothing. Time and memory are
measured on what will run: a few evaluations of the same painting, at its own size where that is small
enough and else at two smaller ones, from which the full size follows by its pixels. A guest that refuses
those is tried at the painting's own sizes.

Memory is the peak resident set of the whole process: libraries, pictures, weights, and what the allocator
keeps of what was freed. The start is what the system has counted by the end of the trial, with its
fragmentation and what is allocated once (kernels made ready); a size that was tried itself needs no more
but the pairs of L-BFGS. Each further pixel costs what the tensors alive at once take more at the larger
trial than at the smaller, times half way to what the system had to give for them: the holes grow, but
not all that is beyond the tensors does. Encoding the picture needs little, and comes when the
evaluation's memory is free again.

Measured against fresh processes with run folders (glibc, one thread, float32 and bfloat16, L-BFGS and Adam,
96 to 1024 px; every preset, start and colour; VGG19, VGG16, SqueezeNet and a guest): within 11 %. A style
that is looked at much larger than the painting is given up to 20 % more than it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from innervision import memory
from innervision.errors import OutOfMemory
from innervision.machine import choose_device
from innervision.paint.trial import SAFE, between, held_by, style_pixels, style_share, try_out
from innervision.paint.work import multiply_adds

if TYPE_CHECKING:
    from innervision.paint.gatys import Painting

_KERNELS = 8  # times the weights: kernels made ready, and what making them takes
_CANVAS = 12 * 3 * 4  # bytes a pixel of the canvas, its gradient, and the frames that are kept
_HOLES = 1.27  # times what its tensors take, a GPU's memory is reserved (H100, 384 to 2048 px: 1.0 to 1.4)
# bytes that giving a picture another's colours takes, in double precision: a pixel of its own, of the other's
_COLOURS = {"covariance": (60, 24), "histogram": (107, 32)}
_SPARE = 0.8  # of what is available is filled by the size that is proposed: a forecast may err


@dataclass(frozen=True)
class Estimate:
    """What a painting costs on this machine."""

    multiply_adds: int | None
    """Of all evaluations, forward and back to the picture; None for a module that needs numbers to run."""
    seconds: float | None
    """From the first step to the last; reading pictures and weights, already done, is not in it.

    None for a guest that could not be tried.
    """
    memory: int | None
    """Bytes at the peak: of the process, or of a GPU's own memory. None where the system does not tell."""
    available: int | None
    """Bytes that may be had, those in use by this process included."""
    longest: int
    """The longest side, up to the one that was asked for, that would fit into what is available; or 0."""
    fits: bool
    """Whether what is still to come will fit, as far as the system tells."""


def estimate(painting: Painting) -> Estimate:
    """Return what a painting will cost, from a trial of a few seconds that leaves it as it was."""
    if painting.recipe.color == "transfer-only":
        return _of_colours(painting)
    sitting = painting.sitting
    device = choose_device(painting.recipe.device)
    room, before = memory.available(device), memory.peak(device)
    longest = max(max(size) for size, _ in sitting.stages)
    trial = try_out(painting, room)
    work = _work(painting)
    if trial is None:
        return Estimate(work, None, None, room, longest, fits=True)
    small, large = trial.small, trial.large
    stages = [(h * w, steps) for (h, w), steps in sitting.stages]
    seconds = sum(
        between(small, large, pixels, "seconds") * steps + between(small, large, pixels, "first")
        for pixels, steps in stages
    )

    top, most, fits = trial.top, None, True
    more = large.pixels - small.pixels
    slope = (large.live - small.live) / more if more else large.live / large.pixels
    holes = _HOLES if device.type == "cuda" else 1.0
    if top is not None:  # half way between what tensors take, and what the system had to give for them
        slope *= (1 + max(1.0, (top - trial.base) / large.live)) / 2

    def need(pixels: float, steps: int) -> float:
        """Return what one stage needs more than the larger trial did."""
        return holes * ((pixels - large.pixels) * slope + pixels * _memories(painting, steps))

    pixels, steps = max(stages, key=lambda stage: need(*stage))
    if top is not None and before is not None:
        coming = round(top + need(pixels, steps))
        most, fits = max(before, coming), room is None or coming <= room
        if room is not None and not fits:
            spare = (_SPARE * room - top) / holes + large.pixels * slope
            over = spare / (slope + _memories(painting, steps))
            longest = int(longest * (max(0.0, over) / pixels) ** 0.5)
    return Estimate(work, seconds, most, room, longest, fits)


def check_memory(painting: Painting) -> None:
    """Raise OutOfMemory, which names a size, where a painting would not fit; at once where it surely does."""
    if painting.recipe.color == "transfer-only":
        refuse(painting, _of_colours(painting))
        return
    room = memory.available(painting.network.device)
    if room is None or _bound(painting) <= room:
        return
    refuse(painting, estimate(painting))


def refuse(painting: Painting, cost: Estimate) -> None:
    """Raise OutOfMemory unless a painting fits; the error names the option that decides."""
    if cost.fits:
        return
    assert cost.memory is not None and cost.available is not None
    recipe = painting.recipe
    h, w = max((size for size, _ in painting.sitting.stages), key=lambda size: size[0] * size[1])
    share = cost.longest / max(h, w)
    colours = recipe.color == "transfer-only"  # which needs no network, and is done on the processor
    where = "GPU memory" if not colours and painting.network.device.type == "cuda" else "memory"
    if isinstance(recipe.stages, tuple):
        choice = f"no stage longer than {cost.longest}"
    elif recipe.pixels is not None:
        choice = f"--pixels {int(h * w * share**2)}"
    else:
        choice = f"--size {cost.longest}"
    if recipe.style_size is not None and style_share(painting) > 1:  # it is the style that needs it
        choice += f" with --style-size {int(recipe.style_size * share)}"
    remedy = f"choose {choice} or less, or free some" if cost.longest else "free some"
    raise OutOfMemory(
        f"a painting of {w}x{h} px needs about {memory.gib(cost.memory)} of {where}, "
        f"and {memory.gib(cost.available)} are available: {remedy}"
    )


def _of_colours(painting: Painting) -> Estimate:
    """Return what giving the content the styles' colours costs: memory, on the processor."""
    recipe, (h, w), processor = painting.recipe, painting.sitting.size, torch.device("cpu")
    room, before, used = memory.available(processor), memory.peak(processor), memory.in_use(processor)
    styles, look = len(painting.sitting.styles), style_pixels(painting) / (h * w)
    own, other = _COLOURS[recipe.color_match]
    # the pictures, as many results as styles, and what matching takes
    need = round(h * w * (12 * (1 + styles + styles * look) + own + other * look))
    if room is None or before is None:
        return Estimate(0, 0.0, None, room, max(h, w), fits=True)
    share = max(0.0, _SPARE * room - used) / need
    fits = used + need <= room
    longest = max(h, w) if fits else int(max(h, w) * share**0.5)
    return Estimate(0, 0.0, max(before, used + need), room, longest, fits)


def _work(painting: Painting) -> int | None:
    """Count the multiply-adds of all evaluations."""
    total = 0
    for size, steps in painting.sitting.stages:
        forward = multiply_adds(painting, size)
        if forward is None:
            return None
        total += 2 * forward * steps
    return total


# memory


def _bound(painting: Painting) -> float:
    """Return more bytes than a painting will surely need, found in no time; infinite where it cannot be."""
    each = held_by(painting)
    if each is None:
        return float("inf")
    size, steps = max(painting.sitting.stages, key=lambda stage: stage[0][0] * stage[0][1])
    weights = sum(tensor.nbytes for tensor in painting.network.module.parameters())
    used, pixels = memory.in_use(painting.network.device), size[0] * size[1]
    look = SAFE * each * style_share(painting)
    return used + _KERNELS * weights + pixels * (look + _CANVAS + _memories(painting, steps))


def _memories(painting: Painting, steps: int) -> float:
    """Return the bytes a pixel of what L-BFGS remembers: pairs, one more, and the last step's three."""
    recipe = painting.recipe
    return (min(recipe.history, steps) * 2 + 5) * 3 * 4 if recipe.optimiser == "lbfgs" else 0
