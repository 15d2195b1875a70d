"""innervision demo: a photograph painted in two of Van Gogh's styles, and a page that explains how."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from innervision.paint.recipes import Options

PHOTO = "chelsea"
STYLES = {
    "tarascon": "The Painter on the Road to Tarascon, 1888",
    "church-at-auvers": "The Church at Auvers, 1890",
}


@dataclass(frozen=True)
class Snapshot:
    """A painting on the way: its file beside the page, and what is said of it."""

    file: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Painted:
    """One painting of the page: the names of its files come from its style, and how it was made."""

    style: str
    title: str
    command: str
    seconds: float
    snapshots: Sequence[Snapshot]


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="folder for the pictures and the page",
)
@click.option("--quick", is_flag=True, help="tiny pictures and few steps: a test of the set-up")
@click.option("--quiet", is_flag=True, help="print nothing")
def demo(output: Path, quick: bool, quiet: bool) -> None:
    """Paint a sample photograph as Van Gogh might, and explain how in a page: about two minutes."""
    from innervision import images
    from innervision.paint.recipes import Options

    size = 96 if quick else 384
    options = Options(size=size, steps=6, every=2) if quick else Options(size=size, steps=80, every=20)
    images.writable(output / "painted.jpg")
    start = time.monotonic()
    painted = [paint(output, style, options, quiet=quiet) for style in STYLES]
    draw_layers(output, size)
    seconds = time.monotonic() - start
    write_page(output, painted, seconds)
    if not quiet:
        click.echo(farewell(output, painted, seconds))


def paint(output: Path, style: str, options: Options, *, quiet: bool) -> Painted:
    """Paint the photograph in a style; write the picture, its snapshots and their sheet, and the curve."""
    from PIL import Image

    from innervision import images, record, sheets, stylize
    from innervision.cli.progress import listener

    start = time.monotonic()
    events: list[dict[str, Any]] = []
    shots: list[Image.Image] = []
    snapshots: list[Snapshot] = []
    painting = stylize(f"sample:{PHOTO}", f"sample:{style}", **options)
    with listener(quiet=quiet, as_json=False) as told:
        told.begin(painting)
        for frame in painting:
            seconds = time.monotonic() - start
            told.frame(painting, frame, seconds)
            events.append(record.frame_event(frame, seconds))
            if painting.snapshot_due(frame):
                label = record.snapshot_label(record.snapshot_event(frame, painting.changes))
                snapshots.append(Snapshot(f"snapshots/{style}-{frame.count:04d}.jpg", label.splitlines()))
                shots.append(painting.show(frame))
        name = f"painted-{style}.jpg"
        painting.save(output / name)
        seconds = time.monotonic() - start
        told.end({}, f"{name}: after {STYLES[style]}, in {seconds:.0f} s")
    for snapshot, shot in zip(snapshots, shots, strict=True):
        images.write(shot, output / snapshot.file)
    labels = ["\n".join(snapshot.lines) for snapshot in snapshots]
    page = sheets.sheet(shots, labels=labels, columns=4, tile=380, smooth=True)
    images.write(page, output / f"snapshots-{style}.jpg")
    record.draw_curve(events, output / f"curve-{style}.png")
    images.write(Image.fromarray(images.read(f"sample:{style}").pixels), output / f"style-{style}.jpg")
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    command = f"{program()} stylize sample:{PHOTO} sample:{style} {flags} -o painted.jpg"
    return Painted(style, STYLES[style], command, seconds, snapshots)


def draw_layers(output: Path, size: int) -> None:
    """Write the photograph, and what the layers of VGG19 answer to it."""
    from innervision import images, load
    from innervision.see import activations

    photo = images.read(f"sample:{PHOTO}")
    content = photo.tensor(images.fit(photo.height, photo.width, longest=size))
    images.write(content, output / "photograph.jpg")
    images.write(activations.sheet(load("vgg19"), content, channels=12), output / "layers.png")


def farewell(output: Path, painted: Sequence[Painted], seconds: float) -> str:
    """Say what was made, where, and what to try next."""
    made = (
        ("painted-STYLE.jpg", f"the photograph, painted in {len(painted)} styles: {', '.join(STYLES)}"),
        ("snapshots-STYLE.jpg", "the way there on a contact sheet; each alone in snapshots/"),
        ("layers.png", "what the layers of VGG19 answer to the photograph"),
        ("index.html", "shows and explains it all: open it in a browser"),
    )
    return "\n".join(
        [
            f"Made in {output}, in {seconds:.0f} s:",
            *(f"  {name:<21}{what}" for name, what in made),
            f"Next: {onward()}",
        ]
    )


def onward() -> str:
    """Return the command to try next."""
    return f"{program()} stylize YOURPHOTO sample:cafe-terrace -o painted.jpg"


def program() -> str:
    """Return what to type for `innervision` here: by its name alone no shell finds it in make's .venv."""
    typed, name = Path(sys.argv[0]), "innervision"
    return name if shutil.which(name) or typed.stem != name else shlex.quote(str(typed))


def write_page(output: Path, painted: Sequence[Painted], seconds: float) -> None:
    """Write index.html, which shows the pictures beside it."""
    import jinja2

    from innervision.files import atomic

    text = resources.files(__package__ or "innervision.cli").joinpath("demo.html.jinja").read_text("utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    with atomic(output / "index.html") as draft:
        draft.write_text(page.render(painted=painted, seconds=seconds, next=onward()), encoding="utf-8")
