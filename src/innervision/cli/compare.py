"""innervision compare: how alike layers are, what they do not notice, and how a unit comes to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.options import Several
from innervision.cli.seeing import (
    leave_card,
    limit_option,
    network_options,
    open_network,
    open_picture,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from PIL import Image

    from innervision.cli.seeing import Telling
    from innervision.network import Network


class Greedy(click.Command):
    """A command one of whose options takes all words up to the next option: --checkpoints W1 W2 W3."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        taking = False
        for word in args:
            if taking and not word.startswith("-"):
                spread += [word] if spread[-1] == "--checkpoints" else ["--checkpoints", word]
                continue
            taking = word == "--checkpoints"
            spread.append(word)
        return super().parse_args(ctx, spread)


@click.command(cls=Greedy)
@click.argument("pictures", nargs=-1)
@click.option(
    "--net2", help="a second network, to compare the first one's layers with [default: with each other]"
)
@click.option("--weights2", help="the second network's weights file")
@click.option("--layers", type=Several(str), help="of the first network [default: every ReLU]")
@click.option("--layers2", type=Several(str), help="of the second network [default: every ReLU]")
@click.option(
    "--biased",
    is_flag=True,
    help="as Kornblith et al., of all pictures at once: near 1 for any layers where pictures are few",
)
@click.option("--batch", type=int, default=64, show_default=True, help="pictures at once for the similarity")
@click.option("--invariance", metavar="IMAGE", help="shift, scale and turn this picture instead")
@click.option(
    "--checkpoints", multiple=True, metavar="FILE…", help="follow a unit through these weights instead"
)
@click.option("--target", metavar="LAYER:CHANNEL", help="the unit that --checkpoints follows")
@click.option(
    "--part", "parts", multiple=True, metavar="X,Y,W,H", help="hide this part; one for each picture"
)
@click.option("--limit", type=int, default=256, show_default=True, help="of the pictures, the first so many")
@click.option(
    "--size", type=int, help="side of the pictures in pixels [default: 224; of a data set, its own]"
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="the picture to write [default: compare.png]"
)
@dry_run_option
@limit_option
@network_options
@telling_options
@click.pass_context
def compare(ctx: click.Context, **chosen: Any) -> None:
    """Compare layers by how they answer to PICTURES: linear CKA of all with all, as a heat map.

    PICTURES are picture files, a folder of them, or a data set's file: 64 or more, for a sound comparison; at
    224 px VGG19 takes about a second for each. A picture is a file or sample:NAME.

    With --net2 the first network's layers are compared with the second's. With --invariance IMAGE it is seen
    instead how far every layer's features move when a picture is shifted, scaled and turned; with PICTURES
    --checkpoints W1 W2 … --target LAYER:CHANNEL, what a unit answers to as training goes on; with PICTURES
    and a --part for each, whether a network knows that the parts are the same. The numbers lie beside the
    picture, in OUTPUT with the suffix .csv.
    """
    from innervision.errors import Invalid
    from innervision.images import writable

    asked = [name for name in ("invariance", "checkpoints", "parts") if chosen[name]]
    if len(asked) > 1:
        raise Invalid(f"--{asked[0]} and --{asked[1].removesuffix('s')} are two questions: ask one at a time")
    if chosen["invariance"] and chosen["pictures"]:
        raise Invalid("--invariance moves one picture: leave out the others")
    if not chosen["invariance"] and not chosen["pictures"]:
        raise Invalid(
            "no pictures: name a folder, a data set's file or some picture files, or --invariance IMAGE"
        )
    output = chosen["output"] or Path("compare.png")
    writable(output)
    if chosen["checkpoints"] and not chosen["target"]:
        raise Invalid("--checkpoints needs --target LAYER:CHANNEL: the unit to follow")
    if chosen["dry_run"]:
        _foretell(chosen, asked[0] if asked else "similarity")
        return
    ask = {"invariance": _invariance, "checkpoints": _checkpoints, "parts": _parts}
    with telling(quiet=chosen["quiet"], as_json=chosen["as_json"]) as tell:
        page, rows, text = ask[asked[0]](chosen, tell) if asked else _similarity(chosen, tell)
        numbers = output.with_suffix(".csv")
        _write(page, output, rows, numbers)
        sources = [chosen["invariance"]] if chosen["invariance"] else chosen["pictures"]
        named = {f"picture {n}": source for n, source in enumerate(sources, 1)}
        weights = {f"weights {n}": file for n, file in enumerate(chosen["checkpoints"], 1)}
        card = leave_card("compare", output, ctx.params, named | weights)
        tell.end(
            f"{text}; wrote {output} and {numbers}",
            output=str(output),
            numbers=str(numbers),
            said=text,
            rows=[list(row) for row in rows],
            card=str(card),
        )


def _foretell(chosen: Mapping[str, Any], kind: str) -> None:
    from innervision.cli.comparing import plan

    if kind == "checkpoints":  # they are of one network: the first stands for all
        chosen = {**chosen, "weights": chosen["checkpoints"][0]}
    second = _second(chosen) if kind == "similarity" else None
    pictures = None if kind == "invariance" else _some(chosen)
    foretell(plan(chosen, kind, second, pictures), as_json=chosen["as_json"])


Rows = list[Sequence[Any]]  # a table, its head first
Found = tuple["Image.Image", Rows, str]  # the picture, the numbers, and a line for a person


def _similarity(chosen: Mapping[str, Any], tell: Telling) -> Found:
    from innervision.cli.comparing import caution
    from innervision.see.compare import cka, heat_map

    network = open_network(chosen)
    second = _second(chosen)
    pictures = _some(chosen)
    *_, found = _told(
        cka(
            network,
            pictures,
            chosen["layers"],
            other=second,
            other_layers=chosen["layers2"],
            batch_size=chosen["batch"],
            biased=chosen["biased"],
        ),
        tell,
    )
    for name, why in found.skipped[:10]:
        tell.say(f"skipped {name}: {why}")
    seen = found.of - len(found.skipped)
    kind = "biased" if chosen["biased"] else "unbiased"
    title = f"linear CKA ({kind}), {seen:,} pictures"
    doubt = caution(found, biased=chosen["biased"])
    if doubt:
        tell.say(doubt)
        title += ": too few"
    page = heat_map(found, title=title, names=(network.name, (second or network).name))
    rows: Rows = [("", *found.columns)]
    rows += [(name, *map(float, values)) for name, values in zip(found.rows, found.matrix, strict=True)]
    skipped = f", {len(found.skipped)} skipped" if found.skipped else ""
    return page, rows, f"compared {len(found.rows)} layers with {len(found.columns)}, {title}{skipped}"


def _second(chosen: Mapping[str, Any]) -> Network | None:
    if not chosen["net2"] and not chosen["weights2"]:
        return None
    given = {
        "net": chosen["net2"] or chosen["net"],
        "weights": chosen["weights2"],
        "device": chosen["device"],
    }
    # other weights of the same network want the same input; another network says itself what it wants
    same = None if chosen["net2"] else chosen
    wanted = {name: same and same[name] for name in ("mean", "std", "range_", "order")}
    return open_network({**wanted, **given})


def _some(chosen: Mapping[str, Any]) -> Any:
    from innervision.see.pictures import first, open_pictures

    return first(open_pictures(chosen["pictures"], size=chosen["size"]), chosen["limit"])


def _told(steps: Iterator[Any], tell: Telling) -> Iterator[Any]:
    for found in steps:
        tell.step(found.done, found.of, "pictures")
        yield found


def _invariance(chosen: Mapping[str, Any], tell: Telling) -> Found:
    from innervision.see.invariance import MOVES, draw, invariance

    network = open_network(chosen)
    _, image = open_picture(chosen["invariance"], chosen["size"] or 224, chosen["max_pixels"])
    responses = []
    for kind in MOVES:
        responses.append(invariance(network, image, kind, chosen["layers"]))
        tell.step(len(responses), len(MOVES), kind)
    rows: Rows = [("move", "amount", *responses[0].distances, "probability")]
    for response in responses:
        for number, amount in enumerate(response.amounts):
            values = [float(line[number]) for line in response.distances.values()]
            likely = "" if response.probabilities is None else float(response.probabilities[number])
            rows.append((response.kind, amount, *values, likely))
    page = draw(responses, title=f"{network.name}: how far features move with the picture")
    return page, rows, f"moved the picture {len(rows) - 1} times, and looked at {len(rows[0]) - 3} layers"


def _checkpoints(chosen: Mapping[str, Any], tell: Telling) -> Found:
    from innervision.see.evolution import draw, evolution
    from innervision.see.target import target

    files = chosen["checkpoints"]
    opened = ((Path(file).stem, open_network({**chosen, "weights": file})) for file in files)
    first = next(opened)
    unit = target(chosen["target"], first[1])
    found = []
    for one in evolution(_chained(first, opened), _some(chosen), unit):
        found.append(one)
        tell.step(len(found), len(files), one.label)
    rows: Rows = [("checkpoint", "value", "picture", "row", "column")]
    rows += [(one.label, one.value, one.unit.names[0], *one.place) for one in found]
    return (
        draw(found, title=f"{unit} through training"),
        rows,
        f"followed {unit} over {len(found)} checkpoints",
    )


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _parts(chosen: Mapping[str, Any], tell: Telling) -> Found:
    import torch

    from innervision.errors import Invalid
    from innervision.see.correspondence import correspondence, draw
    from innervision.see.pictures import batch
    from innervision.see.units import seen_by_default

    network, pictures = open_network(chosen), _some(chosen)
    boxes = []
    for text in chosen["parts"]:
        try:
            x, y, w, h = (int(part) for part in text.split(","))
        except ValueError:
            raise Invalid(
                f"{text!r} is no part: give X,Y,W,H in pixels of the picture as it is resized"
            ) from None
        boxes.append((x, y, w, h))
    image, _, bad = batch(pictures, range(len(pictures)))
    if bad:
        raise Invalid(bad[0][1])
    layers = chosen["layers"] or seen_by_default(network)
    tell.step(0, 1, "hiding parts")
    found = correspondence(network, image, boxes, layers, generator=torch.Generator().manual_seed(0))
    rows: Rows = [("layer", "part", "part spread", "chance", "chance spread")]
    rows += [(one.layer, one.part, one.spread, one.chance, one.chance_spread) for one in found]
    page = draw(found, title=f"{network.name}: the same part hidden in {len(boxes)} pictures")
    return page, rows, f"hid a part of {len(boxes)} pictures, and looked at {len(found)} layers"


def _write(page: Image.Image, output: Path, rows: Rows, numbers: Path) -> None:
    import csv

    from innervision.files import atomic

    with atomic(output) as draft:
        page.save(draft)
    with atomic(numbers) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
