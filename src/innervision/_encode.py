"""From an image to a file: bytes, formats with their options, and files written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innervision import store
from innervision._decode import srgb_profile
from innervision.errors import InnervisionError, Invalid
from innervision.shapes import Float

if TYPE_CHECKING:
    from innervision.images import Picture

FORMATS: Mapping[str, str] = MappingProxyType(
    {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
)
"""Suffix -> Pillow's name of each format that can be written."""

Target = str | os.PathLike[str] | BinaryIO


def to_bytes(image: Float[Tensor, "1 3 h w"]) -> NDArray[np.uint8]:
    """Return an image of sRGB 0..1 as (h w 3) bytes: clamped, and rounded to the nearest.

    A NaN is `Invalid`: there is no right colour for it, and black would pass unseen.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
        raise Invalid(f"an image is a tensor of shape (1, 3, height, width), not {tuple(image.shape)}")
    planes = image.detach()[0].float()
    if planes.isnan().any():
        raise Invalid("the image holds values that are not numbers (NaN): look at the step that made it")
    return (planes.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


def encode(
    image: Float[Tensor, "1 3 h w"] | Image.Image,  # sRGB 0..1
    format: str,
    *,
    alpha: NDArray[np.uint8] | None = None,  # (h w)
    dpi: tuple[float, float] | None = None,  # across, down
    quality: int = 95,
) -> bytes:
    """Return the bytes of a file in "png", "jpeg", "webp" or "tiff", with an sRGB profile embedded.

    `alpha` is resized to the image; JPEG has none and drops it, WebP has no field for the resolution.
    `quality`, 1..100, is for JPEG (never subsampled: 4:4:4) and WebP (lossless at 100); TIFF is deflated.
    """
    kind = _kind(format)
    if not 1 <= quality <= 100:
        raise Invalid(f"quality is {quality}; it must be between 1 and 100")
    if isinstance(image, Image.Image):
        picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
    else:
        picture = Image.fromarray(to_bytes(image))
    if kind == "JPEG" or alpha is not None:
        picture = picture.convert("RGB")
    if kind != "JPEG" and alpha is not None:
        picture.putalpha(Image.fromarray(alpha).resize(picture.size, Image.Resampling.BICUBIC))
    options: dict[str, Any] = {
        "PNG": {},
        # not optimised, 3 to 10 % smaller: Pillow has two bytes a pixel for that, fewer than noise takes
        "JPEG": {"quality": quality, "subsampling": 0},
        "WEBP": {"quality": quality, "lossless": quality == 100},
        "TIFF": {
            "compression": "tiff_adobe_deflate",
            "tiffinfo": {317: 2},
        },  # 317, 2: store differences across
    }[kind]
    if dpi is not None and (kind != "JPEG" or all(0.5 < per_inch < 65535.5 for per_inch in dpi)):
        options["dpi"] = dpi  # JPEG's are whole numbers of 16 bits
    stream = io.BytesIO()
    try:
        picture.save(stream, kind, icc_profile=srgb_profile(), **options)
    except (OSError, ValueError) as error:  # JPEG ends at 65500 pixels a side, WebP at 16383
        raise Invalid(
            f"cannot write {picture.width}x{picture.height} pixels as {kind} ({error}): try PNG or TIFF"
        ) from error
    return stream.getvalue()


def write(
    image: Float[Tensor, "1 3 h w"] | Image.Image,  # sRGB 0..1
    target: Target,
    *,
    like: Picture | None = None,
    format: str | None = None,
    quality: int = 95,
) -> None:
    """Write a picture whole or not at all, in the format its suffix names, with the alpha and dpi of `like`.

    `target` is a path (missing folders are made), "-" (standard output) or a binary file object; the last
    two get PNG unless `format` says otherwise. Raises `Invalid` for what cannot be written, and
    `InnervisionError` with the path where the system refuses; a file already there then stays as it was.
    The rest is as in `encode`.
    """
    kind = _format_of(target, format)
    alpha, dpi = (None, None) if like is None else (like.alpha, like.dpi)
    data = encode(image, kind, alpha=alpha, dpi=dpi, quality=quality)
    if isinstance(target, str) and target == "-":
        _put_out(data)
    elif isinstance(target, str | os.PathLike):
        _put(Path(target), data)
    else:
        target.write(data)


def writable(target: Target, *, format: str | None = None, read: Iterable[object] = ()) -> None:
    """Raise what `write` would raise for this target, but before the work, leaving no trace.

    read: what the work reads; raises Invalid for a target that is one of these files.
    """
    _format_of(target, format)
    if target == "-":
        _standard_output()
        return
    if not isinstance(target, str | os.PathLike):
        return
    path = Path(target)
    with _refusals(path):
        folder = _folder(path)
        if any(_same(path, source) for source in read):
            raise Invalid(f"'{path}' is read, and would be lost by being written: name another file")
        if not _special(path):
            # tried, for what os.access() does not know of: a name too long, a disk or a quota that is full
            draft = folder / f".{path.stem}.{secrets.token_hex(4)}{path.suffix}"
            draft.touch(exist_ok=False)
            draft.unlink()


def _same(path: Path, source: object) -> bool:
    """Tell whether what is read is the file at a path."""
    if not isinstance(source, str | os.PathLike):
        return False
    with contextlib.suppress(OSError, ValueError):  # neither is there, or a name is none
        return path.samefile(source)
    return False


def _folder(path: Path) -> Path:
    """Return the folder of a path, or the nearest above it that is there; raise where it takes no file."""
    if path.is_dir():
        raise Invalid(f"cannot write '{path}': it is a folder; add a file name")
    folder = next(parent for parent in Path(os.path.realpath(path)).parents if parent.exists())
    if not folder.is_dir():
        raise InnervisionError(f"cannot write '{path}': '{folder}' is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InnervisionError(f"cannot write '{path}': no permission to write in '{folder}'")
    return folder


def _special(path: Path) -> bool:
    """Tell whether a path is a pipe or a device, which is written to and not replaced."""
    return path.exists() and not stat.S_ISREG(path.stat().st_mode)


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn the system's refusals into an error for a person."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, InnervisionError):
            raise
        why = getattr(error, "strerror", None) or error
        raise InnervisionError(f"cannot write '{path}': {why}; choose another name or folder") from error


def _put(path: Path, data: bytes) -> None:
    with _refusals(path):
        _folder(path)
        if _special(path):
            path.write_bytes(data)
            return
        with store.atomic(path) as draft:
            draft.write_bytes(data)


def _standard_output() -> BinaryIO:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise InnervisionError("cannot write to standard output: it is closed; name a file in place of '-'")
    return sys.stdout.buffer


def _put_out(data: bytes) -> None:
    stream = _standard_output()
    try:
        stream.write(data)
        stream.flush()
    except BrokenPipeError:  # whoever was reading has enough
        raise
    except OSError as error:
        why = error.strerror or error
        raise InnervisionError(f"cannot write to standard output: {why}; name a file elsewhere") from error


def _kind(format: str) -> str:
    kind = FORMATS.get("." + format.lower().removeprefix("."))
    if kind is None:
        raise Invalid(f"cannot write the format '{format}'; there are {', '.join(s[1:] for s in FORMATS)}")
    return kind


def _format_of(target: Target, format: str | None) -> str:
    if format is not None:
        return _kind(format)
    if target == "-" or not isinstance(target, str | os.PathLike):
        return "PNG"
    suffix = Path(target).suffix
    if suffix.lower() not in FORMATS:
        which = f"the suffix '{suffix}' is none of" if suffix else "its name must end in one of"
        raise Invalid(f"cannot write '{target}': {which} {', '.join(FORMATS)}")
    return FORMATS[suffix.lower()]
