"""Pictures in and out: read upright and in sRGB, resized, written with profile, resolution and alpha.

Everywhere in innervision an image is a float32 tensor `Float[Tensor, "1 3 h w"]` (see `shapes`), sRGB 0..1,
and a size is (height, width). A `Picture` is what a file holds, before it becomes one.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import math
import os
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innervision import samples
from innervision._decode import SIDEWAYS, hush, identify, orientation, unpack
from innervision._encode import FORMATS, Target, encode, to_bytes, writable, write
from innervision.errors import ImageTooLarge, Invalid, NotAnImage
from innervision.shapes import Float

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Picture",
    "Size",
    "Source",
    "Target",
    "encode",
    "fit",
    "read",
    "resize",
    "standard_input",
    "to_bytes",
    "writable",
    "write",
]

MAX_PIXELS = 178_956_970
"""Pixels a picture may have unless the caller allows more: from here on Pillow sees a decompression bomb."""

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as read: upright, sRGB, at its own size."""

    pixels: NDArray[Any]  # (h w 3) uint8 or uint16
    alpha: NDArray[np.uint8] | None = None  # (h w)
    dpi: tuple[float, float] | None = None  # across, down
    name: str = "the picture"  # for messages

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    def tensor(self, size: Size | None = None) -> Float[Tensor, "1 3 h w"]:
        """Return the picture as a float image, resized to (height, width) as by `resize`.

        A side that shrinks four times or more is first averaged over whole pixels, to no less than twice its
        new length, so that a large picture never exists in float.
        """
        pixels = self.pixels
        peak = np.float32(65535 if pixels.dtype == np.uint16 else 255)
        if size is not None:
            _check(size)
            pixels = _average(pixels, self.height // size[0] // 2, self.width // size[1] // 2)
        planes = np.divide(pixels.transpose(2, 0, 1), peak, order="C", dtype=np.float32)
        image = torch.from_numpy(planes)[None]
        return image if size is None else resize(image, size)


Source = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Picture


def fit(height: int, width: int, *, longest: int | None = None, pixels: int | None = None) -> Size:
    """Return the (height, width) of the same aspect with this longest side or this area.

    The area comes near `pixels` and is never more; with both, the smaller result; with neither, the size
    as it is. No side falls below 1 pixel.
    """
    for name, value in {"height": height, "width": width, "longest": longest, "pixels": pixels}.items():
        if value is not None and value < 1:
            raise Invalid(f"{name} is {value}; it must be at least 1")
    sizes: list[Size] = []
    if longest is not None:
        most = max(height, width)
        h, w = ((2 * side * longest + most) // (2 * most) for side in (height, width))  # rounded, exactly
        sizes.append((max(1, h), max(1, w)))
    if pixels is not None:
        h, w = max(1, math.isqrt(pixels * height // width)), max(1, math.isqrt(pixels * width // height))
        sizes.append((min(h, pixels // w), w) if h > w else (h, min(w, pixels // h)))
    return min(sizes, default=(height, width), key=lambda size: size[0] * size[1])


def resize(image: Float[Tensor, "n 3 h w"], size: Size) -> Float[Tensor, "n 3 y x"]:
    """Resize to (height, width) by antialiased bicubic, clamped to 0..1.

    In sRGB values, not linear light: so were the pictures resized that the networks learned from.
    """
    _check(size)
    if image.shape[-2:] != tuple(size):
        image = F.interpolate(image, tuple(size), mode="bicubic", antialias=True, align_corners=False)
    return image.clamp(0, 1)


def _check(size: Size) -> None:
    if len(size) != 2 or min(size) < 1:
        raise Invalid(f"a size is (height, width), each at least 1 pixel, not {tuple(size)}")


def _average(pixels: NDArray[Any], down: int, across: int) -> NDArray[Any]:
    """Average boxes of about (down, across) pixels: (h w 3) -> (h/down w/across 3) float32, a row at a time.

    Where they do not fit evenly some boxes are a pixel smaller: the result always covers the whole picture.
    """
    if max(down, across) < 2:
        return pixels
    tops, lefts = _edges(pixels.shape[0], down), _edges(pixels.shape[1], across)
    out = np.empty((len(tops) - 1, len(lefts) - 1, 3), np.float32)
    for row, (top, bottom) in enumerate(pairwise(tops)):
        column_sums = pixels[top:bottom].sum(0, dtype=np.uint32)
        out[row] = np.add.reduceat(column_sums, lefts[:-1], 0) / (np.diff(lefts)[:, None] * (bottom - top))
    return out


def _edges(side: int, by: int) -> NDArray[np.int64]:
    boxes = -(-side // max(1, by))
    return np.arange(boxes + 1) * side // boxes


def read(source: Source, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a picture, turned upright and brought to sRGB, with its alpha kept aside.

    `source` is a path, "sample:chelsea" (a name of `samples.SAMPLES`), "-" (standard input), bytes, a binary
    file object, a `PIL.Image`, or a Picture, which is returned as it is. JPEG, PNG, WebP, TIFF, BMP, GIF (the
    first frame), AVIF and HEIC (where Pillow, or a plug-in registered with it, has them) are told by content,
    never by suffix. 16-bit grey stays 16 bits; 16-bit colour comes as 8: Pillow has no more.

    Raises `Invalid` (no such file), `NotAnImage` (not a picture, or a damaged one) and, before anything is
    decoded, `ImageTooLarge` (more than `max_pixels`).
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        return _picture(source, getattr(source, "filename", "") or "the PIL image", max_pixels)
    with contextlib.ExitStack() as opened:
        stream, name = _stream(source, opened)
        try:
            with hush():
                empty = not stream.read(1)
                image = None if empty else identify(stream)
        except (Image.DecompressionBombError, MemoryError) as error:
            raise _refused(name, error) from error
        except Exception as error:  # damaged files make Pillow's plug-ins raise almost anything
            raise NotAnImage(
                f"{name} is damaged, or of a kind that cannot be read: {_line(error)}"
            ) from error
        if empty:
            raise NotAnImage(f"{name} is empty: 0 bytes")
        if image is None:
            kinds = "JPEG, PNG, WebP, TIFF, BMP, GIF and AVIF can"
            raise NotAnImage(f"{name} is not a picture that can be read: {kinds}")
        return _picture(image, name, max_pixels)


def standard_input() -> bytes:
    """Return all that comes by standard input; `Invalid` where a process was started without one."""
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Invalid("standard input is closed: name a picture file in place of '-'")
    return sys.stdin.buffer.read()


def _sample(path: Path) -> str:
    """Return what to say of the samples to who named a file that is not there."""
    near = difflib.get_close_matches(path.stem.lower(), samples.SAMPLES, n=1, cutoff=0.75)
    if near:
        return f", or did you mean sample:{near[0]}?"
    return f", or take sample:NAME, with NAME one of {', '.join(samples.SAMPLES)}"


def _stream(source: object, opened: contextlib.ExitStack) -> tuple[BinaryIO, str]:
    """Return a seekable stream of the source's bytes, and what to call it."""
    if isinstance(source, bytes):
        return io.BytesIO(source), "the picture in memory"
    if isinstance(source, str) and source == "-":
        return io.BytesIO(standard_input()), "standard input"
    if isinstance(source, str) and source.startswith("sample:"):
        source = samples.path(source.removeprefix("sample:"))
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        try:
            stream = opened.enter_context(path.open("rb"))
            return (stream if stream.seekable() else io.BytesIO(stream.read())), f"'{path}'"
        except FileNotFoundError:
            raise Invalid(f"no file '{path}': check its name and folder{_sample(path)}") from None
        except IsADirectoryError:
            raise Invalid(f"'{path}' is a folder: name a picture in it") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            raise Invalid(f"cannot open '{path}': {getattr(error, 'strerror', None) or error}") from error
    if not hasattr(source, "read"):
        kind = type(source).__name__
        raise Invalid(f"no picture can be read from {kind}: give a path, bytes, a binary file or a PIL.Image")
    data: object = source.read()  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(data, bytes):
        raise Invalid("a picture's file object must be opened in binary mode ('rb'): this one gives text")
    name = getattr(source, "name", None)
    return io.BytesIO(data), f"'{name}'" if isinstance(name, str) else "the picture in memory"


def _picture(image: Image.Image, name: str, max_pixels: int) -> Picture:
    width, height = image.size
    if width * height == 0:
        raise NotAnImage(f"{name} has no pixels: {width}x{height}")
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{name} has {width}x{height} = {width * height:,} pixels, over the limit of {max_pixels:,}: "
            "raise --max-pixels (max_pixels=) or shrink the picture"
        )
    try:
        with hush():
            turn = getattr(image, "tag_v2", {}).get(0x0112)  # Pillow decodes and turns a TIFF, and forgets it
            image.load()
            pixels, alpha = unpack(image)
            sideways = not SIDEWAYS.isdisjoint((turn, orientation(image)))
    except (Image.DecompressionBombError, MemoryError) as error:
        raise _refused(name, error) from error
    except Exception as error:
        raise NotAnImage(f"{name} is cut short or damaged: {_line(error)}") from error
    return Picture(pixels, alpha, _dpi(image, sideways=sideways), name)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())  # some decoders' words end in a new line


def _refused(name: str, error: BaseException) -> ImageTooLarge:
    return ImageTooLarge(f"{name} cannot be decoded ({str(error) or 'out of memory'}): shrink the picture")


def _dpi(image: Image.Image, *, sideways: bool) -> tuple[float, float] | None:
    try:
        across, down = (float(v) for v in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    return (down, across) if sideways else (across, down)
