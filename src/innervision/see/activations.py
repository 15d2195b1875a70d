"""What layers answer to a picture: the strongest channels of each, on one sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.tokens import as_maps, maps_of
from innervision.sheets import FAINT, INK, PAPER, font, heat

_GAP, _MARGIN = 6, 24
_FOOT, _SPACING = 34, 4  # pixels for what is said below the rows; between its lines

SCALE = (
    "Each row has one scale of its own, from black to palest: the numbers at its left.\n"
    "Channels of a row can be compared, rows cannot. The strongest come first, each with its number below."
)
"""What an overview says of its colours."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What one layer answered: its strongest channels, the strongest first."""

    layer: str
    channels: tuple[int, ...]  # numbers within the layer, from 0
    maps: NDArray[np.float32]  # (channels h w)
    of: int  # channels the layer has


def answers(
    network: Network, image: Tensor, layers: Iterable[str] | None = None, *, channels: int = 16
) -> list[Answer]:
    """Return each layer's channels of the highest mean activation, in the order of the layers.

    image: (1, 3, h, w), sRGB 0..1. layers: by default every ReLU before the first fully connected
    layer; for a network without ReLU modules every layer within it that answers maps. Layers of tokens
    are shown as maps (see `tokens`). Equal channels come by number. Raises Invalid for an unknown layer,
    and for one whose answer has no height and width.
    """
    if channels < 1:
        raise Invalid(f"channels is {channels}; it must be at least 1")
    if image.ndim != 4 or image.shape[0] != 1:
        raise Invalid(f"one picture is shown at a time: (1, 3, h, w), not {tuple(image.shape)}")
    names = shown_by_default(network, image) if layers is None else network.check(layers)
    with torch.no_grad():
        found = network.features(image, names)
    size = (image.shape[-2], image.shape[-1])
    return [
        strongest(name, maps_of(name, found[name], size, SHOWN), channels) for name in dict.fromkeys(names)
    ]


SHOWN = "a sheet shows (1, c, h, w) only"


def shown_by_default(network: Network, image: Tensor) -> tuple[str, ...]:
    """Return the ReLUs before the first fully connected layer, or else every layer that answers maps.

    Those are the innermost layers that answer maps, or tokens on a grid, of more than one place, in the order
    in which they are called. Raises Invalid where there is none.
    """
    names = rectified(network)
    if names:
        return names
    size = (image.shape[-2], image.shape[-1])
    met: dict[str, None] = {}

    def listener(name: str) -> Callable[..., None]:
        def hear(_: nn.Module, __: object, answer: object) -> None:
            maps = as_maps(answer, size) if isinstance(answer, Tensor) else None
            if maps is not None and math.prod(maps.shape[2:]) > 1:
                met[name] = None

        return hear

    inner = [(n, m) for n, m in network.module.named_modules() if n and not any(m.children())]
    handles = [module.register_forward_hook(listener(name)) for name, module in inner]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for handle in handles:
            handle.remove()
    if not met:
        raise Invalid(f"no layer of {network.name} answers maps: {SHOWN}")
    return tuple(met)


def rectified(network: Network) -> tuple[str, ...]:
    """Return the names of the ReLU layers before the first fully connected one."""
    names: list[str] = []
    for name, module in network.module.named_modules():
        if isinstance(module, nn.Linear):
            break
        if isinstance(module, (nn.ReLU, nn.ReLU6)):
            names.append(name)
    return tuple(names)


_BENT = (
    *(nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.Hardswish),
    *(nn.Hardtanh, nn.Tanh, nn.Softplus, nn.Softsign, nn.Threshold, nn.Hardshrink, nn.Softshrink),
)
_GATES = (nn.Sigmoid, nn.Hardsigmoid)  # which mostly weigh something else


def nonlinearities(network: Network) -> tuple[str, ...]:
    """Return the names of the nonlinearities before the classifier: of the ReLUs, where there are any.

    Where there are none, those of the other activation modules before the first fully connected layer; else
    those before the last one, for a transformer's blocks hold such layers; else those of the convolutions.
    """
    named = [(name, module) for name, module in network.module.named_modules() if name]
    full = [place for place, (_, module) in enumerate(named) if isinstance(module, nn.Linear)]
    for end in (full[0], full[-1]) if full else (None,):
        for kinds in ((nn.ReLU, nn.ReLU6), _BENT, _GATES):
            found = tuple(name for name, module in named[:end] if isinstance(module, kinds))
            if found:
                return found
    return tuple(name for name, module in named if isinstance(module, nn.Conv2d))


def strongest(layer: str, activation: Tensor, channels: int) -> Answer:
    """Return a layer's strongest channels out of its activation (1, c, h, w)."""
    if activation.ndim != 4:
        raise Invalid(f"layer {layer!r} answers {tuple(activation.shape)}: {SHOWN}")
    maps = activation[0].float().cpu()
    order = maps.mean((1, 2)).argsort(descending=True, stable=True)[:channels]
    return Answer(layer, tuple(order.tolist()), maps[order].numpy(), maps.shape[0])


def sheet(
    network: Network,
    image: Tensor,
    layers: Iterable[str] | None = None,
    *,
    channels: int = 16,
    tile: int = 84,
) -> Image.Image:
    """Draw what the layers answer: a row a layer, its strongest channels from left to right.

    tile: width of a channel in pixels; it is as high as the picture's aspect asks. A row has one
    scale, black at 0 (or the least value, if negative) and palest at its greatest value, so that
    channels of a layer can be compared; layers cannot. A channel that is 0 everywhere is called dead. The
    rest is as in `answers`.
    """
    return overview(answers(network, image, layers, channels=channels), image, tile=tile)


def overview(rows: Sequence[Answer], image: Tensor, *, tile: int = 84) -> Image.Image:
    """Draw answers that are at hand, as `sheet` does; image: of which they are, for its aspect."""
    size = (tile, max(1, round(tile * image.shape[-2] / image.shape[-1])))
    name_font, small = font(16), font(11)
    labels = [(row.layer, f"{row.of} channels", f"{_extent(row.maps)}, {_range(row.maps)}") for row in rows]
    label = max(
        *(int(name_font.getlength(name)) for name, *_ in labels),
        *(int(small.getlength(text)) for _, *texts in labels for text in texts),
    )
    left = _MARGIN + label + 2 * _GAP
    across, down = size[0] + _GAP, size[1] + _GAP + 18  # 18: the channel's number
    down = max(down, 58)  # the label's three lines
    most = max(len(row.channels) for row in rows)
    said = 2 * _MARGIN + max(int(small.getlength(line)) for line in SCALE.splitlines())
    wide = max(said, left + most * across - _GAP + _MARGIN)
    page = Image.new("RGB", (wide, 2 * _MARGIN + len(rows) * down + _FOOT), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (row, (name, *texts)) in enumerate(zip(rows, labels, strict=True)):
        top = _MARGIN + number * down
        draw.text((_MARGIN, top), name, INK, name_font)
        for line, text in enumerate(texts):
            draw.text((_MARGIN, top + 22 + 15 * line), text, FAINT, small)
        for place, (channel, picture) in enumerate(zip(row.channels, _tiles(row.maps, size), strict=True)):
            x = left + place * across
            page.paste(picture, (x, top))
            silent = "" if row.maps[place].any() else " dead"
            draw.text((x, top + size[1] + 2), f"{channel}{silent}", FAINT, small)
    draw.multiline_text((_MARGIN, page.height - _MARGIN), SCALE, FAINT, small, anchor="ld", spacing=_SPACING)
    return page


def _range(maps: NDArray[np.float32]) -> str:
    ends = min(0.0, float(maps.min())), float(maps.max())
    return " … ".join(f"{end:.0f}" if abs(end) >= 100 else f"{end:.3g}" for end in ends)


def _extent(maps: NDArray[np.float32]) -> str:
    return f"{maps.shape[2]} x {maps.shape[1]} px"


def _tiles(maps: NDArray[np.float32], size: tuple[int, int]) -> list[Image.Image]:
    """Colour a layer's maps on one scale, at (width, height): averaged down, or enlarged in squares."""
    least, greatest = min(0.0, float(maps.min())), float(maps.max())
    scaled = (maps - least) / max(greatest - least, 1e-12)
    sized = (Image.fromarray(one, "F").resize(size, _filter(one, size)) for one in scaled)
    # the square root lifts what is faint
    return [heat(torch.from_numpy(np.sqrt(one)), low=0, high=1) for one in map(np.asarray, sized)]


def _filter(one: NDArray[np.float32], size: tuple[int, int]) -> Image.Resampling:
    return Image.Resampling.BOX if one.shape[1] > size[0] else Image.Resampling.NEAREST
