"""innervision evaluate: how well a trained network classifies a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import leave_card, telling, telling_options
from innervision.cli.tables import table
from innervision.cli.using import (
    bad_option,
    classifier_options,
    open_classifier,
    share,
    told_logits,
    told_reading,
)

if TYPE_CHECKING:
    from innervision.cli.seeing import Telling
    from innervision.learn.data import DataSet
    from innervision.learn.evaluate import Evaluation
    from innervision.network import Network

_MANY = 20  # classes up to which each is told


@click.command()
@click.option(
    "--data",
    required=True,
    help="cifar10, cifar100, mnist, fashion-mnist, an archive, a folder of class folders, or a .csv",
)
@click.option(
    "--part",
    type=click.Choice(["train", "validation", "test", "any"]),
    default="any",
    show_default=True,
    help="of the data; any is the test part where there is one, else all",
)
@click.option(
    "--views",
    type=click.Choice(["1", "2", "6"]),
    default="1",
    show_default=True,
    help="tell apart the accuracy of the mean over 2 (mirrored) or 6 views (shifted too)",
)
@click.option("--batch", type=click.IntRange(1), default=500, show_default=True, help="pictures at once")
@bad_option()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="a folder for figures and a page"
)
@classifier_options(default=False)
@telling_options
def evaluate(
    data: str,
    part: str,
    views: str,
    batch: int,
    bad: str,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Measure a trained network on a data set: accuracy, each class's, calibration.

    With --output, also the confusion matrix, the reliability diagram, the most confident mistakes and the
    first filters, and one page of it all. Ends with --json in one line: an object with "accuracy".
    """
    from innervision.learn import evaluate as measure
    from innervision.learn import report

    network, temperature = open_classifier(chosen)
    with telling(quiet=quiet, as_json=as_json) as told:
        found_data = read(network, data, part, bad, told)
        logits = told_logits(network, found_data, 1, told, found_data.name, batch=batch)
        found = measure.evaluate(
            logits, found_data.labels, found_data.classes, temperature=temperature or 1.0
        )
        apart: dict[int, Any] = {}
        if (more := int(views)) > 1:
            apart[more] = told_logits(network, found_data, more, told, found_data.name, batch=batch)
        if output is not None:
            facts = {"Part": part, "Weights": chosen["net"]}
            report.write(
                output, network, found_data, logits, temperature=temperature, views=apart, facts=facts
            )
            given = {**chosen, "data": data, "part": part, "views": views, "batch": batch, "bad": bad}
            leave_card(
                "evaluate", output / "evaluation.json", given, {"data": data} if Path(data).is_file() else {}
            )
        better = {n: measure.evaluate(more, found_data.labels).accuracy for n, more in apart.items()}
        values = {k: v for k, v in found.record().items() if k not in ("views", "confusion", "classes")}
        values["per_class"] = dict(zip(found.classes, found.per_class, strict=True))
        values |= {f"accuracy_{n}_views": accuracy for n, accuracy in better.items()}
        wrote = {} if output is None else {"output": str(output)}
        told.end("" if output is None else f"{output / 'index.html'}", **values, **wrote)
    if not quiet and not as_json:
        tell(network.name, found, better, calibrated=temperature is not None)


def read(network: Network, source: str, part: Any, bad: Any, told: Telling) -> DataSet:
    """Read a data set as a network takes it."""
    from innervision.learn import data

    work = data.reading(
        source,
        part,
        size=network.input_size,
        channels=len(network.preprocessing.mean),
        bad=bad,
        classes=network.classes or None,
    )
    return told_reading(work, told)


def tell(name: str, found: Evaluation, better: dict[int, float], *, calibrated: bool) -> None:
    """Print an evaluation for a person."""
    rows = [["pictures", f"{found.n:,}"], ["accuracy", share(found.accuracy)]]
    rows += [[f"  mean over {n} views", share(accuracy)] for n, accuracy in better.items()]
    if found.top5 is not None:
        rows.append(["among the first five", share(found.top5)])
    rows += [["loss", f"{found.loss:.4f}"], ["calibration error (ECE)", share(found.ece)]]
    if calibrated:
        rows.append([f"  at temperature {found.temperature:.3g}", share(found.ece_calibrated)])
    table(("measured", name), rows)
    click.echo()
    each = [
        (value, name) for name, value in zip(found.classes, found.per_class, strict=True) if value is not None
    ]
    if len(each) > _MANY:
        click.echo(f"the hardest {_MANY // 2} of {len(each)} classes")
        each = sorted(each)[: _MANY // 2]
    table(("class", "accuracy"), [[name, share(value)] for value, name in each])
