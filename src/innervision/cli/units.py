"""innervision units: the pictures that excite each unit most."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import Plan, dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.options import Several
from innervision.cli.seeing import (
    file_of,
    leave_card,
    network_options,
    open_network,
    precision_option,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from innervision.cli.seeing import Telling
    from innervision.network import Network
    from innervision.see.pictures import Pictures
    from innervision.see.units import TopImages

SHOWN = 16  # units of a layer on a sheet, unless they are named


@click.command()
@click.argument("folder", metavar="DATA_FOLDER")
@click.option(
    "--layers", type=Several(str), help="whose units to rank, names with commas between [default: every ReLU]"
)
@click.option(
    "--index",
    type=click.Path(path_type=Path),
    help="the file that keeps the ranking [default: index.safetensors in OUTPUT]",
)
@click.option(
    "--sheet",
    "sheets",
    multiple=True,
    help="LAYER or LAYER:FIRST-LAST, to be drawn; repeatable [default: the first 16 units of every layer]",
)
@click.option("--deconv", is_flag=True, help="draw each patch's deconvolution beside it")
@click.option("--top", "k", type=int, default=9, show_default=True, help="pictures shown of each unit")
@click.option(
    "--size", type=int, help="side of the pictures in pixels [default: 224; of a data set, its own]"
)
@precision_option("of the pass over the pictures; auto is bfloat16 where the processor computes in it")
@click.option("--batch", type=int, help="pictures at once [default: 64 small ones, 5 of 224 px]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="a folder [default: units-NAME]")
@dry_run_option
@network_options
@telling_options
@click.pass_context
def units(ctx: click.Context, **chosen: Any) -> None:
    """Find the nine pictures of DATA_FOLDER that excite each unit most, and draw what it sees of them.

    DATA_FOLDER holds photographs, in folders of any depth, or CIFAR's or MNIST's binary files; such a file
    itself, or a .npy array, will do too. All units of all layers are ranked in one pass. It keeps an index
    as it goes: stopped, even by force, the same command goes on where it was, and a finished index is
    drawn from at once.
    """
    from innervision import images
    from innervision.machine import choose_precision
    from innervision.see.pictures import open_pictures
    from innervision.see.units import top_images

    pictures = open_pictures((chosen["folder"],), size=chosen["size"])
    output = chosen["output"] or Path(f"units-{pictures.name}")
    images.writable(output / "run.json", format="png")  # its folder
    network = open_network(chosen)
    wanted = [_sheet(text, network) for text in chosen["sheets"]]
    index = chosen["index"] or output / "index.safetensors"
    precision = choose_precision(chosen["precision"], network.device)
    looking = network if precision == network.dtype else network.frozen(precision)
    looks = top_images(
        looking, pictures, chosen["layers"], k=chosen["k"], batch_size=chosen["batch"], index=index
    )
    if chosen["dry_run"]:
        foretell(plan(looking, pictures, wanted, index, output, chosen), as_json=chosen["as_json"])
        return
    with telling(quiet=chosen["quiet"], as_json=chosen["as_json"]) as tell:
        if len(pictures) < chosen["k"]:
            tell.say(few(len(pictures), chosen["k"]))
        found: TopImages | None = None
        try:
            for found in looks:
                tell.step(found.done, found.of, "pictures", skipped=len(found.skipped))
            assert found is not None  # a pass over no pictures is refused
            for _, name, why in found.skipped[:10]:
                tell.say(f"skipped {name}: {why}")
            drawn = _draw(network, found, pictures, wanted, chosen, output, tell)
        except KeyboardInterrupt:
            looks.close()  # which keeps the index
            done = 0 if found is None else found.done
            tell.end(
                f"Stopped; {done:,} of {len(pictures):,} pictures are ranked. The same command goes on there",
                output=str(output),
                index=str(index),
                pictures=done,
                finished=False,
            )
            ctx.exit(130)
        card = leave_card(
            "units", output, {**ctx.params, "precision": found.key["precision"]}, {"data": chosen["folder"]}
        )
        skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
        tell.end(
            f"ranked {found.units:,} units over {found.of - len(found.skipped):,} pictures{skipped}; "
            f"wrote {len(drawn)} sheets into {output}",
            output=str(output),
            index=str(index),
            finished=True,
            sheets=[str(path) for path in drawn],
            units=found.units,
            pictures=found.of - len(found.skipped),
            skipped=[list(each) for each in found.skipped],
            card=str(card),
        )


def few(count: int, k: int) -> str:
    """Say that there are fewer pictures than are to be shown of each unit."""
    from innervision.learn.raw import many

    return f"only {many(count, 'picture')}: every unit shows all of them, where {k} of many were asked for"


def plan(
    network: Network,
    pictures: Pictures,
    wanted: Sequence[tuple[str, range | None]],
    index: Path,
    output: Path,
    chosen: Mapping[str, Any],
) -> Plan:
    """Return what is about to be done, its seconds from a few batches of the first pictures."""
    from innervision.cli import beforehand
    from innervision.see.pictures import first
    from innervision.see.units import TopImages, most_at_once, seen_by_default, top_images

    batch = chosen["batch"] or most_at_once(pictures.size)
    layers = chosen["layers"] or seen_by_default(network)
    done = TopImages.load(index).done if index.exists() else 0
    some = first(pictures, 4 * batch)
    looks = beforehand.pace(top_images(network, some, layers, k=chosen["k"], batch_size=batch))
    shown = wanted or [(layer, None) for layer in layers]
    drawn = sum(SHOWN if channels is None else len(channels) for _, channels in shown) * chosen["k"]
    each = beforehand.span(lambda: pictures[0])  # a patch is cut out of its picture, read anew
    if chosen["deconv"]:
        each += 3 * looks / min(batch, len(pictures))
    height, width = pictures.size
    lines = (
        f"the {chosen['k']} of {len(pictures):,} pictures that each unit answers to most",
        f"units of {beforehand.names(layers)}",
        f"{width}x{height} px, {batch} at a time, {beforehand.about(network)}",
    )
    if done:
        lines += (f"{done:,} pictures are ranked already, in {index}",)
    if len(pictures) < chosen["k"]:
        lines += (few(len(pictures), chosen["k"]),)
    files = (str(index), *(str(sheet_file(output, *each)) for each in shown), str(output / "run.json"))
    seconds = (len(pictures) - done) / min(batch, len(some)) * looks + drawn * each
    return Plan(lines, seconds, files, **beforehand.memory(network.device))


def sheet_file(output: Path, layer: str, channels: range | None) -> Path:
    """Return where the sheet of a layer's units goes."""
    part = "" if channels is None else f"-{channels[0]}-{channels[-1]}"
    return output / f"{file_of(layer)}{part}.png"


def _sheet(text: str, network: Network) -> tuple[str, range | None]:
    """Read LAYER, LAYER:UNIT or LAYER:FIRST-LAST."""
    from innervision.errors import Invalid

    found = re.fullmatch(r"([^:]+)(?::(\d+)(?:-(\d+))?)?", text.strip())
    if found is None:
        raise Invalid(f"{text!r} names no sheet: give LAYER, LAYER:UNIT or LAYER:FIRST-LAST")
    (layer,) = network.check((found[1],))
    if found[2] is None:
        return layer, None
    first, last = int(found[2]), int(found[3] or found[2])
    if last < first:
        raise Invalid(f"{text!r} ends before it begins: give LAYER:FIRST-LAST")
    return layer, range(first, last + 1)


def _draw(
    network: Network,
    found: TopImages,
    pictures: Pictures,
    wanted: Sequence[tuple[str, range | None]],
    chosen: Mapping[str, Any],
    output: Path,
    tell: Telling,
) -> list[Path]:
    from innervision.files import atomic
    from innervision.see.contact import contact_sheet, strongest

    drawn: list[Path] = []
    sheets = wanted or [(layer, None) for layer in found.layers]
    for layer, channels in sheets:
        shown = channels or range(min(SHOWN, len(found[layer].values)))
        seen = strongest(network, found, pictures, layer, shown, deconv=chosen["deconv"])
        title = f"{network.name} {layer}: {len(shown)} of {len(found[layer].values)} units, {pictures.name}"
        page = contact_sheet(seen, title=title)
        path = sheet_file(output, layer, channels)
        with atomic(path) as draft:
            page.save(draft)
        drawn.append(path)
        tell.step(len(drawn), len(sheets), "sheets")
    return drawn
