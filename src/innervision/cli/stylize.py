"""innervision stylize: paint a picture in the style of others."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.options import Grouped, given, recipe_options
from innervision.paint.recipes import PRESETS, Recipe, recipe

if TYPE_CHECKING:
    from innervision import images
    from innervision.cli.progress import Listener
    from innervision.paint.gatys import Painting
    from innervision.record import Input, Result, Run, RunCard

STARTS = ("content", "noise", "style", "grey")  # of a recipe's `start`; anything else is a file


@click.command(cls=Grouped)
@click.argument("content", required=False)
@click.argument("styles", metavar="STYLE...", nargs=-1)
@click.option("-o", "--output", help="the picture to write, or '-' for standard output (PNG)")
@click.option("--preset", help="gatys (default), article, titu1994; 'list' explains each")
@click.option(
    "--run", "folder", type=click.Path(path_type=Path), help="folder of the run [default: runs/stylize-…]"
)
@click.option("--no-run", is_flag=True, help="keep no run folder: the run cannot be resumed")
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="go on with a stopped run, bit for bit"
)
@click.option(
    "--checkpoints", is_flag=True, help="save one at each snapshot, so that a crash can be resumed too"
)
@click.option(
    "--dry-run", is_flag=True, help="say the work, the expected time and peak memory; paint nothing"
)
@click.option("--max-pixels", type=int, help="largest picture to read, in pixels [default: 178956970]")
@click.option("--quiet", is_flag=True, help="say nothing but errors")
@click.option("--json", "as_json", is_flag=True, help="write events as JSON lines to standard output")
@recipe_options
@click.pass_context
def stylize(
    ctx: click.Context,
    content: str | None,
    styles: tuple[str, ...],
    output: str | None,
    preset: str | None,
    folder: Path | None,
    no_run: bool,
    resume: Path | None,
    checkpoints: bool,
    dry_run: bool,
    max_pixels: int | None,
    quiet: bool,
    as_json: bool,
    **_: Any,  # the recipe's options, which given() reads
) -> None:
    """Paint CONTENT in the style of one STYLE or several.

    A picture is a file, '-' (standard input), 'blank', or sample:NAME. Ctrl-C keeps the best picture so far
    and says how to go on; a second one stops at once.
    """
    if preset == "list":
        click.echo("\n\n".join(explain(name) for name in PRESETS))
        return
    if as_json and output == "-":
        raise click.UsageError("--json and -o - both write to standard output: name a file")
    if resume and (content or folder or no_run or preset):
        raise click.UsageError("--resume takes pictures, preset and folder from the run: leave them out")
    if resume is None and (content is None or not styles):
        raise click.UsageError("name a CONTENT picture and at least one STYLE picture")
    from innervision import images, record

    if resume is not None:
        before = record.read_card(resume)
        order = again(before, ctx, output)
    else:
        assert content is not None
        chosen = absolute(recipe(preset or "gatys", **given(ctx)))
        order = Order(preset or "gatys", (content, *styles), chosen, output or "")
    if not dry_run:
        if not order.output:
            raise click.UsageError("say where to write the picture: -o painted.png")
        images.writable(order.output)
    limit = images.MAX_PIXELS if max_pixels is None else max_pixels
    where = resume or folder or record.new_folder("stylize")
    with contextlib.ExitStack() as open_things:
        seen = look(order, limit, None if no_run or dry_run else where)
        card = describe(order, seen.inputs)
        run, saved = None, None
        if resume is not None and not dry_run:
            card = replace(card, machine=record.read_card(resume).machine)
            run, saved = record.resume_run(resume, card)
            open_things.enter_context(run)
        painting = sit_down(order, seen.pictures, card, saved)
        from innervision.paint.estimate import check_memory

        if dry_run:
            foretell(painting, as_json=as_json)
            return
        check_memory(painting)
        if run is None and not no_run:
            run = open_things.enter_context(record.open_run(where, card))
            if seen.stdin is not None:
                run.keep(record.STDIN, seen.stdin)
        from innervision.cli.progress import listener

        told = open_things.enter_context(listener(quiet=quiet, as_json=as_json))
        if not paint(painting, run, order.output, told, checkpoints=checkpoints):
            ctx.exit(130)


@dataclass(frozen=True)
class Order:
    """What is to be painted: the content first, then the styles, as named."""

    preset: str
    sources: tuple[str, ...]
    recipe: Recipe
    output: str


def again(before: RunCard, ctx: click.Context, output: str | None) -> Order:
    """Return the order of a run that is to be gone on with; options typed now must say the same."""
    tuples = {name: _tuples(value) for name, value in before.options.items()}
    known = {each.name for each in fields(Recipe)}
    chosen = replace(Recipe(**{n: v for n, v in tuples.items() if n in known}), **given(ctx))
    sources = tuple(each.source for each in before.inputs if each.role in ("content", "style"))
    return Order(before.preset, sources, absolute(chosen), output or before.output)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def absolute(chosen: Recipe) -> Recipe:
    """Give the recipe's files their full paths, so that a run can be gone on with from any folder."""
    start = chosen.start
    if start not in STARTS and not start.startswith("sample:"):
        start = str(Path(start).absolute())
    weights = None if chosen.weights is None else str(Path(chosen.weights).absolute())
    return replace(chosen, start=start, weights=weights)


@dataclass(frozen=True)
class Seen:
    """The pictures as read, every file that was read, and standard input if it was."""

    pictures: tuple[images.Source, ...]
    inputs: tuple[Input, ...]
    stdin: bytes | None


def look(order: Order, limit: int, folder: Path | None) -> Seen:
    """Read every picture, and say of every file that is read where it is and what its checksum is."""
    from innervision import images, nets, samples, weights
    from innervision.errors import WeightsMissing
    from innervision.files import sha256
    from innervision.record import STDIN, Input

    came: bytes | None = None

    if order.sources.count("-") > 1:
        raise click.UsageError("standard input holds one picture: name files for the others")
    pictures: list[images.Source] = []
    read: list[Input] = []
    start = [] if order.recipe.start in STARTS else [order.recipe.start]
    for number, source in enumerate([*order.sources, *start]):
        role = "content" if number == 0 else "style" if number < len(order.sources) else "start"
        if source == "blank":
            pictures.append(source)
            read.append(Input(role, source, ""))
        elif source == "-":
            came = data = sys.stdin.buffer.read()
            pictures.append(images.read(_Stdin(data), max_pixels=limit))
            place = source if folder is None else str((folder / STDIN).absolute())
            read.append(Input(role, place, hashlib.sha256(data).hexdigest()))
        else:
            pictures.append(images.read(source, max_pixels=limit))
            sample = source.startswith("sample:")
            path = samples.path(source.removeprefix("sample:")) if sample else Path(source).absolute()
            read.append(Input(role, source if sample else str(path), sha256(path)))
    net, file = order.recipe.net, order.recipe.weights
    published = weights.default(net) if file is None else None
    path = Path(file) if file is not None else None if published is None else weights.locate(published)
    if path is not None:
        if not path.is_file():
            raise WeightsMissing(f"no weights file '{path}': check its name and folder")
        read.append(Input("weights", str(path), sha256(path)))
    own = Path(net.rpartition(":")[0])
    if net not in nets.NETS and own.is_file():
        read.append(Input("net", str(own.absolute()), sha256(own)))
    return Seen(tuple(pictures[: len(order.sources)]), tuple(read), came)


class _Stdin(io.BytesIO):
    """Standard input, read whole, under the name that errors give it."""

    name = "standard input"


def describe(order: Order, read: tuple[Input, ...]) -> RunCard:
    """Return the card of a run that is about to begin."""
    import torch

    from innervision import __version__
    from innervision.paint.gatys import choose_device, choose_precision
    from innervision.record import RunCard

    device = choose_device(order.recipe.device)
    precision = choose_precision(order.recipe.precision, device)
    return RunCard(
        command="stylize",
        line=shlex.join(["innervision", *sys.argv[1:]]),
        preset=order.preset,
        options=asdict(order.recipe),
        seed=order.recipe.seed,
        inputs=read,
        output=order.output if order.output in ("", "-") else str(Path(order.output).absolute()),
        versions={
            "innervision": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "pillow")},
        },
        machine={
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": order.recipe.threads or torch.get_num_threads(),
            "device": str(device),
            "precision": str(precision).removeprefix("torch."),
        },
    )


def sit_down(
    order: Order, pictures: Sequence[images.Source], card: RunCard, saved: dict[str, Any] | None
) -> Painting:
    """Return the painting; one that goes on does so with the threads and precision it had."""
    from innervision.paint.gatys import Painting

    chosen = order.recipe
    if saved is not None:
        now = card.machine
        chosen = replace(chosen, precision=now["precision"], threads=now["threads"], device=now["device"])
    return Painting(pictures[0], pictures[1:], chosen, resume=saved)


def foretell(painting: Painting, *, as_json: bool) -> None:
    """Say what is about to be done and what it will cost; raise OutOfMemory where it would not fit."""
    from innervision.cli.progress import forecast, introduce
    from innervision.paint.estimate import estimate, refuse

    cost = estimate(painting)
    if as_json:
        said = {"event": "estimate", "text": introduce(painting), **asdict(cost)}
        click.echo(json.dumps(said))
    else:
        colours = painting.recipe.color == "transfer-only"
        click.echo("\n".join([*introduce(painting), *([] if colours else [forecast(cost)])]))
    refuse(painting, cost)


def paint(painting: Painting, run: Run | None, output: str, told: Listener, *, checkpoints: bool) -> bool:
    """Paint to the end, or until Ctrl-C; write the picture, and tell whether it is finished."""
    clock = time.perf_counter()
    told.begin(painting)
    stopped = False
    watched = (
        contextlib.nullcontext(painting)
        if run is None
        else contextlib.closing(run.watch(painting, checkpoints=checkpoints))
    )
    with interrupts() as wanted, watched as frames:
        for frame in frames:
            told.frame(painting, frame, time.perf_counter() - clock)
            if wanted and frame.count < frame.steps:
                stopped = True
                break
    painting.save(output)
    result = conclude(painting, output, time.perf_counter() - clock if run is None else run.seconds)
    if run is not None:
        if stopped:
            run.stop(painting, result)
        else:
            run.finish(result)
    event = {"event": "result", "status": "stopped" if stopped else "done", **asdict(result)}
    event["run"] = None if run is None else str(run.folder)
    told.end(event, farewell(result, run, stopped))
    return not stopped


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C fills, so that a step may end first; a second one stops at once."""
    wanted: list[int] = []

    def hear(number: int, _: object) -> None:
        if wanted:
            raise KeyboardInterrupt
        wanted.append(number)
        click.echo("finishing this step; Ctrl-C again stops at once", err=True)

    before = signal.signal(signal.SIGINT, hear)
    try:
        yield wanted
    finally:
        signal.signal(signal.SIGINT, before)


def conclude(painting: Painting, output: str, seconds: float) -> Result:
    """Return what came of the painting, now that its picture is written."""
    from innervision.files import sha256
    from innervision.record import Result

    latest, best = painting.latest, painting.best
    assert latest is not None and best is not None
    place = output if output == "-" else str(Path(output).absolute())
    return Result(
        output=place,
        sha256="" if output == "-" else sha256(place),
        count=latest.count,
        steps=latest.steps,
        total=best.total,
        values=dict(best.values),
        seconds=round(seconds, 3),
    )


def farewell(result: Result, run: Run | None, stopped: bool) -> str:
    """Return what is said at the end."""
    where = "standard output" if result.output == "-" else result.output
    steps = (
        f"{result.count} of {result.steps} evaluations in {result.seconds:.1f} s, total {result.total:.4g}"
    )
    if not stopped:
        return f"wrote {where}: {steps}" + (f"; run {run.folder}" if run else "")
    further = (
        f"go on by: innervision stylize --resume {run.folder}" if run else "there is no run to go on with"
    )
    return f"stopped; the best picture so far is in {where}: {steps}\n{further}"


def explain(name: str) -> str:
    """Return a preset's text and what it changes."""
    usual = Recipe()
    mine = PRESETS[name].recipe
    changed = [
        f"{each.name}={getattr(mine, each.name)!r}"
        for each in fields(Recipe)
        if getattr(mine, each.name) != getattr(usual, each.name)
    ]
    lines = [name, f"  {PRESETS[name].text}", f"  {', '.join(changed) or 'the defaults'}"]
    for family, changes in PRESETS[name].on.items():
        lines.append(f"  on {family}…: {', '.join(f'{key}={value!r}' for key, value in changes.items())}")
    return "\n".join(lines)
