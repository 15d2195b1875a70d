"""What was ordered: which pictures, by which recipe, to where; and what was read to carry it out."""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.errors import Invalid, RunUnusable
from innervision.paint.recipes import Options, Recipe, start_file

if TYPE_CHECKING:
    from innervision import images
    from innervision.record import Input, RunCard


@dataclass(frozen=True)
class Order:
    """What is to be painted: the content first, then the styles, as named."""

    preset: str
    sources: tuple[str, ...]
    recipe: Recipe
    output: str


def again(before: RunCard, folder: Path, typed: Options, output: str | None) -> Order:
    """Return the order of a run that is to be gone on with; options typed now must say the same.

    Raises RunUnusable for a run of another command, and for a card whose options are none of stylize.
    """
    if before.command != "stylize":
        raise RunUnusable(
            f"that run is one of innervision {before.command}, not of stylize: see innervision runs"
        )
    tuples = {name: _tuples(value) for name, value in before.options.items()}
    known = {each.name for each in fields(Recipe)}
    try:
        if missing := {"precision", "threads", "device"} - before.machine.keys():
            raise ValueError(f"no {', '.join(sorted(missing))} of the machine")
        chosen = Recipe(**{n: v for n, v in tuples.items() if n in known})
    except (TypeError, AttributeError, ValueError) as error:
        raise RunUnusable(f"'{folder / 'run.json'}' is no card of a painting: {error}") from error
    chosen = replace(chosen, **typed)
    pictures = [each.source for each in before.inputs if each.role in ("content", "style")]
    sources = tuple(_place(source, folder) for source in pictures)
    return Order(before.preset, sources, absolute(chosen), output or before.output)


def _place(source: str, folder: Path) -> str:
    """Return where a picture is now: what came by standard input has moved with the run's folder."""
    from innervision.record import STDIN

    own = folder / STDIN
    moved = Path(source).name == STDIN and own.is_file() and not Path(source).is_file()
    return str(own.absolute()) if moved else source


def _tuples(value: Any) -> Any:
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def absolute(chosen: Recipe) -> Recipe:
    """Give the recipe's files their full paths, so that a run can be gone on with from any folder."""
    start = chosen.start
    if start_file(start) is not None and not start.startswith("sample:"):
        start = str(Path(start).absolute())
    weights = None if chosen.weights is None else str(Path(chosen.weights).absolute())
    return replace(chosen, start=start, weights=weights, net=_lasting(chosen.net))


def _lasting(net: str) -> str:
    """Return a network's name, a folder or a file in it as a full path."""
    from innervision import models, nets

    if net in nets.NETS or net in models.shipped():
        return net
    if models.find(net) is not None:
        return str(Path(net).absolute())
    file, colon, function = net.rpartition(":")
    return f"{Path(file).absolute()}:{function}" if colon else net


@dataclass(frozen=True)
class Seen:
    """The pictures as read, every file that was read, and standard input if it was."""

    pictures: tuple[images.Source, ...]  # content and styles
    start: images.Picture | None
    inputs: tuple[Input, ...]
    stdin: bytes | None


def there(sources: tuple[str, ...]) -> None:
    """Raise Invalid for the first picture that is named and is not there."""
    from innervision import samples

    for source in sources:
        if source.startswith("sample:"):
            samples.path(source.removeprefix("sample:"))
        elif source not in ("-", "blank") and _missing(Path(source)):
            raise Invalid(f"no file '{Path(source)}': check its name and folder")


def _missing(path: Path) -> bool:
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except (OSError, ValueError):  # whatever else is wrong is told when it is read
        pass
    return False


def look(order: Order, limit: int, folder: Path | None) -> Seen:
    """Read every picture, and say of every file that is read where it is and what its checksum is."""
    from innervision import images, samples
    from innervision.files import sha256
    from innervision.record import STDIN, Input

    came: bytes | None = None

    if order.sources.count("-") > 1:
        raise click.UsageError("standard input holds one picture: name files for the others")
    pictures: list[images.Source] = []
    read: list[Input] = []
    start = start_file(order.recipe.start)
    sources = order.sources if start is None else (*order.sources, start)
    for number, source in enumerate(sources):
        role = "content" if number == 0 else "style" if number < len(order.sources) else "start"
        if source == "blank":
            pictures.append(source)
            read.append(Input(role, source, ""))
        elif source == "-":
            came = data = images.standard_input()
            pictures.append(images.read(_Stdin(data), max_pixels=limit))
            place = source if folder is None else str((folder / STDIN).absolute())
            read.append(Input(role, place, hashlib.sha256(data).hexdigest()))
        else:
            pictures.append(images.read(source, max_pixels=limit))
            sample = source.startswith("sample:")
            path = samples.path(source.removeprefix("sample:")) if sample else Path(source).absolute()
            read.append(Input(role, source if sample else str(path), sha256(path)))
    if order.recipe.color != "transfer-only":
        read += _network(order.recipe)
    over = None if start is None else pictures[-1]
    assert over is None or isinstance(over, images.Picture)
    return Seen(tuple(pictures[: len(order.sources)]), over, tuple(read), came)


def _network(recipe: Recipe) -> Iterator[Input]:
    """Yield the files that the network comes from."""
    from innervision import models, nets, weights
    from innervision.errors import WeightsMissing
    from innervision.files import sha256
    from innervision.record import Input

    net, file = recipe.net, recipe.weights
    trained = None if net in nets.NETS else models.find(net)
    if file is not None:
        path = Path(file)
    elif trained is not None:
        path = trained / models.WEIGHTS
    else:
        published = weights.default(net)
        path = None if published is None else weights.locate(published)
    if path is not None:
        if not path.is_file():
            raise WeightsMissing(f"no weights file '{path}': check its name and folder")
        yield Input("weights", str(path.absolute()), sha256(path))
    own = Path(net.rpartition(":")[0]) if trained is None else trained / models.CARD
    if net not in nets.NETS and own.is_file():
        yield Input("net", str(own.absolute()), sha256(own))


class _Stdin(io.BytesIO):
    """Standard input, read whole, under the name that errors give it."""

    name = "standard input"


def describe(order: Order, read: tuple[Input, ...]) -> RunCard:
    """Return the card of a run that is about to begin."""
    import torch

    from innervision.machine import choose_device, choose_precision
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
        versions=versions(),
        machine=machine(
            threads=order.recipe.threads or torch.get_num_threads(),
            device=device,
            precision=str(precision).removeprefix("torch."),
        ),
    )


def machine(*, threads: int, device: object, **more: Any) -> dict[str, Any]:
    """Return what a card says of the machine."""
    processor, cores = platform.processor() or platform.machine(), os.cpu_count()
    return {"processor": processor, "cores": cores, "threads": threads, "device": str(device), **more}


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    from innervision import __version__

    others = {name: metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {"innervision": __version__, "python": platform.python_version(), **others}
