"""innervision nets and weights: what there is on this machine."""

from __future__ import annotations

import shutil
import textwrap
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import click


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns; numbers stand to the right."""
    every = [list(head), *(list(row) for row in rows)]
    widths = [max(_width(row[n]) for row in every) for n in range(len(head))]
    right = [bool(rows) and all(row[n].replace(",", "").isdigit() for row in rows) for n in range(len(head))]
    for row in every:
        cells: list[str] = []
        for cell, width, flush in zip(row, widths, right, strict=True):
            space = " " * (width - _width(cell))
            cells.append(space + cell if flush else cell + space)
        click.echo("  ".join(cells).rstrip())


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese sign takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


def paragraph(text: str) -> str:
    """Break a text into lines for the terminal, indented by two."""
    width = min(shutil.get_terminal_size().columns, 100)
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


@click.command()
def nets() -> None:
    """List the networks: parameters, input, where they come from, and whether their weights are at hand."""
    from innervision import models
    from innervision.errors import WeightsMissing
    from innervision.nets import NETS
    from innervision.weights import default, locate

    rows: list[list[str]] = []
    for card in NETS.values():
        published = default(card.name)
        if published is None:
            weights = "none published: train it, or give a file"
        else:
            try:
                locate(published)
                weights = f"at hand ({published.name})"
            except WeightsMissing:
                pip = published.package and published.note
                weights = pip or f"innervision weights fetch {published.name}"
        side = f"{card.input_size}x{card.input_size}x{card.channels}"
        rows.append(
            [card.name, f"{card.params:,}", side, f"{card.paper.split(',')[0]} {card.paper[-4:]}", weights]
        )
    table(("net", "parameters", "input", "paper", "weights"), rows)
    trained = [trained_row(name, folder) for name, folder in models.shipped().items()]
    if trained:
        click.echo("\ntrained here, opened by name")
        table(("name", "net", "input", "classes", "accuracy", "what it is for"), trained)


def trained_row(name: str, folder: Path) -> list[str]:
    """Return what the list says of a trained network; of a damaged one, what is the matter."""
    from innervision import models
    from innervision.errors import InnervisionError

    try:
        card = models.read_card(folder)
    except InnervisionError as error:
        return [name, "", "", "", "", str(error)]
    side = card.input_size or "?"
    accuracy = card.facts.get("accuracy")
    shown = f"{100 * accuracy:.1f} %" if isinstance(accuracy, int | float) else ""
    text = str(card.facts.get("text", ""))
    channels = len(card.preprocessing.mean)
    return [name, card.net, f"{side}x{side}x{channels}", str(len(card.classes)), shown, text]


@click.group()
def weights() -> None:
    """List, fetch or look into weights files."""


@weights.command("list")
def list_weights() -> None:
    """List the published weights that are known by name."""
    from innervision.errors import WeightsMissing
    from innervision.weights import WEIGHTS, locate

    rows: list[list[str]] = []
    for card in WEIGHTS.values():
        try:
            where = str(locate(card))
        except WeightsMissing:
            where = card.note if card.package else f"innervision weights fetch {card.name}"
        rows.append([card.name, card.net, "whole" if card.head else "base", card.licence, where])
    table(("name", "net", "layers", "licence", "where"), rows)


@weights.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch the weights NAME, checked by checksum; a transfer that broke off is gone on with."""
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from innervision.errors import unknown
    from innervision.weights import WEIGHTS, download, locate

    if name not in WEIGHTS:
        raise unknown("weights", name, WEIGHTS)
    columns = (TextColumn("{task.description}"), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, visible=False)
        for progress in download(WEIGHTS[name]):
            bar.update(task, completed=progress.done, total=progress.total, visible=True)
    click.echo(locate(WEIGHTS[name]))


@weights.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Say what a weights FILE holds, and which published file it is; FILE may be a published name."""
    from innervision.errors import WeightsMissing
    from innervision.weights import WEIGHTS, locate
    from innervision.weights import inspect as look

    if str(file) in WEIGHTS and not file.exists():
        file = locate(WEIGHTS[str(file)])
    if not file.is_file():
        raise WeightsMissing(f"no weights file '{file}': check its name and folder")
    found = look(file)
    card = found.card
    published = f"{card.name}, for {card.net} ({card.licence})" if card else "not a file known by name"
    click.echo(f"{file}: {found.kind}, {len(found.tensors)} tensors, {found.parameters:,} parameters")
    click.echo(f"{published}; sha256 {found.sha256}")
    for name, value in found.metadata.items():
        click.echo(f"{name}: {value}")
    table(
        ("tensor", "shape", "type"),
        [[name, "x".join(map(str, shape)), kind] for name, shape, kind in found.tensors],
    )
