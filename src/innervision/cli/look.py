"""innervision look: one page of all that a network sees in a picture, which opens without a network."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import (
    Telling,
    leave_card,
    network_options,
    open_network,
    open_picture,
    stem,
    telling,
    telling_options,
)

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.target import Target

QUICK = ("gradient", "deconvnet", "guided", "gradient-x-input", "layer-cam")  # made again to be judged
SLOW = ("integrated", "smoothgrad", "occlusion")
_UNITS, _DEPTHS, _SIDE = (
    2,
    4,
    112,
)  # units shown of a layer; layers they are taken from; what excites them, in px


@dataclass(frozen=True)
class Figure:
    """A picture of the page, as a data URI, and what is said of it."""

    source: str
    text: str = ""
    wide: bool = False


@dataclass
class Section:
    """A part of the page."""

    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the page [default: look-IMAGE.html]")
@click.option(
    "--size", type=click.IntRange(32), default=224, show_default=True, help="longest side, in pixels"
)
@click.option("--target", "asked", help="what to explain: class:N, LAYER:CHANNEL … [default: the strongest]")
@click.option(
    "--classes", type=click.Path(path_type=Path), help="a file with the name of a class on each line"
)
@click.option("--steps", type=click.IntRange(1), default=64, show_default=True, help="of what excites a unit")
@click.option("--quick", is_flag=True, help="leave out what takes long: excitation, trust and inversion")
@click.option("--seed", type=int, default=0, show_default=True, help="of what is drawn at random")
@click.option("--max-pixels", type=int, help="largest picture to read, in pixels [default: 178956970]")
@network_options
@telling_options
def look(
    source: str,
    output: Path | None,
    size: int,
    asked: str | None,
    classes: Path | None,
    steps: int,
    quick: bool,
    seed: int,
    max_pixels: int | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Write one page of all that a network sees in IMAGE: layers, units, maps, what each layer keeps.

    The page holds its pictures: it opens from the disk, without a connection.
    """
    import torch

    from innervision.errors import Invalid
    from innervision.files import atomic
    from innervision.see.target import strongest, target

    clock = time.perf_counter()
    names = None if classes is None else read_classes(classes)
    network = open_network(chosen)
    _, image = open_picture(source, size, max_pixels)
    image = image.to(network.device)
    if asked is None:
        goal = strongest(network, image)
    else:
        goal = target(asked, network)
        with torch.no_grad():
            goal.pick(goal.of(network, image))  # complains of what is not there before any work
    where = output or Path(f"look-{stem(source)}.html")
    if where.is_dir():
        raise Invalid(f"'{where}' is a folder: name a file, such as {where / 'look.html'}")
    work = _Look(network, image, goal, names, seed, steps, quick)
    with telling(quiet=quiet, as_json=as_json) as told:
        sections = list(work.sections(told))
        seconds = time.perf_counter() - clock
        name = Path(source).name or source
        page = render(sections, title=name, network=network, size=image.shape[-2:], seconds=seconds)
        with atomic(where) as draft:
            draft.write_text(page, encoding="utf-8")
        given = {**chosen, "size": size, "target": str(goal), "steps": steps, "quick": quick}
        leave_card("look", where, given, {"picture": source}, seed=seed)
        text = f"wrote {where}: {len(page) / 2**20:.1f} MB in {seconds:.0f} s; open it in a browser"
        told.end(text, output=str(where), seconds=round(seconds, 1), sections=[s.title for s in sections])


def read_classes(file: Path) -> list[str]:
    """Return the names in a file, one a line; Invalid where there is none to read."""
    from innervision.errors import Invalid

    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"'{file}' cannot be read as names of classes, one a line: {error}") from error
    if not any(names):
        raise Invalid(f"'{file}' is empty: give the name of a class on each line")
    return names


class _Look:
    """The work behind the page."""

    def __init__(
        self,
        network: Network,
        image: Tensor,
        goal: Target,
        names: list[str] | None,
        seed: int,
        steps: int,
        quick: bool,
    ) -> None:
        self.network, self.image, self.goal, self.names = network, image, goal, names
        self.seed, self.steps, self.quick = seed, steps, quick

    def sections(self, told: Telling) -> Iterator[Section]:
        """Yield the page's parts in order, telling which is at work."""
        parts = [("the picture", self.picture), ("layers", self.layers), ("units", self.units)]
        parts += [("where it looks", self.maps)]
        if not self.quick:
            parts += [("what each layer keeps", self.kept)]
        for number, (name, part) in enumerate(parts):
            told.step(number, len(parts), name)
            yield part()
        told.step(len(parts), len(parts), "the page")

    def picture(self) -> Section:
        """Show the picture, and what a classifier holds it for."""
        import torch

        h, w = self.image.shape[-2:]
        found = Section("The picture", f"As the network is given it, {w} by {h} pixels.")
        found.figures.append(Figure(_uri(_picture(self.image))))
        with torch.no_grad():
            answer = self.network(self.image)
        if answer.ndim != 2:
            found.text += (
                f" {self.network.name} has no classifier here, so there is no prediction: its layers are what"
                f" it has to say. What is explained below is {self.goal}, the strongest of the deepest layer."
            )
            return found
        chances = answer.softmax(1)[0]
        for chance, number in zip(*(t.tolist() for t in chances.topk(min(5, len(chances)))), strict=True):
            found.table.append((self.named(number), f"{100 * chance:.1f} %"))
        return found

    def named(self, number: int) -> str:
        """Return a class's name, where there is one."""
        known = self.names is not None and number < len(self.names)
        return f"{self.names[number]} ({number})" if self.names and known else f"class {number}"

    def layers(self) -> Section:
        """Show every layer's strongest channels."""
        from innervision.see import activations

        text = (
            "Each row is a layer, with the channels of the highest mean from left to right, "
            "by number. Pale is "
            "strong. Layers near the picture answer to edges and colours where they are; deep ones to few "
            "things, roughly where they are."
        )
        drawn = activations.sheet(self.network, self.image)
        return Section("What the layers answer", text, [Figure(_uri(drawn), wide=True)])

    def units(self) -> Section:
        """Show the strongest units of a few layers: where they answer, to what, and what excites them."""
        from innervision.see.activations import answers, rectified
        from innervision.see.target import Target

        names = rectified(self.network)
        some = [names[(len(names) - 1) * (n + 1) // _DEPTHS] for n in range(_DEPTHS)] if names else []
        found = answers(self.network, self.image, dict.fromkeys(some), channels=_UNITS)
        units = [(Target(one.layer, c), one.maps[n]) for one in found for n, c in enumerate(one.channels)]
        excited = {} if self.quick else self.excited([unit for unit, _ in units])
        text = (
            "The channels that answer most, in a few layers. From left to right: where they "
            "answer; what of the "
            "picture they answer to (deconvnet, Zeiler and Fergus 2013)"
            + ("." if self.quick else "; and a picture made to excite them (after Olah et al. 2017).")
        )
        figures = [Figure(_uri(self.unit(unit, map, excited)), str(unit)) for unit, map in units]
        return Section("The strongest units", text, figures)

    def unit(self, unit: Target, map: Any, excited: dict[str, Tensor]) -> Image.Image:
        """Draw one unit's row."""
        import torch

        from innervision.see.backward import deconvnet, overlay, show
        from innervision.sheets import sheet

        size = self.image.shape[-2:]
        large = torch.nn.functional.interpolate(
            torch.from_numpy(map).clamp(min=0)[None, None], size, mode="bilinear", align_corners=False
        )
        back = deconvnet(self.network, self.image, unit).map
        tiles: list[Tensor | Image.Image] = [overlay(self.image, large[0]), show(back, beyond=0.001).cpu()]
        if str(unit) in excited:
            tiles.append(excited[str(unit)])
        return sheet(tiles, tile=224, columns=len(tiles), smooth=True)

    def excited(self, units: list[Target]) -> dict[str, Tensor]:
        """Return a picture that excites each unit."""
        from innervision.see.excite import excite

        side = min(_SIDE, max(self.image.shape[-2:]))
        work = excite(self.network, units, size=side, steps=self.steps, seed=self.seed)
        return {str(one.unit): one.images[:1] for one in work.results()}

    def maps(self) -> Section:
        """Show every map of the target, with its verdict."""
        from innervision.cli.attribute import explained, tile

        name = str(self.goal)
        if self.goal.layer is None and self.goal.channel is not None:
            name = self.named(self.goal.channel)
        text = f"What of the picture speaks for {name}, by each method."
        if not self.quick:
            text += (
                " Some maps were made again with random weights from the top down (Adebayo et "
                "al. 2018): a map"
                " that hardly changes then says nothing of what was learned, however sharp it looks."
            )
        figures: list[Figure] = []
        options = {"samples": 25, "sigma": 0.15, "points": 50, "baseline": 0.0, "seed": self.seed}
        for tested, methods in ((False, QUICK),) if self.quick else ((True, QUICK), (False, SLOW)):
            silent = Telling("quiet")
            for one in explained(self.network, self.image, self.goal, methods, options, tested, silent):
                caption = " ".join((one.refused if one.map is None else one.caption()).split())
                drawn = _uri(_picture(tile(self.image, one.map, "raw")))
                figures.append(Figure(drawn, f"{one.method}{': ' if caption else ''}{caption}"))
        return Section("Where it looks", text, figures)

    def kept(self) -> Section:
        """Show the picture as each of a few layers keeps it, and the curve."""
        from innervision.see import invert

        names = invert.wanted(self.network, None)
        some = names if len(names) <= 5 else tuple(names[(len(names) - 1) * n // 4] for n in range(5))
        found = list(invert.invert(self.network, self.image, some, steps=30, seed=self.seed))
        text = (
            "A picture that the layer answers to as it does to this one, looked for from "
            "grey noise: what the "
            "layer does not keep is lost in it (after Mahendran and Vedaldi 2015)."
        )
        figures = [
            Figure(_uri(_picture(one.image)), f"{one.layer}: error {one.error:.2g}, SSIM {one.ssim:.2f}")
            for one in found
        ]
        figures.append(Figure(_uri(invert.curve([one.numbers() for one in found])), "Over depth.", wide=True))
        return Section("What each layer keeps", text, figures)


def _picture(image: Tensor | Image.Image) -> Image.Image:
    from PIL import Image

    from innervision.images import to_bytes

    return image if isinstance(image, Image.Image) else Image.fromarray(to_bytes(image.detach().cpu()))


def _uri(image: Image.Image) -> str:
    """Return a picture as the page holds it: WebP, of which a browser needs no file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "WEBP", quality=88)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render(sections: list[Section], *, title: str, network: Network, size: Any, seconds: float) -> str:
    """Return the page."""
    import jinja2

    source = resources.files("innervision.cli").joinpath("look.html.jinja").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    parameters = sum(p.numel() for p in network.module.parameters())
    head = f"{network.name}, {parameters / 1e6:.1f} million parameters; made in {seconds:.0f} s"
    return template.render(title=title, head=head, sections=sections)
