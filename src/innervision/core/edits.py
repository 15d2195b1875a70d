"""Edits: hand-made changes to the canvas after a step, made outside the gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid
from innervision.shapes import Float

Edit = Callable[[Float[Tensor, "n c h w"], int], Float[Tensor, "n c h w"]]
"""(rendered image, step from 1) -> the image to go on from."""


@dataclass(frozen=True)
class Informed:
    """An edit that also wants the objective's gradient to the image, as it was before the step."""

    edit: Callable[[Float[Tensor, "n c h w"], int, Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]
    """(rendered image, step from 1, gradient) -> the image to go on from."""


def clamp(low: Tensor | float, high: Tensor | float) -> Edit:
    """Keep the image within bounds: numbers, or one a channel (3,)."""

    def edit(image: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n c h w"]:
        least, most = (torch.as_tensor(bound).to(image).view(1, -1, 1, 1) for bound in (low, high))
        return torch.minimum(torch.maximum(image, least), most)

    return edit


def decay(rate: float, towards: Tensor | float = 0.5) -> Edit:
    """Draw the image towards a colour by a share each step (Yosinski et al. 2015, θ_decay).

    towards: mid-grey, or another number or one a channel (3,): Yosinski's is the data's mean.
    """

    def edit(image: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n c h w"]:
        colour = _colour(towards, image)
        return colour + (1 - rate) * (image - colour)

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

    def edit(image: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n c h w"]:
        if step % every:
            return image
        line = kernel.to(image).repeat(image.shape[1], 1)
        padded = F.pad(image, (radius,) * 4, mode="replicate")  # zeros would paint a dark frame
        out = F.conv2d(padded, line[:, None, None, :], groups=image.shape[1])
        return F.conv2d(out, line[:, None, :, None], groups=image.shape[1])

    return edit


def clip_norm(percentile: float, towards: Tensor | float = 0.5) -> Edit:
    """Set each picture's pixels that differ least from a colour to it: those of a norm below a percentile.

    The norm is over channels (Yosinski et al. 2015, θ_n_pct); towards as in `decay`.
    """
    _check_percentile(percentile)

    def edit(image: Float[Tensor, "n c h w"], step: int) -> Float[Tensor, "n c h w"]:
        colour = _colour(towards, image)
        square = (image - colour).square().sum(1, keepdim=True)
        return _without(image, colour, square.sqrt(), percentile)

    return edit


def clip_contribution(percentile: float, towards: Tensor | float = 0.5) -> Informed:
    """Set each picture's pixels that matter least to a colour: those of a contribution below a percentile.

    The contribution of a pixel is |Σ_c −x·g|, x its difference from the colour and g the gradient: what
    setting it to the colour would change, to first order (Yosinski et al. 2015, θ_c_pct).
    """
    _check_percentile(percentile)

    def edit(
        image: Float[Tensor, "n c h w"], step: int, gradient: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        colour = _colour(towards, image)
        share = ((image - colour) * gradient).sum(1, keepdim=True).abs()
        return _without(image, colour, share, percentile)

    return Informed(edit)


def _without(image: Tensor, colour: Tensor, measure: Tensor, percentile: float) -> Tensor:
    # of the number numpy.percentile() would give: between neighbours by straight lines
    bound = torch.quantile(measure.flatten(1), percentile / 100, dim=1).view(-1, 1, 1, 1)
    return torch.where(measure < bound, colour, image)


def _colour(towards: Tensor | float, image: Tensor) -> Tensor:
    return torch.as_tensor(towards).to(image).view(1, -1, 1, 1)


def _check_percentile(percentile: float) -> None:
    if not 0 <= percentile <= 100:
        raise Invalid(f"the percentile is {percentile:g}; it must lie in 0..100")
