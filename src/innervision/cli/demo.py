"""innervision demo: a photograph painted in two of Van Gogh's styles, and a page that explains how."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
Say = Callable[[str], None]


@dataclass(frozen=True)
class Painted:
    """One painting of the page: names of files beside it, and how it was made."""

    style: str
    title: str
    command: str
    seconds: float


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

    options = Options(size=96, steps=6, every=2) if quick else Options(size=384, steps=80, every=20)
    say: Say = (lambda _: None) if quiet else click.echo
    images.writable(output / "painted.jpg")
    start = time.monotonic()
    painted = paint(output, options, say)
    write_page(output, painted, time.monotonic() - start)
    say(f"\nMade {len(painted)} paintings in {time.monotonic() - start:.0f} s. Open {output / 'index.html'}")
    say("Next: innervision stylize YOURPHOTO sample:cafe-terrace -o painted.jpg")


def paint(output: Path, options: Options, say: Say) -> Sequence[Painted]:
    """Paint the photograph in each style; write the pictures, the sheets and the curves."""
    from PIL import Image

    from innervision import images, record, sheets, stylize
    from innervision.see import activations

    made: list[Painted] = []
    for style, title in STYLES.items():
        start = time.monotonic()
        painting = stylize(f"sample:{PHOTO}", f"sample:{style}", **options)
        events: list[dict[str, Any]] = []
        shots: list[Image.Image] = []
        labels: list[str] = []
        for frame in painting:
            events.append(record.frame_event(frame, time.monotonic() - start))
            if painting.snapshot_due(frame):
                event = record.snapshot_event(frame, painting.changes)
                label = record.snapshot_label(event)
                say(f"{style}: {', '.join(label.splitlines())}")
                shots.append(painting.show(frame))
                labels.append(label)
        seconds = time.monotonic() - start
        painting.save(output / f"painted-{style}.jpg")
        images.write(sheets.sheet(shots, labels=labels, tile=380), output / f"snapshots-{style}.jpg")
        record.draw_curve(events, output / f"curve-{style}.png")
        images.write(Image.fromarray(images.read(f"sample:{style}").pixels), output / f"style-{style}.jpg")
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
        command = f"innervision stylize sample:{PHOTO} sample:{style} {flags} -o painted.jpg"
        made.append(Painted(style, title, command, seconds))
        if len(made) == 1:
            content = painting.goals.content(painting.sitting.size)
            images.write(content, output / "photograph.jpg")
            images.write(activations.sheet(painting.network, content), output / "layers.png")
    return made


def write_page(output: Path, painted: Sequence[Painted], seconds: float) -> None:
    """Write index.html, which shows the pictures beside it."""
    import jinja2

    from innervision.files import atomic

    text = resources.files(__package__ or "innervision.cli").joinpath("demo.html.jinja").read_text("utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    with atomic(output / "index.html") as draft:
        draft.write_text(page.render(painted=painted, seconds=seconds), encoding="utf-8")
