"""Views: how the network looks at the canvas in one step; compose them with `|`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Look = Callable[[Tensor, torch.Generator | None], Tensor]


@dataclass(frozen=True)
class View:
    """A random look at an image: (image, generator) -> image; `a | b` looks through a, then b.

    Where generator is None, torch's own is drawn from.
    """

    look: Look
    moving: bool = True

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
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


def _home(generator: torch.Generator | None) -> torch.device | None:
    return None if generator is None else generator.device
