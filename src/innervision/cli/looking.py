"""The parts of the page of `innervision look`: what a network sees in one picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from innervision.cli.guesses import INSTALL, Predictor
from innervision.cli.nines import TopPictures, square
from innervision.cli.pages import Figure, Section, picture, uri
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.target import Target

QUICK = ("gradient", "deconvnet", "guided", "gradient-x-input", "layer-cam")  # made again to be judged
SLOW = ("integrated", "smoothgrad", "occlusion")
_UNITS, _DEPTHS, _SIDE = 2, 4, 112  # units shown of a layer; layers they are from; what excites them, in px
_TILE = 224  # side of a unit's pictures, in pixels


@dataclass(frozen=True, eq=False)
class Look:
    """The work behind the page."""

    network: Network
    image: Tensor
    predictor: Predictor | None
    goal: Target
    subject: Network  # in which the goal is explained
    seen: Tensor  # the picture as the subject sees it
    top: TopPictures | None
    seed: int
    steps: int
    quick: bool

    def said(self) -> str:
        """Return what the picture is held for, in a line, or how to find out."""
        if self.predictor is None:
            return (
                f"no prediction, for {self.network.name} has no classifier here: {INSTALL} brings a small one"
            )
        guesses = ", ".join(f"{one.name} {100 * one.chance:.1f} %" for one in self.predictor.best[:3])
        return f"{self.predictor.network.name}: {guesses}"

    def sections(self, told: Telling) -> Iterator[Section]:
        """Yield the page's parts in order, telling which is at work."""
        parts = [("the picture", self.picture), ("layers", self.layers)]
        parts += [("units", lambda: self.units(told)), ("where it looks", self.maps)]
        if not self.quick:
            parts += [("what each layer keeps", self.kept)]
        for number, (name, part) in enumerate(parts):
            told.step(number, len(parts), name)
            yield part()
        told.step(len(parts), len(parts), "the page")

    def picture(self) -> Section:
        """Show the picture, and what a classifier holds it for."""
        h, w = self.image.shape[-2:]
        found = Section("The picture", f"As the network is given it, {w} by {h} pixels.")
        found.figures.append(Figure(uri(self.image)))
        if self.predictor is None:
            found.text += (
                f" {self.network.name} has no classifier here, so there is no prediction: its layers are what"
                f" it has to say. What is explained below is {self.goal}, the strongest of the deepest layer."
            )
            found.note = f"{INSTALL} brings a small classifier of a thousand classes; then run look again."
            return found
        if self.predictor.network is not self.network:
            h, w = self.predictor.image.shape[-2:]
            found.text += (
                f" {self.network.name} has no classifier here; {self.predictor.network.name}, which sees {w}"
                f" by {h} pixels, holds it for:"
            )
        else:
            found.text += " The network holds it for:"
        found.table += [(one.name, f"{100 * one.chance:.1f} %") for one in self.predictor.best]
        return found

    def layers(self) -> Section:
        """Show every layer's strongest channels."""
        from innervision.see import activations

        text = (
            "Each row is a layer, with the channels of the highest mean from left to right, by number. Pale "
            "is strong. Layers near the picture answer to edges and colours where they are; deep ones to few "
            "things, roughly where they are."
        )
        drawn = activations.sheet(self.network, self.image)
        return Section("What the layers answer", text, [Figure(uri(drawn), wide=True)])

    def units(self, told: Telling) -> Section:
        """Show the strongest units of a few layers: where they answer, to what, and what excites them."""
        from innervision.see.activations import answers, shown_by_default
        from innervision.see.target import Target

        names = shown_by_default(self.network, self.image)
        if self.top is not None and self.top.found is not None:
            names = tuple(name for name in names if name in self.top.found.layers) or names
        some = [names[(len(names) - 1) * (n + 1) // _DEPTHS] for n in range(_DEPTHS)]
        found = answers(self.network, self.image, dict.fromkeys(some), channels=_UNITS)
        units = [(Target(one.layer, c), one.maps[n]) for one in found for n, c in enumerate(one.channels)]
        excited = {} if self.quick else self.excited([unit for unit, _ in units])
        nine = {} if self.top is None else self.nine([unit for unit, _ in units], told)
        parts = [
            "where they answer",
            "what of the picture they answer to (deconvnet, Zeiler and Fergus 2013)",
        ]
        if excited:
            parts.append("a picture made to excite them (after Olah et al. 2017)")
        if self.top is not None:
            count = len(self.top.pictures)
            parts.append(f"what they see of the nine strongest of {count:,} pictures, and those deconvolved")
        text = f"The channels that answer most, in a few layers. From left to right: {'; '.join(parts)}."
        figures = [
            Figure(uri(self.unit(unit, map, excited, nine)), str(unit), wide=bool(nine))
            for unit, map in units
        ]
        section = Section("The strongest units", text, figures)
        if self.top is None:
            section.note = (
                "--images FOLDER adds the pictures of a folder that excite each unit most, with their "
                "deconvolutions; so does the folder that innervision units FOLDER has written."
            )
        return section

    def unit(
        self, unit: Target, map: Any, excited: dict[str, Tensor], nine: dict[str, list[Image.Image]]
    ) -> Image.Image:
        """Draw one unit's row."""
        import torch

        from innervision.errors import Invalid
        from innervision.see.backward import deconvnet, gradient, overlay, show
        from innervision.sheets import sheet

        large = torch.nn.functional.interpolate(
            torch.from_numpy(map).clamp(min=0)[None, None],
            self.image.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        try:
            back = deconvnet(self.network, self.image, unit).map
        except Invalid:  # no rule for this network's activations
            back = gradient(self.network, self.image, unit).map
        tiles: list[Tensor | Image.Image] = [overlay(self.image, large[0]), show(back, beyond=0.001).cpu()]
        if str(unit) in excited:
            tiles.append(excited[str(unit)])
        tiles += nine.get(str(unit), [])
        return sheet(tiles, tile=_TILE, columns=len(tiles), smooth=True)

    def excited(self, units: list[Target]) -> dict[str, Tensor]:
        """Return a picture that excites each unit."""
        from innervision.see.excite import excite

        side = min(_SIDE, max(self.image.shape[-2:]))
        work = excite(self.network, units, size=side, steps=self.steps, seed=self.seed)
        return {str(one.unit): one.images[:1] for one in work.results()}

    def nine(self, units: list[Target], told: Telling) -> dict[str, list[Image.Image]]:
        """Return each unit's strongest patches of the pictures named, and their deconvolutions."""
        from innervision.errors import Invalid
        from innervision.see.contact import strongest

        assert self.top is not None
        ranked = self.top.rank(self.network, list(dict.fromkeys(str(u.layer) for u in units)), told)
        found: dict[str, list[Image.Image]] = {}
        for unit in units:
            where = (self.network, ranked, self.top.pictures, str(unit.layer), (unit.channel or 0,))
            try:
                (one,) = strongest(*where, deconv=True)
            except Invalid:  # no rule for this network's activations
                (one,) = strongest(*where)
            found[str(unit)] = [square(part, _TILE) for part in (one.patches, one.deconvolutions) if part]
        return found

    def maps(self) -> Section:
        """Show every map of the target, with its verdict."""
        from innervision.cli.attribute import explained, tile
        from innervision.see.target import named

        within = "" if self.subject is self.network else f" in {self.subject.name}"
        text = f"What of the picture speaks for {named(self.goal, self.subject)}{within}, by each method."
        if not self.quick:
            text += (
                " Some maps were made again with random weights from the top down (Adebayo et al. 2018): one"
                " that hardly changes then says nothing of what was learned, however sharp it looks."
            )
        figures: list[Figure] = []
        options = {"samples": 25, "sigma": 0.15, "points": 50, "baseline": 0.0, "seed": self.seed}
        for tested, methods in ((False, QUICK),) if self.quick else ((True, QUICK), (False, SLOW)):
            silent = Telling("quiet")
            for one in explained(self.subject, self.seen, self.goal, methods, options, tested, silent):
                caption = " ".join((one.refused if one.map is None else one.caption()).split())
                drawn = uri(picture(tile(self.seen, one.map, "raw")))
                figures.append(Figure(drawn, f"{one.method}{': ' if caption else ''}{caption}"))
        return Section("Where it looks", text, figures)

    def kept(self) -> Section:
        """Show the picture as each of a few layers keeps it, and the curve."""
        from innervision.see import invert
        from innervision.see.activations import shown_by_default

        names = shown_by_default(self.network, self.image)
        some = names if len(names) <= 5 else tuple(names[(len(names) - 1) * n // 4] for n in range(5))
        found = list(invert.invert(self.network, self.image, some, steps=30, seed=self.seed))
        text = (
            "A picture that the layer answers to as it does to this one, looked for from grey noise: what "
            "the layer does not keep is lost in it (after Mahendran and Vedaldi 2015)."
        )
        figures = [
            Figure(uri(one.image), f"{one.layer}: error {one.error:.2g}, SSIM {one.ssim:.2f}")
            for one in found
        ]
        figures.append(Figure(uri(invert.curve([one.numbers() for one in found])), "Over depth.", wide=True))
        return Section("What each layer keeps", text, figures)
