"""innervision excite: pictures of what excites units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import Plan, beside, dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.excited import called, draw, glimpse, tell
from innervision.cli.seeing import (
    leave_card,
    network_options,
    open_network,
    precision_option,
    snapshots_option,
    telling,
    telling_options,
)
from innervision.cli.tables import paragraph

if TYPE_CHECKING:
    from innervision.network import Network
    from innervision.see.excite import Excitation, Unit
    from innervision.see.target import Target

_DEFAULT = 4  # units shown where none is named
_EVERY = 10  # steps between snapshots
_TRIED = 4  # layers of whose units a dry run tries some steps


@click.command()
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="class:207, class:tabby, relu4_1:12, relu4_1:12@5,7, or a direction: relu4_1:3+0.5*7, "
    "relu4_1:FILE.npy; repeatable [default: channels 0 to 3 of a layer halfway in]",
)
@click.option(
    "--targets", "ranges", multiple=True, help="many: relu4_1:0-15, relu4_1:3,17,200, or relu4_1 for all"
)
@click.option(
    "--preset",
    default="lucid",
    show_default=True,
    help="lucid, lucid512, maco, maco256, yosinski1 … yosinski4; 'list' explains each",
)
@click.option("--size", type=click.IntRange(1), help="side of a picture in pixels [default: the network's]")
@click.option("--steps", type=click.IntRange(1), help="evaluations of the network [default: the preset's]")
@click.option(
    "--pictures",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="of each unit, if more than one unlike each other",
)
@click.option(
    "--diverse", type=float, default=1.0, show_default=True, help="how much a unit's pictures are to differ"
)
@click.option(
    "--neuron/--channel",
    default=None,
    help="one unit in the centre of the map, or all of it [default: the preset's choice]",
)
@click.option("--batch", type=click.IntRange(1), help="units made together [default: what fits 1 GiB]")
@click.option("--seed", type=int, default=0, show_default=True, help="of the start and of the views")
@precision_option("of the network; auto is bfloat16 where the processor gains from it")
@click.option(
    "--tile",
    type=click.IntRange(16),
    help="side of a picture on a contact sheet, in pixels [default: 240, of many 160 or 96]",
)
@click.option(
    "--caption/--no-caption",
    default=True,
    show_default=True,
    help="say below a single picture what it excites, and how much; a sheet always does",
)
@click.option("--opaque", is_flag=True, help="show also what maco leaves to chance, else transparent")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the picture [default: excite-TARGET.png]"
)
@snapshots_option(_EVERY)
@dry_run_option
@network_options
@telling_options
@click.pass_context
def excite(
    ctx: click.Context,
    targets: tuple[str, ...],
    ranges: tuple[str, ...],
    preset: str,
    output: Path | None,
    tile: int | None,
    caption: bool,
    opaque: bool,
    run: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Make pictures that excite units of a network: one picture, or a contact sheet of several.

    Without a target, the first channels of a layer halfway into the network. Ctrl-C keeps the pictures so
    far.
    """
    from innervision import images
    from innervision.see.directions import unit
    from innervision.see.excite import excite as work_on
    from innervision.see.excite import usual_side
    from innervision.see.presets import PRESETS, preset_of

    if preset == "list":
        click.echo("\n\n".join(f"{name}\n{paragraph(each.text)}" for name, each in PRESETS.items()))
        return
    preset_of(preset)  # complains before anything is loaded
    if output is not None:
        images.writable(output)
    network = open_network(chosen)
    side = chosen["size"] or usual_side(network)
    units: list[Unit] = [unit(text, network, side) for text in targets]
    units += [each for text in ranges for each in several(text, network, side)]
    units = units or [*usual(network)]
    where = output or Path(name_of(units))
    images.writable(where)
    options = ("size", "steps", "pictures", "diverse", "neuron", "batch", "seed", "precision")
    work = work_on(network, units, preset=preset, **{name: chosen[name] for name in options})
    snapshots = None if run is None else run / "snapshots"
    if dry_run:
        foretell(plan(work, where, {**chosen, "preset": preset}).writing(snapshots), as_json=as_json)
        return
    stopped = False
    with telling(quiet=quiet, as_json=as_json) as told:
        try:
            for step in work:
                first, last = step.units[0], step.units[-1]
                name = f"{first}" if first is last else f"{first} … {last}"
                told.step(step.count, step.steps, name, total=step.frame.total)
                if snapshots is not None and step.count % _EVERY == 0 and step.count < step.steps:
                    images.write(glimpse(step.frame.image), snapshots / f"{step.count:04d}.png")
        except KeyboardInterrupt:
            stopped = True
        found = work.so_far()
        if found:
            images.write(draw(found, tile, network, opaque=opaque, caption=caption), where)
            named = [str(unit) for unit in units]
            given = {**chosen, "targets": named, "preset": preset, "opaque": opaque}
            leave_card("excite", where, given, {}, seed=chosen["seed"])
        answers = [{"target": str(e.unit), "before": e.before, "after": e.after} for e in found]
        told.end(tell(found, where, stopped, network), output=str(where), units=answers, stopped=stopped)
    if stopped:
        ctx.exit(130)


_MANY = re.compile(r"(?P<layer>[^:@]+)(:(?P<numbers>\d+(-\d+)?(,\d+(-\d+)?)*))?(?P<place>@\d+,\d+)?")


def several(text: str, network: Network, side: int) -> list[Target]:
    """Read many targets: relu4_1:0-15, relu4_1:3,17,200-203, class:1-9, or relu4_1, which is all of it.

    Raises Invalid for another form, a range that runs backwards, and what the network does not have.
    """
    from innervision.errors import Invalid
    from innervision.see.directions import channels
    from innervision.see.target import Target, target

    found = _MANY.fullmatch(text.strip())
    if found is None:
        raise Invalid(f"{text!r} names no targets: give LAYER:0-15, LAYER:3,17,200, or LAYER for all")
    layer, place = found["layer"], found["place"] or ""
    numbers: list[int] = []
    whole = Target(None if layer == "class" else layer)
    for part in (found["numbers"] or f"0-{channels(whole, network, side) - 1}").split(","):
        first, _, last = part.partition("-")
        if last and int(last) < int(first):
            raise Invalid(f"the range {part} runs backwards: write {last}-{first}")
        numbers += range(int(first), int(last or first) + 1)
    first = target(f"{layer}:{numbers[0]}{place}", network)
    return [replace(first, channel=number) for number in numbers]


def usual(network: Network) -> list[Target]:
    """Return the units shown where none is named: the first of a layer halfway in."""
    from innervision.errors import Invalid
    from innervision.see.activations import nonlinearities
    from innervision.see.target import Target

    layers = nonlinearities(network)
    if not layers:
        raise Invalid(f"{network.name} has no layers of maps to choose from: give --target LAYER:CHANNEL")
    return [Target(layers[len(layers) // 2], channel) for channel in range(_DEFAULT)]


def name_of(units: list[Unit]) -> str:
    """Return a file's name that tells what is in it."""
    first, more = units[0], f"-and-{len(units) - 1}-more" if len(units) > 1 else ""
    return f"excite-{re.sub(r'[^A-Za-z0-9_.]+', '-', str(first))}{more}.png"


def plan(work: Excitation, where: Path, chosen: Mapping[str, Any]) -> Plan:
    """Return what is about to be done, its seconds from a few steps of units of up to four layers."""
    from innervision.cli.beforehand import about, memory, names, pace
    from innervision.machine import choose_precision

    how, network = work.plan, work.network
    spans: dict[str | None, float] = {}
    for units in work.batches:
        if units[0].layer not in spans and len(spans) < _TRIED:
            spans[units[0].layer] = pace(work.alone(units)) / len(units)
    usual = sum(spans.values()) / len(spans)
    each = sum(len(units) * spans.get(units[0].layer, usual) for units in work.batches)
    count, together = len(work.units), len(work.batches[0])
    several = f", {how.pictures} pictures each" if how.pictures > 1 else ""
    at_once = f", {together} at a time" if count > together else ""
    lines = (
        f"what excites {names([called(unit, network) for unit in work.units])}{several}",
        f"{how.size[1]}x{how.size[0]} px, {how.steps} steps by preset {chosen['preset']}{at_once}",
        about(network, choose_precision(chosen["precision"], network.device)),
    )
    return Plan(lines, each * how.steps, beside(where), **memory(network.device))
