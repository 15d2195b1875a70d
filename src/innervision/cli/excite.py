"""innervision excite: pictures of what excites units."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import (
    leave_card,
    network_options,
    open_network,
    precision_option,
    telling,
    telling_options,
)
from innervision.cli.tables import paragraph

if TYPE_CHECKING:
    from PIL import Image

    from innervision.network import Network
    from innervision.see.excite import Excited, Unit
    from innervision.see.target import Target

_DEFAULT = 4  # units shown where none is named


@click.command()
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="class:207, class:tabby, relu4_1:12, relu4_1:12@5,7, or a direction: relu4_1:3+0.5*7, "
    "relu4_1:FILE.npy; repeatable",
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
    "--pictures", type=click.IntRange(1), default=1, show_default=True, help="of each unit, unlike each other"
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
@click.option("--tile", type=click.IntRange(16), help="side of a picture on a contact sheet, in pixels")
@click.option("--opaque", is_flag=True, help="show also what maco leaves to chance, else transparent")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the picture [default: excite-TARGET.png]"
)
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
    opaque: bool,
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
    stopped = False
    with telling(quiet=quiet, as_json=as_json) as told:
        try:
            for step in work:
                first, last = step.units[0], step.units[-1]
                name = f"{first}" if first is last else f"{first} … {last}"
                told.step(step.count, step.steps, name, total=step.frame.total)
        except KeyboardInterrupt:
            stopped = True
        found = work.so_far()
        if found:
            images.write(draw(found, tile, network, opaque=opaque), where)
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
    from innervision.see.activations import rectified
    from innervision.see.target import Target

    layers = rectified(network)
    if not layers:
        raise Invalid(f"{network.name} has no ReLU layers to choose from: give --target LAYER:CHANNEL")
    return [Target(layers[len(layers) // 2], channel) for channel in range(_DEFAULT)]


def name_of(units: list[Unit]) -> str:
    """Return a file's name that tells what is in it."""
    first, more = units[0], f"-and-{len(units) - 1}-more" if len(units) > 1 else ""
    return f"excite-{re.sub(r'[^A-Za-z0-9_.]+', '-', str(first))}{more}.png"


def called(unit: Unit, network: Network) -> str:
    """Return what a unit is called for a person: a class by its name."""
    from innervision.see.target import Target, named

    return named(unit, network) if isinstance(unit, Target) else str(unit)


def draw(found: list[Excited], tile: int | None, network: Network, *, opaque: bool = False) -> Image.Image:
    """Draw a single picture as it is, several on a contact sheet, those of a unit in a row.

    On a sheet, a unit that nothing excited is dark and grey.
    opaque: without the transparency that MaCo's pictures have.
    """
    from innervision.sheets import sheet

    pictures = [drawn for each in found for drawn in _drawn(each, opaque)]
    if len(pictures) == 1:
        return pictures[0]
    whose = [each for each in found for _ in each.images]
    pictures = [_faded(one) if silent(each) else one for one, each in zip(pictures, whose, strict=True)]
    count = len(found[0].images)
    labels = [
        f"{called(each.unit, network)}\n{answer(each)}" if place == 0 else " "
        for each in found
        for place in range(count)
    ]
    side = tile or (240 if len(pictures) <= 16 else 160 if len(pictures) <= 64 else 96)
    return sheet(pictures, labels=labels, columns=count if count > 1 else None, tile=side, smooth=True)


def answer(each: Excited) -> str:
    """Say how a unit's answer rose."""
    return "nothing excited it" if silent(each) else f"{each.before:.3g} to {each.after:.3g}"


def silent(each: Excited) -> bool:
    """Tell whether nothing was found that excites a unit: what its picture shows is chance."""
    return each.after <= min(0.0, each.before)


def _faded(picture: Image.Image) -> Image.Image:
    from PIL import ImageEnhance

    return ImageEnhance.Brightness(ImageEnhance.Color(picture).enhance(0)).enhance(0.35)


def _drawn(each: Excited, opaque: bool) -> Iterator[Image.Image]:
    from PIL import Image

    from innervision.images import to_bytes

    for n, image in enumerate(each.images.split(1)):
        picture = Image.fromarray(to_bytes(image))
        if each.opacity is not None and not opaque:
            picture.putalpha(Image.fromarray(to_bytes(each.opacity[n : n + 1].expand(1, 3, -1, -1))[..., 0]))
        yield picture


def tell(found: list[Excited], where: Path, stopped: bool, network: Network) -> str:
    """Return what came of it, for a person."""
    if not found:
        return "stopped before the first step: nothing was written"
    names = [called(each.unit, network) for each in found if silent(each)]
    quiet = f"; nothing excited {', '.join(names)}" if names else ""
    one = found[0]
    what = (
        f"{called(one.unit, network)} answers {one.after:.4g}, {one.before:.4g} before"
        if len(found) == 1
        else ""
    )
    what = what or f"{len(found)} units"
    return f"{'stopped: ' if stopped else ''}{where}: {what}{quiet}"
