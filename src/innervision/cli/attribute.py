"""innervision attribute: what of a picture a class, a channel or a unit answers to."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import (
    Telling,
    leave_card,
    limit_option,
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
    from innervision.see.curves import Curves
    from innervision.see.target import Target
    from innervision.see.trust import Comparison, Trust

BACKWARD = ("gradient", "deconvnet", "guided", "gradient-x-input", "smoothgrad", "integrated")
CAMS = {
    "grad-cam": "grad_cam",
    "grad-cam++": "grad_cam_pp",
    "layer-cam": "layer_cam",
    "score-cam": "score_cam",
}
METHODS = (*BACKWARD, *CAMS, "occlusion")
_STEPS = 6  # of the cascade of random layers
_LOOKS = 8  # at most, of smoothgrad and integrated, for a map to be compared: likeness shows with few


@click.command()
@click.argument("source", metavar="IMAGE")
@click.option("--target", "asked", help="class:N, LAYER, LAYER:CHANNEL or LAYER:CHANNEL@ROW,COLUMN")
@click.option("--method", type=click.Choice([*METHODS, "all"]), default="gradient", show_default=True)
@click.option(
    "--show",
    "shown",
    type=click.Choice(["raw", "grey", "norm", "blurred"]),
    default="raw",
    show_default=True,
    help="how a map of colours is drawn",
)
@click.option("--trust", "tested", is_flag=True, help="make the map again with random weights, and judge it")
@click.option(
    "--curves", "judged", is_flag=True, help="insertion and deletion curves, beside those of chance"
)
@click.option("--samples", type=int, default=25, show_default=True, help="noisy copies of smoothgrad")
@click.option("--sigma", type=float, default=0.15, show_default=True, help="their noise, of the range")
@click.option("--points", type=int, default=50, show_default=True, help="on the line of integrated")
@click.option("--baseline", type=float, default=0.0, show_default=True, help="its start: 0 black, 1 white")
@click.option("--seed", type=int, default=0, show_default=True, help="of noise and random weights")
@click.option("--size", type=int, default=224, show_default=True, help="longest side of the picture")
@click.option("-o", "--output", help="the picture to write [default: NAME-METHOD.png]")
@limit_option
@network_options
@telling_options
def attribute(
    source: str,
    asked: str | None,
    method: str,
    shown: str,
    tested: bool,
    judged: bool,
    output: str | None,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Show what of IMAGE a class, a channel or a unit answers to.

    Without --target: the class predicted, or for a network without classifier the strongest channel of its
    deepest ReLU layer. Maps of colours are drawn with 0 as mid-grey; maps of places as heat.

    With --curves a map is put to the test: pixels are uncovered on a blurred picture, and covered by grey, in
    the order of the map, and NAME-METHOD-curves.png and .json tell how soon the answer comes and goes.
    """
    from innervision import images
    from innervision.cli import curves
    from innervision.see.target import strongest, target

    place = output or f"{stem(source)}-{method}.png"
    images.writable(place)
    if judged:
        images.writable(curves.beside(place)[0])
    methods = METHODS if method == "all" else (method,)
    with telling(quiet=quiet, as_json=as_json) as told:
        network = open_network(chosen)
        _, image = open_picture(source, chosen["size"], chosen["max_pixels"])
        wanted = target(asked, network) if asked else strongest(network, image)
        by_chance = _by_chance(network, image, wanted, chosen["seed"]) if judged else None
        found = list(explained(network, image, wanted, methods, chosen, tested, told, by_chance))
        images.write(_page(image, found, wanted, network, shown), place)
        written = [place]
        drawn = {each.method: each.curves for each in found if each.curves is not None}
        if by_chance is not None and drawn:
            written += curves.write(place, drawn, by_chance, title=f"{network.name} {wanted}")
        settings = {**chosen, "target": str(wanted), "method": method, "show": shown, "trust": tested}
        settings["curves"] = judged
        leave_card("attribute", place, settings, {"picture": source}, seed=chosen["seed"])
        told.end(
            "\n".join([*(each.line(wanted) for each in found), f"Written: {', '.join(written)}"]),
            target=str(wanted),
            output=place,
            written=written,
            methods={each.method: each.numbers() for each in found},
        )


@dataclass(frozen=True, eq=False)
class Explained:
    """A method's map, what it says of itself, and whether it can be trusted; or why there is none."""

    method: str
    map: Tensor | None  # (1, 3, h, w), or (1, h, w)
    values: dict[str, float]
    trust: Trust | None = None
    refused: str = ""
    curves: Curves | None = None
    by_chance: Curves | None = None

    def numbers(self) -> dict[str, Any]:
        """Return what a program wants to know."""
        if self.map is None:
            return {"refused": self.refused}
        from innervision.see.trust import strength

        strong = strength(self.map)
        at = int(strong.argmax())
        numbers: dict[str, Any] = {
            **self.values,
            "least": float(self.map.min()),
            "greatest": float(self.map.max()),
            "sum": float(self.map.sum()),
            "strongest": [at // strong.shape[1], at % strong.shape[1]],  # row, column
        }
        if self.curves is not None and self.by_chance is not None:
            numbers["curves"] = {**self.curves.numbers(), "chance": self.by_chance.numbers()}
        if self.trust is not None:
            numbers["trust"] = {
                "depends": self.trust.depends,
                "rank": self.trust.rank,
                "error": self.trust.error,
                "certain": self.trust.certain,
                "threshold": self.trust.threshold,
                "layers": [
                    {
                        "layer": c.layer,
                        "random": c.layers,
                        "of": c.of,
                        "rank": None if math.isnan(c.rank) else c.rank,
                        "magnitude": c.magnitude,
                        "ssim": c.ssim,
                    }
                    for c in self.trust.comparisons
                ],
            }
        elif self.refused:
            numbers["trust"] = {"refused": self.refused}
        return numbers

    def line(self, target: Target) -> str:
        """Return what a person wants to know."""
        if self.map is None:
            return f"{self.method}: {self.refused}"
        parts = [f"{self.method} of {target}"]
        if "score" in self.values:
            parts[0] += f", which answers {self.values['score']:.4g}"
        if "gap" in self.values:
            gap, change = self.values["gap"], self.values["change"]
            parts.append(f"the map's sum misses the change from the baseline, {change:.4g}, by {gap:.2g}")
        if not self.map.any():
            parts.append("0 everywhere: nothing comes down to the picture")
        if self.curves is not None and self.by_chance is not None:
            from innervision.cli.curves import said

            parts.append(said(self.curves, self.by_chance))
        if self.trust is not None:
            parts.append(str(self.trust))
        elif self.refused:
            parts.append(self.refused)
        return "; ".join(parts)

    def caption(self) -> str:
        """Return what stands below a map."""
        if self.map is None:
            return "refused: no rule for\nthis network's activations"
        if not self.map.any():
            return "0 everywhere"
        if self.trust is None:
            return ""
        said = "depends on the weights" if self.trust.depends else "does NOT depend on the weights"
        said = said if self.trust.certain else "in doubt"
        side = "below" if self.trust.rank < self.trust.threshold else "not below"
        return f"{said}\nrank {self.trust.rank:.2f}, {side} {self.trust.threshold:g}"


def explain(
    method: str, chosen: dict[str, Any], network: Network, image: Tensor, target: Target
) -> tuple[Tensor, dict[str, float]]:
    """Return a method's map of a target, and what numbers it gives beside."""
    if method in BACKWARD:
        import torch

        from innervision.see import backward

        result = backward.attribute(
            network,
            image,
            target,
            method,
            samples=chosen["samples"],
            sigma=chosen["sigma"],
            generator=torch.Generator().manual_seed(chosen["seed"]),
            points=chosen["points"],
            baseline=chosen["baseline"],
        )
        values = {"score": result.score, "change": result.change, "gap": result.gap}
        return result.map, {name: value for name, value in values.items() if value is not None}
    if method in CAMS:
        cam = importlib.import_module("innervision.see.cam")
        return getattr(cam, CAMS[method])(network, image, target), {}
    occlusion = importlib.import_module("innervision.see.occlusion")
    return occlusion.occlude(network, image, target).map, {}


def explained(
    network: Network,
    image: Tensor,
    target: Target,
    methods: tuple[str, ...],
    chosen: dict[str, Any],
    tested: bool,
    told: Telling,
    by_chance: Curves | None = None,
) -> Iterator[Explained]:
    """Yield what each method says, with trust where it is tested, and curves where chance's are given."""
    from innervision.errors import Invalid
    from innervision.see.curves import curves, importance
    from innervision.see.trust import judge, randomised

    each = 1 + _STEPS * tested
    for number, method in enumerate(methods):
        found = Explained(method, None, {})
        comparisons: list[Comparison] = []
        try:
            found = Explained(method, *explain(method, chosen, network, image, target))
            if by_chance is not None and found.map is not None:
                ranked = importance(found.map, method)
                found = replace(found, curves=curves(network, image, target, ranked), by_chance=by_chance)
            told.step(number * each + 1, len(methods) * each, method)
            fewer = {name: min(chosen[name], _LOOKS) for name in ("samples", "points")}
            again = partial(_map, method, {**chosen, **fewer})
            if tested:
                for one in randomised(network, image, target, again, seed=chosen["seed"], steps=_STEPS):
                    comparisons.append(one)
                    text = f"{method}, {one.layers} of {one.of} layers random"
                    done = number * each + 1 + min(len(comparisons), _STEPS)  # doubt makes more of them
                    told.step(done, len(methods) * each, text)
                found = replace(found, trust=judge(comparisons))
        except Invalid as error:
            if len(methods) == 1:
                raise
            found = replace(found, refused=str(error))  # the others of `all` go on
        yield found
        if found.refused or (tested and len(comparisons) < _STEPS):  # what was left out counts as done
            told.step((number + 1) * each, len(methods) * each, method)


def _by_chance(network: Network, image: Tensor, target: Target, seed: int) -> Curves:
    from innervision.see.curves import chance, curves

    return curves(network, image, target, chance(image, seed))


def _map(method: str, chosen: dict[str, Any], network: Network, image: Tensor, target: Target) -> Tensor:
    return explain(method, chosen, network, image, target)[0]


def _page(image: Tensor, found: list[Explained], target: Target, network: Network, shown: str) -> Image.Image:
    """Draw picture, map and overlay of one method with its random maps, or one tile a method."""
    from innervision.see.backward import overlay, show
    from innervision.sheets import sheet

    title = f"{network.name} {target}"
    if len(found) > 1:
        tiles = [image, *(tile(image, each.map, shown) for each in found)]
        labels = ["picture", *(f"{each.method}\n{each.caption()}" for each in found)]
        return sheet(tiles, labels=labels, title=title, tile=224, smooth=True)
    (each,) = found
    assert each.map is not None
    strong = each.map if each.map.ndim == 3 else show(each.map, "blurred")[:, 0]
    tiles = [image, _drawn(each.map, shown), overlay(image, strong)]
    labels = ["picture", each.method, f"over the picture\n{each.caption()}"]
    if each.trust is not None:
        for c in each.trust.comparisons:
            tiles.append(_drawn(c.map, shown))
            labels.append(f"random from {c.layer} up\nrank {c.rank:.2f}, SSIM {c.ssim:.2f}")
    return sheet(tiles, labels=labels, title=title, tile=300, columns=3, smooth=True)


def tile(image: Tensor, map: Tensor | None, shown: str) -> Tensor | Image.Image:
    from innervision.see.backward import overlay

    if map is None:
        return (0.2 * image.mean(1, keepdim=True)).expand_as(image)
    return overlay(image, map) if map.ndim == 3 else _drawn(map, shown)


def _drawn(map: Tensor, shown: str) -> Tensor | Image.Image:
    from innervision.see.backward import show
    from innervision.sheets import heat

    if map.ndim == 3:
        return heat(map[0], low=min(0.0, float(map.min())))
    return show(map, shown, beyond=0.005)
