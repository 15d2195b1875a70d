"""What readers hand on: pictures of one size with labels and notes; and how pictures come to one size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tarfile import TarError
from typing import Any
from zlib import error as ZlibError

import numpy as np
import torch
from numpy.typing import NDArray

from innervision import images as pictures
from innervision.colour import LUMA
from innervision.errors import Invalid
from innervision.images import Picture

_AT_ONCE = 1000  # pictures that exist in float at a time
_LONGEST = 4  # sides of the square that a long picture is cut to before it is resized


@dataclass(frozen=True)
class Reading:
    """How far reading is: bytes, files or pictures done, how many there are if that is known, and of what."""

    done: int
    of: int | None
    text: str


@dataclass(frozen=True, eq=False)
class Raw:
    """What a reader found."""

    images: NDArray[np.uint8]  # (n c h w)
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()  # file (or record) and reason
    grey: tuple[str, ...] = ()  # files whose three channels are equal, where others' are not
    pixels_sha256: str = ""  # where it is known already


def many(count: int, what: str) -> str:
    """Return a count as a person says it: 1 picture, 2,000 pictures."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Turn what readers raise at a damaged file into an error for a person."""
    try:
        yield
    except (OSError, EOFError, ZlibError, TarError) as error:
        raise Invalid(f"'{path}' is cut short or damaged ({error}): fetch it again") from error


def fitted(raw: Raw, *, size: int | None, channels: int | None) -> Raw:
    """Return pictures at another size or number of channels: luma where grey is wanted, else three equal."""
    images = raw.images
    if size is not None and images.shape[2:] != (size, size):
        images = np.concatenate([_resized(part, size) for part in _parts(images)])
    if channels is not None and channels != images.shape[1]:
        images = np.repeat(images, 3, 1) if channels == 3 else np.concatenate([*map(_grey, _parts(images))])
    return replace(raw, images=images, pixels_sha256=raw.pixels_sha256 if images is raw.images else "")


def _parts(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    return (images[n : n + _AT_ONCE] for n in range(0, len(images), _AT_ONCE))


def _resized(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    small = pictures.resize(torch.from_numpy(np.divide(images, np.float32(255))), (size, size))
    return small.mul_(255).round_().to(torch.uint8).numpy()


def _grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma (BT.601) of pictures (n 3 h w) as (n 1 h w)."""
    luma = np.tensordot(np.array(LUMA, np.float32), images.astype(np.float32), (0, 1))
    return np.rint(luma).astype(np.uint8)[:, None]


def squared(picture: Picture, size: int, channels: int = 3) -> NDArray[np.uint8]:  # (c size size)
    """Return the middle square of a picture, its shorter side resized to `size` pixels, as uint8.

    This is what training sees of a file, and what prediction has to see: antialiased bicubic in sRGB values,
    rounded. A picture more than four times as long as it is wide loses its ends first, which the square
    never shows: else a strip of a pixel's width would become thousands of squares long.
    """
    pixels = picture.pixels
    short = min(picture.height, picture.width)
    for axis in (0, 1):
        if pixels.shape[axis] > _LONGEST * short:
            start = (pixels.shape[axis] - _LONGEST * short) // 2
            pixels = pixels.take(np.arange(start, start + _LONGEST * short), axis)
    picture = Picture(pixels)
    scale = size / short
    height, width = (max(size, round(side * scale)) for side in (picture.height, picture.width))
    image = picture.tensor(None if (height, width) == (picture.height, picture.width) else (height, width))
    top, left = (height - size) // 2, (width - size) // 2
    middle = image[:, :, top : top + size, left : left + size]
    square: NDArray[Any] = middle.mul(255).round_().to(torch.uint8).numpy()
    return (_grey(square) if channels == 1 else square)[0]


def is_grey(picture: Picture) -> bool:
    """Whether a picture's three channels are the same."""
    red, green, blue = (picture.pixels[..., n] for n in range(3))
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))
