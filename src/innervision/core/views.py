"""Views: how the network looks at the canvas in one step; compose them with `|`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.shapes import Float

Look = Callable[[Float[Tensor, "n c h w"], torch.Generator | None], Float[Tensor, "n c h w"]]


@dataclass(frozen=True)
class View:
    """A random look at an image: (image, generator) -> image; `a | b` looks through a, then b.

    Where generator is None, torch's own is drawn from.
    """

    look: Look
    moving: bool = True

    def __call__(
        self, image: Float[Tensor, "n c h w"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "m c y x"]:
        return self.look(image, generator)

    def __or__(self, other: View) -> View:
        def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
            return other.look(self.look(image, generator), generator)

        return View(look, self.moving or other.moving)


def _as_it_is(image: Tensor, generator: torch.Generator | None) -> Tensor:
    return image


still = View(_as_it_is, moving=False)
"""The image as it is: the one view an optimiser with a memory (L-BFGS) can bear."""


def roll(pixels: int) -> View:
    """Roll the image round by up to ± pixels each way (jitter without borders)."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        dy, dx = torch.randint(-pixels, pixels + 1, (2,), generator=generator, device=_home(generator))
        return image.roll((int(dy), int(dx)), (-2, -1))

    return View(look)


def scale(low: float, high: float) -> View:
    """Scale the image by a factor drawn evenly from low..high (bilinear), to 1 px at least."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = float(torch.rand((), generator=generator, device=_home(generator)))
        factor = low + (high - low) * drawn
        h, w = (max(1, round(n * factor)) for n in image.shape[-2:])
        return F.interpolate(image, (h, w), mode="bilinear", align_corners=False)

    return View(look)


def pad(pixels: int, value: float = 0.5) -> View:
    """Surround the image by so many pixels of one value on each side."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        return F.pad(image, (pixels,) * 4, value=value)

    return View(look, moving=False)


def jitter(pixels: int) -> View:
    """Cut so many pixels off the height and the width, at random from either end; 1 px is left at least."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        cut = [min(pixels, side - 1) for side in image.shape[-2:]]
        top, left = (int(torch.randint(n + 1, (), generator=generator, device=_home(generator))) for n in cut)
        h, w = image.shape[-2:]
        return image[..., top : top + h - cut[0], left : left + w - cut[1]]

    return View(look)


def rotate(degrees: float, value: float = 0.5) -> View:
    """Rotate the image about its centre by an angle drawn evenly from ± degrees (bilinear), its size kept.

    value: what comes in from outside.
    """

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        drawn = float(torch.rand((), generator=generator, device=_home(generator)))
        angle = math.radians(degrees * (2 * drawn - 1))
        h, w = image.shape[-2:]
        turn = [
            [math.cos(angle), -math.sin(angle) * h / w, 0.0],
            [math.sin(angle) * w / h, math.cos(angle), 0.0],
        ]
        return value + _sample(image - value, image.new_tensor([turn]), (h, w), "zeros")

    return View(look)


def crops(count: int, box: float | Callable[[], float], *, size: tuple[int, int], noise: float = 0.0) -> View:
    """Look at `count` square boxes of the image at once, each resized to `size`, with noise on them.

    box: the side of a box as a share of the image's, or a function that tells it at each look; each side is
    drawn from N(box, 0.05), within 0.05..1, each centre from N(½, 0.15). noise: the deviation of normal
    noise, to which an even one of ± noise / 2 is added (MaCo, Fel et al. 2023). Of n images count · n come
    back, the first n through the first box. Departure: beyond its edge the image is mirrored, not black.
    """

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        home = _home(generator)
        normal = torch.randn((count, 3), generator=generator, device=home)
        mean = box() if callable(box) else box
        side = (mean + 0.05 * normal[:, 0]).clamp(0.05, 1)
        centre = 2 * 0.15 * normal[:, 1:]  # -1..1 is the whole image
        zero = torch.zeros_like(side)
        boxes = torch.stack([side, zero, centre[:, 0], zero, side, centre[:, 1]], -1).view(count, 2, 3)
        many = image.repeat(count, 1, 1, 1)
        out = _sample(many, boxes.to(image).repeat_interleave(len(image), 0), size, "reflection")
        if not noise:
            return out
        # one noise for all images: what one sees does not depend on who is beside it
        shape = (count, 1, *out.shape[1:])
        grain = torch.randn(shape, generator=generator, device=home)
        grain = noise * (grain + torch.rand(shape, generator=generator, device=home) - 0.5)
        return out + grain.expand(-1, len(image), -1, -1, -1).flatten(0, 1).to(out)

    return View(look)


def sized(size: tuple[int, int]) -> View:
    """Resize the image (bilinear): for a network that takes one size only, after views that change it."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        if tuple(image.shape[-2:]) == tuple(size):
            return image
        return F.interpolate(image, size, mode="bilinear", align_corners=False)

    return View(look, moving=False)


def _sample(image: Tensor, affine: Tensor, size: tuple[int, int], beyond: str) -> Tensor:
    grid = F.affine_grid(affine.expand(len(image), -1, -1), [len(image), 3, *size], align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=beyond, align_corners=False)


def _home(generator: torch.Generator | None) -> torch.device | None:
    return None if generator is None else generator.device
