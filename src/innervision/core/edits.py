"""Edits: hand-made changes to the canvas after a step, made outside the gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid

Edit = Callable[[Tensor, int], Tensor]
"""(rendered image (1, 3, h, w), step from 1) -> the image to go on from."""


def clamp(low: Tensor | float, high: Tensor | float) -> Edit:
    """Keep the image within bounds: numbers, or one a channel (3,)."""

    def edit(image: Tensor, step: int) -> Tensor:
        least, most = (torch.as_tensor(bound).to(image).view(1, -1, 1, 1) for bound in (low, high))
        return torch.minimum(torch.maximum(image, least), most)

    return edit


def decay(rate: float) -> Edit:
    """Draw the image towards mid-grey by a share each step (Yosinski et al. 2015, θ_decay)."""

    def edit(image: Tensor, step: int) -> Tensor:
        return 0.5 + (1 - rate) * (image - 0.5)

    return edit


def blur(sigma: float, every: int = 1) -> Edit:
    """Blur the image by a Gaussian of sigma px after each `every` steps, the edge repeated outwards.

    Yosinski et al. 2015, θ_b_width and θ_b_every. The kernel ends at 3 sigma.
    """
    if sigma <= 0 or every < 1:
        raise Invalid(f"blur of {sigma} px every {every} steps: give a sigma above 0 and every from 1")
    radius = max(1, round(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel /= kernel.sum()

    def edit(image: Tensor, step: int) -> Tensor:
        if step % every:
            return image
        line = kernel.to(image).repeat(image.shape[1], 1)
        padded = F.pad(image, (radius,) * 4, mode="replicate")  # zeros would paint a dark frame
        out = F.conv2d(padded, line[:, None, None, :], groups=image.shape[1])
        return F.conv2d(out, line[:, None, :, None], groups=image.shape[1])

    return edit
