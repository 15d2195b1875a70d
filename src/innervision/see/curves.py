"""Whether a map foretells what a network looks at: insertion and deletion curves, beside those of chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.occlusion import GREY, Curve, deletion, insertion
from innervision.see.target import Target
from innervision.sheets import FAINT, INK, drawn, hexadecimal, plot

SIGNED = ("gradient-x-input", "integrated")
"""Methods whose maps of colours are shares of a score: their signs say for or against."""

STEPS = 32
"""Looks a curve, besides the first."""

_INK = hexadecimal(INK)
_SET3 = (0, 5, 2, 3, 4, 6, 7, 1, 9, 10, 8)  # of matplotlib's pale colours, which are legible on dark paper


@dataclass(frozen=True, eq=False)
class Curves:
    """A target's score as a blurred picture's pixels are uncovered, and as the picture's are covered."""

    insertion: Curve  # a good map's rises at once: much area under it
    deletion: Curve  # a good map's falls at once: little area
    blur: float  # of the picture that insertion begins with: standard deviation in pixels
    value: float  # of the grey that deletion ends with, 0..1: 0 is black
    measure: str  # of the scores: a class's probability, or the share of the answer to the whole picture

    def numbers(self) -> dict[str, Any]:
        """Return them as JSON takes them: what each begins or ends with, its area, and every score."""
        return {
            "measure": self.measure,
            "shares": [round(share, 6) for share in self.insertion.shares],
            "insertion": {"from": f"blur {self.blur:g}", **_numbers(self.insertion)},
            "deletion": {"to": f"value {self.value:g}", **_numbers(self.deletion)},
        }


def _numbers(curve: Curve) -> dict[str, Any]:
    return {"area": round(curve.area, 6), "scores": [round(score, 6) for score in curve.scores]}


def curves(
    network: Network,
    image: Tensor,
    target: Target,
    map: Tensor,
    *,
    steps: int = STEPS,
    blur: float = 5.0,
    value: float = GREY,
) -> Curves:
    """Return both curves of a map (1, h, w), with the areas under them (Petsiuk et al. 2018, "RISE").

    image: (1, 3, h, w), sRGB 0..1. steps: looks a curve, besides the first. blur, value: what insertion
    begins with and deletion ends with; see `insertion` and `deletion`. A map of colours is first made one of
    places by `importance`. Raises Invalid for a map of another size.
    """
    return Curves(
        insertion(network, image, target, map, steps=steps, blur=blur),
        deletion(network, image, target, map, steps=steps, value=value),
        blur,
        value,
        "probability" if target.layer is None else "share of the answer to the whole picture",
    )


def importance(map: Tensor, method: str) -> Tensor:
    """Return how important each pixel is (1, h, w) by a method's map, (1, 3, h, w) or (1, h, w).

    A map of places is as it is, with its signs. Colours of a method that shares out a score are summed; of
    one that gives slopes the length is taken, for a slope's sign says only which way a pixel would have to
    change.
    """
    if map.ndim == 3:
        return map
    if map.ndim != 4:
        raise Invalid(f"a map is (1, 3, h, w) or (1, h, w), not {tuple(map.shape)}")
    return map.sum(1) if method in SIGNED else map.square().sum(1).sqrt()


def chance(image: Tensor, seed: int = 0) -> Tensor:
    """Return a map (1, h, w) that knows nothing: its curves are what others have to do better than."""
    drawn = torch.rand(image.shape[-2:], generator=torch.Generator().manual_seed(seed))
    return drawn[None].to(image.device)


def chart(found: Mapping[str, Curves], *, title: str = "", by_chance: Curves | None = None) -> Image.Image:
    """Draw methods' curves: insertion left, deletion right, each with its area; those of chance dashed."""
    from matplotlib import colormaps

    if not found:
        raise Invalid("a chart needs the curves of at least one method")
    first = next(iter(found.values()))
    halves = (
        ("insertion", f"of the pixels uncovered, on a blur of {first.blur:g} px", "more area is better"),
        ("deletion", f"of the pixels covered by {first.value:g} (0 black, 1 white)", "less area is better"),
    )
    pale = colormaps["Set3"](range(12))
    panels: list[Image.Image] = []
    for name, below, good in halves:
        figure, axes = plot((5, 4.6), f"share {below}", first.measure)
        axes.set_title(f"{title}\n{name}: {good}" if title else f"{name}: {good}", fontsize=9, color=_INK)
        lines: list[tuple[str, Curve, dict[str, Any]]] = [
            (method, getattr(each, name), {"color": pale[_SET3[n % len(_SET3)]], "linewidth": 1.6})
            for n, (method, each) in enumerate(found.items())
        ]
        if by_chance is not None:
            dashed = {"color": hexadecimal(FAINT), "linewidth": 1.3, "linestyle": "--"}
            lines.append(("chance", getattr(by_chance, name), dashed))
        for method, curve, style in lines:
            axes.plot(curve.shares, curve.scores, label=f"{method} {curve.area:.2f}", **style)
        axes.set_xlim(0, 1)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=_INK)
        panels.append(drawn(figure))
    whole = Image.new("RGB", (sum(p.width for p in panels), max(p.height for p in panels)))
    left = 0
    for panel in panels:
        whole.paste(panel, (left, 0))
        left += panel.width
    return whole
