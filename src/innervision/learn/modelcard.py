"""The page that comes with a trained network: how good it is, how it was trained, what it is for."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from innervision import models
from innervision.errors import Invalid
from innervision.files import atomic
from innervision.learn.evaluate import Evaluation
from innervision.learn.figures import series_of

_ROWS = 12  # of the training log
_COLUMNS = 20  # classes up to which the confusion is written out


def write(
    folder: Path | str,
    found: Evaluation,
    *,
    data: str,
    use: str,
    limits: str,
    licence: str,
    seeds: Mapping[int, float] | None = None,
    views: Mapping[int, float] | None = None,
    training: Mapping[str, object] | None = None,
    events: Iterable[Mapping[str, Any]] = (),
) -> Path:
    """Write README.md into the folder of a trained network (see `models`), from what was measured of it.

    found: on the test part. data: what it was trained and measured on, with its source. use, limits: what it
    is for, and what it is not. licence: of weights and data. seeds: seed -> test accuracy of every training
    by this recipe, this one among them. views: number of views -> accuracy. training: rows on how it was
    trained (recipe, epochs, hardware, time). events: of its training, for the log.
    Raises Invalid for an evaluation of other classes than the network's.
    """
    card = models.read_card(folder)
    if card.classes != found.classes:
        raise Invalid(
            f"{card.name} knows {len(card.classes)} classes, the evaluation is of {len(found.classes)}"
        )
    text = str(card.facts.get("text", "")) or f"{card.net}, trained by innervision."
    first = f"innervision predict photo.jpg --net {card.name}"
    parts = [
        f"# {card.name}\n\n{text[0].upper()}{text[1:]}\n\n```\n{first}\n```",
        f"## Intended use\n\n{use}\n\n{limits}",
        f"## Accuracy\n\n{_accuracy(found, seeds or {}, views or {})}",
        f"## Training\n\n{_training(data, training or {}, events)}",
        f"## Confusion\n\n{_confusion(found)}",
        f"## Input\n\n{_input(card)}",
        f"## Licence\n\n{licence}",
    ]
    path = Path(folder) / "README.md"
    with atomic(path) as draft:
        draft.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def mean_and_deviation(values: Sequence[float]) -> str:
    """Return a mean with the sample's standard deviation, in per cent: 93.07 ± 0.12 % (n = 5)."""
    if len(values) < 2:
        return " ".join(f"{100 * value:.2f} % (n = 1)" for value in values)
    spread = statistics.stdev(values)
    return f"{100 * statistics.fmean(values):.2f} ± {100 * spread:.2f} % (n = {len(values)})"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; all columns but the first stand to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell).replace('|', '/') for cell in line)} |" for line in lines)


def _accuracy(found: Evaluation, seeds: Mapping[int, float], views: Mapping[int, float]) -> str:
    rows: list[tuple[str, str]] = [(f"accuracy, {found.n:,} pictures", f"{100 * found.accuracy:.2f} %")]
    rows += [(f"mean over {n} views of each picture", f"{100 * share:.2f} %") for n, share in views.items()]
    if found.top5 is not None:
        rows.append(("among the first five", f"{100 * found.top5:.2f} %"))
    rows.append(("loss", f"{found.loss:.4f}"))
    rows.append(("calibration error (ECE, 15 bins)", f"{100 * found.ece:.2f} %"))
    if found.temperature != 1:
        cooled = f"{100 * found.ece_calibrated:.2f} %"
        rows.append((f"the same at temperature {found.temperature:.3g}, found on held-out pictures", cooled))
    text = table(("measured on the test part", ""), rows)
    if seeds:
        each = ", ".join(f"{100 * share:.2f} (seed {seed})" for seed, share in sorted(seeds.items()))
        text += f"\n\nAll trainings by this recipe: {mean_and_deviation(list(seeds.values()))}: {each}."
    return text


def _training(data: str, rows: Mapping[str, object], events: Iterable[Mapping[str, Any]]) -> str:
    text = table(("", ""), [("data", data), *((name, value) for name, value in rows.items())])
    lines = {
        f"{group}, {line}" if line != "training" else group: dict(zip(*points, strict=True))
        for group, found in series_of(events).items()
        for line, points in found.items()
    }
    epochs = sorted({epoch for points in lines.values() for epoch in points})
    if len(epochs) > _ROWS:
        epochs = [epochs[round(n * (len(epochs) - 1) / (_ROWS - 1))] for n in range(_ROWS)]
    if epochs:
        log = [[f"{e:g}", *(f"{p[e]:.4g}" if e in p else "" for p in lines.values())] for e in epochs]
        text += "\n\n" + table(("epoch", *lines), log)
    return text


def _confusion(found: Evaluation) -> str:
    each = [
        (name, "" if p is None else f"{100 * p:.1f} %")
        for name, p in zip(found.classes, found.per_class, strict=True)
    ]
    if len(found.classes) > _COLUMNS:
        return table(("class", "accuracy"), each)
    rows = [
        [f"**{name}**", *(count or "·" for count in counts), share]
        for (name, share), counts in zip(each, found.confusion.tolist(), strict=True)
    ]
    return f"True classes down, predicted ones across.\n\n{table(('', *found.classes, 'accuracy'), rows)}"


def _input(card: models.ModelCard) -> str:
    pre = card.preprocessing
    kind = "grey" if len(pre.mean) == 1 else pre.order
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (pre.mean, pre.std))
    how = f"{kind}, 0..{pre.range:g}, less the mean ({mean}), divided by ({std}); model.json says the same."
    if card.input_size is None:
        return f"Any size. {how}"
    side = f"{card.input_size} x {card.input_size} pixels"
    return f"{side}: the shorter side is resized, and the middle cut out. {how}"
