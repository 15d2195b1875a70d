"""The presets by which a unit is excited: what is descended, how it is looked at, what is done by hand.

Yosinski's rates and progress are thirty times the authors' (3000 for 100, 60 for 2), found by eye: theirs
were found for CaffeNet's classes, and here a layer's answers are first scaled to a root mean square of 3 on
photographs. By a progress of 2 his fourth recipe, which sets nine pixels of ten back each time, leaves its
picture blank in relu5_1 of VGG19; by 60 there are an eye and a beak. Of classes of EfficientNet-Lite0, which
hardly visible changes raise as much, it stays nearly blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from innervision import images, samples
from innervision.core import (
    Adam,
    Canvas,
    Fourier,
    Informed,
    Nadam,
    Phases,
    Pixels,
    Sgd,
    View,
    blur,
    clamp,
    clip_contribution,
    clip_norm,
    crops,
    decay,
    jitter,
    pad,
    rotate,
    scale,
    still,
)
from innervision.core.canvas import Size
from innervision.core.edits import Edit
from innervision.core.fourier import drawn, magnitude
from innervision.errors import unknown

Edits = tuple[Edit | Informed, ...]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
"""The samples whose mean spectrum MaCo's pictures have, and by which a layer's answers are measured."""

_LEVEL, _FASTER = 3.0, 30  # by which Yosinski's rates move units of any layer of VGG19: by eye


@runtime_checkable
class Start(Protocol):
    """Makes a canvas: the same `pictures` for each unit, of the type and on the device of `like`."""

    def __call__(
        self,
        size: Size,
        *,
        pictures: int,
        units: int,
        colour: Tensor,
        generator: torch.Generator,
        like: Tensor,
    ) -> Canvas: ...


@dataclass
class Look:
    """A view, the pixels it puts round a picture, and how much of the work is done (0..1), as it may ask."""

    view: View
    padding: int = 0
    moves: bool = True
    done: float = 0.0


@dataclass(frozen=True)
class Preset:
    """One way to excite a unit."""

    text: str
    steps: int
    optimiser: Adam | Nadam | Sgd
    canvas: Start
    look: str
    edits: Callable[[Tensor], Edits]  # of the colour that means nothing to the network
    centre: bool = False  # a channel means the one unit in the centre of its map
    let_through: bool = False  # dead units get a gradient at first
    level: float | None = None  # of the layer's answers to photographs: what its root mean square counts as
    views: float = 1.0  # pictures of the canvas's size that the network sees of each, about


def preset_of(name: str) -> Preset:
    """Return the preset of this name; Invalid, with near names, if there is none."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]


def _fourier(
    size: Size, *, pictures: int, units: int, colour: Tensor, generator: torch.Generator, like: Tensor
) -> Canvas:
    spectrum = Fourier(size, pictures=pictures, generator=generator).parameter.detach()
    return Fourier(size, spectrum=spectrum.repeat(units, 1, 1, 1, 1).to(like))


def _phases(
    size: Size, *, pictures: int, units: int, colour: Tensor, generator: torch.Generator, like: Tensor
) -> Canvas:
    phases = drawn((3, size[0], size[1] // 2 + 1), pictures, generator)
    return Phases(size, _photographic(size), phases=phases.repeat(units, 1, 1, 1).to(like))


def photographs() -> list[Tensor]:
    """Return the sample photographs, (1, 3, h, w) each."""
    return [images.read(samples.path(name)).tensor() for name in PHOTOGRAPHS]


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _photographic(size: Size) -> Tensor:
    return magnitude(photographs(), size)


def _pixels(
    size: Size, *, pictures: int, units: int, colour: Tensor, generator: torch.Generator, like: Tensor
) -> Canvas:
    """The mean colour with normal noise of 10 of 255, in units of 1 of 255."""
    noise = drawn((3, *size), pictures, generator).repeat(units, 1, 1, 1)
    start = (colour.view(1, 3, 1, 1) + noise * (10 / 255)).clamp(0, 1)
    return Pixels(start.to(like), 1 / 255)


def _robust(size: Size) -> Look:
    """Lucid's views for pictures of 128 px and more; below, their pixels shrink in proportion."""
    share = min(1.0, min(size) / 128)
    around, far, near = (round(share * pixels) for pixels in (12, 8, 4))
    view = pad(around) | jitter(far) | scale(0.9, 1.1) | rotate(10) | jitter(near)
    return Look(view, padding=around)


def _boxes(size: Size, count: int = 6, most: int = 128) -> Look:
    """MaCo's crops, from half of the picture to a twentieth; of at most so many pixels a side."""
    look = Look(still)
    side = max(32, min(most, *size)) if min(size) >= 32 else min(size)
    look.view = crops(count, lambda: 0.5 - 0.45 * look.done, size=(side, side), noise=0.04)
    return look


def _still(size: Size) -> Look:
    return Look(still, moves=False)


LOOKS: Mapping[str, Callable[[Size], Look]] = MappingProxyType(
    {
        "robust": _robust,
        "crops": _boxes,
        "xplique's crops": partial(_boxes, count=32, most=224),
        "still": _still,
    }
)


def _none(colour: Tensor) -> Edits:
    return ()


def _yosinski(
    steps: int,
    *,
    shrink: float = 0,
    sigma: float = 0,
    norm: float = 0,
    contribution: float = 0,
    lr: float = 100,
    progress: float | None = None,
    note: str = "",
) -> Preset:
    """Return one of Yosinski's recipes; lr, progress: the authors', of which _FASTER times is taken."""

    def edits(colour: Tensor) -> Edits:
        made: list[Edit | Informed] = []
        if shrink:
            made.append(decay(shrink, colour))
        if sigma:
            made.append(blur(sigma, every=4))
        if norm:
            made.append(clip_norm(norm, colour))
        if contribution:
            made.append(clip_contribution(contribution, colour))
        return (*made, clamp(0, 1))

    said = [
        f"{name} {value:g}"
        for name, value in (
            ("decay", shrink),
            ("blur", sigma),
            ("norm", norm),
            ("contribution", contribution),
        )
        if value
    ]
    optimiser = Sgd(_FASTER * lr, progress and _FASTER * progress)
    if progress is None:
        rate = f"rate {_FASTER * lr:g} ({_FASTER} times the authors', for a layer's answers of {_LEVEL:g})"
    else:
        rate = f"progress {_FASTER * progress:g} a step, of a layer's answers of {_LEVEL:g}, at rates up to "
        rate += f"{_FASTER * lr:g} (both {_FASTER} times the authors')"
    text = f"Yosinski et al. 2015: pixels, gradient descent, {', '.join(said)}; {rate}{note}"
    return Preset(
        text, steps, optimiser, _pixels, "still", edits, centre=True, let_through=True, level=_LEVEL
    )


_BLANK = "; few pixels, nearly blank for classes"
_LUCID = Preset(
    "Olah et al. 2017: a Fourier canvas, looked at from ever other places",
    96,
    Adam(0.05),
    _fourier,
    "robust",
    _none,
    let_through=True,
)
_MACO = Preset(
    "Fel et al. 2023: the phases of a spectrum that photographs have, looked at in crops",
    128,
    Nadam(1.0),
    _phases,
    "crops",
    _none,
    let_through=True,
    views=2,
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "lucid": _LUCID,
        "lucid512": replace(_LUCID, text="lucid with the 512 steps of its authors", steps=512),
        "maco": _MACO,
        "maco256": replace(
            _MACO,
            text="maco with the 256 steps of 32 crops of its authors: thirty times the work",
            steps=256,
            look="xplique's crops",
            views=32,
        ),
        "yosinski1": _yosinski(500, sigma=0.5, norm=50, progress=2.0),
        "yosinski2": _yosinski(750, shrink=0.3, norm=20),
        "yosinski3": _yosinski(1000, shrink=0.0001, sigma=1.0),
        "yosinski4": _yosinski(1000, sigma=0.5, contribution=90, lr=1e8, progress=2.0, note=_BLANK),
    }
)
