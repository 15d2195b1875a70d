"""Contact sheets of units: what of its strongest pictures each unit sees, and their deconvolutions beside."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from innervision.errors import Invalid
from innervision.images import fit, to_bytes
from innervision.network import Network
from innervision.see import backward
from innervision.see.pictures import Pictures, as_pictures
from innervision.see.receptive import Box, Field, box, by_gradient, receptive_fields
from innervision.see.target import Target
from innervision.see.units import TopImages
from innervision.sheets import FAINT, INK, PAPER, font

_MARGIN, _GAP = 24, 2
_EMPTY = (28, 28, 32)  # hardly paler than the paper: a place, and nothing in it


@dataclass(frozen=True, eq=False)
class Unit:
    """A unit's strongest patches, the strongest first."""

    layer: str
    channel: int
    values: tuple[float, ...]
    names: tuple[str, ...]  # of the pictures
    patches: tuple[Image.Image, ...]  # what the unit sees of each; paper-coloured beyond the picture's edge
    deconvolutions: tuple[Image.Image, ...] = ()  # of the same patches, each by its own scale, 0 as mid-grey

    @property
    def silent(self) -> bool:
        """Whether no picture excites the unit."""
        return not self.values or self.values[0] <= 0


def strongest(
    network: Network,
    found: TopImages,
    pictures: Pictures | NDArray[Any] | Tensor,
    layer: str,
    channels: Iterable[int] | None = None,
    *,
    deconv: bool = False,
) -> Iterator[Unit]:
    """Cut each unit's strongest patches out of the pictures, with their deconvolutions where wanted.

    pictures: those of which `found` tells. channels: by default all. The patch is the unit's receptive field
    at the place of its maximum; along a side where it is larger than the picture, the picture. deconv:
    Zeiler & Fergus's projection of that one activation (`backward.deconvnet`), through `network`.
    Raises Invalid for a layer or channel that `found` does not have.
    """
    source = as_pictures(pictures)
    if layer not in found.layers:
        raise Invalid(f"no layer {layer!r} in the index, which has {', '.join(found.layers)}")
    top = found[layer]
    field = field_of(network, layer, source.size)
    for channel in range(len(top.values)) if channels is None else channels:
        if not 0 <= channel < len(top.values):
            raise Invalid(f"no unit {channel} in {layer}, which has 0 … {len(top.values) - 1}")
        ranks = [rank for rank, number in enumerate(top.pictures[channel]) if number >= 0]
        patches: list[Image.Image] = []
        projected: list[Image.Image] = []
        for rank in ranks:
            pixels = source[int(top.pictures[channel, rank])]
            row, column = (int(n) for n in top.places[channel, rank])
            seen = window(field, source.size, (row, column))
            patches.append(cut(pixels, seen))
            if deconv and top.values[channel, rank] > 0:
                place = (row, column) if top.extent != (1, 1) else None
                projected.append(
                    cut(project(network, pixels, Target(layer, channel, place), seen), seen, GREY)
                )
        yield Unit(
            layer,
            channel,
            tuple(float(top.values[channel, rank]) for rank in ranks),
            tuple(source.label(int(top.pictures[channel, rank])) for rank in ranks),
            tuple(patches),
            tuple(projected),
        )


GREY = (128, 128, 128)


def field_of(network: Network, layer: str, size: tuple[int, int]) -> Field | None:
    """Return a layer's receptive field, or None where its units see a picture of (height, width) whole."""
    field = receptive_fields(network, size).get(layer)
    if field is None:
        try:
            # one that reaches beyond twice the picture covers it from anywhere
            field = by_gradient(network, layer, most=2 * max(64, *size))
        except Invalid:
            return None
    return field if min(field.stride) > 0 else None


def window(field: Field | None, size: tuple[int, int], place: tuple[int, int]) -> Box:
    """Return what a unit at a place (row, column) of a map sees of a picture of a size (height, width).

    Along a side where the field is no shorter than the picture, and without a field, it is the whole side.
    """
    h, w = size
    if field is None:
        return 0, 0, w, h
    left, top, right, bottom = box(field, *place)
    if field.size[0] >= h:
        top, bottom = 0, h
    if field.size[1] >= w:
        left, right = 0, w
    return left, top, right, bottom


def cut(pixels: NDArray[np.uint8], edges: Box, beyond: tuple[int, int, int] = PAPER) -> Image.Image:
    """Cut a part out of a picture (h w 3); what lies beyond its border is of one colour."""
    left, top, right, bottom = edges
    patch = Image.new("RGB", (right - left, bottom - top), beyond)
    patch.paste(Image.fromarray(pixels), (-left, -top))
    return patch


def project(network: Network, pixels: NDArray[np.uint8], target: Target, edges: Box) -> NDArray[np.uint8]:
    """Return a target's deconvolution in a picture (h w 3) as a picture, on the scale of a part."""
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div_(255).to(network.device)
    map = backward.deconvnet(network, image, target).map.float().cpu()
    left, top, right, bottom = edges
    seen = map[:, :, max(0, top) : bottom, max(0, left) : right]
    peak = float(seen.abs().max())
    return to_bytes(0.5 + map / (2 * peak) if peak > 0 else torch.full_like(map, 0.5))


def contact_sheet(
    units: Iterable[Unit], *, title: str = "", tile: int = 48, columns: int | None = None
) -> Image.Image:
    """Draw units: each a square of its patches, its deconvolutions beside it, its number and maximum.

    tile: the side of a patch in pixels. A place without a picture is even, a little paler than the paper.
    Zeiler & Fergus 2013, figure 2; Yosinski et al. 2015, figure 2.
    Raises Invalid for no units.
    """
    every = list(units)
    if not every:
        raise Invalid("a contact sheet needs at least one unit")
    most = max(1, *(len(unit.patches) for unit in every))
    side = math.ceil(math.sqrt(most))  # patches in a row; where they are few, the rows are fewer
    block, tall = (n * (tile + _GAP) - _GAP for n in (side, math.ceil(most / side)))
    pair = any(unit.deconvolutions for unit in every)
    width, height = block * (1 + pair) + 6 * pair, tall + 20
    near = max(1, min(len(every), round(math.sqrt(len(every) * 1.5 * height / width))))
    # about 3:2, with as few places left empty as may be
    across = columns or min(range(max(1, near - 1), near + 2), key=lambda n: (-len(every) % n, abs(n - near)))
    down = math.ceil(len(every) / across)
    gap, head = 18, 40 if title else 0
    page = Image.new(
        "RGB",
        (2 * _MARGIN + across * (width + gap) - gap, 2 * _MARGIN + head + down * (height + gap) - gap),
        PAPER,
    )
    draw = ImageDraw.Draw(page)
    name_font, small, heading = (font(size) for size in (14, 12, 20))
    if title:
        draw.text((_MARGIN, _MARGIN), title, INK, heading)
    for number, unit in enumerate(every):
        left = _MARGIN + number % across * (width + gap)
        top = _MARGIN + head + number // across * (height + gap)
        draw.text((left, top), str(unit.channel), INK, name_font)
        told = "silent" if unit.silent else _short(unit.values[0])
        draw.text((left + width, top + 2), told, FAINT, small, anchor="ra")
        for start, tiles in ((left, unit.patches), (left + block + 6, unit.deconvolutions)):
            if start > left and not pair:
                continue
            for place in range(len(tiles), side * math.ceil(most / side)):  # a place for which there is none
                x, y = start + place % side * (tile + _GAP), top + 20 + place // side * (tile + _GAP)
                draw.rectangle((x, y, x + tile - 1, y + tile - 1), fill=_EMPTY)
            for place, one in enumerate(tiles):
                x, y = place % side * (tile + _GAP), place // side * (tile + _GAP)
                sized = _sized(one, tile)
                page.paste(
                    sized, (start + x + (tile - sized.width) // 2, top + 20 + y + (tile - sized.height) // 2)
                )
    return page


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.4g}"


def _sized(picture: Image.Image, tile: int) -> Image.Image:
    height, width = fit(picture.height, picture.width, longest=tile)
    # few pixels stay squares, as they are all that the unit sees
    how = Image.Resampling.NEAREST if width >= 4 * picture.width else Image.Resampling.BICUBIC
    return picture.resize((width, height), how)
