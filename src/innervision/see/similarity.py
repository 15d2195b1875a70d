"""How alike two pictures are: structural similarity and the ratio of peak to noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid

_SIGMA, _WINDOW = 1.5, 11  # a Gaussian, cut to 11 x 11 pixels
_STILL, _FLAT = 0.01**2, 0.03**2  # (K1 L)² and (K2 L)² of a range L = 1


def ssim(one: Tensor, other: Tensor, *, window: int = _WINDOW) -> float:
    """Return the structural similarity of two pictures (1, c, h, w) in 0..1: 1 for equal ones, from -1.

    Wang, Bovik, Sheikh & Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity", IEEE TIP 2004, eq. 13 and 14: the mean over all places where the 11 x 11 Gaussian window
    (sigma 1.5) lies within the picture. Departure: the paper measures grey pictures; here the colours are
    measured each by itself, and their mean is returned.
    window: its side, an odd number, for pictures that are smaller than the paper's.
    Raises Invalid for two sizes, and for a side below the window's.
    """
    _check(one, other)
    if not (window % 2 and 0 < window <= min(one.shape[-2:])):
        raise Invalid(f"SSIM looks through a window of {window} x {window} pixels: {_size(one)} are too few")
    x, y = one.detach().double(), other.detach().double().to(one.device)
    mx, my, xx, yy, xy = (_blurred(each, window) for each in (x, y, x * x, y * y, x * y))
    xx, yy, xy = xx - mx * mx, yy - my * my, xy - mx * my
    alike = (2 * mx * my + _STILL) * (2 * xy + _FLAT)
    return float((alike / ((mx * mx + my * my + _STILL) * (xx + yy + _FLAT))).mean())


def psnr(one: Tensor, other: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of two pictures in 0..1: infinite for equal ones."""
    _check(one, other)
    square = float((one.detach().double() - other.detach().double().to(one.device)).square().mean())
    return -10 * math.log10(square) if square else math.inf


def _blurred(image: Tensor, window: int) -> Tensor:
    """Return the Gaussian-weighted means (1, c, h', w'): no place looks beyond the picture."""
    place = torch.arange(window, dtype=image.dtype, device=image.device) - window // 2
    kernel = torch.exp(-(place**2) / (2 * _SIGMA**2))
    line = (kernel / kernel.sum()).repeat(image.shape[1], 1)[:, None]
    rows = F.conv2d(image, line[:, :, None], groups=image.shape[1])
    return F.conv2d(rows, line[..., None], groups=image.shape[1])


def _check(one: Tensor, other: Tensor) -> None:
    if one.ndim != 4 or one.shape[0] != 1 or one.shape != other.shape:
        raise Invalid(
            f"two pictures of one size are compared, each (1, c, h, w), "
            f"not {tuple(one.shape)} and {tuple(other.shape)}"
        )


def _size(image: Tensor) -> str:
    return f"{image.shape[-1]} x {image.shape[-2]}"
