"""A folder's report: what was measured of a classifier, as numbers, as pictures, and as one page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from innervision.files import atomic
from innervision.learn import calibrate, figures, pictures
from innervision.learn.data import DataSet, relabel
from innervision.learn.evaluate import Evaluation, check, evaluate
from innervision.learn.figures import DARK, LIGHT, Paper
from innervision.network import Network

_CONFUSED = 8  # pairs of classes that are listed


@dataclass(frozen=True)
class _Drawn:
    """A figure on light and on dark paper."""

    title: str
    text: str
    file: str
    dark: Image.Image
    light: Image.Image
    wide: bool = False

    @property
    def sources(self) -> tuple[str, str]:
        return _uri(self.light), _uri(self.dark)


def write(
    folder: Path | str,
    network: Network,
    data: DataSet,
    logits: Tensor,
    events: Iterable[Mapping[str, Any]] = (),
    *,
    temperature: float | None = None,
    views: Mapping[int, Tensor] | None = None,
    facts: Mapping[str, object] | None = None,
) -> Evaluation:
    """Write evaluation.json, the figures as PNG, and index.html, which stands alone; return the numbers.

    logits: the network's on the data, of the plain picture. events: of its training, for the curves (see
    `figures.series_of`). temperature: found on a held-out part; None where there is none. views: number of
    views -> logits, for those whose accuracy is to stand apart. facts: further rows for the page's table.
    Raises Invalid where network, data and logits do not fit together.
    """
    data = relabel(data, network.classes) if network.classes else data
    found = evaluate(logits, data.labels, data.classes, temperature=temperature or 1.0)
    apart = {n: evaluate(more, data.labels).accuracy for n, more in (views or {}).items()}
    logits, labels = check(logits, data.labels)
    before = calibrate.reliability(logits, labels)
    after = None if temperature is None else calibrate.reliability(logits / temperature, labels)
    series = figures.series_of(events)
    drawn = _draw(network, data, logits, found, (before, after), series)

    folder = Path(folder)
    record = {
        "network": network.name,
        "data": data.name,
        "data_sha256": data.sha256,
        **found.record(),
        "views_accuracy": {str(n): share for n, share in apart.items()},
        "reliability": vars(before),
        "reliability_calibrated": None if after is None else vars(after),
    }
    with atomic(folder / "evaluation.json") as draft:
        draft.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for one in drawn:
        with atomic(folder / one.file) as draft:
            one.dark.save(draft)
    rows = {"Network": network.name, "Data": data.name, **(facts or {})}
    rows |= {"Temperature": calibrate.remark(found.temperature)} if temperature is not None else {}
    with atomic(folder / "index.html") as draft:
        draft.write_text(_page(found, apart, drawn, rows, scaled=after is not None), encoding="utf-8")
    return found


def _draw(
    network: Network,
    data: DataSet,
    logits: Tensor,
    found: Evaluation,
    bins: tuple[calibrate.Reliability, calibrate.Reliability | None],
    series: Mapping[str, Any],
) -> list[_Drawn]:
    made: list[_Drawn] = []
    before, after = bins

    def add(
        title: str, text: str, file: str, draw: Callable[[Paper], Image.Image | None], *, wide: bool = False
    ) -> None:
        dark, light = draw(DARK), draw(LIGHT)
        if dark is not None and light is not None:
            made.append(_Drawn(title, text, file, dark, light, wide))

    if series:
        text = "What was measured over the epochs of training."
        add("Training", text, "curves.png", lambda paper: figures.curves(series, paper), wide=True)
    text = (
        "Right answers on the diagonal; mistakes by their share of the true class, on a scale of their own."
    )
    add("Confusion", text, "confusion.png", lambda paper: figures.confusion(found, paper))
    text = "How many of each class's pictures are recognised, the hardest class first."
    add("Classes", text, "per_class.png", lambda paper: figures.per_class(found, paper))
    text = (
        "Of the predictions made with a given confidence, how many are right. On the dashed line the network "
        "is as sure as it is right. ECE, the expected calibration error, is the mean gap in 15 bins (Guo et "
        "al. 2017)."
    )
    add(
        "Reliability",
        text,
        "reliability.png",
        lambda paper: figures.reliability(before, after, paper, temperature=found.temperature),
        wide=after is not None,
    )
    text = "The mistakes made with most confidence: what the picture was taken for, and how it is labelled."
    scaled = logits / found.temperature
    add(
        "Most confident mistakes",
        text,
        "mistakes.png",
        lambda paper: pictures.mistakes(data, scaled, paper),
        wide=True,
    )
    text = "The first layer's filters, grey where a weight is 0; below each, the end of its own scale."
    add("First filters", text, "filters.png", lambda paper: pictures.filters(network, paper), wide=True)
    return made


def _uri(image: Image.Image) -> str:
    """Return a picture as the page holds it: lossless WebP, of which a browser needs no file."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _page(
    found: Evaluation,
    apart: Mapping[int, float],
    drawn: list[_Drawn],
    rows: Mapping[str, object],
    *,
    scaled: bool,
) -> str:
    import jinja2

    source = resources.files("innervision.learn").joinpath("report.html.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    share = "{:.2%}".format
    numbers = [("accuracy", share(found.accuracy).replace("%", " %"))]
    numbers += [(f"accuracy, {n} views", share(one).replace("%", " %")) for n, one in apart.items()]
    if found.top5 is not None:
        numbers.append(("among the first five", share(found.top5).replace("%", " %")))
    numbers.append(("loss", f"{found.loss:.4f}"))
    numbers.append(("ECE", share(found.ece).replace("%", " %")))
    if scaled:
        numbers.append(
            (f"ECE at temperature {found.temperature:.3g}", share(found.ece_calibrated).replace("%", " %"))
        )
    table = [(name, str(value)) for name, value in rows.items() if str(value)]
    table.append(("Pictures", f"{found.n:,}"))
    return template.render(
        title=f"{rows['Network']} on {rows['Data']}",
        numbers=numbers,
        rows=table,
        figures=drawn,
        confused=confused(found, _CONFUSED),
    )


def confused(found: Evaluation, most: int) -> list[tuple[str, str, int, float]]:
    """Return (true, predicted, count, share of the true class) of the pairs most often confused."""
    counts = found.confusion.copy()
    totals = counts.sum(1)
    counts[range(len(counts)), range(len(counts))] = 0
    order = counts.ravel().argsort(kind="stable")[::-1][:most]
    pairs = [divmod(int(place), len(counts)) for place in order]
    return [
        (
            found.classes[true],
            found.classes[taken],
            int(counts[true, taken]),
            counts[true, taken] / totals[true],
        )
        for true, taken in pairs
        if counts[true, taken]
    ]
