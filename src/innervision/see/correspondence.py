"""Does a network know that two dogs have the same eyes? The same part hidden in several pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from innervision.errors import Diverged, Invalid
from innervision.network import Network
from innervision.see.units import most_at_once
from innervision.sheets import FAINT, INK, PAPER


@dataclass(frozen=True)
class Correspondence:
    """How differently a layer changes when the same part of several pictures is hidden: 0 is alike."""

    layer: str
    part: float  # mean Hamming distance of the changes' signs over pairs of pictures, 0..1 …
    spread: float  # … and its standard deviation over the pairs
    chance: float  # the same for a random part of each picture
    chance_spread: float


DRAWS = 10
"""How often boxes are drawn at random, unless said otherwise."""

Box = tuple[int, int, int, int]  # left, top, width, height in pixels


def correspondence(
    network: Network,
    images: Tensor,
    boxes: Sequence[Box],
    layers: Iterable[str],
    *,
    grey: float = 0.5,
    draws: int = DRAWS,
    generator: torch.Generator | None = None,
) -> tuple[Correspondence, ...]:
    """Return for each layer whether hiding the same part of several pictures changes it the same way.

    images: (n, 3, h, w), two or more; boxes: where the part (an eye, the nose) lies in each. Each is hidden
    under grey, ε = f(image) - f(hidden), and Δ is the mean over pairs of pictures of the share of features
    in which sign(ε) differs (Zeiler & Fergus 2013, section 4.3; they sum over ordered pairs of five dogs).
    Compared with boxes of the same sizes at places drawn at random, `draws` times. Raises Invalid for less
    than two pictures, another number of boxes, or a box that is not within its picture.
    """
    names = tuple(dict.fromkeys(network.check(layers)))
    h, w = images.shape[-2:]
    if len(images) < 2 or len(boxes) != len(images) or draws < 1:
        raise Invalid(
            f"{len(images)} pictures, {len(boxes)} boxes, {draws} draws: give two pictures or more, "
            "a box for each, and one draw or more"
        )
    for left, top, width, height in boxes:
        if min(left, top) < 0 or min(width, height) < 1 or left + width > w or top + height > h:
            raise Invalid(f"box {left},{top},{width},{height} (x,y,w,h) is not within {w}x{h} pixels")
    with torch.inference_mode(False), torch.no_grad():
        whole = _features(network, images, names)
        found = {name: _pairs(s) for name, s in _signs(network, images, boxes, names, whole, grey).items()}
        chance: dict[str, list[Tensor]] = {name: [] for name in names}
        for _ in range(draws):
            drawn = [_elsewhere(box, (h, w), generator) for box in boxes]
            for name, signs in _signs(network, images, drawn, names, whole, grey).items():
                chance[name].append(_pairs(signs))
    return tuple(
        Correspondence(name, *_mean(found[name]), *_mean(torch.cat(chance[name])))  # in the layers' order
        for name in names
    )


def _features(network: Network, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    some = most_at_once((images.shape[-2], images.shape[-1]))
    parts = [network.features(part, names) for part in images.split(some)]
    return {name: torch.cat([part[name].flatten(1) for part in parts]) for name in names}


def _signs(
    network: Network,
    images: Tensor,
    boxes: Sequence[Box],
    names: Sequence[str],
    whole: Mapping[str, Tensor],
    grey: float,
) -> dict[str, Tensor]:
    hidden = images.clone()
    for picture, (left, top, width, height) in zip(hidden, boxes, strict=True):
        picture[:, top : top + height, left : left + width] = grey
    after = _features(network, hidden, names)
    found = {name: (whole[name] - after[name]).sign().to(torch.int8).cpu() for name in names}
    if faulty := [name for name in names if not after[name].isfinite().all()]:
        raise Diverged(f"layer {faulty[0]!r} answers NaN or infinity: try float32")
    return found


def _pairs(signs: Tensor) -> Tensor:
    """Return the Hamming distance of each pair of rows, as a share."""
    pairs = [(i, j) for i in range(len(signs)) for j in range(i)]
    return torch.tensor([float((signs[i] != signs[j]).double().mean()) for i, j in pairs])


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std(correction=0))


def _elsewhere(box: Box, size: tuple[int, int], generator: torch.Generator | None) -> Box:
    _, _, width, height = box
    device = None if generator is None else generator.device
    left, top = (
        int(torch.randint(0, room + 1, (), generator=generator, device=device))
        for room in (size[1] - width, size[0] - height)
    )
    return left, top, width, height


def draw(found: Sequence[Correspondence], *, title: str = "") -> Image.Image:
    """Draw the mean distance a layer for the part and for chance, with a band of one standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    paper, ink, faint = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (PAPER, INK, FAINT))
    figure = Figure((max(5.0, 0.42 * len(found) + 2), 4), dpi=150, layout="constrained", facecolor=paper)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=paper)
    places = np.arange(len(found))
    for label, colour, middle, spread in (
        ("random parts", faint, [f.chance for f in found], [f.chance_spread for f in found]),
        ("the same part", "#fb8072", [f.part for f in found], [f.spread for f in found]),
    ):
        low, high = np.subtract(middle, spread), np.add(middle, spread)
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(places, middle, color=colour, marker="o", markersize=4, label=label)
    axes.set_xticks(places, [f.layer for f in found], rotation=90, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("mean Hamming distance of signs", color=ink)
    axes.set_title(title, color=ink, fontsize=11)
    axes.tick_params(colors=faint, labelcolor=ink)
    axes.spines[:].set_color(faint)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9, labelcolor=ink)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
