"""Colour: linear light, luma and chroma, and giving one image the colours of another.

All functions take and return images of sRGB 0..1, in the dtype and on the device of their first argument.
What leaves 0..1 is left as it is, so that steps can follow one another, except where clamping is said; clamp
before showing.
"""

from __future__ import annotations

import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.shapes import Float

# ITU-R BT.601 in full range, as in JPEG (JFIF 1.02): luma, and chroma around .5
LUMA = (0.299, 0.587, 0.114)
CB_SPAN = 2 * (1 - LUMA[2])  # 1.772: B - Y is this much of Cb
CR_SPAN = 2 * (1 - LUMA[0])  # 1.402

# The variance that rounding to 8 bits makes. A picture that varies less along some direction of colour has
# nothing but rounding there, which no map should stretch.
ROUNDING = 1 / (12 * 255**2)


def to_linear(image: Float[Tensor, "*sides"]) -> Float[Tensor, "*sides"]:  # linear light, unclamped
    """Return the linear light of sRGB values; below 0 the straight part goes on. IEC 61966-2-1."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Float[Tensor, "*sides"]) -> Float[Tensor, "*sides"]:  # unclamped
    """Return the sRGB values of linear light; below 0 the straight part goes on. IEC 61966-2-1."""
    return torch.where(
        light <= 0.0031308, light * 12.92, 1.055 * light.clamp(min=0.0031308) ** (1 / 2.4) - 0.055
    )


def to_ycc(image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:  # Y 0..1, Cb and Cr around .5
    """Return luma and chroma, unclamped, BT.601 in full range as in JPEG."""
    red, green, blue = image.unbind(1)
    luma = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return torch.stack((luma, (blue - luma) / CB_SPAN + 0.5, (red - luma) / CR_SPAN + 0.5), 1)


def from_ycc(ycc: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:  # sRGB, unclamped
    """Return the sRGB of luma and chroma: the inverse of `to_ycc`."""
    luma, cb, cr = ycc.unbind(1)
    red, blue = luma + CR_SPAN * (cr - 0.5), luma + CB_SPAN * (cb - 0.5)
    green = (luma - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.stack((red, green, blue), 1)


def keep_colour(
    painted: Float[Tensor, "1 3 h w"], content: Float[Tensor, "1 3 h w"]
) -> Float[Tensor, "1 3 h w"]:
    """Return the luma of `painted` with the chroma of `content`, clamped to 0..1.

    Gatys et al. 2016, "Preserving Color in Neural Artistic Style Transfer", luminance-only transfer. They use
    YIQ: the same luma, the same plane of chroma in other axes, and so the same picture.
    """
    if painted.shape != content.shape:
        raise Invalid(
            f"painted is {_size(painted)} and content {_size(content)}: resize one to the size of the other"
        )
    return from_ycc(torch.cat((to_ycc(painted)[:, :1], to_ycc(content.to(painted))[:, 1:]), 1)).clamp(0, 1)


def match_covariance(
    source: Float[Tensor, "1 3 h w"], target: Float[Tensor, "1 3 y x"]
) -> Float[Tensor, "1 3 h w"]:  # unclamped
    """Give `source` the mean and covariance of `target`'s colours, by the linear map that moves them least.

    The sizes may differ. A = S^-½ (S^½ T S^½)^½ S^-½ is the Monge-Kantorovich map between two Gaussians
    (Pitié and Kokaram 2007): of all that match, the one that moves colours least in the mean square. Gatys et
    al. 2016, "Preserving Color in Neural Artistic Style Transfer", leave the map open and use T^½ S^-½.

    Directions of colour in which the source does not vary (grey and constant pictures; anything less than the
    rounding to 8 bits) cannot be stretched into a covariance: there only the mean is matched.
    """
    s, t = _colours(source), _colours(target)
    s_mean, t_mean = s.mean(1, keepdim=True), t.mean(1, keepdim=True)
    s, t = s - s_mean, t - t_mean
    variances, axes = torch.linalg.eigh(s @ s.T / s.shape[1])
    varies = variances > ROUNDING
    axes, deviations = axes[:, varies], variances[varies].sqrt()
    forth = axes * deviations  # S^½ and S^-½ within the axes along which the source varies
    back = axes / deviations
    squares, turns = torch.linalg.eigh(forth.T @ (t @ t.T / t.shape[1]) @ forth)
    inner = (turns * squares.clamp(min=0).sqrt()) @ turns.T
    still = torch.eye(3, dtype=torch.float64) - axes @ axes.T
    moved = (back @ inner @ back.T + still) @ s + t_mean
    return moved.to(source.dtype).reshape(source.shape).to(source.device)


def match_histogram(
    source: Float[Tensor, "1 3 h w"], target: Float[Tensor, "1 3 y x"]
) -> Float[Tensor, "1 3 h w"]:
    """Give each channel of `source` the histogram of the same channel of `target`. The sizes may differ.

    Exact: the k-th smallest of n values becomes the mean of the target's values between the quantiles (k-1)/n
    and k/n. Values that are equal stay equal, at the mean over all their quantiles: a flat sky stays flat.
    """
    matched = [_match_channel(s, t) for s, t in zip(_colours(source), _colours(target), strict=True)]
    return torch.stack(matched).to(source.dtype).reshape(source.shape).to(source.device)


def _match_channel(source: Float[Tensor, " n"], target: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
    _, group, counts = source.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double() * (len(target) / len(source))  # in target values
    sums = torch.cat((target.new_zeros(1), target.sort().values.cumsum(0)))
    below = ends.long().clamp(max=len(target) - 1)
    up_to = sums[below] + (ends - below) * (sums[below + 1] - sums[below])
    means = torch.diff(up_to, prepend=up_to.new_zeros(1)) / torch.diff(ends, prepend=ends.new_zeros(1))
    return means[group]


def _colours(
    image: Float[Tensor, "1 3 h w"],
) -> Float[Tensor, "3 n"]:  # on the CPU: some devices lack float64
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise Invalid(f"an image is a tensor of shape (1, 3, height, width), not {tuple(image.shape)}")
    return image.detach()[0].flatten(1).cpu().double()


def _size(image: Tensor) -> str:
    return "x".join(str(n) for n in image.shape)
