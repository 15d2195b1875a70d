"""Views: how the network looks at the canvas in one step; compose them with `|`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class View:
    """A random look at an image: (image, generator) -> image; `a | b` looks through a, then b."""

    look: Callable[[Tensor, torch.Generator | None], Tensor]
    moving: bool = True

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return self.look(image, generator)

    def __or__(self, other: View) -> View:
        return View(lambda x, g: other.look(self.look(x, g), g), self.moving or other.moving)


still = View(lambda image, generator: image, moving=False)
"""The image as it is: the one view an optimiser with a memory (L-BFGS) can bear."""


def roll(pixels: int) -> View:
    """Roll the image round by up to ± pixels each way (jitter without borders)."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        dy, dx = (int(v) for v in torch.randint(-pixels, pixels + 1, (2,), generator=generator))
        return image.roll((dy, dx), (-2, -1))

    return View(look)


def scale(low: float, high: float) -> View:
    """Scale the image by a factor drawn evenly from low..high (bilinear)."""

    def look(image: Tensor, generator: torch.Generator | None) -> Tensor:
        factor = low + (high - low) * float(torch.rand((), generator=generator))
        h, w = (max(1, round(n * factor)) for n in image.shape[-2:])
        return F.interpolate(image, (h, w), mode="bilinear", align_corners=False)

    return View(look)
