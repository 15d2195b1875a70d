from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, ImageOps, features

from innervision import _decode, images, samples
from innervision.errors import ImageTooLarge, InnervisionError, Invalid, NotAnImage

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def gradient(height: int = 24, width: int = 36) -> np.ndarray:
    """Smooth, with a different ramp in each channel and no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    planes = x * 255 // width, y * 255 // height, (x + 2 * y) * 255 // (width + 2 * height)
    return np.stack(planes, -1).astype(np.uint8)


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def icc(space: bytes, kind: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2.1, after ICC.1:1998: header, table of tags, tags."""
    head = struct.pack(">8xI4s4s4s12x4s28x3i48x", 0x02100000, kind, space, pcs, b"acsp", 63190, 65536, 54061)
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    whole = head + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


def xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in (x, y, z)))


LINEAR = b"curv\0\0\0\0\0\0\0\0"  # no entries: the identity
WHITE = {b"wtpt": xyz(0.9642, 1, 0.8249)}
GREY_LINEAR = icc(b"GRAY", b"mntr", WHITE | {b"kTRC": LINEAR})
PRIMARIES = {  # sRGB's, adapted to D50
    b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
    b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
    b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
}
RGB_LINEAR = icc(b"RGB ", b"mntr", WHITE | PRIMARIES | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), LINEAR))


def cmyk_profile() -> bytes:
    """Lightness 100 (1 - K), no colour, whatever C, M and Y are: a lut8 with two points a side."""
    ramp = bytes(range(256))
    corners = b"".join(bytes((0 if k else 255, 128, 128)) for _ in range(8) for k in (0, 1))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + corners + ramp * 3
    return icc(b"CMYK", b"prtr", WHITE | {b"A2B0": lut}, b"Lab ")


def encoded(light: np.ndarray) -> np.ndarray:
    """The sRGB level of linear light 0..1."""
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light.clip(1e-9) ** (1 / 2.4) - 0.055)


# ---- what is read


@pytest.mark.parametrize("name", ["lies.PNG", "LOUD.JPEG", "bare", "ümläut.tif"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP", "WEBP"])
def test_content_decides_never_the_suffix(tmp_path: Path, name: str, format: str):
    file = tmp_path / name
    options = {"lossless": True} if format == "WEBP" else {}
    file.write_bytes(saved(Image.fromarray(gradient()), format, **options))
    picture = images.read(str(file))
    assert np.array_equal(picture.pixels, gradient())
    assert (picture.height, picture.width, picture.alpha) == (24, 36, None)
    assert name in picture.name


@pytest.mark.parametrize("format", ["JPEG", "GIF", "AVIF"])
def test_lossy_formats_come_close(format: str):
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    data = saved(Image.fromarray(gradient()), format)
    with Image.open(io.BytesIO(data)) as theirs:
        assert np.array_equal(images.read(data).pixels, np.asarray(theirs.convert("RGB")))


def test_every_kind_of_source_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = saved(Image.fromarray(gradient()), "PNG")
    file = tmp_path / "a.png"
    file.write_bytes(data)
    picture = images.read(file)
    assert images.read(picture) is picture
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    with file.open("rb") as stream:
        for source in (data, stream, "-", Image.open(file), Image.fromarray(gradient())):
            assert np.array_equal(images.read(source).pixels, picture.pixels)


def test_pipes_are_read(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(saved(Image.fromarray(gradient()), "PNG"),))
    writer.start()
    assert np.array_equal(images.read(pipe).pixels, gradient())
    writer.join()


def test_samples_are_read_by_name():
    with Image.open(samples.path("chelsea")) as cat:
        assert np.array_equal(images.read("sample:chelsea").pixels, np.asarray(cat))
    with pytest.raises(Invalid, match=r"no sample picture 'chelsae'.*Did you mean 'chelsea'"):
        images.read("sample:chelsae")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_orientation_as_pillow_turns_it(orientation: int, format: str):
    image = Image.fromarray(gradient())
    image.putalpha(Image.fromarray(gradient()[..., 0]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = images.read(saved(image, format, exif=exif))
    theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(saved(image, "PNG", exif=exif)))))
    assert np.array_equal(picture.pixels, theirs[..., :3])
    assert picture.alpha is not None and np.array_equal(picture.alpha, theirs[..., 3])
    assert picture.height == (36 if orientation > 4 else 24)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "JPEG"])
def test_the_resolution_turns_with_the_picture(format: str):
    for orientation in (1, 3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = saved(Image.fromarray(gradient()), format, exif=exif, dpi=(100, 200))
        wanted = (200, 100) if orientation > 4 else (100, 200)
        assert images.read(data).dpi == pytest.approx(wanted, abs=0.1)


@pytest.mark.parametrize("strip", [1, 100, 10**6])
def test_strips_join_without_a_seam(strip: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("innervision._decode.STRIP", strip)
    assert np.array_equal(images.read(Image.fromarray(gradient())).pixels, gradient())


def test_a_broken_exif_block_is_no_obstacle():
    data = saved(Image.fromarray(gradient()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(images.read(data).pixels, gradient())


# ---- modes


def test_grey_palette_and_one_bit():
    grey = Image.fromarray(gradient()[..., 0])
    for image in (grey, grey.convert("P"), grey.convert("1"), Image.fromarray(gradient()).quantize(17)):
        picture = images.read(saved(image, "PNG"))
        assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
        assert picture.pixels.dtype == np.uint8 and picture.alpha is None


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_alpha_is_kept_aside(mode: str):
    opaque = Image.fromarray(gradient()).convert(mode)
    image = opaque.copy()
    image.putalpha(Image.fromarray(gradient()[..., 1]))
    picture = images.read(saved(image, "PNG"))
    assert picture.alpha is not None and np.array_equal(picture.alpha, gradient()[..., 1])
    assert np.array_equal(picture.pixels, np.asarray(opaque.convert("RGB")))


def test_a_transparent_palette_entry_and_a_transparent_colour():
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    picture = images.read(saved(palette, "PNG", transparency=b"\xff\x00\x80"))
    assert picture.pixels[0].tolist() == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert picture.alpha is not None and picture.alpha[0].tolist() == [255, 0, 128]
    gif = images.read(saved(palette, "GIF", transparency=1))
    assert gif.alpha is not None and gif.alpha[0].tolist() == [255, 0, 255]
    keyed = images.read(saved(Image.fromarray(np.array([[5, 6]], np.uint8)), "PNG", transparency=6))
    assert keyed.pixels[0].tolist() == [[5] * 3, [6] * 3]
    assert keyed.alpha is not None and keyed.alpha[0].tolist() == [255, 0]


def test_sixteen_bits_stay():
    values = np.array([[0, 1, 255, 256, 40000, 65535]], np.uint16)
    for data in (saved(Image.fromarray(values), "PNG"), saved(Image.fromarray(values), "TIFF")):
        picture = images.read(data)
        assert picture.pixels.dtype == np.uint16
        assert np.array_equal(picture.pixels[..., 1], values)
        assert np.allclose(picture.tensor()[0, 2].numpy(), values / 65535, atol=1e-7)
    keyed = images.read(saved(Image.fromarray(values), "PNG", transparency=256))
    assert keyed.alpha is not None and keyed.alpha[0].tolist() == [255, 255, 255, 0, 255, 255]


def tiff(data: bytes, *, bits: int, white: int, extra: int | None = None, float_: bool = False) -> bytes:
    """A TIFF of one row after TIFF 6.0; white: PhotometricInterpretation, extra: of a second sample."""
    samples = 3 if white == 2 else 1 if extra is None else 2
    tags = [
        (256, [len(data) * 8 // bits // samples]),
        (257, [1]),
        (258, [bits] * samples),
        (259, [1]),  # not compressed
        (262, [white]),
        (273, [8]),  # where the data begin
        (277, [samples]),
        (279, [len(data)]),
        *([] if extra is None else [(338, [extra])]),
        *([(339, [3] * samples)] if float_ else []),
    ]
    at, table, beyond = 8 + len(data) + len(data) % 2, struct.pack("<H", len(tags)), b""
    for tag, values in tags:
        body = struct.pack(f"<{len(values)}H", *values)
        if len(body) > 4:
            end = at + 6 + 12 * len(tags) + len(beyond)
            body, beyond = struct.pack("<I", end), beyond + body
        table += struct.pack("<HHI4s", tag, 3, len(values), body)
    return struct.pack("<4sI", b"II*\0", at) + data + b"\0" * (len(data) % 2) + table + b"\0\0\0\0" + beyond


def test_twelve_bits_are_all_there_is_and_zero_may_be_white():
    twelve = images.read(tiff(bytes.fromhex("0007ff800fff"), bits=12, white=1))
    assert twelve.pixels[0, :, 0].tolist() == [0, 32759, 32776, 65535]  # / 4095 * 65535
    assert images.read(tiff(b"\0\xff\x10", bits=8, white=0)).pixels[0, :, 1].tolist() == [255, 0, 239]
    deep = images.read(tiff(struct.pack("<3H", 0, 65535, 1000), bits=16, white=0))
    assert deep.pixels[0, :, 1].tolist() == [65535, 0, 64535]


def test_grey_that_is_multiplied_by_its_alpha():
    picture = images.read(tiff(bytes((50, 100, 200, 255, 0, 0)), bits=8, white=1, extra=1))
    assert picture.alpha is not None and picture.alpha[0].tolist() == [100, 255, 0]
    assert picture.pixels[0, :2, 0].tolist() == pytest.approx([50 * 255 / 100, 200], abs=1)


def test_floats_are_scaled_by_their_largest_and_nan_is_black():
    for top, wanted in ((1.0, 65535), (255.0, 65535), (65535.0, 65535), (0.5, 32768), (128.0, 128 * 257)):
        values = np.array([[np.nan, -3.0, 0.0, top]], np.float32)
        assert images.read(saved(Image.fromarray(values), "TIFF")).pixels[0, :, 0].tolist() == [
            0,
            0,
            0,
            wanted,
        ]


def test_only_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime")]
    for format in ("GIF", "WEBP", "TIFF"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        assert images.read(data).pixels[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)


# ---- colour profiles


def test_rgb_profile_is_converted():
    pixels = gradient()
    for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert("RGBA")):
        picture = images.read(saved(image, "PNG", icc_profile=RGB_LINEAR))
        assert np.abs(picture.pixels - encoded(pixels / 255)).max() < 2
        assert (picture.alpha is None) == (image.mode == "RGB")


@pytest.mark.parametrize("profile", [GREY_LINEAR, RGB_LINEAR], ids=["grey", "rgb"])
def test_grey_profiles_are_converted_in_8_and_16_bits(profile: bytes):
    values = np.arange(256, dtype=np.uint8)[None]
    grey = images.read(saved(Image.fromarray(values), "PNG", icc_profile=profile)).pixels
    assert np.abs(grey - encoded(values / 255)[..., None]).max() < 1
    clear = images.read(saved(Image.fromarray(values).convert("LA"), "PNG", icc_profile=profile))
    assert np.array_equal(clear.pixels, grey) and clear.alpha is not None
    deep = images.read(saved(Image.fromarray(values * np.uint16(257)), "PNG", icc_profile=profile)).pixels
    assert np.array_equal(deep, grey * np.uint16(257))


def test_cmyk_with_and_without_profile():
    inks = np.zeros((1, 3, 4), np.uint8)
    inks[0, :, 3] = 0, 128, 255
    image = Image.fromarray(inks, "CMYK")
    for format in ("TIFF", "JPEG"):
        plain = images.read(saved(image, format, quality=100) if format == "JPEG" else saved(image, format))
        assert plain.pixels[0, :, 0].tolist() == pytest.approx([255, 127, 0], abs=2)
    # the profile says L* = 100 (1 - K): 50 is linear light ((50 + 16) / 116)³ = .184, sRGB level 119
    managed = images.read(saved(image, "TIFF", icc_profile=cmyk_profile()))
    assert managed.pixels[0, :, 0].tolist() == pytest.approx([255, 118.5, 0], abs=2)
    assert np.ptp(managed.pixels.astype(int), axis=-1).max() <= 2


@pytest.mark.parametrize(
    "profile", [b"broken", SRGB[:200], GREY_LINEAR, cmyk_profile()], ids=["broken", "cut", "grey", "cmyk"]
)
def test_a_profile_that_is_broken_or_does_not_fit_is_ignored(profile: bytes):
    data = saved(Image.fromarray(gradient()), "PNG", icc_profile=profile)
    assert np.array_equal(images.read(data).pixels, gradient())


def test_srgbs_own_profile_changes_nothing():
    # as others write it: a table of 26 points, rounded primaries; LittleCMS is a level off here and there
    x = np.linspace(0, 1, 26)
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I26H", 26, *(round(v * 65535) for v in light))
    table = icc(b"RGB ", b"mntr", WHITE | PRIMARIES | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve))
    every = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for profile in (SRGB, table):
        data = saved(Image.fromarray(every), "PNG", icc_profile=profile)
        assert np.array_equal(images.read(data).pixels, every)


# ---- errors


def message(source: images.Source, kind: type[InnervisionError], **options: int) -> str:
    with pytest.raises(kind) as caught:
        images.read(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_not_there(tmp_path: Path):
    assert "no file" in message(tmp_path / "none.png", Invalid)
    assert "is a folder" in message(tmp_path, Invalid)
    assert "cannot open" in message("a\0b", Invalid)
    assert "cannot open" in message("x" * 5000, Invalid)
    assert "binary mode" in message(io.StringIO("text"), Invalid)  # type: ignore[arg-type]
    assert "from int" in message(3, Invalid)  # type: ignore[arg-type]


def test_files_that_are_no_pictures(tmp_path: Path):
    empty = tmp_path / "empty.png"
    empty.touch()
    assert message(empty, NotAnImage) == f"'{empty}' is empty: 0 bytes"
    assert "JPEG, PNG, WebP" in message(b"hello, world, this is no picture", NotAnImage)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    assert "not a picture" in message(postscript, NotAnImage)  # Pillow would start Ghostscript
    for brand in (b"heic", b"mif1"):  # the second could be AVIF's
        assert "pillow-heif" in message(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0heicmif1", NotAnImage)


def test_what_a_format_cannot_read_is_told_in_its_own_words(tmp_path: Path):
    colour = tiff(struct.pack("<3f", 0, 0.5, 1), bits=32, white=2, float_=True)
    assert "of a kind that cannot be read: unknown pixel mode (TIFF)" in message(colour, NotAnImage)
    data = bytearray(saved(Image.fromarray(gradient()), "PNG"))
    data[20] ^= 1  # the width, which has a checksum
    assert "damaged, or of a kind that cannot be read: broken PNG file" in message(bytes(data), NotAnImage)


def test_words_of_several_lines_become_one(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("Unexpected end of file:\n  at 378\n")  # as libheif says it

    data = saved(Image.fromarray(gradient()), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", fail)
    assert message(data, NotAnImage).endswith("cut short or damaged: Unexpected end of file: at 378")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile._open", fail)
    assert message(data, NotAnImage).endswith("cannot be read: Unexpected end of file: at 378")


def test_a_file_that_the_system_cannot_read():
    if not Path("/proc/self/mem").exists():
        pytest.skip("a file that opens and cannot be read is at hand on Linux alone")
    assert "Input/output error" in message("/proc/self/mem", NotAnImage)


KINDS = {  # of files that are compressed in their own way
    **{format: (format, {}) for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")},
    "progressive": ("JPEG", {"progressive": True}),
    **{name: ("TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files(kind: str, share: float, capfd: pytest.CaptureFixture[str]):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    format, options = KINDS[kind]
    data = saved(Image.fromarray(noise), format, **options)
    message(data[: int(len(data) * share)], NotAnImage)
    assert capfd.readouterr() == ("", "")


def test_damaged_files_raise_nothing_else():
    random = np.random.default_rng(0)
    options = {"TIFF": {"compression": "tiff_lzw"}}
    for format in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        whole = np.frombuffer(saved(Image.fromarray(gradient()), format, **options.get(format, {})), np.uint8)
        for _ in range(60):
            data = whole.copy()
            data[random.integers(0, min(len(data), 400), 4)] = random.integers(0, 256, 4)
            try:
                assert images.read(data.tobytes(), max_pixels=10**6).pixels.shape[2] == 3
            except InnervisionError as error:
                assert "\n" not in str(error)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(height: int, width: int) -> bytes:
    """A PNG that ends before its pixels do: whoever decodes it fails otherwise than by its size."""
    head = chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_too_many_pixels_is_told_from_the_header():
    text = message(png_header(20_000, 30_000), ImageTooLarge)
    assert "30000x20000 = 600,000,000 pixels" in text and "178,956,970" in text
    assert "raise --max-pixels (max_pixels=) or shrink the picture" in text
    assert "over the limit of 863" in message(Image.fromarray(gradient()), ImageTooLarge, max_pixels=863)
    assert images.read(Image.fromarray(gradient()), max_pixels=864).width == 36


def test_pillows_own_limit_neither_warns_nor_stands_in_the_way(monkeypatch: pytest.MonkeyPatch):
    data = saved(Image.fromarray(gradient()), "PNG")
    for limit in (500, 100):  # Pillow warns at 864 pixels, then raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert images.read(data).width == 36
        assert heard == []
        assert limit == Image.MAX_IMAGE_PIXELS
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_pillow_gives_no_other_warning():
    data = saved(Image.fromarray(gradient()), "PNG")
    animated = data[:33] + chunk(b"acTL", struct.pack(">2I", 0, 0)) + data[33:]  # an animation of no frames
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(animated)).close()
        assert len(heard) == 1
        assert np.array_equal(images.read(animated).pixels, gradient())
    assert len(heard) == 1


def test_raised_limit_goes_beyond_pillows():
    # decoding is tried, and fails for want of pixels, not for their number
    assert "cut short" in message(png_header(10_000, 20_000), NotAnImage, max_pixels=10**9)


def test_warning_filters_come_back_when_threads_overlap():
    data = saved(Image.fromarray(gradient(200, 300)), "JPEG")
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [images.read(data) for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


# ---- sizes


def test_fit_by_hand():
    assert images.fit(300, 400) == (300, 400)
    assert images.fit(300, 400, longest=200) == (150, 200)
    assert images.fit(300, 400, longest=800) == (600, 800)
    assert images.fit(333, 1000, longest=100) == (33, 100)
    assert images.fit(1, 5000, longest=50) == (1, 50)
    assert images.fit(300, 400, pixels=120_000) == (300, 400)
    assert images.fit(300, 400, pixels=30_000) == (150, 200)
    assert images.fit(300, 400, longest=800, pixels=30_000) == (150, 200)
    with pytest.raises(Invalid, match="longest is 0; it must be at least 1"):
        images.fit(3, 4, longest=0)


def test_fit_keeps_its_promises_everywhere():
    random = np.random.default_rng(0)
    for _ in range(2000):
        h, w, pixels, longest = (int(2**e) for e in random.uniform(0, 14, 4))
        assert max(images.fit(h, w, longest=longest)) == longest
        a, b = images.fit(h, w, pixels=pixels)
        assert min(a, b) >= 1 and a * b <= pixels
        if min(a, b) > 20:
            assert a / b == pytest.approx(h / w, rel=0.06)
            assert a * b > 0.88 * pixels


def test_resize_agrees_with_pillow():
    pixels = np.asarray(Image.open(samples.path("chelsea")))
    picture = images.Picture(pixels)
    for size in [(150, 225), (299, 450), (400, 700), (1, 1)]:
        ours = picture.tensor(size)[0].permute(1, 2, 0).numpy() * 255
        theirs = np.asarray(
            Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        ).astype(float)
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() < 1.6, size  # Pillow rounds to bytes, twice


def test_large_reductions_stay_true():
    # averaged first, then resized: against one resize in float, on noise and where boxes do not fit
    noise = np.random.default_rng(0).integers(0, 256, (531, 1207, 3), dtype=np.uint8)
    for pixels in (noise, gradient(531, 1207), gradient(531, 1207).astype(np.uint16) * 257):
        picture = images.Picture(pixels)
        for size in ((60, 100), (7, 9), (500, 9), (1, 1)):
            direct = images.resize(picture.tensor(), size)
            assert (picture.tensor(size) - direct).abs().max() < (0.05 if pixels is noise else 0.01)
            assert (picture.tensor(size).mean() - direct.mean()).abs() < 2e-3


def test_tensor_is_the_convention_and_resize_clamps():
    image = images.Picture(gradient()).tensor()
    assert image.shape == (1, 3, 24, 36) and image.dtype == torch.float32 and image.is_contiguous()
    assert image[0, :, 5, 7].tolist() == pytest.approx((gradient()[5, 7] / 255).tolist())
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert images.resize(edge, (16, 16)).min() == 0 and images.resize(edge, (16, 16)).max() == 1
    with pytest.raises(Invalid, match=r"each at least 1 pixel, not \(0, 4\)"):
        images.resize(edge, (0, 4))


def test_a_large_photograph_stays_small_in_memory(tmp_path: Path):
    """12000x9000 read and made a 512-pixel tensor: 432 MB as Pillow decodes it, 324 MB as a Picture."""
    ramp = Image.linear_gradient("L").resize((12000, 9000), Image.Resampling.NEAREST)
    ramp.convert("RGB").save(tmp_path / "large.jpg", quality=50)
    del ramp
    code = (
        "import sys\n"
        "from innervision import images\n"
        "picture = images.read(sys.argv[1])\n"
        "assert (picture.height, picture.width) == (9000, 12000)\n"
        "assert picture.tensor(images.fit(9000, 12000, longest=512)).shape == (1, 3, 384, 512)\n"
        # not getrusage: its peak survives fork and exec, so that it would be the test runner's own
        "from pathlib import Path\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    source = Path(images.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path / "large.jpg"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    assert int(done.stdout) / 1024 < 1200


# ---- what is written


def wave(height: int = 24, width: int = 36) -> torch.Tensor:
    return images.Picture(gradient(height, width)).tensor()


def test_bytes_are_rounded_to_the_nearest():
    levels = torch.arange(256) / 255
    assert images.to_bytes(levels.expand(1, 3, 1, 256))[0, :, 0].tolist() == list(range(256))
    off = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 254.6 / 255, 9.0]).expand(1, 3, 1, 6)
    assert images.to_bytes(off)[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]
    with pytest.raises(Invalid, match=r"not \(3, 4, 4\)"):
        images.to_bytes(torch.zeros(3, 4, 4))
    with pytest.raises(Invalid, match="NaN"):
        images.to_bytes(torch.full((1, 3, 2, 2), float("nan")))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".tiff", ".webp", ".jpg", ".jpeg"])
def test_write_and_read_again(tmp_path: Path, suffix: str):
    alpha = np.full((12, 18), 77, np.uint8)
    like = images.Picture(gradient(), alpha, (300.0, 300.0))
    target = tmp_path / "new" / "folder" / f"out{suffix}"
    images.write(wave(), target, like=like, quality=100)
    again = images.read(target)
    exact = suffix not in (".jpg", ".jpeg")
    assert np.abs(again.pixels.astype(int) - gradient()).max() <= (0 if exact else 3)
    assert (again.alpha is not None) == exact
    assert again.alpha is None or ((again.alpha == 77).all() and again.alpha.shape == (24, 36))
    assert again.dpi is None if suffix == ".webp" else again.dpi == pytest.approx((300, 300), abs=0.1)
    with Image.open(target) as theirs:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(theirs.info["icc_profile"]))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
        assert theirs.format == images.FORMATS[suffix.lower()]
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def test_jpeg_keeps_the_colour_of_every_pixel():
    stripes = torch.zeros(1, 3, 16, 16)
    stripes[:, 0, :, ::2] = 1  # red and black, one pixel each: 4:2:0 would mix them
    assert (images.read(images.encode(stripes, "jpg")).tensor() - stripes).abs().max() < 0.08


@pytest.mark.parametrize("quality", [90, 100])
def test_noise_becomes_a_jpeg(quality: int):
    noise = torch.rand(1, 3, 200, 300, generator=torch.Generator().manual_seed(0))  # over Pillow's 64 kB
    again = images.read(images.encode(noise, "jpg", quality=quality)).tensor()
    assert (again - noise).abs().mean() < (0.05 if quality == 90 else 0.005)


def test_a_resolution_beyond_jpegs_numbers_is_left_out():
    for dpi in ((254_000.0, 254_000.0), (0.3, 0.3)):  # of a microscope, of a map
        assert images.read(images.encode(wave(), "jpg", dpi=dpi)).dpi is None
        assert images.read(images.encode(wave(), "png", dpi=dpi)).dpi == pytest.approx(dpi, abs=0.02)
        assert images.read(images.encode(wave(), "tiff", dpi=dpi)).dpi == pytest.approx(dpi)


def test_the_same_picture_is_the_same_bytes(monkeypatch: pytest.MonkeyPatch):
    first = images.encode(wave(), "png")
    _decode.srgb_profile.cache_clear()
    later = SRGB[:24] + struct.pack(">6H", 2031, 5, 6, 7, 8, 9) + SRGB[36:]  # LittleCMS's, on another day
    monkeypatch.setattr(ImageCms.ImageCmsProfile, "tobytes", lambda profile: later)
    assert images.encode(wave(), "png") == first


def test_a_pil_image_with_its_own_alpha():
    image = Image.fromarray(gradient())
    image.putalpha(Image.fromarray(gradient()[..., 1]))
    own = images.read(images.encode(image, "png"))
    assert own.alpha is not None and np.array_equal(own.alpha, gradient()[..., 1])
    assert images.read(images.encode(image, "jpeg")).alpha is None
    given = images.read(images.encode(image, "png", alpha=np.full((1, 1), 9, np.uint8)))
    assert given.alpha is not None and (given.alpha == 9).all()


def test_write_to_streams(monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", out)
    images.write(wave(), "-")
    stream = io.BytesIO()
    images.write(wave(), stream, format="tiff")
    assert out.buffer.getvalue().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    assert stream.getvalue()[:4] == b"II*\0"


def test_streams_that_are_closed_or_full_are_told_of(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as closed:
        closed.setattr(sys, "stdin", None)
        closed.setattr(sys, "stdout", None)  # as Python leaves them
        assert "standard input is closed" in message("-", Invalid)
        for act in (images.writable, lambda target: images.write(wave(), target)):
            with pytest.raises(InnervisionError, match="standard output: it is closed"):
                act("-")
    if not Path("/dev/full").exists():
        pytest.skip("a device that is always full is at hand on Linux alone")
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(full))
        with pytest.raises(InnervisionError, match=r"standard output: No space left on device; name a file"):
            images.write(wave(), "-")


@pytest.mark.parametrize(
    "act", [images.writable, lambda target: images.write(wave(), target)], ids=["ask", "write"]
)
def test_what_cannot_be_written_is_said(tmp_path: Path, act):
    listed = r"\.png, \.jpg, \.jpeg, \.webp, \.tif, \.tiff"
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    for target, kind, text in (
        ("a.xyz", Invalid, rf"cannot write '.*a\.xyz': the suffix '\.xyz' is none of {listed}"),
        ("bare", Invalid, rf"its name must end in one of {listed}"),
        ("folder.png", Invalid, "it is a folder"),
        ("file/a.png", InnervisionError, r"'.*file' is a file, not a folder"),
    ):
        with pytest.raises(kind, match=text):
            act(tmp_path / target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_what_is_read_is_not_written_over(tmp_path: Path):
    photograph, link = tmp_path / "a.png", tmp_path / "link.png"
    images.write(wave(), photograph)
    link.symlink_to(photograph)
    for target in (photograph, str(link), tmp_path / "x" / ".." / "a.png", link):
        (tmp_path / "x").mkdir(exist_ok=True)
        with pytest.raises(Invalid, match="would be lost by being written"):
            images.writable(target, read=["sample:chelsea", photograph])
    images.writable(tmp_path / "b.png", read=["sample:chelsea", photograph, tmp_path / "gone.png", b"", None])


def test_writable_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    images.writable(tmp_path / "new" / "folder" / "a.png")
    images.writable("-")
    images.writable(io.BytesIO())
    images.writable(tmp_path / "bare", format="png")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InnervisionError, match="no permission to write in"):
        images.writable(tmp_path / "a.png")
    with pytest.raises(InnervisionError, match="no permission to write in"):
        images.write(wave(), tmp_path / "a.png")


def test_what_the_system_alone_knows_shows_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in (f"{300 * 'a'}.png", f"{300 * 'a'}/a.png", f"{250 * 'a'}.png"):  # a draft's name is longer
        with pytest.raises(InnervisionError, match=r"cannot write .*name too long"):
            images.writable(tmp_path / name)
    with pytest.raises(InnervisionError, match=r"cannot write .*null"):
        images.writable(tmp_path / "a\0.png")

    def full(self: Path, **_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(InnervisionError, match=r"cannot write .*a\.png'.*quota"):
        images.writable(tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_bad_options_and_sizes_are_said(tmp_path: Path):
    with pytest.raises(Invalid, match="cannot write the format 'gif'; there are png, jpg"):
        images.encode(wave(), "gif")
    with pytest.raises(Invalid, match="quality is 0; it must be between 1 and 100"):
        images.encode(wave(), "jpg", quality=0)
    with pytest.raises(Invalid, match=r"cannot write 70000x1 pixels as JPEG \(.*\): try PNG or TIFF"):
        images.write(torch.zeros(1, 3, 1, 70000), tmp_path / "long.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InnervisionError, match=r"a\.png"):
        images.write(wave(), target)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_links_are_followed_and_pipes_are_filled(tmp_path: Path):
    (tmp_path / "goal.png").touch()
    (tmp_path / "link.png").symlink_to(tmp_path / "goal.png")
    images.write(wave(), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert np.array_equal(images.read(tmp_path / "goal.png").pixels, gradient())
    pipe = tmp_path / "pipe.png"  # never a real device: a mistake here would replace it
    os.mkfifo(pipe)
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    images.write(wave(), pipe)
    reader.join(10)
    assert pipe.is_fifo() and np.array_equal(images.read(heard[0]).pixels, gradient())


# ---- samples


def test_every_sample_has_a_name_a_source_and_a_picture():
    folder = Path(samples.__file__).parent
    files = {p.name for p in folder.iterdir() if p.suffix in (".png", ".jpg")}
    assert set(samples.SAMPLES.values()) == files
    sources = (folder / "SOURCES.md").read_text(encoding="utf-8")
    patterns = [line.split("|")[1].strip() for line in sources.splitlines() if line.startswith("|")][2:]
    for name, file in samples.SAMPLES.items():
        assert any(Path(file).match(pattern) for pattern in patterns), file
        assert min(images.read(f"sample:{name}").pixels.shape[:2]) >= 200
