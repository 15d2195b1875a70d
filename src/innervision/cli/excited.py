"""How `innervision excite` shows what excites units: a picture with its caption, or a sheet; and a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.excite import Excited, Unit


def draw(
    found: list[Excited],
    tile: int | None,
    network: Network,
    *,
    opaque: bool = False,
    caption: bool = False,
) -> Image.Image:
    """Draw a single picture as it is, several on a contact sheet, those of a unit in a row.

    On a sheet, a unit that nothing excited is dark and grey.
    opaque: without the transparency that MaCo's pictures have. caption: below a single picture, too.
    """
    from innervision.sheets import sheet

    pictures = [drawn for each in found for drawn in _drawn(each, opaque)]
    if len(pictures) == 1:
        return _captioned(pictures[0], found[0], network) if caption else pictures[0]
    whose = [each for each in found for _ in each.images]
    pictures = [_faded(one) if silent(each) else one for one, each in zip(pictures, whose, strict=True)]
    count = len(found[0].images)
    labels = [
        f"{called(each.unit, network)}\n{answer(each)}" if place == 0 else " "
        for each in found
        for place in range(count)
    ]
    side = tile or (240 if len(pictures) <= 16 else 160 if len(pictures) <= 64 else 96)
    return sheet(pictures, labels=labels, columns=count if count > 1 else None, tile=side, smooth=True)


def glimpse(images: Tensor) -> Image.Image:
    """Draw the pictures (n, 3, h, w) of units that are at work: one as it is, several side by side."""
    from PIL import Image

    from innervision.images import to_bytes
    from innervision.sheets import sheet

    pictures = [Image.fromarray(to_bytes(one.detach().float().clamp(0, 1).cpu())) for one in images.split(1)]
    return (
        pictures[0] if len(pictures) == 1 else sheet(pictures, tile=min(240, pictures[0].width), smooth=True)
    )


def _captioned(picture: Image.Image, each: Excited, network: Network) -> Image.Image:
    """Put a unit's name and answer below its picture, which stays as it is; a narrow one gets margins."""
    from PIL import Image, ImageDraw

    from innervision.sheets import FAINT, INK, PAPER, font

    size = max(11, picture.height // 20)
    letters, line = font(size), round(1.5 * size)
    lines = (f"{network.name} {called(each.unit, network)}", answer(each))
    wide = max(picture.width, *(round(letters.getlength(text)) + size for text in lines))
    page = Image.new("RGB", (wide, picture.height + 2 * line + size // 2), PAPER).convert(picture.mode)
    left = (wide - picture.width) // 2
    page.paste(picture, (left, 0))
    draw = ImageDraw.Draw(page)
    for number, (text, ink) in enumerate(zip(lines, (INK, FAINT), strict=True)):
        at = (wide / 2, picture.height + size // 2 + number * line)
        draw.text(at, text, ink, letters, anchor="ma")
    return page


def _faded(picture: Image.Image) -> Image.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0)).enhance(0.35)


def _drawn(each: Excited, opaque: bool) -> Iterator[Image.Image]:
    from PIL import Image

    from innervision.images import to_bytes

    for n, image in enumerate(each.images.split(1)):
        picture = Image.fromarray(to_bytes(image))
        if each.opacity is not None and not opaque:
            picture.putalpha(Image.fromarray(to_bytes(each.opacity[n : n + 1].expand(1, 3, -1, -1))[..., 0]))
        yield picture


def called(unit: Unit, network: Network) -> str:
    """Return what a unit is called for a person: a class by its name."""
    from innervision.see.target import Target, named

    return named(unit, network) if isinstance(unit, Target) else str(unit)


def answer(each: Excited) -> str:
    """Say how a unit's answer rose."""
    return "nothing excited it" if silent(each) else f"{each.before:.3g} to {each.after:.3g}"


def silent(each: Excited) -> bool:
    """Tell whether nothing was found that excites a unit: what its picture shows is chance."""
    return each.after <= min(0.0, each.before)


def tell(found: list[Excited], where: Path, stopped: bool, network: Network) -> str:
    """Return what came of it, for a person."""
    if not found:
        return "stopped before the first step: nothing was written"
    names = [called(each.unit, network) for each in found if silent(each)]
    quiet = f"; nothing excited {', '.join(names)}" if names else ""
    one = found[0]
    what = (
        f"{called(one.unit, network)} answers {one.after:.4g}, {one.before:.4g} before"
        if len(found) == 1
        else ""
    )
    what = what or f"{len(found)} units"
    return f"{'stopped: ' if stopped else ''}{where}: {what}{quiet}"
