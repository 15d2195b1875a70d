"""Pictures of results: contact sheets, single-channel maps in colour, curves over the steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from innervision.errors import Invalid
from innervision.images import fit, to_bytes
from innervision.shapes import Float

Colour = str | tuple[int, int, int]

PAPER = (17, 17, 20)  # darker than any painting: it frames without joining in
INK, FAINT = (236, 234, 228), (142, 140, 150)  # on dark paper
DARK_INK, DARK_FAINT = (28, 28, 32), (104, 102, 110)  # on light paper

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_TICK = 32  # signs of a name at an axis: more would leave no room for what is drawn


def sheet(
    images: Sequence[Float[Tensor, "1 3 h w"] | Image.Image],  # sRGB 0..1, of any sizes
    *,
    labels: Sequence[str] = (),
    columns: int | None = None,
    tile: int = 240,
    gap: int = 8,
    title: str | None = None,
    background: Colour = PAPER,
    smooth: bool = False,
) -> Image.Image:
    """Draw the images in rows, each within `tile` x `tile` pixels at its own aspect, its label below.

    columns: by default one row of up to four, then what brings the sheet nearest to 3:2. A picture enlarged
    twice or more shows its pixels as squares, unless `smooth`; a transparent one lies on the background. A
    label may have several lines, the first the brightest; one that is too long ends in "…". Raises `Invalid`
    for no images, more labels than images, or sizes below 1.
    """
    if not images:
        raise Invalid("a sheet needs at least one image")
    if len(labels) > len(images):
        raise Invalid(f"{len(labels)} labels for {len(images)} images: give one an image, or fewer")
    if min(tile, 1 if columns is None else columns) < 1 or gap < 0:
        raise Invalid(f"tile is {tile}, columns {columns}, gap {gap}; they must be at least 1, 1 and 0")
    paper = ImageColor.getrgb(background)[:3] if isinstance(background, str) else background
    light = sum(paper) > 3 * 128
    ink, faint = (DARK_INK, DARK_FAINT) if light else (INK, FAINT)
    size, heading_size = max(11, tile // 17), max(16, tile // 10)
    small, heading = font(size), font(heading_size)

    tiles = [_tile(image, tile, paper, smooth) for image in images]
    width, height = max(t.width for t in tiles), max(t.height for t in tiles)
    line = math.ceil(1.4 * size)
    captions = [[_shorten(text, small, width) for text in label.splitlines()] for label in labels]
    captions += [[]] * (len(tiles) - len(captions))
    cell = width + gap, height + gap + bool(labels) * line
    columns = min(columns or _columns(len(tiles), *cell), len(tiles))
    rows = [range(start, min(start + columns, len(tiles))) for start in range(0, len(tiles), columns)]
    heights = [max(tiles[n].height for n in row) for row in rows]
    lines = [max(len(captions[n]) for n in row) for row in rows]
    below = [line * count + gap * bool(count) for count in lines]

    margin = 2 * gap
    top = margin + (0 if title is None else math.ceil(1.7 * heading_size))
    across = 2 * margin + columns * (width + gap) - gap
    page = Image.new("RGB", (across, top + sum(heights) + sum(below) + gap * (len(rows) - 1) + margin), paper)
    draw = ImageDraw.Draw(page)
    if title is not None:
        draw.text((margin, margin), _shorten(title, heading, across - 2 * margin), ink, heading)
    for row, tall, extra in zip(rows, heights, below, strict=True):
        for place, n in enumerate(row):
            left = margin + place * (width + gap)
            # pictures stand on one line, their captions under it
            page.paste(tiles[n], (left + (width - tiles[n].width) // 2, top + tall - tiles[n].height))
            for number, text in enumerate(captions[n]):
                at = (left + width / 2, top + tall + gap / 2 + number * line)
                draw.text(at, text, faint if number else ink, small, anchor="ma")
        top += tall + extra + gap
    return page


def heat(
    values: Float[Tensor, "h w"],
    *,
    centred: bool = False,
    low: float | None = None,
    high: float | None = None,
) -> Image.Image:
    """Colour a map from black at `low` over violet to pale yellow at `high`; centred: blue, white at 0, red.

    The colour maps are matplotlib's "magma" and "RdBu_r". By default `low` and `high` are the least and the
    greatest value; centred, both ends lie as far from 0 as the farther of the two. Values beyond are shown as
    the ends, infinite ones and NaN in grey. A map that has one value is all `low`, or white when centred.
    """
    import matplotlib  # slow to import: only where it is needed

    if values.ndim != 2:
        raise Invalid(f"a map has the shape (height, width), not {tuple(values.shape)}")
    numbers = values.detach().cpu().double().numpy()
    finite = np.isfinite(numbers)
    least = numbers.min(initial=np.inf, where=finite) if low is None else low
    most = numbers.max(initial=-np.inf, where=finite) if high is None else high
    if centred:
        most = max(abs(least), abs(most))
        least = -most
    if low is not None and high is not None and low >= high:
        raise Invalid(f"low is {low} and high {high}; low must be less than high")
    span = most - least
    even = np.full(numbers.shape, 0.5 if centred else 0.0)
    scaled = (numbers - least) / span if span > 0 else even
    coloured = matplotlib.colormaps["RdBu_r" if centred else "magma"](scaled, bytes=True)[..., :3]
    return Image.fromarray(np.where(finite[..., None], coloured, np.uint8(128)))


def curve(
    counts: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    *,
    xlabel: str = "step",
    ylabel: str = "weighted value",
    marks: Mapping[int, str] = MappingProxyType({}),
) -> Image.Image:
    """Draw every line over the counts on a logarithmic scale; what is infinite or not above 0 leaves a gap.

    The scale ends five powers of ten below and three above the median of each count's greatest value: what
    starts at 0, or leaps for one step, does not press the others together. A line without a value above 0 is
    left out. marks: count -> what begins there, said above an upright line. Raises `Invalid` for a line with
    more or fewer values than counts.
    """
    from matplotlib import colormaps

    for name, values in lines.items():
        if len(values) != len(counts):
            raise Invalid(f"{name!r} has {len(values)} values for {len(counts)} counts: give one a count")
    shown = {name: [v if 0 < v < math.inf else math.nan for v in values] for name, values in lines.items()}
    shown = {name: values for name, values in shown.items() if any(v > 0 for v in values)}
    figure, axes = plot((5, 4), xlabel, ylabel)
    axes.set_prop_cycle(color=colormaps["Set3"](range(12)))  # pale: legible on dark paper
    for name, values in shown.items():
        axes.plot(counts, values, label=name, linewidth=1.5)
    for count, text in marks.items():
        axes.axvline(count, color=hexadecimal(FAINT), linewidth=1, linestyle=(0, (3, 3)), zorder=0)
        above = {"xycoords": ("data", "axes fraction"), "xytext": (2, 3), "textcoords": "offset points"}
        axes.annotate(text, (count, 1), fontsize=8, color=hexadecimal(FAINT), **above)
    if shown:
        axes.set_yscale("log")
        columns = ([v for v in column if v > 0] for column in zip(*shown.values(), strict=True))
        found = [column for column in columns if column]
        middle = statistics.median(map(max, found))
        within = [v for column in found for v in column if 1e-5 <= v / middle <= 1e3]
        axes.set_ylim(min(within) / 1.5, max(within) * 1.5)
        figure.legend(
            loc="outside lower center", ncols=3, frameon=False, fontsize=9, labelcolor=hexadecimal(INK)
        )
    return drawn(figure)


def plot(size: tuple[float, float], xlabel: str, ylabel: str) -> tuple[Any, Any]:
    """Return matplotlib's Figure, of so many inches on dark paper, and its Axes, to be filled and `drawn`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    paper, ink, faint = map(hexadecimal, (PAPER, INK, FAINT))
    figure = Figure(size, dpi=200, layout="constrained", facecolor=paper)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor=paper, xlabel=xlabel, ylabel=ylabel)
    axes.tick_params(which="both", colors=faint, labelcolor=ink)
    axes.spines[:].set_color(faint)
    axes.spines[["top", "right"]].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink)
    return figure, axes


def drawn(figure: Any) -> Image.Image:
    """Return a Figure as a picture."""
    figure.canvas.draw()
    return Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")


def tick(name: str) -> str:
    """Return a name as an axis bears it: of a long one the end, which tells more than its beginning."""
    return name if len(name) <= _TICK else "…" + name[1 - _TICK :]


def hexadecimal(colour: tuple[int, int, int]) -> str:
    """Return a colour as matplotlib and HTML write it."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _tile(image: Tensor | Image.Image, side: int, paper: tuple[int, ...], smooth: bool) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(to_bytes(image))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, (*paper, 255))
        picture = Image.alpha_composite(ground, picture)
    height, width = fit(picture.height, picture.width, longest=side)
    squares = width >= 2 * picture.width and not smooth
    how = Image.Resampling.NEAREST if squares else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((width, height), how)


@lru_cache(16)
def font(size: int) -> Font:
    """Return the font of labels, which is matplotlib's: it has "é", "×" and "→".

    Pillow's own is set in whole pixels, and a space of it at 11 pixels is 2 wide: words run together.
    """
    import matplotlib  # slow to import: only where it is needed

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _columns(count: int, width: int, height: int) -> int:
    if count <= 4:
        return count

    def off(columns: int) -> float:
        return abs(math.log(columns * width / (math.ceil(count / columns) * height) / 1.5))

    return min(range(1, count + 1), key=off)


def _shorten(text: str, font: Font, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
