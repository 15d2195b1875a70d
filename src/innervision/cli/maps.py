"""The methods of `innervision attribute`: the map of each, what it costs, and the page that shows them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from innervision.cli.explained import Explained
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.curves import Curves
    from innervision.see.target import Target
    from innervision.see.trust import Comparison

BACKWARD = ("gradient", "deconvnet", "guided", "gradient-x-input", "smoothgrad", "integrated")
CAMS = {
    "grad-cam": "grad_cam",
    "grad-cam++": "grad_cam_pp",
    "layer-cam": "layer_cam",
    "score-cam": "score_cam",
}
METHODS = (*BACKWARD, *CAMS, "occlusion")
CASCADE = 6  # of the cascade of random layers
_LOOKS = 8  # at most, of smoothgrad and integrated, for a map to be compared: likeness shows with few


def explain(
    method: str, chosen: Mapping[str, Any], network: Network, image: Tensor, target: Target
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
    *,
    alone: bool | None = None,
) -> Iterator[Explained]:
    """Yield what each method says, with trust where it is tested, and curves where chance's are given.

    alone: whether what a method refuses is an error, as it is by default of a single one.
    """
    from innervision.errors import Invalid
    from innervision.see.curves import curves, importance
    from innervision.see.trust import judge, randomised

    each = 1 + CASCADE * tested
    for number, method in enumerate(methods):
        found = Explained(method, None, {})
        comparisons: list[Comparison] = []
        try:
            map, values = explain(method, chosen, network, image, target)
            found = Explained(method, map.contiguous(), values)  # sums are then the same, kept or not
            if by_chance is not None and found.map is not None:
                ranked = importance(found.map, method)
                found = replace(found, curves=curves(network, image, target, ranked), by_chance=by_chance)
            told.step(number * each + 1, len(methods) * each, method)
            again = partial(_map, method, fewer(chosen))
            if tested:
                for one in randomised(network, image, target, again, seed=chosen["seed"], steps=CASCADE):
                    comparisons.append(one)
                    text = f"{method}, {one.layers} of {one.of} layers random"
                    done = number * each + 1 + min(len(comparisons), CASCADE)  # doubt makes more of them
                    told.step(done, len(methods) * each, text)
                found = replace(found, trust=judge(comparisons))
        except Invalid as error:
            if len(methods) == 1 if alone is None else alone:
                raise
            found = replace(found, refused=str(error))  # the others of `all` go on
        yield found
        if found.refused or (tested and len(comparisons) < CASCADE):  # what was left out counts as done
            told.step((number + 1) * each, len(methods) * each, method)


def by_chance_alone(network: Network, image: Tensor, target: Target, seed: int) -> Curves:
    """Return the curves of a map that knows nothing."""
    from innervision.see.curves import chance, curves

    return curves(network, image, target, chance(image, seed))


def _map(method: str, chosen: Mapping[str, Any], network: Network, image: Tensor, target: Target) -> Tensor:
    return explain(method, chosen, network, image, target)[0]


def page(image: Tensor, found: list[Explained], target: Target, network: Network, shown: str) -> Image.Image:
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
    """Draw a method's map as on a page of several; where there is none, the picture, dark."""
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


def looks(method: str, chosen: Mapping[str, Any], network: Network, image: Tensor, target: Target) -> float:
    """Return as how many forward looks a method's map counts; one back to the picture counts as two."""
    from innervision.cli.foretold import COVERED, squares
    from innervision.errors import Invalid
    from innervision.see.cam import channels

    try:
        match method:
            case "smoothgrad":
                return 2 * chosen["samples"]
            case "integrated":
                return 2 * chosen["points"] + 2
            case "score-cam":
                return channels(network, image, target) + 2
            case "occlusion":
                return COVERED * squares(image) + 1
            case _:
                return 3 if method in CAMS else 2
    except Invalid:
        return 0  # it will be refused


def fewer(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a map that is only to be compared."""
    return {**chosen, **{name: min(chosen[name], _LOOKS) for name in ("samples", "points")}}
