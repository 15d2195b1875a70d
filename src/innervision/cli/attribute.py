"""innervision attribute: what of a picture a class, a channel or a unit answers to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import Plan, beside, dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.explained import Explained, keep, kept
from innervision.cli.maps import CASCADE, METHODS, by_chance_alone, explained, fewer, looks, page, tile
from innervision.cli.seeing import (
    fingerprint,
    leave_card,
    limit_option,
    network_options,
    open_network,
    open_picture,
    stem,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.target import Target


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option(
    "--target",
    "asked",
    help="what to explain: class:N, class:NAME, LAYER, LAYER:CHANNEL or LAYER:CHANNEL@ROW,COLUMN [default: "
    "the class predicted, else the strongest channel of the deepest layer]",
)
@click.option(
    "--method",
    type=click.Choice([*METHODS, "all"]),
    default="gradient",
    show_default=True,
    help="how to explain it; all draws one of each",
)
@click.option(
    "--show",
    "shown",
    type=click.Choice(["raw", "grey", "norm", "blurred"]),
    default="raw",
    show_default=True,
    help="how a map of colours is drawn: as it is, the mean of its colours, their length, that blurred",
)
@click.option(
    "--trust",
    "tested",
    is_flag=True,
    help="make the map again with random weights: one that stays the same explains nothing",
)
@click.option(
    "--curves", "judged", is_flag=True, help="insertion and deletion curves, beside those of chance"
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=25,
    show_default=True,
    help="noisy copies that smoothgrad takes the mean of",
)
@click.option(
    "--sigma",
    type=click.FloatRange(0),
    default=0.15,
    show_default=True,
    help="smoothgrad's noise: its standard deviation, as a share of the picture's range",
)
@click.option(
    "--points",
    type=click.IntRange(1),
    default=50,
    show_default=True,
    help="places at which integrated looks, from its baseline to the picture",
)
@click.option(
    "--baseline",
    type=float,
    default=0.0,
    show_default=True,
    help="the grey where integrated begins: 0 black, 1 white",
)
@click.option("--seed", type=int, default=0, show_default=True, help="of noise and random weights")
@click.option(
    "--size",
    type=click.IntRange(1),
    default=224,
    show_default=True,
    help="longest side of the picture, in pixels",
)
@click.option("-o", "--output", help="the picture to write [default: NAME-METHOD.png]")
@dry_run_option
@limit_option
@network_options
@telling_options
@click.pass_context
def attribute(
    ctx: click.Context,
    source: str,
    asked: str | None,
    method: str,
    shown: str,
    tested: bool,
    judged: bool,
    output: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Show what of IMAGE a class, a channel or a unit answers to.

    IMAGE is a file or sample:NAME. Maps of colours are drawn with 0 as mid-grey; maps of places as heat.

    With --method all every method's map is kept as soon as it is made, as a picture and as numbers, in the
    folder NAME-all-methods: stopped, the same command goes on where it was.

    With --curves a map is put to the test: pixels are uncovered on a blurred picture, and covered by grey, in
    the order of the map, and NAME-METHOD-curves.png and .json tell how soon the answer comes and goes.
    """
    from innervision import images
    from innervision.cli import curves
    from innervision.see.target import strongest, target

    place = output or f"{stem(source)}-{method}.png"
    images.writable(place, read=[source])
    if judged:
        images.writable(curves.beside(place)[0])
    methods = METHODS if method == "all" else (method,)
    folder = None if method != "all" or place == "-" else methods_beside(place)
    with telling(quiet=quiet, as_json=as_json) as told:
        network = open_network(chosen)
        _, image = open_picture(source, chosen["size"], chosen["max_pixels"])
        wanted = target(asked, network) if asked else strongest(network, image)
        options = settings(network, image, wanted, chosen, tested, judged)
        done = {} if folder is None else finished(folder, methods, options)
        left = tuple(name for name in methods if name not in done)
        if dry_run:
            files = [*beside(place)] + [str(path) for path in curves.beside(place) if judged]
            asked_for = {**chosen, "trust": tested, "curves": judged}
            foretold = plan(network, image, wanted, methods, left, asked_for, files).writing(folder)
            foretell(foretold, as_json=as_json)
            return
        if done:
            told.say(f"{len(done)} of {len(methods)} methods are there already, in {folder}")
        by_chance = next((each.by_chance for each in done.values() if each.by_chance), None)
        whole = True
        try:
            if judged and by_chance is None:
                by_chance = by_chance_alone(network, image, wanted, chosen["seed"])
            alone = len(methods) == 1
            for each in explained(network, image, wanted, left, chosen, tested, told, by_chance, alone=alone):
                done[each.method] = each
                if folder is not None:
                    keep(folder / f"{each.method}.safetensors", each, options)
                    images.write(tile(image, each.map, shown), folder / f"{each.method}.png")
        except KeyboardInterrupt:
            whole = False
        found = [done[name] for name in methods if name in done]
        written: list[str] = []
        if found:
            images.write(page(image, found, wanted, network, shown), place)
            written = [place]
            drawn = {each.method: each.curves for each in found if each.curves is not None}
            if by_chance is not None and drawn:
                written += curves.write(place, drawn, by_chance, title=f"{network.name} {wanted}")
            given = {**chosen, "target": str(wanted), "method": method, "show": shown, "trust": tested}
            given |= {"curves": judged, "finished": whole}
            leave_card("attribute", place, given, {"picture": source}, seed=chosen["seed"])
        lines = [each.line(wanted) for each in found]
        told.end(
            "\n".join([*lines, _last(written, folder, len(found), len(methods), whole)]),
            target=str(wanted),
            output=place,
            written=written,
            finished=whole,
            methods={each.method: each.numbers() for each in found},
        )
    if not whole:
        ctx.exit(130)


def methods_beside(place: str) -> Path:
    """Return the folder of the methods' own maps: beside the page of them all."""
    path = Path(place)
    return path.with_name(f"{path.stem}-methods")


def _last(written: list[str], folder: Path | None, made: int, of: int, whole: bool) -> str:
    """Return the last line."""
    where = ", ".join(written)
    where += "" if folder is None else f"; each by itself, with its numbers, in {folder}"
    if whole:
        return f"Written: {where}"
    if not made:
        return "Stopped before there was a map: nothing was written"
    there = f"Stopped; {made} of {of} methods are in {where}"
    return there if folder is None else f"{there}. The same command goes on with the others"


def settings(
    network: Network, image: Tensor, target: Target, chosen: Mapping[str, Any], tested: bool, judged: bool
) -> dict[str, Any]:
    """Return all that a method's map depends on: what differs is made anew."""
    from innervision.see.units import digest

    return {
        "weights": digest(network),
        "picture": fingerprint(image),
        "target": str(target),
        "trust": tested,
        "curves": judged,
        **{name: chosen[name] for name in ("samples", "sigma", "points", "baseline", "seed")},
    }


def finished(folder: Path, methods: tuple[str, ...], options: Mapping[str, Any]) -> dict[str, Explained]:
    """Return the methods whose maps lie in a folder, made with these options."""
    found = {name: kept(folder / f"{name}.safetensors", options) for name in methods}
    return {
        name: each for name, each in found.items() if each is not None and (folder / f"{name}.png").is_file()
    }


def plan(
    network: Network,
    image: Tensor,
    target: Target,
    methods: tuple[str, ...],
    left: tuple[str, ...],
    chosen: Mapping[str, Any],
    files: list[str],
) -> Plan:
    """Return what is about to be done, its seconds reckoned from those of one look."""
    from innervision.cli.beforehand import about, names
    from innervision.cli.foretold import RANDOM, forward
    from innervision.see.curves import STEPS
    from innervision.see.target import named

    h, w = image.shape[-2:]
    total = sum(looks(name, chosen, network, image, target) for name in left)
    if chosen["trust"]:
        again = sum(looks(name, fewer(chosen), network, image, target) for name in left)
        total += (1 + CASCADE) * again + RANDOM * len(left)
    if chosen["curves"]:
        total += 2 * (STEPS + 1) * (len(left) + 1)
    known = len(methods) - len(left)
    there = f"; {known} of {len(methods)} are there already" if known else ""
    work = (
        f"{names(left, 12) or 'nothing more'} of {named(target, network)}{there}",
        f"{about(network)}, on {w}x{h} px: as much as {total:,.0f} looks",
    )
    return Plan(work, total * forward(network, image, target), tuple(files))
