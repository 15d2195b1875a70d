"""innervision demo: a photograph painted in two of Van Gogh's styles, and a page that explains how."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL import Image

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

    from innervision import images, stylize
    from innervision.see import activations

    made: list[Painted] = []
    for style, title in STYLES.items():
        start = time.monotonic()
        painting = stylize(f"sample:{PHOTO}", f"sample:{style}", **options)
        shots: list[tuple[str, Image.Image]] = []
        values: list[tuple[int, dict[str, float]]] = []
        for frame in painting:
            values.append((frame.count, frame.values))
            if painting.snapshot_due(frame):
                # a stage's first snapshot has no earlier one of its size to be compared with
                counted, percent = painting.changes[-1] if painting.changes else (0, 0.0)
                change = f", {percent:.1f} % changed" if counted == frame.count else ""
                say(f"{style}: step {frame.count} of {frame.steps}{change}")
                shots.append((f"step {frame.count}{change}", painting.show(frame)))
        seconds = time.monotonic() - start
        painting.save(output / f"painted-{style}.jpg")
        images.write(contact(shots), output / f"snapshots-{style}.jpg")
        curve(values, output / f"curve-{style}.png")
        images.write(Image.fromarray(images.read(f"sample:{style}").pixels), output / f"style-{style}.jpg")
        flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
        command = f"innervision stylize sample:{PHOTO} sample:{style} {flags} -o painted.jpg"
        made.append(Painted(style, title, command, seconds))
        if len(made) == 1:
            content = painting.goals.content(painting.sitting.size)
            images.write(content, output / "photograph.jpg")
            images.write(activations.sheet(painting.network, content), output / "layers.png")
    return made


def contact(shots: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    """Lay the snapshots side by side with their labels, four a row."""
    from PIL import Image, ImageDraw, ImageFont

    width, font = 380, ImageFont.load_default(14)
    height = round(width * shots[-1][1].height / shots[-1][1].width)
    page = Image.new("RGB", (4 * (width + 8) + 8, -(-len(shots) // 4) * (height + 30) + 8), (17, 17, 20))
    draw = ImageDraw.Draw(page)
    for number, (label, picture) in enumerate(shots):
        x, y = 8 + number % 4 * (width + 8), 8 + number // 4 * (height + 30)
        page.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), (x, y))
        draw.text((x, y + height + 4), label, (200, 198, 190), font)
    return page


def curve(values: Sequence[tuple[int, dict[str, float]]], path: Path) -> None:
    """Draw every weighted term over the steps, on a logarithmic scale."""
    from matplotlib.figure import Figure

    from innervision.files import atomic

    figure = Figure((9, 4.2), layout="constrained", facecolor="#111114")
    axes = figure.add_subplot(facecolor="#111114", yscale="log", xlabel="step", ylabel="weighted term")
    for name in values[-1][1]:
        axes.plot([n for n, _ in values], [max(terms[name], 1e-9) for _, terms in values], label=name)
    axes.tick_params(colors="#bbb")
    axes.xaxis.label.set_color("#bbb")
    axes.yaxis.label.set_color("#bbb")
    # a first, long step of L-BFGS would leave no room for all that follows
    axes.set_ylim(1e2, 3 * max(values[0][1].values()))
    axes.legend(facecolor="#111114", labelcolor="#ddd", edgecolor="#333", fontsize=8)
    with atomic(path) as draft:
        figure.savefig(draft, dpi=130)


def write_page(output: Path, painted: Sequence[Painted], seconds: float) -> None:
    """Write index.html, which shows the pictures beside it."""
    import jinja2

    from innervision.files import atomic

    text = resources.files(__package__ or "innervision.cli").joinpath("demo.html.jinja").read_text("utf-8")
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)
    with atomic(output / "index.html") as draft:
        draft.write_text(page.render(painted=painted, seconds=seconds), encoding="utf-8")
