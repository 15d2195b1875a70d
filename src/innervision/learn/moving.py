"""What augmentation does to pixels: each picture of a batch by its own numbers, as tensor work."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.colour import LUMA


def unit(images: Tensor) -> Tensor:
    """Return pictures as floats in 0..1, as they are where they are so already."""
    return images if images.is_floating_point() else images.float().div_(255)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; to a GPU by pinned memory, so that neither has to wait for the other."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def shifted_whole(images: Tensor, mirrored: Tensor | None, shift: Tensor | None) -> Tensor:
    """Mirror those of `mirrored` (n), and shift by whole pixels (n, 2) with the edge reflected.

    out[i] = in[i + shift]. Only the places are reflected, so there is no padded copy. Shifted pictures are
    channels last in memory.
    """
    if shift is None:
        if mirrored is None:
            return images
        return torch.where(sent(mirrored, images.device).view(-1, 1, 1, 1), images.flip(-1), images)
    height, width = images.shape[-2:]
    shift = sent(shift, images.device)
    rows = _reflected(torch.arange(height, device=images.device) + shift[:, :1], height)
    columns = _reflected(torch.arange(width, device=images.device) + shift[:, 1:], width)
    if mirrored is not None:
        columns = torch.where(sent(mirrored, images.device)[:, None], columns.flip(1), columns)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    # channels last: a pixel's channels lie together, and the network wants them so
    return images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def _reflected(index: Tensor, length: int) -> Tensor:
    """Reflect places beyond the edge, which is not repeated: -1 is 1, length is length - 2."""
    index = index.abs()
    return torch.where(index < length, index, 2 * (length - 1) - index)


def shifted_between(images: Tensor, shift: Tensor, fill: Tensor) -> Tensor:
    """Shift by fractions of a pixel (n, 2): out[i] = in[i + shift], linear between pixels.

    Beyond the centres of the first and the last pixel lies `fill` (1, c, 1, 1): scipy.ndimage's mode
    "constant", which Keras uses, does not interpolate across the edge.
    """
    for dim, amount in ((2, shift[:, 0]), (3, shift[:, 1])):
        length = images.shape[dim]
        place = torch.arange(length, device=images.device) + amount[:, None]
        inside = (place >= 0) & (place <= length - 1)
        low = place.floor()
        part = (place - low).view(-1, 1, *((length, 1) if dim == 2 else (1, length)))
        low = low.long().clamp_(0, length - 1)
        images = torch.lerp(
            _picked(images, low, dim), _picked(images, (low + 1).clamp_(max=length - 1), dim), part
        )
        images = torch.where(inside.view(part.shape), images, fill)
    return images


def _picked(images: Tensor, index: Tensor, dim: int) -> Tensor:
    """Pick rows (dim 2) or columns (dim 3) of each picture by its own index (n, length)."""
    shape = (-1, 1, index.shape[1], 1) if dim == 2 else (-1, 1, 1, index.shape[1])
    return images.gather(dim, index.view(shape).expand(images.shape))


def recoloured(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply brightness, contrast about the picture's mean luma, and saturation about each pixel's luma."""
    brightness, contrast, saturation = factors.view(-1, 3, 1, 1, 1).unbind(1)
    images = (images * brightness).clamp_(0, 1)
    images = torch.lerp(_luma(images).mean((2, 3), keepdim=True), images, contrast).clamp_(0, 1)
    return torch.lerp(_luma(images), images, saturation).clamp_(0, 1) if images.shape[1] == 3 else images


def _luma(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images
    return (images * images.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)


def cut(images: Tensor, centres: Tensor, side: int, fill: Tensor) -> Tensor:
    """Fill a square of this side round each centre, as much of it as lies in the picture."""
    inside: list[Tensor] = []
    for number, length in enumerate(images.shape[-2:]):
        place = torch.arange(length, device=images.device)
        start = centres[:, number, None] - side // 2
        inside.append((place >= start) & (place < start + side))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    colour = fill if images.is_floating_point() else (fill * 255).round().to(torch.uint8)
    return torch.where(hole, colour, images)


def shrunk(images: Tensor, side: int) -> Tensor:
    """Return pictures (n, c, h, w) in 0..1 at a smaller side, antialiased, channels last in memory."""
    small = F.interpolate(unit(images), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small.contiguous(memory_format=torch.channels_last)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Return labels as shares (n, classes) float32: 1 for the class itself."""
    return F.one_hot(labels, classes).float()
