"""Occlusion: what a target loses when a part of the picture is covered; and how well a map foretells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise, product

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.covering import Covered
from innervision.see.target import Target

GREY = 0.5


@dataclass(frozen=True, eq=False)
class Occlusion:
    """What covering each part of a picture did. A pixel has the mean over the windows that cover it."""

    map: Tensor = field(repr=False)  # (1, h, w): how much the target's score fell
    probability: Tensor | None = field(repr=False)  # (1, h, w): how much its probability fell, of a class
    winner: Tensor | None = field(repr=False)  # (rows, columns): the likeliest class under each window
    windows: tuple[tuple[int, int, int, int], ...] = field(repr=False)  # left, top, right, bottom
    score: float
    """What the target answers to the whole picture."""


def occlude(
    network: Network,
    image: Tensor,
    target: Target,
    *,
    patch: int | None = None,
    stride: int | None = None,
    value: float = GREY,
    batch: int | None = None,
) -> Occlusion:
    """Cover a picture (1, 3, h, w), sRGB 0..1, by a square at every place in turn (Zeiler & Fergus 2013).

    patch: the square's side in pixels, by default a seventh of the longer side; stride: of the places, by
    default half of it. value: its grey, 0..1. batch: squares looked at together, by default 16 on 224 x 224
    pixels and up to 128 on fewer. The last square of a row or column may stand over the edge.
    Departure: Zeiler's figure 7 shows the score itself; this is how much it fell, so that what matters is
    bright. Raises Invalid for a square that does not fit.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise Invalid(f"one picture is covered at a time: (1, 3, h, w), not {tuple(image.shape)}")
    h, w = image.shape[-2:]
    side = max(1, round(max(h, w) / 7)) if patch is None else patch
    step = max(1, side // 2) if stride is None else stride
    if batch is None:
        batch = max(1, min(128, 16 * 224**2 // (h * w)))
    if not (1 <= side <= max(h, w) and 1 <= step <= side and batch >= 1):
        raise Invalid(
            f"patch {side}, stride {step}, batch {batch}: the patch can be 1 to {max(h, w)}, the stride 1 to "
            "the patch (so that no pixel is left out), the batch 1 or more"
        )
    tops, lefts = (range(0, -(-max(0, n - side) // step) * step + 1, step) for n in (h, w))
    windows = [(x, y, min(x + side, w), min(y + side, h)) for y, x in product(tops, lefts)]
    looks = Covered(network, image, target, value)
    uncovered = looks.uncovered
    answers, scores = looks.answers(windows, batch)
    fell = target.score(uncovered) - scores
    probability = winner = None
    if target.layer is None and uncovered.ndim == 2:
        likely = answers.softmax(1)
        probability = _spread(target.score(uncovered.softmax(1)) - target.score(likely), windows, (h, w))
        winner = answers.argmax(1).view(len(tops), len(lefts))
    return Occlusion(
        _spread(fell, windows, (h, w)), probability, winner, tuple(windows), float(target.score(uncovered)[0])
    )


def _spread(values: Tensor, windows: list[tuple[int, int, int, int]], size: tuple[int, int]) -> Tensor:
    """Return for each pixel (1, h, w) the mean over the windows that cover it."""
    total = torch.zeros(size, dtype=values.dtype, device=values.device)
    count = torch.zeros_like(total)
    for value, (left, top, right, bottom) in zip(values, windows, strict=True):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    return (total / count)[None]


@dataclass(frozen=True, eq=False)
class Curve:
    """A target's score as pixels go, or come, in the order of a map."""

    shares: tuple[float, ...]  # of the pixels, 0 to 1
    scores: tuple[float, ...]  # a class's probability, else the score over that of the whole picture
    area: float
    """Under the curve, by trapezia: low is good for deletion, high for insertion."""


def deletion(
    network: Network, image: Tensor, target: Target, map: Tensor, *, steps: int = 32, value: float = GREY
) -> Curve:
    """Cover the pixels that a map (1, h, w) holds for important, those first (Petsiuk et al. 2018).

    image: (1, 3, h, w), sRGB 0..1. steps: looks, besides that at the whole picture. Equal values go in the
    order of the picture. value: what covers them, 0 black, 1 white. Departure: the authors set to 0 what
    the network is given, the mean colour of its training pictures; the default is grey.
    """
    return _curve(network, image, torch.full_like(image, value), image, target, map, steps)


def insertion(
    network: Network, image: Tensor, target: Target, map: Tensor, *, steps: int = 32, blur: float = 5.0
) -> Curve:
    """Uncover a blurred picture's pixels, most important first (Petsiuk et al. 2018).

    blur: standard deviation in pixels of a Gaussian of 11x11, as the authors'. The rest is as in `deletion`.
    Departure: at the edge the picture goes on as it ends there; the authors' is surrounded by 0.
    """
    x = torch.arange(-5, 6, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-x.square() / (2 * blur**2))
    kernel = (kernel[:, None] * kernel)[None, None] / kernel.sum().square()
    padded = F.pad(image, (5, 5, 5, 5), mode="replicate")  # zeros would paint a dark frame
    channels = image.shape[1]
    blurred = F.conv2d(padded, kernel.expand(channels, 1, 11, 11), groups=channels)
    return _curve(network, blurred, image, image, target, map, steps)


def _curve(
    network: Network, first: Tensor, then: Tensor, image: Tensor, target: Target, map: Tensor, steps: int
) -> Curve:
    """Go from one picture to another by the pixels of a map, the strongest first."""
    h, w = first.shape[-2:]
    if map.shape != (1, h, w):
        raise Invalid(f"the map is {tuple(map.shape)}, the picture {h}x{w}: give a map (1, {h}, {w})")
    if not 1 <= steps <= h * w:
        raise Invalid(f"steps is {steps}; it can be 1 to the {h * w} pixels")
    order = map.to(first.device).flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    shares = [step / steps for step in range(steps + 1)]
    scores: list[float] = []
    together = max(1, min(64, 8 * 224**2 // (h * w)))
    with torch.no_grad():
        whole = None if target.layer is None else float(target.score(target.of(network, image)))
        for start in range(0, steps + 1, together):
            looked = shares[start : start + together]
            gone = torch.tensor([round(share * h * w) for share in looked], device=rank.device)
            changed = (rank < gone[:, None]).view(-1, 1, h, w)
            answer = target.of(network, torch.where(changed, then, first))
            if whole is None:
                scores += target.score(answer.softmax(1)).tolist()
            else:
                scores += (target.score(answer) / (whole or 1.0)).tolist()
    area = sum((a + b) / 2 for a, b in pairwise(scores)) / steps
    return Curve(tuple(shares), tuple(scores), area)
