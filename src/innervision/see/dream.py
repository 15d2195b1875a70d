"""Deep Dream: ask layers for more of whatever they see, octave by octave, and it appears in the picture."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision import memory
from innervision.core.objective import Objective
from innervision.errors import Diverged, Invalid, out_of_memory
from innervision.images import Size, resize
from innervision.network import Network
from innervision.see.tokens import Arranged
from innervision.see.wishes import Wish, wished

_SMALLEST = 32  # px: the shorter side of the smallest octave, what five poolings need
_LEVELS = 255.0  # rates are in levels of a picture, as in the source


@dataclass(frozen=True)
class Octaves:
    """How a dream goes: its sizes, and its steps at each. The defaults are the notebook's.

    Raises Invalid for numbers that no dream can go by.
    """

    count: int = 4
    scale: float = 1.4  # each octave is so many times the one before
    steps: int = 10  # at each octave
    rate: float = 1.5  # the mean change of a step, in levels of 0..255
    jitter: int = 32  # px: the picture is rolled by up to so many before a step
    tile: int = 512  # px: the network sees no more than so much at a time, each way

    def __post_init__(self) -> None:
        for name, number, least in (("octaves", self.count, 1), ("steps", self.steps, 1)):
            if number < least:
                raise Invalid(f"{name} is {number}; it must be at least {least}")
        if not self.scale > 1 or not self.rate > 0:
            raise Invalid(f"octave scale {self.scale:g} and rate {self.rate:g}: more than 1 and 0, please")
        if self.jitter < 0 or self.tile < _SMALLEST:
            raise Invalid(f"jitter {self.jitter} and tile {self.tile}: at least 0 and {_SMALLEST} px, please")

    def sizes(self, size: Size) -> list[Size]:
        """Return the sizes (height, width), the smallest first; the last is `size` itself.

        Those with a side below 32 px are left out.
        """
        h, w = size
        every = [(round(h / self.scale**n), round(w / self.scale**n)) for n in range(self.count)]
        return [each for n, each in enumerate(every) if n == 0 or min(each) >= _SMALLEST][::-1]


@dataclass(frozen=True, eq=False)
class Dreamt:
    """One step: the picture after it, and how much the layers saw in the picture before it."""

    octave: int  # from 0, the smallest
    step: int  # from 1, within its octave
    count: int  # from 1, over all octaves and pictures, of `steps`
    steps: int
    image: Tensor = field(repr=False)  # (1, 3, h, w), sRGB 0..1, at the octave's size
    value: float  # the weighted sum that is climbed
    photo: Tensor = field(repr=False)  # (1, 3, h, w): what was dreamt upon, at its full size
    last: bool  # whether this step ends its picture
    picture: int = 0  # of a film, from 0

    def whole(self) -> Tensor:
        """Return the picture at its full size: the photograph, and as much detail as has been dreamt."""
        if self.image.shape == self.photo.shape:
            return self.image
        detail = self.image - resize(self.photo, _size(self.image))
        return (self.photo + _enlarged(detail, _size(self.photo))).clamp(0, 1)


def dream(
    network: Network,
    image: Tensor,
    wishes: Sequence[Wish],
    *,
    guide: Tensor | None = None,
    octaves: Octaves | None = None,
    generator: torch.Generator | None = None,
) -> Generator[Dreamt]:
    """Climb what the wished-for layers see in a picture, from the smallest octave up, yielding every step.

    image: (1, 3, h, w), sRGB 0..1, of any size: the network sees one tile of it at a time. wishes: layers,
    channels, units or classes, with weights; a layer is asked for ½ mean a², a class for its logit. guide:
    another picture; layers are then asked for what they see in it: the gradient at an activation x is
    y[:, argmax(xᵀy)]. generator: what rolls are drawn from, on the CPU (None: a fresh one of seed 0).

    Mordvintsev, Olah & Tyka, "Inceptionism", 2015, and their notebook dream.ipynb, with its numbers.
    Departures: the energy is the mean, not the sum, over a layer, so that weights mean the same at every
    size; a large picture's gradient is taken tile by tile; a gradient that is 0 everywhere moves nothing,
    where the notebook divides by it; octaves are resized by antialiased bicubic, not linearly. This is not
    `descend`, which takes the whole picture's gradient in one pass.
    Raises Invalid, at once, for what cannot be dreamt, and Diverged when a gradient is no longer a number.
    """
    return film(network, image, wishes, pictures=1, guide=guide, octaves=octaves, generator=generator)


def film(
    network: Network,
    image: Tensor,
    wishes: Sequence[Wish],
    *,
    pictures: int,
    zoom: float = 0.05,
    guide: Tensor | None = None,
    octaves: Octaves | None = None,
    generator: torch.Generator | None = None,
) -> Generator[Dreamt]:
    """Dream upon dreams: each picture begins as the one before it, zoomed into by a share of its sides.

    The rest is as in `dream`; a step whose `last` is true ends a picture of the film.
    """
    if pictures < 1 or not 0 <= zoom < 1:
        raise Invalid(f"{pictures} pictures with zoom {zoom:g}: give 1 picture or more, and a zoom of 0..1")
    if image.ndim != 4 or image.shape[0] != 1 or not image.is_floating_point():
        raise Invalid(
            f"a dream begins with one picture (1, 3, h, w) of floating point numbers in 0..1, "
            f"not {image.dtype} {tuple(image.shape)}"
        )
    network = Arranged(network.module, like=network)
    goal = wished(network, wishes, guide)
    how = octaves or Octaves()
    drawn = torch.Generator().manual_seed(0) if generator is None else generator
    return _film(network, image.detach(), goal, how, drawn, pictures, zoom)


def _film(
    network: Network,
    photo: Tensor,
    goal: Objective,
    how: Octaves,
    generator: torch.Generator,
    pictures: int,
    zoom: float,
) -> Generator[Dreamt]:
    each = len(how.sizes(_size(photo))) * how.steps
    for number in range(pictures):
        dreamt = photo
        for frame in _octaves(network, photo, goal, how, generator):
            count = frame.count + number * each
            yield replace(frame, picture=number, count=count, steps=pictures * each)
            dreamt = frame.image
        photo = zoomed(dreamt, zoom)


def _octaves(
    network: Network, photo: Tensor, goal: Objective, how: Octaves, generator: torch.Generator
) -> Iterator[Dreamt]:
    sizes = how.sizes(_size(photo))
    detail: Tensor | None = None
    for octave, size in enumerate(sizes):
        base = resize(photo, size)
        image = base if detail is None else (base + _enlarged(detail, size)).clamp(0, 1)
        with memory.kept():
            for step in range(1, how.steps + 1):
                shift = _shift(size, how, generator)
                gradient, value = tiled_gradient(network, image, goal, tile=how.tile, shift=shift)
                image = (image - stride(gradient, how.rate)).clamp(0, 1)
                count, of = octave * how.steps + step, len(sizes) * how.steps
                yield Dreamt(octave, step, count, of, image, -value, photo, count == of)
        detail = image - base


def stride(gradient: Tensor, rate: float) -> Tensor:
    """Return the step along a gradient whose mean part is `rate` levels of 255: rate / 255 · g / mean|g|."""
    mean = float(gradient.abs().mean())
    if not math.isfinite(mean):
        raise Diverged("the dream's gradient is no longer a number: choose other layers, or smaller weights")
    return gradient * (rate / _LEVELS / mean) if mean > 0 else torch.zeros_like(gradient)


def tiled_gradient(
    network: Network, image: Tensor, goal: Objective, *, tile: int, shift: tuple[int, int] = (0, 0)
) -> tuple[Tensor, float]:
    """Return the objective's gradient to a picture (1, 3, h, w), and its value, tile by tile.

    The picture is rolled by `shift` first, and the gradient back, so that seams lie elsewhere each time. A
    side is cut into as few even parts as `tile` allows. Each tile counts by its share of the area: for a
    mean over a layer's places the sum of all tiles' is the whole's, but for what crosses a seam.
    """
    rolled = image.roll(shift, (-2, -1))
    gradient, value = torch.empty_like(rolled), 0.0
    h, w = _size(image)
    for top, bottom in pairwise(_edges(h, tile)):
        for left, right in pairwise(_edges(w, tile)):
            place = (..., slice(top, bottom), slice(left, right))
            share = (bottom - top) * (right - left) / (h * w)
            found, worth = _gradient(network, rolled[place], goal)
            gradient[place] = share * found
            value += share * worth
    return gradient.roll((-shift[0], -shift[1]), (-2, -1)), value


def zoomed(image: Tensor, share: float) -> Tensor:
    """Return the picture's middle, a share less of each side, at the picture's size (bicubic, 0..1)."""
    turn = torch.eye(2, 3, dtype=image.dtype, device=image.device)[None] * (1 - share)
    grid = F.affine_grid(turn, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, "bicubic", "border", align_corners=False).clamp(0, 1)


def _shift(size: Size, how: Octaves, generator: torch.Generator) -> tuple[int, int]:
    """Draw how far to roll: by up to ± jitter, along a side that is cut into tiles by up to a whole one."""
    far = [max(how.jitter, how.tile) if side > how.tile else how.jitter for side in size]
    down, across = (
        int(torch.randint(-most, most + 1, (), generator=generator, device=generator.device)) for most in far
    )
    return down, across


def _parts(side: int, tile: int) -> int:
    return -(-side // tile)


def _edges(side: int, tile: int) -> list[int]:
    parts = _parts(side, tile)
    return [n * side // parts for n in range(parts + 1)]


# Leaving inference_mode() turns gradients on, even under no_grad(). Not in the generator: what is set here
# must be given back before a frame is yielded.
@torch.inference_mode(False)
def _gradient(network: Network, image: Tensor, goal: Objective) -> tuple[Tensor, float]:
    leaf = image.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    try:
        total, _ = goal(network.answers(leaf, goal.layers), leaf)
        (gradient,) = torch.autograd.grad(total, leaf)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        h, w = _size(image)
        why = str(error).splitlines()[0]
        raise Invalid(
            f"{network.name} cannot dream on {w} x {h} px ({why}): {_instead(network)}, or name layers "
            "before its first fully connected one"
        ) from error
    return gradient, float(total.detach())


def _instead(network: Network) -> str:
    """Return which size to dream at, where a network did not take one."""
    side = network.input_size
    if side is None:
        return "try another size"
    return f"it is made for squares of {side} px, so try --size {side} --octaves 1"


def _enlarged(detail: Tensor, size: Size) -> Tensor:
    """Resize detail, which is about 0 and unbounded."""
    return F.interpolate(detail, size, mode="bicubic", antialias=True, align_corners=False)


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]
