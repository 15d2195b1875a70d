"""innervision runs: what was run, how far it came, and how it is gone on with."""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.tables import table

if TYPE_CHECKING:
    from innervision.record import RunCard

_TAIL = 1 << 16  # bytes of events that are read, the last ones
_HINTS = 8  # runs that are told to be unfinished, the latest


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def runs(folder: Path | None) -> None:
    """List the runs in FOLDER (default: runs), oldest first; of those not finished say how to go on."""
    from innervision.errors import Invalid
    from innervision.record import RUNS, in_use, list_runs

    if folder is not None and not folder.is_dir():
        raise Invalid(f"no folder '{folder}': name one that holds runs")
    folder = folder or RUNS
    rows: list[list[str]] = []
    unfinished: list[tuple[Path, str]] = []
    for path, card in list_runs(folder):
        alive = card.status == "running" and in_use(path)
        status = "broken off" if card.status == "running" and not alive else card.status
        done = steps(path, card)
        row = [path.name, card.command, status, card.preset or "-", done, outcome(card), card.output]
        rows.append([plain(cell) for cell in row])
        if card.command in ("stylize", "train") and card.status != "done" and not alive:
            unfinished.append((path, card.command))
    if not rows:
        click.echo(f"no runs in '{folder}'", err=True)
        return
    table(("run", "command", "status", "recipe", "steps", "result", "output"), rows)
    for path, command in unfinished[-_HINTS:]:
        click.echo(further(path, command), err=True)  # standard output is the table's


def plain(text: str) -> str:
    """Return a text as it fits into a line: a name may hold line breaks, and what a terminal obeys."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def steps(folder: Path, card: RunCard) -> str:
    """Say how many steps a run has done, and of how many: by its result, else by its last event."""
    if card.result is not None and card.status != "running":  # of one that goes on, it is the last sitting's
        return f"{card.result.count}/{card.result.steps}"
    event = last_event(folder)
    if event is None:
        return "-"
    of = event.get("steps", event.get("of"))
    return f"{event['count']}/{of}" if isinstance(of, int) else f"{event['count']}"


def last_event(folder: Path) -> dict[str, Any] | None:
    """Return the last event of a run that counts a step; None where there is none."""
    from innervision.record import last_lines

    for line in reversed(last_lines(folder / "events.jsonl", _TAIL)):
        with contextlib.suppress(ValueError, RecursionError):
            event = json.loads(line)
            kind = event.get("event") if isinstance(event, dict) else None
            if kind in ("frame", "step", "epoch") and isinstance(event.get("count"), int):
                return event
    return None


def further(folder: Path, command: str) -> str:
    """Say how a run that is not finished is gone on with, and from which step; or that it cannot be."""
    place = shlex.quote(str(folder))
    count = saved_at(folder)
    if count is not None:
        return f"{plain(folder.name)} goes on from step {count} by: innervision {command} --resume {place}"
    more = "; with --checkpoints a painting can be gone on with after a crash" * (command == "stylize")
    return f"{plain(folder.name)} left no checkpoint to go on from: start it anew{more}"


def saved_at(folder: Path) -> int | None:
    """Return the step of a run's checkpoint; None where there is none that can be read."""
    import torch

    from innervision.learn import checkpoints

    with contextlib.suppress(Exception):  # torch.load raises almost anything for a damaged file
        if (folder / checkpoints.FILE).is_file():
            return int(json.loads((folder / checkpoints.FILE).read_text(encoding="utf-8"))["count"])
        # mapped, so that of a large one no more is read than the count
        return int(torch.load(folder / "checkpoint.pt", weights_only=True, mmap=True)["count"])
    return None


def outcome(card: RunCard) -> str:
    """Say what came of a run in its own terms: a painting's total, a training's accuracy or loss."""
    if card.result is None:
        return "-"
    accuracy = card.result.values.get("accuracy")
    if accuracy is not None:
        return f"accuracy {100 * accuracy:.2f} %"
    total = card.result.total
    return f"{'loss' if card.command == 'train' else 'total'} {total:.4g}" if math.isfinite(total) else "-"
