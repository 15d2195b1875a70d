"""How alike layers are: linear centred kernel alignment between all layers of one or two networks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innervision.errors import Diverged, Invalid
from innervision.network import Network
from innervision.see.pictures import Pictures, as_pictures, batch
from innervision.see.units import most_at_once, seen_by_default
from innervision.sheets import FAINT, INK, PAPER, tick

LEAST = 4  # pictures that the unbiased estimate needs at once

ENOUGH = 64
"""Pictures from which on the unbiased estimate is sound: 95 % of numbers lie within 0.07 of those of 2,000.

With 32, 16 and 8 that is 0.14, 0.22 and 0.49, with 256 it is 0.04 (7 layers of cifar10-fast, CIFAR-10's test
pictures, 12 draws each).
"""


@dataclass(frozen=True, eq=False)
class Similarity:
    """How alike the layers are by what has been seen so far; the whole answer when done == of."""

    rows: tuple[str, ...]  # the first network's layers
    columns: tuple[str, ...]  # the second's, or the first's again
    matrix: NDArray[np.float64]  # (rows columns); NaN where a layer answers the same to every picture
    done: int  # pictures seen
    of: int
    skipped: tuple[tuple[str, str], ...] = ()  # label and why: pictures that could not be read
    noise: float = 0.0
    """Standard deviation, about 0, of the unbiased estimate for layers that have nothing in common."""
    chance: NDArray[np.float64] | None = None
    """(rows columns) of the biased estimate: its mean, were one layer shown the pictures in another order."""


def cka(
    network: Network,
    pictures: Pictures | NDArray[Any] | Tensor,
    layers: Iterable[str] | None = None,
    *,
    other: Network | None = None,
    other_layers: Iterable[str] | None = None,
    batch_size: int = 64,
    biased: bool = False,
) -> Iterator[Similarity]:
    """Compare all layers with all, yielding a Similarity after each batch of pictures.

    A layer's features X are its whole answer to a picture, flattened; K = XXᵀ over a batch. CKA(K, L) =
    HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)) (Kornblith et al. 2019, eqs. 3, 4 and the linear kernel of 5.1).
    By default HSIC is the unbiased estimate (Song et al. 2012, eq. 5), each of the three averaged over the
    batches before they are divided (Nguyen et al. 2021, eqs. 2 and 3): independent of the batch size but
    for noise. It may leave 0..1 a little. biased: HSIC = tr(KHLH)/(n-1)² over all pictures at once, as
    Kornblith et al. have it; near 1 for any two wide layers where there are few pictures, and all features
    of all pictures are held at once. Both are exact in float64 from the features on.

    layers, other_layers: by default those of `units.seen_by_default`. Departure from Nguyen et al.: batches
    are made as equal as can be instead of one short one at the end, in the pictures' order, and the pass is
    made once. Raises Invalid for fewer than four pictures (two, if biased) or unknown layers.
    """
    source = as_pictures(pictures)
    least = 2 if biased else LEAST
    if batch_size < least:
        raise Invalid(f"batch_size is {batch_size}; it must be at least {least}")
    names = _layers(network, layers)
    second = network if other is None and other_layers is not None else other
    others = names if second is None else _layers(second, other_layers)
    if len(source) < least:
        raise Invalid(f"{len(source)} pictures are too few to compare layers by: give {least} or more")
    count = 1 if biased else max(1, min(math.ceil(len(source) / batch_size), len(source) // LEAST))
    edges = [len(source) * part // count for part in range(count + 1)]
    return _compare((network, names), None if second is None else (second, others), source, edges, biased)


def _layers(network: Network, layers: Iterable[str] | None) -> tuple[str, ...]:
    names = seen_by_default(network) if layers is None else tuple(dict.fromkeys(network.check(layers)))
    if not names:
        raise Invalid(f"{network.name} has neither ReLU nor Conv2d modules: name some of its layers")
    return names


def _compare(
    one: tuple[Network, tuple[str, ...]],
    two: tuple[Network, tuple[str, ...]] | None,
    source: Pictures,
    edges: Sequence[int],
    biased: bool,
) -> Iterator[Similarity]:
    sums: list[Tensor] = []
    skipped: tuple[tuple[str, str], ...] = ()
    rows, columns = one[1], (two or one)[1]
    counted, spread, chance = 0, 0.0, None
    for first, last in pairwise(edges):
        image, good, bad = batch(source, range(first, last))
        skipped += tuple((source.label(number), why) for number, why in bad)
        if len(good) >= (2 if biased else LEAST):  # else too many could not be read
            mine = centred(grams(*one, image), biased=biased)
            theirs = mine if two is None else centred(grams(*two, image), biased=biased)
            found = [_products(mine, theirs), _own(mine), _own(theirs)]
            sums = [before + now for before, now in zip(sums, found, strict=True)] if sums else found
            counted += 1
            n = len(good)
            # of products of two U-centred matrices over all orders of the pictures of one of them
            spread += 0.0 if biased else 2 / (n * (n - 3))
            chance = _by_chance(mine, theirs) if biased else None
        if counted:
            cross, left, right = sums
            # a variance that is estimated below 0 is none: NaN
            matrix = cross / (left.clamp(min=0)[:, None] * right.clamp(min=0)).sqrt()
            matrix = matrix.where(matrix.isfinite(), torch.nan)
            noise = math.sqrt(spread) / counted
            yield Similarity(rows, columns, matrix.numpy(), last, edges[-1], skipped, noise, chance)
    if not counted:
        raise Invalid(f"too few of {edges[-1]} pictures could be read to compare layers by")


def grams(network: Network, layers: Sequence[str], image: Tensor, *, room: int = 2**29) -> Tensor:
    """Return each layer's Gram matrix XXᵀ over pictures (n, 3, h, w): (layers, n, n), float64, on the CPU.

    The features' mean over the pictures is taken off first, which changes no HSIC and keeps digits. room:
    bytes of features to hold at once. Where those of all layers are more, the pictures are looked at several
    times, by a few layers each, which is little more work: shallow layers are had by a short pass.
    Raises Diverged where a layer answers NaN or infinity.
    """
    found: dict[str, Tensor] = {}
    with torch.inference_mode(False), torch.no_grad():
        for group in _groups(network, layers, image, room):
            kept: dict[str, list[Tensor]] = {name: [] for name in group}
            for part in image.split(most_at_once((image.shape[-2], image.shape[-1]))):
                for name, answer in network.features(part.to(network.device), group).items():
                    kept[name].append(answer.flatten(1))
            for name in group:
                found[name] = _gram(torch.cat(kept.pop(name)), name)
    return torch.stack([found[name] for name in layers])


def _groups(network: Network, layers: Sequence[str], image: Tensor, room: int) -> list[list[str]]:
    """Part the layers so that the features of a group fit into the room, or are one layer's."""
    sizes = {
        name: answer.numel() * answer.element_size() * len(image)
        for name, answer in network.features(image[:1].to(network.device), layers).items()
    }
    groups: list[list[str]] = []
    full = 0
    for name in layers:
        if not groups or full + sizes[name] > room:
            groups.append([])
            full = 0
        groups[-1].append(name)
        full += sizes[name]
    return groups


def _gram(features: Tensor, name: str) -> Tensor:
    """Return XXᵀ of features (n, p), less their mean, a block of columns at a time."""
    gram = torch.zeros(len(features), len(features), dtype=torch.float64)
    whole = 0.0
    for block in features.split(2**18, 1):
        columns = (block.cpu() if block.device.type == "mps" else block).double()
        whole += float(columns.square().sum())
        columns -= columns.mean(0)
        gram += (columns @ columns.T).cpu()
    if not gram.isfinite().all():
        raise Diverged(f"layer {name!r} answers NaN or infinity: try float32")
    # the same answer to every picture, but for rounding
    return gram if float(gram.trace()) > 1e-24 * whole else torch.zeros_like(gram)


def centred(gram: Tensor, *, biased: bool = False) -> Tensor:
    """Centre Gram matrices (..., n, n) so that HSIC(K, L) is the scaled sum of their products.

    biased: HKH, with HSIC = ⟨HKH, HLH⟩ / (n-1)². Else the U-centred matrix of Székely & Rizzo (2014,
    eq. 2.5) of K without its diagonal: the sum of products over n(n-3) is Song's eq. 5, and needs no
    matrix product a pair. Scaled by the root of those divisors.
    """
    n = gram.shape[-1]
    if biased:
        rows = gram.mean(-1, keepdim=True)
        return (gram - rows - rows.mT + rows.mean(-2, keepdim=True)) / (n - 1)
    if n < LEAST:
        raise Invalid(f"{n} pictures are too few for the unbiased estimate: give {LEAST} or more")
    off = gram - torch.diag_embed(gram.diagonal(dim1=-2, dim2=-1))
    rows = off.sum(-1, keepdim=True)
    whole = rows.sum(-2, keepdim=True)
    off = off - rows / (n - 2) - rows.mT / (n - 2) + whole / ((n - 1) * (n - 2))
    off = off - torch.diag_embed(off.diagonal(dim1=-2, dim2=-1))
    return off / math.sqrt(n * (n - 3))


def _products(mine: Tensor, theirs: Tensor) -> Tensor:
    return mine.flatten(1) @ theirs.flatten(1).T


def _own(mine: Tensor) -> Tensor:
    return mine.flatten(1).square().sum(1)


def _by_chance(mine: Tensor, theirs: Tensor) -> NDArray[np.float64]:
    """Return the mean biased CKA over all orders of one side's pictures: tr K tr L / ((n-1) |K| |L|).

    For the mean of a centred Gram matrix over all orders is tr L / (n-1) times the centring itself.
    """
    own, other = (
        each.diagonal(dim1=-2, dim2=-1).sum(-1) / each.flatten(1).norm(dim=1) for each in (mine, theirs)
    )
    return (own[:, None] * other / (mine.shape[-1] - 1)).numpy()


def heat_map(found: Similarity, *, title: str = "", names: tuple[str, str] = ("", "")) -> Image.Image:
    """Draw a Similarity: black at 0, pale at 1, the first network's layers upwards, numbers where they fit.

    names: of the two networks, for the axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    paper, ink, faint = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (PAPER, INK, FAINT))
    down, across = found.matrix.shape
    side = 0.42 if max(down, across) <= 24 else 10 / max(down, across)
    figure = Figure((across * side + 2.4, down * side + 1.8), dpi=160, layout="constrained", facecolor=paper)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="#808080")  # NaN shows grey
    drawn = axes.imshow(found.matrix, cmap="magma", vmin=0, vmax=1, origin="lower", interpolation="nearest")
    size = 9 if max(down, across) <= 24 else max(4.0, 72 * side * 0.8)
    axes.set_xticks(range(across), list(map(tick, found.columns)), rotation=90, fontsize=size)
    axes.set_yticks(range(down), list(map(tick, found.rows)), fontsize=size)
    if max(down, across) <= 24:
        for row, column in np.ndindex(down, across):
            value = found.matrix[row, column]
            shade = "#101014" if value > 0.6 else ink
            text = "–" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=shade)
    axes.set_ylabel(names[0], color=ink)
    axes.set_xlabel(names[1], color=ink)
    axes.set_title(title, color=ink, fontsize=11)
    bar = figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.03)
    bar.outline.set_edgecolor(faint)  # pyright: ignore[reportCallIssue]
    bar.ax.tick_params(colors=faint, labelcolor=ink, labelsize=8)
    axes.tick_params(colors=faint, labelcolor=ink, length=0)
    axes.spines[:].set_visible(False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
