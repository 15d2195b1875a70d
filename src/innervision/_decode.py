"""From a file's bytes to upright sRGB arrays: what Pillow leaves to its caller.

Pillow decodes; here the format is told by content, the size can be judged before the decoding, and modes,
colour profiles, bit depths and the camera's orientation come to one form. All of it goes strip by strip, so
that no picture is held more than twice: as decoded by Pillow, and as returned.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF")
"""Pillow's names of what is read; the rest (EPS runs Ghostscript, ...) is not tried."""

GREY = frozenset({"1", "L", "LA", "La"})
STRAIGHT = MappingProxyType({"La": "LA", "RGBa": "RGBA"})  # of colours that are multiplied by their alpha
DEEP = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
STRIP = 2**20  # pixels converted at a time
HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})  # brands
SIDEWAYS = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange height and width

Array = NDArray[Any]

# EXIF orientation -> how to look at an upright array so as to see it as it was stored
STORED: Mapping[int, Callable[[Array], Array]] = MappingProxyType(
    {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, -1),
    }
)


def identify(stream: BinaryIO) -> Image.Image | None:
    """Read a picture's header, leaving its pixels undecoded; None if no format claims the bytes.

    `Image.open` without its check against MAX_IMAGE_PIXELS, a limit that only a change for the whole process
    could raise. Where a format claims the bytes and cannot read them, raises what it raised, or an OSError of
    its words.
    """
    Image.init()
    stream.seek(0)
    prefix = stream.read(16)
    refusal = None
    for name in FORMATS:
        if name not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[name]
        claimed = accept(prefix) if accept else True
        if isinstance(claimed, str):  # why it is not read here
            refusal = OSError(f"{claimed} ({name})")
            continue
        if not claimed:
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, IndexError, TypeError, struct.error) as error:  # as in Image.open: try the next
            refusal = OSError(f"{error} ({name})")
    if prefix[4:8] == b"ftyp" and prefix[8:12] in HEIC and "HEIF" not in Image.OPEN:
        raise OSError(
            "HEIC; save it as JPEG or PNG, or in Python register the plug-in pillow-heif with Pillow"
        )
    if refusal is not None:
        raise refusal
    return None


def unpack(image: Image.Image) -> tuple[Array, Array | None]:
    """Return sRGB pixels (h w 3), uint8 or uint16, and alpha (h w) uint8 or None, of a loaded image, upright.

    Grey of 16 bits and more becomes uint16; colour of 16 bits a channel has already been cut to 8 by Pillow.
    Whole numbers are taken for 0..65535, those of a TIFF of 12 bits for 0..4095. Floats are taken for 0..1,
    but where the largest is above 1 for 0..255, and where it is above 255 for 0..65535; what lies outside is
    clamped, NaN is black.
    """
    width, height = image.size
    deep = image.mode in DEEP
    turn = orientation(image)
    see = STORED.get(turn, lambda a: a)
    turned = (width, height) if turn in SIDEWAYS else (height, width)
    pixels = np.empty((*turned, 3), np.uint16 if deep else np.uint8)
    alpha = np.empty(turned, np.uint8) if image.has_transparency_data else None
    convert = _converter(image)
    key = image.info.get("transparency") if deep else None  # this very grey is transparent
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        here = slice(top, min(top + rows, height))
        strip = image.crop((0, here.start, width, here.stop))
        if image.mode in STRAIGHT:
            strip = strip.convert(STRAIGHT[image.mode])
        see(pixels)[here] = convert(strip)
        if alpha is not None:
            opaque = np.asarray(strip) != key if deep else np.asarray(strip.convert("RGBA"))[..., 3]
            see(alpha)[here] = opaque * np.uint8(255) if deep else opaque
    return pixels, alpha


def orientation(image: Image.Image) -> int:
    """Return how a loaded image lies, as EXIF numbers it: 1 is upright, 5 to 8 on its side."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # EXIF is written by anything, and a broken block is no reason to refuse the picture
        return 1


def _converter(image: Image.Image) -> Callable[[Image.Image], Array]:
    """Return what turns a strip of this image into sRGB (n w 3)."""
    transform = _transform(image)
    if image.mode in GREY | DEEP:
        curve = None if transform is None else _curve(transform)
        if image.mode in GREY:
            return lambda strip: _grey(np.asarray(strip.convert("L")), curve)
        scale, tags = _scale(image), getattr(image, "tag_v2", {})
        negative = image.mode != "F" and tags.get(262) == 0  # 0 is white: Pillow sees to that in 8 bits only
        return lambda strip: _deep_grey(np.asarray(strip), scale, curve, negative=negative)
    # with transparency through RGBA: a palette's transparent entries have their colours too
    via = "RGBA" if image.has_transparency_data else "RGB"
    if transform is None:
        return lambda strip: np.asarray(strip.convert(via))[..., :3]
    if image.mode == "CMYK":
        return lambda strip: np.asarray(_apply(strip, transform))
    return lambda strip: np.asarray(_apply(strip.convert(via).convert("RGB"), transform))


def _grey(values: Array, curve: Array | None) -> Array:
    return values[..., None] if curve is None else curve[values]


def _deep_grey(values: Array, scale: float, curve: Array | None, *, negative: bool) -> Array:
    exact = scale == 1 and values.dtype.kind in "ui"
    whole = values if exact else np.nan_to_num(values.astype(np.float64) * scale, nan=0) + 0.5
    whole = whole.clip(0, 65535).astype(np.uint16)
    if negative:
        whole = 65535 - whole
    if curve is None:
        return whole[..., None]
    at = np.arange(256) * 257.0
    return np.stack([np.interp(whole, at, c * 257.0) + 0.5 for c in curve.T], -1).astype(np.uint16)


def _scale(image: Image.Image) -> float:
    """Return what brings the values of grey of 16 bits and more to 0..65535."""
    if image.mode != "F":
        return 65535 / 4095 if getattr(image, "tag_v2", {}).get(258) == (12,) else 1.0
    values = np.asarray(image)
    top = values.max(initial=0, where=np.isfinite(values))
    return 65535.0 if top <= 1 else 257.0 if top <= 255 else 1.0


# ---- colour profiles


@functools.cache
def srgb_profile() -> bytes:
    """Return an ICC profile of sRGB, the same bytes every time."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # bytes 24..35, the creation date, would make every file differ from the last: set to 2000-01-01 00:00:00
    return made[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + made[36:]


def _transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """Return the way from the embedded profile to sRGB; None if there is none, a bad one, or sRGB itself.

    Relative colorimetric with black-point compensation, as photo editors do by default.
    """
    icc = image.info.get("icc_profile")
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(icc[16:20])  # the header's colour space
        grey = image.mode in GREY | DEEP
        if mode not in ({"CMYK"} if image.mode == "CMYK" else {"RGB", "L"} if grey else {"RGB"}):
            return None
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        if grey:  # only 256 values: no need for LittleCMS's short cuts, ten levels wrong in the darks
            flags |= ImageCms.Flags.NOOPTIMIZE
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.ImageCmsProfile(io.BytesIO(srgb_profile())),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags,
        )
        return None if mode != "CMYK" and _changes_nothing(transform) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # a broken profile is ignored
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Say whether a transform moves no colour by more than one level: rounding, and better left alone."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    before = Image.fromarray(cube).convert(transform.input_mode)
    after = np.asarray(_apply(before, transform)).astype(int)
    return bool(np.abs(after - np.asarray(before.convert("RGB"))).max() <= 1)


def _curve(transform: ImageCms.ImageCmsTransform) -> NDArray[np.uint8]:  # (256, 3): the sRGB of each grey
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    return np.asarray(_apply(ramp.convert(transform.input_mode), transform))[0]


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    return transform.apply(image)


# ---- Pillow's warnings


class _Hush:
    """Hide the warnings that Pillow's own modules give, from the first thread in to the last one out.

    `warnings.catch_warnings` alone, in two threads that overlap, can leave its filter behind for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._inside == 0:
                self._filters.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\b")
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._filters.close()


hush = _Hush().__call__
