"""innervision stylize: paint a picture in the style of others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from innervision.cli.options import Grouped, flag, given, recipe_options
from innervision.cli.order import Order, Seen, absolute, again, describe, look, there
from innervision.cli.tables import paragraph
from innervision.paint.recipes import PRESETS, Recipe, recipe

if TYPE_CHECKING:
    from innervision.paint.gatys import Painting
    from innervision.record import RunCard


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
    if resume and (content or folder or no_run or preset):
        raise click.UsageError("--resume takes pictures, preset and folder from the run: leave them out")
    if resume is None and (content is None or not styles):
        raise click.UsageError("name a CONTENT picture and at least one STYLE picture")
    if content is not None:
        there((content, *styles))  # the first mistake first, and before anything heavy is imported
    from innervision import images, record

    if resume is not None:
        before = record.read_card(resume)
        order = again(before, resume, given(ctx), output)
        if is_done(before, order):
            tell_done(before, resume, quiet=quiet, as_json=as_json)
            return
    else:
        assert content is not None
        chosen = absolute(recipe(preset or "gatys", **given(ctx)))
        order = Order(preset or "gatys", (content, *styles), chosen, output or "")
    if as_json and order.output == "-":
        raise click.UsageError("--json and -o - both write to standard output: name a file")
    if order.output:
        images.writable(order.output, read=(*order.sources, order.recipe.start))
    elif not dry_run:
        raise click.UsageError("say where to write the picture: -o painted.png")
    limit = images.MAX_PIXELS if max_pixels is None else max_pixels
    where = resume or folder or record.new_folder("stylize")
    with contextlib.ExitStack() as open_things:
        seen = look(order, limit, None if no_run or dry_run else where)
        card = describe(order, seen.inputs)
        run, saved = None, None
        if resume is not None and not dry_run:
            run, saved = record.resume_run(resume, card)
            card = open_things.enter_context(run).card
        painting = sit_down(order, seen, card, saved)
        if dry_run:
            files = [order.output] if order.output else []
            foretell(painting, [*files, *([] if no_run else [f"{where}/"])], as_json=as_json)
            return
        painting.check_memory()
        if run is None and not no_run:
            run = open_things.enter_context(record.open_run(where, card))
            if seen.stdin is not None:
                run.keep(record.STDIN, seen.stdin)
        from innervision.cli.painting import paint
        from innervision.cli.progress import listener

        told = open_things.enter_context(listener(quiet=quiet, as_json=as_json))
        if not paint(painting, run, order.output, told, checkpoints=checkpoints):
            ctx.exit(130)


def is_done(before: RunCard, order: Order) -> bool:
    """Tell whether a run has come to its end, its picture lies where it was ordered, and no more is asked."""
    more = before.differences(replace(before, options=asdict(order.recipe)))
    written = before.output in (order.output, str(Path(order.output).absolute()))
    return before.status == "done" and written and Path(before.output).is_file() and not more


def tell_done(before: RunCard, folder: Path, *, quiet: bool, as_json: bool) -> None:
    """Say that nothing is left to do."""
    if as_json:
        result = {} if before.result is None else asdict(before.result)
        click.echo(json.dumps({"event": "result", "status": "done", **result, "run": str(folder)}))
    elif not quiet:
        click.echo(f"already done: {before.output}", err=True)


def sit_down(order: Order, seen: Seen, card: RunCard, saved: dict[str, Any] | None) -> Painting:
    """Return the painting; one that goes on does so with the threads and precision it had."""
    from innervision.paint.gatys import Painting

    chosen = order.recipe
    if saved is not None:
        now = card.machine
        chosen = replace(chosen, precision=now["precision"], threads=now["threads"], device=now["device"])
    return Painting(seen.pictures[0], seen.pictures[1:], chosen, start=seen.start, resume=saved)


def foretell(painting: Painting, files: list[str], *, as_json: bool) -> None:
    """Say what is about to be done, what it will cost and write; raise OutOfMemory where it would not fit."""
    from innervision.cli.progress import forecast, introduce, needs
    from innervision.paint.estimate import estimate, refuse

    cost = estimate(painting)
    if as_json:
        said = {"event": "estimate", "text": introduce(painting), **asdict(cost), "files": files}
        click.echo(json.dumps(said))
    else:
        colours = painting.recipe.color == "transfer-only"
        written = [f"would write {', '.join(files)}"] if files else []
        click.echo("\n".join([*introduce(painting), needs(cost) if colours else forecast(cost), *written]))
    refuse(painting, cost)


def explain(name: str) -> str:
    """Return a preset's text and what it changes, as it would be typed."""
    usual = Recipe()
    mine = PRESETS[name].recipe
    changed = {
        each.name: getattr(mine, each.name)
        for each in fields(Recipe)
        if getattr(mine, each.name) != getattr(usual, each.name)
    }
    lines = [PRESETS[name].text, typed(changed) or "the defaults"]
    lines += [f"on {family}…: {typed(changes)}" for family, changes in PRESETS[name].on.items()]
    return "\n".join([name, *map(paragraph, lines)])


def typed(choices: Mapping[str, object]) -> str:
    """Return a recipe's options as they are typed.

    >>> typed({"stages": None, "style_layer_weights": (3e5, 1 / 180)})
    '--stages none --style-layer-weights 300000,0.00555556'
    """

    def word(name: str, value: object) -> str:
        if value is None:
            return "content" if name == "size" else "none"
        if isinstance(value, tuple):
            return ",".join(word(name, each) for each in cast(tuple[object, ...], value))
        return f"{value:g}" if isinstance(value, float) else str(value)

    return " ".join(f"{flag(name)} {word(name, value)}" for name, value in choices.items())
