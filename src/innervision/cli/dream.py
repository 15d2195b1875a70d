"""innervision dream: what layers see in a picture, drawn into it; or a film of dreams upon dreams."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.beforehand import Plan, beside, dry_run_option
from innervision.cli.beforehand import tell as foretell
from innervision.cli.seeing import (
    Telling,
    leave_card,
    limit_option,
    network_options,
    open_network,
    open_picture,
    precision_option,
    stem,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from innervision.network import Network
    from innervision.see.dream import Dreamt, Octaves
    from innervision.see.wishes import Wish

USUAL = "relu4_4,relu5_1"  # of vgg19: eyes and fur, then heads
_GUESTS = 0.75  # of the way through another network's ReLUs, or what stands for them
_EVERY = 5  # steps between snapshots


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option(
    "--layers",
    help="what is asked for more of: LAYER, LAYER:CHANNEL, class:N, class:NAME or a direction as of excite, "
    "each with =WEIGHT or without, commas "
    f"between [default: {USUAL}; for other networks the ReLU, or other nonlinearity, three quarters of the "
    "way through]",
)
@click.option("--guide", help="a picture: dream of what the layers see in it")
@click.option(
    "--octaves",
    type=int,
    default=4,
    show_default=True,
    help="sizes that are dreamt at, from small to the picture's own: more make larger forms",
)
@click.option(
    "--octave-scale",
    type=float,
    default=1.4,
    show_default=True,
    help="how many times larger each size is than the one before",
)
@click.option("--steps", type=int, default=10, show_default=True, help="up the gradient, at each octave")
@click.option(
    "--rate", type=float, default=1.5, show_default=True, help="mean change of a pixel in a step, of 255"
)
@click.option(
    "--jitter",
    type=int,
    default=32,
    show_default=True,
    help="by how many pixels at most the picture is rolled before a step",
)
@click.option("--tile", type=int, default=512, show_default=True, help="px the network sees at once each way")
@click.option(
    "--size",
    type=int,
    default=512,
    show_default=True,
    help="longest side of the picture, in pixels; 0: its own",
)
@click.option(
    "--pictures",
    type=int,
    help="make a film of so many, which zooms in, each dreamt upon the one before [default: one picture]",
)
@click.option(
    "--zoom",
    type=float,
    default=0.05,
    show_default=True,
    help="of a film: by what share of its sides each picture is zoomed into",
)
@click.option("--fps", type=int, default=12, show_default=True, help="pictures a second of an mp4")
@click.option("--seed", type=int, default=0, show_default=True, help="of the jitter")
@precision_option("bfloat16 where the processor has it")
@click.option(
    "-o",
    "--output",
    help="the picture to write [default: NAME-dream.png]; for a film a folder, or an .mp4 (extra `video`)",
)
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help=f"a folder to keep the picture as it comes, every {_EVERY} steps, in its snapshots",
)
@dry_run_option
@limit_option
@network_options
@telling_options
@click.pass_context
def dream(
    ctx: click.Context,
    source: str,
    layers: str | None,
    guide: str | None,
    pictures: int | None,
    output: str | None,
    folder: Path | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Draw into IMAGE what the layers of a network see in it: Deep Dream.

    A picture is a file or sample:NAME. Ctrl-C keeps the picture so far.
    """
    import torch

    from innervision.machine import choose_precision
    from innervision.see.dream import Octaves, film

    place = Path(output or f"{stem(source)}-dream{'.png' if pictures is None else ''}")
    how = Octaves(
        chosen["octaves"],
        chosen["octave_scale"],
        chosen["steps"],
        chosen["rate"],
        chosen["jitter"],
        chosen["tile"],
    )
    read = {"picture": source} | ({} if guide is None else {"guide": guide})
    with contextlib.ExitStack() as opened:
        told = opened.enter_context(telling(quiet=quiet, as_json=as_json))
        keep = None
        if not dry_run or place.suffix != ".mp4":
            keep = _keeper(place, pictures, chosen["fps"], opened, read.values())
        network = open_network(chosen)
        network = network.frozen(choose_precision(chosen["precision"], network.device))
        wishes = read_wishes(layers or usual(network), network)
        size = chosen["size"] or None
        limit = chosen["max_pixels"]
        _, image = open_picture(source, size, limit)
        seen = None if guide is None else open_picture(guide, size, limit)[1].to(network.device)
        image = image.to(network.device)
        if dry_run or keep is None:
            files = _files(place, pictures, folder)
            foretell(plan(network, image, wishes, seen, how, pictures or 1, files), as_json=as_json)
            return
        frames = film(
            network,
            image,
            wishes,
            pictures=pictures or 1,
            zoom=chosen["zoom"],
            guide=seen,
            octaves=how,
            generator=torch.Generator().manual_seed(chosen["seed"]),
        )
        snapshots = (
            folder / "snapshots" if folder is not None and pictures is None else None
        )  # a film has its own
        finished, last = _watch(frames, keep, told, snapshots)
    asked = ",".join(f"{target}={weight:g}" for target, weight in wishes)
    precision = str(network.dtype).removeprefix("torch.")
    settings = {**chosen, "layers": asked, "guide": guide, "pictures": pictures, "finished": finished}
    settings["precision"] = precision
    if last is not None:
        leave_card("dream", place, settings, read, seed=chosen["seed"])
    what = "Written" if finished else "Stopped; written as far as it went"
    told.end(
        f"{what}: {place}" if last is not None else "Stopped before there was anything to write",
        output=str(place),
        finished=finished,
        layers=asked,
        value=None if last is None else last.value,
    )
    if not finished:
        ctx.exit(130)


def plan(
    network: Network,
    image: Tensor,
    wishes: list[Wish],
    guide: Tensor | None,
    how: Octaves,
    pictures: int,
    files: tuple[str, ...],
) -> Plan:
    """Return what is about to be done, its seconds from a few steps at the smallest size and the largest."""
    from innervision.cli import beforehand
    from innervision.images import resize
    from innervision.see.dream import dream as work

    height, width = image.shape[-2:]
    sizes = how.sizes((height, width))
    tried: list[tuple[float, float]] = []
    for size in dict.fromkeys((sizes[0], sizes[-1])):
        one = replace(how, count=1, steps=4)
        steps = work(network, resize(image, size), wishes, guide=guide, octaves=one)
        tried.append((size[0] * size[1], beforehand.pace(steps)))
    each = sum(beforehand.between(tried[0], tried[-1], h * w) for h, w in sizes)
    asked = beforehand.names([f"{target}={weight:g}" if weight != 1 else target for target, weight in wishes])
    film = f"a film of {pictures} pictures of" if pictures > 1 else "a dream of"
    octaves = ", ".join(f"{w}x{h}" for h, w in sizes)
    lines = (
        f"{film} {asked}, {width}x{height} px",
        f"{pictures * len(sizes) * how.steps} steps: {how.steps} at each of {octaves}",
        beforehand.about(network),
    )
    return Plan(lines, pictures * how.steps * each, files, **beforehand.memory(network.device))


def _files(place: Path, pictures: int | None, folder: Path | None) -> tuple[str, ...]:
    """Return what is written."""
    kept = () if folder is None or pictures is not None else (f"{folder / 'snapshots'}/",)
    if pictures is None or place.suffix:
        return (*beside(place), *kept)
    return f"{place / '0000.png'} … {pictures - 1:04d}.png", str(place / "run.json")


def usual(network: Network) -> str:
    """Return what is dreamt of unless layers are named."""
    from innervision.errors import Invalid
    from innervision.see.activations import nonlinearities

    if all(name in network.layers for name in USUAL.split(",")):
        return USUAL
    names = nonlinearities(network)
    if not names:
        raise Invalid(
            f"{network.name} has neither nonlinearities nor Conv2d modules to dream of by default: "
            "name some of its --layers"
        )
    return names[min(len(names) - 1, int(_GUESTS * len(names)))]


def read_wishes(text: str, network: Network) -> list[Wish]:
    """Read "relu4_4,relu5_1:12=0.5,class:tabby": targets or directions, each with a weight (1) after "="."""
    from innervision.errors import Invalid
    from innervision.see.directions import unit
    from innervision.see.excite import usual_side

    wishes: list[Wish] = []
    for part in _parts(text):
        name, equals, number = part.partition("=")
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            raise Invalid(f"{part!r} has no weight after its '=': give a number, as in {name}=0.5") from None
        wishes.append((unit(name, network, usual_side(network)), weight))
    return wishes


def _parts(text: str) -> Iterable[str]:
    """Split at commas, but not at that of a place: relu5_3:17@4,6."""
    parts: list[str] = []
    for part in text.split(","):
        if parts and "@" in parts[-1].partition("=")[0] and parts[-1].rpartition("@")[2].isdigit():
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    return parts


def _keeper(
    place: Path, pictures: int | None, fps: int, opened: contextlib.ExitStack, read: Iterable[str]
) -> Callable[[int, Tensor], None]:
    """Return what writes a picture, by its number; raise what will keep it from writing."""
    from innervision import images

    if pictures is None:
        images.writable(place, read=read)
        return lambda number, image: images.write(image, place)
    if place.suffix.lower() == ".mp4":
        from innervision.see.movie import Movie

        movie = opened.enter_context(Movie(place, fps=fps))
        return lambda number, image: movie.add(image)
    if place.suffix:
        from innervision.errors import Invalid

        raise Invalid(f"a film is written to a folder or an .mp4, not {place.name!r}")
    images.writable(place / "0000.png")
    return lambda number, image: images.write(image, place / f"{number:04d}.png")


def _watch(
    frames: Iterable[Dreamt],
    keep: Callable[[int, Tensor], None],
    told: Telling,
    snapshots: Path | None = None,
) -> tuple[bool, Dreamt | None]:
    """Tell every step and keep every picture that ends; return whether all did, and the last step."""
    from innervision import images

    last: Dreamt | None = None
    try:
        for frame in frames:
            last = frame
            if frame.last:
                keep(frame.picture, frame.image)
            elif snapshots is not None and frame.step % _EVERY == 0:
                images.write(frame.whole(), snapshots / f"{frame.count:04d}.png")
            h, w = frame.image.shape[-2:]
            text = f"octave {frame.octave + 1}, {w} × {h} px"
            told.step(frame.count, frame.steps, text, octave=frame.octave, value=frame.value)
    except KeyboardInterrupt:
        if last is not None and not last.last:
            keep(last.picture, last.whole())
        return False, last
    return True, last
