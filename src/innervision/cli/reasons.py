"""The part of the page of `innervision look` that says where in the picture its target is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from innervision.cli.looking import Look, Within
from innervision.cli.pages import Figure, Section, figure, uri
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.see.curves import Curves

QUICK = ("gradient", "deconvnet", "guided", "gradient-x-input", "layer-cam")  # made again to be judged
SLOW = ("integrated", "smoothgrad", "occlusion")
SAMPLES, POINTS = 16, 32  # of smoothgrad, of integrated
FORETELL, STEPS = ("gradient", "guided", "layer-cam", "integrated", "occlusion"), 8  # curves, and their looks
_SHARE = 0.4  # of the whole part's time that the maps with verdicts take, about


def maps(look: Look, told: Telling) -> Section:
    """Show every map of the target, with its verdict, and how well each foretells what covering does."""
    from innervision.cli.maps import explained, tile
    from innervision.see.target import named
    from innervision.see.trust import THRESHOLD

    within = "" if look.subject is look.network else f" in {look.subject.name}"
    text = f"What of the picture speaks for {named(look.goal, look.subject)}{within}, by each method."
    if not look.quick:
        text += (
            " Most maps were made again with random weights, from the top down (Adebayo et al. 2018): one"
            " that hardly changes then says nothing of what was learned, however sharp it looks. Its rank is"
            " the rank correlation of the map with those, the median of them: 1 for the same map, 0 for one"
            f" that has nothing in common with it. Below {THRESHOLD:g} a map depends on the weights, from"
            f" {THRESHOLD:g} on it does not, unless chance leaves it in doubt. {', '.join(SLOW[:-1])} and"
            f" {SLOW[-1]} have no verdict here: a map of theirs takes dozens of looks, and six more of each"
            f" would take longer than the rest of the page; innervision attribute --method {SLOW[0]} --trust"
            " gives it."
        )
    figures: list[Figure] = []
    found: dict[str, Tensor] = {}
    options = {"samples": SAMPLES, "sigma": 0.15, "points": POINTS, "baseline": 0.0, "seed": look.seed}
    parts = ((False, QUICK, 0.0, 1.0),)
    if not look.quick:
        parts = ((True, QUICK, 0.0, _SHARE), (False, SLOW, _SHARE, 0.9))
    for tested, methods, start, end in parts:
        inner = Within(told, start, end, "maps")
        for one in explained(look.subject, look.seen, look.goal, methods, options, tested, inner):
            caption = ", ".join((one.refused if one.map is None else one.caption()).splitlines())
            drawn = tile(look.seen, one.map, "raw")
            figures.append(figure(drawn, f"{one.method}{': ' if caption else ''}{caption}"))
            if one.map is not None and one.method in FORETELL:
                found[one.method] = one.map
    if found and not look.quick:
        figures.append(_foretelling(look, found, Within(told, 0.9, 1.0, "maps put to the test")))
    return Section("Where it looks", text, figures)


def _foretelling(look: Look, maps: Mapping[str, Tensor], told: Telling) -> Figure:
    """Show how the target's score rises and falls as pixels come and go in the order of each map."""
    from innervision.machine import choose_precision
    from innervision.see.curves import chance, chart, curves, importance

    dtype = choose_precision("auto", look.subject.device)
    subject = look.subject if dtype == look.subject.dtype else look.subject.frozen(dtype)
    orders = {method: importance(map, method) for method, map in maps.items()}
    orders["chance"] = chance(look.seen, look.seed)
    found: dict[str, Curves] = {}
    for number, (method, order) in enumerate(orders.items()):
        found[method] = curves(subject, look.seen, look.goal, order, steps=STEPS)
        told.step(number + 1, len(orders))
    text = (
        "Put to the test (Petsiuk et al. 2018): the score as the pixels that a map holds for important are "
        "uncovered on a blurred picture, where a good map rises soon, and covered, where it falls soon; with "
        "the area below each curve, and the same for pixels in an order of chance."
    )
    by_chance = found.pop("chance")
    return Figure(uri(chart(found, by_chance=by_chance)), text, wide=True)
