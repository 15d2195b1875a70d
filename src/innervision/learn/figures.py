"""What was measured of a classifier, drawn: confusion, classes, reliability, curves over the epochs.

Each figure is drawn on dark paper, as the other pictures of this package are, or on light paper.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from innervision import sheets
from innervision.learn.calibrate import Reliability
from innervision.learn.evaluate import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NUMBERS = 20  # classes up to which a confusion's counts are written out
_NAMES = 50  # classes up to which they are named


@dataclass(frozen=True)
class Paper:
    """The colours of a figure: good is what is right, bad what is wrong."""

    ground: str
    ink: str
    faint: str
    good: str
    bad: str
    lines: tuple[str, ...]


DARK = Paper(
    *(sheets.hexadecimal(colour) for colour in (sheets.PAPER, sheets.INK, sheets.FAINT)),
    good="#3f9bb5",
    bad="#e8804a",
    lines=("#7cc6dd", "#f0a377", "#b9b4e8", "#9fcf9a", "#e8a0bf"),
)
LIGHT = Paper(
    *("#ffffff", sheets.hexadecimal(sheets.DARK_INK), sheets.hexadecimal(sheets.DARK_FAINT)),
    good="#1f7a94",
    bad="#c2551b",
    lines=("#1f7a94", "#c2551b", "#5b52b5", "#3f7d3a", "#a33b6b"),
)


def confusion(found: Evaluation, paper: Paper = DARK) -> Image.Image:
    """Draw true classes down, predicted ones across: right answers on one scale, mistakes on their own.

    A cell's colour is its share of the true class. Beside 93 % on the diagonal all mistakes would look
    alike: they go from the paper to the greatest of them. Counts are written for up to 20 classes.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    count = len(found.classes)
    share = found.confusion / np.maximum(found.confusion.sum(1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)
    most = max(float(share[~right].max(initial=0.0)), 1e-9)
    good, bad = (
        LinearSegmentedColormap.from_list(end, [paper.ground, end]) for end in (paper.good, paper.bad)
    )
    cells = np.where(right[..., None], good(share)[..., :3], bad(share / most)[..., :3])
    side = 2.2 + 0.36 * min(count, _NUMBERS) + 0.04 * max(0, min(count, 100) - _NUMBERS)
    figure, axes = _figure(paper, (side, side * 0.96))
    axes.imshow(cells, interpolation="nearest")
    if count <= _NUMBERS:
        for (row, column), number in np.ndenumerate(found.confusion):
            if number:
                bright = float(np.dot(to_rgb(cells[row, column]), (0.299, 0.587, 0.114))) > 0.5
                ink = "#1c1c20" if bright else "#ecebe4"
                axes.text(column, row, f"{number}", ha="center", va="center", color=ink, fontsize=8)
    if count <= _NAMES:
        axes.set_xticks(range(count), found.classes, rotation=90 if count > 5 else 0)
        axes.set_yticks(range(count), found.classes)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_fontsize(9 if count <= _NUMBERS else 6)
    axes.set(xlabel="predicted", ylabel="true")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return sheets.drawn(figure)


def per_class(found: Evaluation, paper: Paper = DARK, *, most: int = 50) -> Image.Image:
    """Draw each class's accuracy as a bar, the least accurate first; of many classes the `most` least."""
    have = [
        (share, name) for share, name in zip(found.per_class, found.classes, strict=True) if share is not None
    ]
    have = sorted(have)[:most]
    figure, axes = _figure(paper, (5.6, 0.9 + 0.26 * len(have)))
    values = [100 * share for share, _ in have]
    axes.barh(range(len(have)), values, color=paper.good, height=0.72)
    axes.axvline(100 * found.accuracy, color=paper.bad, linewidth=1.2, linestyle=(0, (4, 3)), zorder=3)
    axes.set_yticks(range(len(have)), [name for _, name in have], fontsize=9)
    axes.invert_yaxis()
    axes.set_ylim(len(have) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    for row, value in enumerate(values):
        number = axes.text(
            value + 1.2, row, f"{value:.1f}", va="center", fontsize=8, color=paper.ink, zorder=4
        )
        number.set_bbox({"facecolor": paper.ground, "edgecolor": "none", "pad": 0.6})  # over the dashed line
    axes.set_xlabel(f"accuracy in %; all together {100 * found.accuracy:.2f} (dashed)")
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    return sheets.drawn(figure)


def reliability(
    before: Reliability, after: Reliability | None = None, paper: Paper = DARK, *, temperature: float = 1.0
) -> Image.Image:
    """Draw accuracy over confidence, with the share of pictures in each bin below; before and after scaling.

    On the dashed line a network is as sure as it is right; below it, too sure.
    """
    panels = [("as trained", before)]
    if after is not None:
        panels.append((f"temperature {temperature:.3g}", after))
    figure, first = _figure(paper, (5.6 * len(panels), 5.0), rows=2, columns=len(panels), heights=(4, 1))
    grid = np.array(first, dtype=object).reshape(2, len(panels))
    for number, (name, one) in enumerate(panels):
        axes, below = grid[0, number], grid[1, number]
        width = 1 / len(one.counts)
        middles = (np.arange(len(one.counts)) + 0.5) * width
        some = np.array(one.counts) > 0
        accuracy, sure = np.array(one.accuracy), np.array(one.confidence)
        both = np.minimum(accuracy, sure)
        for height, bottom, colour, label in (
            (both, np.zeros_like(both), paper.good, "accuracy"),
            (accuracy - both, both, paper.lines[2], "accuracy beyond the confidence"),
            (sure - both, both, paper.bad, "confidence beyond the accuracy"),
        ):
            stacked = {"bottom": bottom[some], "color": colour, "label": label}
            axes.bar(middles[some], height[some], width * 0.92, **stacked)
        axes.plot((0, 1), (0, 1), color=paper.faint, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.set_title(f"{name}: ECE {100 * one.ece:.2f} %", fontsize=10, color=paper.ink)
        below.bar(middles, np.array(one.counts) / sum(one.counts), width * 0.92, color=paper.faint)
        below.set(xlim=(0, 1), xlabel="confidence", ylim=(0, None))
        if number == 0:
            axes.set_ylabel("accuracy")
            below.set_ylabel("share")
            axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=paper.ink)
    return sheets.drawn(figure)


def curves(
    series: Mapping[str, Mapping[str, tuple[list[float], list[float]]]], paper: Paper = DARK
) -> Image.Image | None:
    """Draw each group of lines (see `series_of`) in a panel of its own, over the epochs.

    A line needs two points: None where none has, as after a single epoch.
    """
    long = {
        group: {name: points for name, points in lines.items() if len(points[0]) > 1}
        for group, lines in series.items()
    }
    series = {group: lines for group, lines in long.items() if lines}
    if not series:
        return None
    figure, first = _figure(paper, (4.2 * len(series), 3.4), columns=len(series))
    for axes, (group, lines) in zip(
        np.atleast_1d(np.array(first, dtype=object)), series.items(), strict=True
    ):
        axes.set_prop_cycle(color=paper.lines)
        for name, (x, y) in lines.items():
            axes.plot(x, y, label=name, linewidth=1.6, marker="o" if len(x) < 3 else None, markersize=4)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch")
        axes.set_title(group, fontsize=10, color=paper.ink)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=paper.ink)
    return sheets.drawn(figure)


def series_of(events: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """Sort the numbers of a training's events into groups: loss, accuracy and learning rate, over epochs.

    Whatever event has an "epoch" counts; a key's last word tells its group, its first words its line:
    "validation_accuracy" is the line "validation" of "accuracy". Several events of one epoch give their mean.
    """
    groups = {"loss": "loss", "accuracy": "accuracy", "lr": "learning rate"}
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for event in events:
        epoch = event.get("epoch")
        if not isinstance(epoch, int | float):
            continue
        for key, value in event.items():
            line, _, last = key.rpartition("_")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if last in groups and number and math.isfinite(value):
                lines = found.setdefault(groups[last], {}).setdefault(line or "training", {})
                lines.setdefault(float(epoch), []).append(float(value))
    return {
        group: {
            line: ([*sorted(points)], [sum(points[x]) / len(points[x]) for x in sorted(points)])
            for line, points in found[group].items()
        }
        for group in groups.values()
        if group in found
    }


def _figure(
    paper: Paper,
    size: tuple[float, float],
    *,
    rows: int = 1,
    columns: int = 1,
    heights: Sequence[float] | None = None,
) -> tuple[Figure, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    figure = Figure(size, dpi=160, layout="constrained", facecolor=paper.ground)
    FigureCanvasAgg(figure)
    made: Any = figure.subplots(rows, columns, height_ratios=heights)
    every: Iterable[Axes] = np.atleast_1d(np.array(made, dtype=object)).ravel()
    for axes in every:
        axes.set_facecolor(paper.ground)
        axes.tick_params(which="both", colors=paper.faint, labelcolor=paper.ink, labelsize=8)
        axes.spines[:].set_color(paper.faint)
        axes.spines[["top", "right"]].set_visible(False)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(paper.ink)
            label.set_fontsize(9)
    return figure, made
