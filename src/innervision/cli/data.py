"""innervision data: the published sets, and what a data set holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import Telling, leave_card, telling, telling_options
from innervision.cli.tables import table
from innervision.cli.using import bad_option

if TYPE_CHECKING:
    from PIL import Image

    from innervision.learn.data import DataSet, Reading
    from innervision.learn.inspection import Statistics, Twins

_ROWS = 100  # classes shown on a sheet at most


@click.group()
def data() -> None:
    """List, fetch or look into data sets."""


@data.command("list")
def list_sets() -> None:
    """List the published data sets that are known by name."""
    from innervision.learn.sets import SETS, at_hand

    rows: list[list[str]] = []
    for card in SETS.values():
        channels, height, width = card.shape
        where = str(card.folder) if at_hand(card) else f"innervision data fetch {card.name}"
        counts = [f"{card.counts[part]:,}" for part in ("train", "test")]
        size = f"{height}x{width}x{channels}"
        rows.append([card.name, *counts, str(len(card.classes)), size, card.licence, where])
    table(("name", "train", "test", "classes", "size", "licence", "where"), rows)


@data.command()
@click.argument("name")
@telling_options
def fetch(name: str, quiet: bool, as_json: bool) -> None:
    """Fetch the data set NAME, checked by checksum; a transfer that broke off is gone on with."""
    from innervision.errors import unknown
    from innervision.learn.sets import SETS, fetching

    if name not in SETS:
        raise unknown("data set", name, SETS)
    card = SETS[name]
    with telling(quiet=quiet, as_json=as_json) as told:
        for step in fetching(card):
            if step.of:
                told.step(step.done, step.of, step.text)
        told.end(f"{name} is in {card.folder} ({card.licence}; {card.source})", output=str(card.folder))


@data.command()
@click.argument("source")
@click.option(
    "--part",
    type=click.Choice(["all", "train", "validation", "test"]),
    default="all",
    show_default=True,
    help="which part to look into",
)
@click.option(
    "--size", type=click.IntRange(1), help="side in pixels [default: the set's own; 224 for mixed files]"
)
@click.option("--channels", type=click.Choice(["1", "3"]), help="grey or colour [default: the set's own]")
@bad_option("files that cannot be read or have no valid label", default="skip")
@click.option("--each", type=click.IntRange(1), default=10, show_default=True, help="examples of a class")
@click.option("--tile", type=click.IntRange(16), help="side of an example on the sheet, in pixels")
@click.option("--workers", type=click.IntRange(1), help="processes that decode [default: one a core]")
@click.option("--seed", type=int, default=0, show_default=True, help="which examples are shown")
@click.option("--sheet/--no-sheet", default=True, show_default=True, help="draw the examples")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the sheet [default: NAME-examples.png]"
)
@telling_options
def inspect(
    source: str,
    part: str,
    channels: str | None,
    each: int,
    tile: int | None,
    sheet: bool,
    output: Path | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Say what a data set holds: classes, counts, sizes, means, deviations and pictures that occur twice.

    SOURCE is a set's name (cifar10, cifar100, mnist, fashion-mnist), a publisher's archive or its folder, a
    folder with a folder a class, or a .csv of paths and labels. A sheet of examples is drawn, a row a class.
    """
    from innervision import images
    from innervision.learn.data import parts
    from innervision.learn.inspection import statistics, twins

    there = parts(source)
    wanted = there if part == "all" else (part,)
    if output is not None and sheet:
        images.writable(output)
    with telling(quiet=quiet, as_json=as_json) as told:
        found = {name: _read(told, source, name, channels, chosen) for name in wanted}
        first = next(iter(found.values()))
        same = twins(found["train"], found["test"]) if {"train", "test"} <= found.keys() else twins(first)
        numbers = {name: statistics(data) for name, data in found.items()}
        where = output or Path(f"{first.name}-examples.png")
        if sheet:
            images.write(draw(first, each, tile, chosen["seed"]), where)
            leave_card("data inspect", where, {**chosen, "part": part}, {"data": source}, seed=chosen["seed"])
        facts = {
            name: {
                "pictures": len(data),
                "counts": data.counts(),
                "size": list(data.size),
                "channels": data.channels,
                "mean": [round(v, 6) for v in numbers[name].mean],
                "std": [round(v, 6) for v in numbers[name].std],
                "sha256": data.sha256,
                "notes": list(data.notes),
                "skipped": [list(pair) for pair in data.skipped],
            }
            for name, data in found.items()
        }
        end = f"{sum(map(len, found.values())):,} pictures of {len(first.classes)} classes"
        told.end(
            f"{where}: {end}" if sheet else end,
            output=str(where) if sheet else None,
            name=first.name,
            classes=list(first.classes),
            parts=facts,
            twins={
                "within": dict(zip(found, same.within, strict=False)),
                "across": len(same.across),
                "across_of_another_class": same.disagreeing,
            },
        )
    if not (quiet or as_json):
        _print(found, numbers, same)


def _read(told: Telling, source: str, part: str, channels: str | None, chosen: dict[str, Any]) -> DataSet:
    """Read a part, telling how far it is."""
    from innervision.learn.data import finished, reading

    work = reading(
        source,
        part,  # pyright: ignore[reportArgumentType]
        size=chosen["size"],
        channels=None if channels is None else int(channels),
        bad=chosen["bad"],
        lacking="tell",
        workers=chosen["workers"],
    )
    return finished(work, lambda step: _tell(told, step))


def _tell(told: Telling, step: Reading) -> None:
    """Tell how far reading is, a hundred times at most."""
    if step.of and (step.done == step.of or step.done % max(1, step.of // 100) == 0):
        told.step(step.done, step.of, step.text)


def _print(found: dict[str, DataSet], numbers: dict[str, Statistics], same: Twins) -> None:
    """Print counts of every class, and what else there is to know."""
    from innervision.learn.raw import many

    counts = {part: data.counts() for part, data in found.items()}
    names = list(dict.fromkeys(name for each in counts.values() for name in each))
    rows = [[name, *(f"{each.get(name, 0):,}" for each in counts.values())] for name in names]
    table(("class", *counts), [*rows, ["all", *(f"{len(data):,}" for data in found.values())]])
    for part, data in found.items():
        both = (numbers[part].mean, numbers[part].std)
        mean, std = (" ".join(f"{v:.4f}" for v in values) for values in both)
        height, width = data.size
        click.echo(f"{part}: {width}x{height}x{data.channels}, mean {mean}, standard deviation {std}")
        for note in data.notes:
            click.echo(f"{part}: {note}")
        for file, reason in data.skipped[:20]:
            click.echo(f"{part}: left out {file}: {reason}")
        if len(data.skipped) > 20:
            click.echo(f"{part}: … and {len(data.skipped) - 20} more (--json names all)")
    for part, again in zip(found, same.within, strict=False):
        if again:
            click.echo(f"{part}: {many(again, 'picture')} equal to an earlier one")
    if same.across:
        other = f", {same.disagreeing:,} of them in another class" if same.disagreeing else ""
        click.echo(f"{many(len(same.across), 'test picture')} among the training pictures too{other}")


def draw(data: DataSet, each: int, tile: int | None, seed: int) -> Image.Image:
    """Draw examples, a row a class, its name and count under the first."""
    import torch

    from innervision.learn.inspection import examples
    from innervision.sheets import sheet

    counts = data.counts()
    pictures: list[torch.Tensor] = []
    labels: list[str] = []
    shown = examples(data, each, seed)[:_ROWS]
    blank = torch.full((1, 3, *data.size), 17 / 255)  # the sheet's paper
    for name, numbers in zip(data.classes, shown, strict=False):
        if not len(numbers):
            continue
        row = list((data.images[numbers].float() / 255).expand(-1, 3, -1, -1).split(1))
        pictures += row + [blank] * (each - len(row))
        labels += [f"{name}\n{counts[name]:,}"] + [" "] * (each - 1)
    side = tile or (96 if len(shown) <= 20 else 64 if len(shown) <= 50 else 48)
    if tile is None and data.size[1] < side:
        side = data.size[1] * round(side / data.size[1])  # pixels shown as squares, all of one size
    return sheet(pictures, labels=labels, columns=each, tile=side, smooth=data.size[0] >= 64)
