"""All layers' answers to a picture in one pass: what units see, what is dead, a sheet a layer, numbers."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from innervision.errors import Invalid, unknown
from innervision.files import atomic
from innervision.network import Network
from innervision.see.activations import SHOWN, shown_by_default
from innervision.see.receptive import Field, followed
from innervision.see.tokens import maps_of, set_apart
from innervision.sheets import INK, PAPER, font

SCALES = ("channel", "shared", "centred")

_GAP, _MARGIN, _CAPTION, _HEAD = 4, 16, 15, 48
_COLOURS = 192  # of a palette's 256: the map's; the rest go from paper to ink
_LONGEST = 256  # of a map on its sheet, in pixels


@dataclass(frozen=True, eq=False)
class Layer:
    """What one layer answers to a picture."""

    name: str
    maps: Tensor = field(repr=False)  # (c, h, w), float32, on the CPU
    field: Field | None  # None: a step before it has no fixed window
    dead: int  # channels that are 0 at every place
    saturated: int | None  # channels at the end of their range at every place; None: it has no end
    through: str = ""  # the step that has no fixed window, where it is known
    apart: int = 0  # tokens in front of the grid, such as a class token, which no map shows

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        c, h, w = self.maps.shape
        return (c, h, w)

    def strongest(self, count: int | None) -> list[int]:
        """Return the channels of the highest mean, the highest first; all by number if None."""
        if count is None:
            return list(range(len(self.maps)))
        return self.maps.mean((1, 2)).argsort(descending=True, stable=True)[:count].tolist()


def survey(network: Network, image: Tensor, layers: Iterable[str] | None = None) -> list[Layer]:
    """Return what layers answer to a picture (1, 3, h, w), sRGB 0..1, in one pass through the network.

    layers: by default every ReLU before the first fully connected layer; for a network without ReLU modules
    every layer within it that answers maps. Layers of tokens are shown as maps (see `tokens`). Dead: 0 at
    each place of this picture, which says nothing of others. Saturated: within 1 % of the end of its range
    (ReLU6, sigmoid, tanh and their like). Raises Invalid for an unknown layer, and for one that answers no
    maps.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise Invalid(f"one picture is shown at a time: (1, 3, h, w), not {tuple(image.shape)}")
    names = shown_by_default(network, image) if layers is None else network.check(layers)
    with torch.no_grad():
        found = network.features(image, names)
    size = (image.shape[-2], image.shape[-1])
    fields = followed(network, size)
    return [_layer(network, name, found[name], fields.get(name, ""), size) for name in dict.fromkeys(names)]


def _layer(network: Network, name: str, answer: Tensor, seen: Field | str, size: tuple[int, int]) -> Layer:
    # channels last would be slow to look through
    maps = maps_of(name, answer, size, SHOWN)[0].float().cpu().contiguous()
    dead = int((maps == 0).flatten(1).all(1).sum())
    saturated = _saturated(network.module.get_submodule(name), maps)
    field, through = (None, seen) if isinstance(seen, str) else (seen, "")
    return Layer(name, maps, field, dead, saturated, through, set_apart(answer, size))


def _saturated(module: nn.Module, maps: Tensor) -> int | None:
    match module:
        case nn.ReLU6():
            at_end = maps >= 0.99 * 6  # at 0 it is dead
        case nn.Hardtanh(min_val=low, max_val=high):
            near = 0.01 * (high - low)
            at_end = (maps >= high - near) | (maps <= low + near)
        case nn.Sigmoid() | nn.Hardsigmoid():
            at_end = (maps >= 0.99) | (maps <= 0.01)
        case nn.Tanh():
            at_end = maps.abs() >= 0.98
        case _:
            return None
    return int(at_end.flatten(1).all(1).sum())


def layer_sheet(
    layer: Layer, *, scale: str = "channel", channels: int | None = 16, tile: int | None = None
) -> Image.Image:
    """Draw a layer's channels, each map's pixels as squares, with what they see stated at the head.

    scale: "channel" stretches each map from its own least to its own greatest value; "shared" has one scale
    for the layer, from its least value, or 0 if that is less, to its greatest; "centred" is shared too, blue
    below 0, white at 0, red above. channels: the strongest by mean, or all by number if None. tile: pixels
    to which smaller maps are enlarged by whole factors, by default 168, or 56 for more than 64 channels;
    maps of more than 256 are averaged down. The picture has a palette of 256 colours.
    """
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    if channels is not None and channels < 1:
        raise Invalid(f"channels is {channels}; it must be at least 1, or None for all")
    chosen = layer.strongest(channels)
    maps = layer.maps if channels is None else layer.maps[chosen]
    side = tile or (168 if len(chosen) <= 64 else 56)
    tiles = _sized(_indices(maps, layer.maps, scale), side)
    count, h, w = tiles.shape
    columns = _columns(count, w + _GAP, h + _GAP + _CAPTION)
    rows = -(-count // columns)
    cell = h + _GAP + _CAPTION, w + _GAP
    grid = torch.full((rows * columns, *cell), _COLOURS, dtype=torch.uint8)
    grid[:count, :h, :w] = tiles
    body = (
        grid.view(rows, columns, *cell).permute(0, 2, 1, 3).reshape(rows * cell[0], columns * cell[1]).numpy()
    )
    peaks = maps.amax((1, 2)).tolist()
    dead = (maps == 0).flatten(1).all(1).tolist()
    for n, channel in enumerate(chosen):
        # the greatest value beside the number where there is room for both
        told = f"{channel}   to {peaks[n]:.4g}"
        if dead[n]:
            told = f"{channel} dead"
        text = told if _word(told, 11).shape[1] <= w + _GAP else f"{channel}"
        _write(body, text, n // columns * cell[0] + h + 1, n % columns * cell[1])
    return _page(body, _heading(layer, len(chosen), scale), _palette(scale == "centred"))


def _page(body: NDArray[np.uint8], heading: tuple[str, str], palette: bytes) -> Image.Image:
    """Set a heading over numbers of colours, and margins around."""
    wide = max(body.shape[1], _word(heading[0], 16).shape[1], _word(heading[1], 11).shape[1])
    page = np.full((_HEAD + 2 * _MARGIN + body.shape[0], 2 * _MARGIN + wide), _COLOURS, np.uint8)
    top = _HEAD + _MARGIN
    page[top : top + body.shape[0], _MARGIN : _MARGIN + body.shape[1]] = body
    _write(page, heading[0], _MARGIN, _MARGIN, size=16, tone=1.0)
    _write(page, heading[1], _MARGIN + 24, _MARGIN)
    picture = Image.frombytes("P", (page.shape[1], page.shape[0]), page.tobytes())
    picture.putpalette(palette)
    return picture


def _write(page: NDArray[np.uint8], text: str, y: int, x: int, *, size: int = 11, tone: float = 0.6) -> None:
    """Write in the palette's greys, over what is paper."""
    word = _word(text, size)
    place = page[y : y + word.shape[0], x : x + word.shape[1]]
    place[:] = _COLOURS + (word[: place.shape[0], : place.shape[1]] * (tone * (255 - _COLOURS))).astype(
        np.uint8
    )


@lru_cache(4096)  # the numbers of channels come again with every layer
def _word(text: str, size: int) -> NDArray[np.float32]:
    """Return how much of each pixel a word covers, 0..1."""
    letters = font(size)
    picture = Image.new("L", (math.ceil(letters.getlength(text)) + 1, math.ceil(1.4 * size)))
    ImageDraw.Draw(picture).text((0, 0), text, 255, letters)
    return np.asarray(picture, np.float32) / np.float32(255)


def _indices(maps: Tensor, every: Tensor, scale: str) -> Tensor:
    """Return the colours' numbers 0 … 191 of maps (c, h, w)."""
    if scale == "channel":
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    elif scale == "shared":
        low, high = every.amin().clamp(max=0), every.amax()
    else:
        high = every.abs().amax().clamp(min=torch.finfo(maps.dtype).tiny)
        low = -high
    span = (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
    # an even map is all "least", or white when centred
    last = _COLOURS - 1
    return ((maps - low) / span * last).nan_to_num(0).clamp_(0, last).add_(0.5).to(torch.uint8)


def _sized(tiles: Tensor, side: int) -> Tensor:
    """Enlarge numbers of colours by a whole factor, or average them down."""
    longest = max(tiles.shape[1:])
    if longest > _LONGEST:
        return F.avg_pool2d(tiles.float()[:, None], -(-longest // _LONGEST))[:, 0].round().to(torch.uint8)
    by = max(1, side // longest)
    return tiles.repeat_interleave(by, 1).repeat_interleave(by, 2) if by > 1 else tiles


def _columns(count: int, across: int, down: int) -> int:
    """Return how many columns bring a sheet nearest to 3:2."""
    return max(1, min(count, round(math.sqrt(1.5 * count * down / across))))


def _heading(layer: Layer, shown: int, scale: str) -> tuple[str, str]:
    c, h, w = layer.shape
    which = f"{c} channels" if shown == c else f"{shown} strongest of {c} channels"
    saturated = "" if layer.saturated is None else f", {layer.saturated} saturated"
    sees = f"sees {layer.field}" if layer.field else f"no fixed window: {layer.through or 'a global step'}"
    sees += f", {layer.apart} token{'s' * (layer.apart > 1)} set apart" if layer.apart else ""
    if scale == "channel":
        said = "each channel on its own scale"
    elif scale == "shared":
        said = f"one scale: {min(0.0, float(layer.maps.min())):.4g} to {float(layer.maps.max()):.4g}"
    else:
        said = f"0 is white, the ends are +-{float(layer.maps.abs().max()):.4g}"
    return layer.name, f"{which} of {w} x {h}, {sees}; {layer.dead} dead{saturated}; {said}"


@cache
def _palette(centred: bool) -> bytes:
    """Return 256 colours: magma, or RdBu_r where centred; then from paper to ink."""
    import matplotlib

    colours = matplotlib.colormaps["RdBu_r" if centred else "magma"](np.linspace(0, 1, _COLOURS), bytes=True)
    share = np.linspace(0, 1, 256 - _COLOURS)[:, None]
    greys: NDArray[np.float64] = np.asarray(PAPER) * (1 - share) + np.asarray(INK) * share
    return np.concatenate([colours[:, :3], greys.round().astype(np.uint8)]).tobytes()


def png(picture: Image.Image) -> bytes:
    """Return a sheet as PNG, packed lightly: it is written sooner, and somewhat larger."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def save_raw(path: str | Path, layers: Sequence[Layer]) -> None:
    """Write the layers' numbers, name -> (c, h, w) float32, as .npz or .safetensors, whole or not at all."""
    where = Path(path)
    check_raw(where)
    with atomic(where) as draft:
        if where.suffix == ".npz":
            # not numpy.savez, whose own arguments' names no layer may bear
            with zipfile.ZipFile(draft, "w") as archive:
                for layer in layers:
                    # an entry without the time: equal numbers are equal files
                    entry = zipfile.ZipInfo(f"{layer.name}.npy")
                    with archive.open(entry, "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, layer.maps.numpy())
        else:
            from safetensors.torch import save_file

            save_file({layer.name: layer.maps.contiguous() for layer in layers}, draft)


def check_raw(path: Path) -> None:
    """Raise Invalid, before the work, for a name that is none of a file for raw numbers."""
    if path.suffix not in (".npz", ".safetensors"):
        raise Invalid(f"cannot write numbers to '{path}': its name must end in .npz or .safetensors")
