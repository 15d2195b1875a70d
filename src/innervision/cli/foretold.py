"""What the page of `innervision look` will cost, before it is begun: multiply-adds and seconds.

Every part is counted in passes of the network over the picture: one forward is 1, one forward and back to the
picture 2, one that ends at a layer its share. A pass's multiply-adds are counted on torch's device "meta",
which knows shapes and computes nothing; its seconds are those of one that is made now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from innervision.cli import depths, portraits, reasons
from innervision.cli.beforehand import span
from innervision.cli.looking import Look, spread

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.network import Network
    from innervision.see.target import Target

_DRAWING = {"layers": 0.5, "units": 0.5, "maps": 1.0, "kept": 0.7, "dreams": 0.2, "compared": 2.0}  # seconds
_JUDGED = 1 + 6  # a map, and those that are made again to judge it …
RANDOM = 6 * 4  # … and forward passes that making weights random takes as long as
_SMALL = 1.6  # times the passes that their pixels make are small pictures looked at from ever other places
COVERED = 0.3  # of a pass, a square that covers the picture


@dataclass(frozen=True)
class Cost:
    """What the page costs on this machine."""

    multiply_adds: int | None  # None where a guest needs numbers to run
    seconds: Mapping[str, float]  # part -> as if nothing else was at work

    def said(self) -> str:
        """Return it in a line."""
        from innervision.cli.progress import duration

        work = ""
        if self.multiply_adds is not None:
            work = f"{self.multiply_adds:.1e} multiply-adds, ".replace("+", "")
        return f"about {work}{duration(sum(self.seconds.values()))} on this machine"


@dataclass(frozen=True)
class Passes:
    """How often a part looks at the picture: exactly, fast, and through the network that is explained."""

    exact: float = 0.0
    fast: float = 0.0
    subject: float = 0.0
    besides: float = 0.0  # seconds of other work, in fast passes


def cost(look: Look) -> Cost:
    """Return what the page will cost, from a pass or two of each kind."""
    from innervision.see.target import Target

    deepest = Target(look.shown[-1])
    shares, whole = depths_of(look.network, look.image, look.shown)
    beside, other = shares, whole
    if look.subject is not look.network:
        beside, other = {}, multiply_adds(look.subject, look.seen, None)
    goal = 1.0 if look.goal.layer is None else beside.get(look.goal.layer, 1.0)
    exact = forward(look.network, look.image, deepest)
    fast = exact if look.fast is look.network or look.quick else forward(look.fast, look.image, deepest)
    passes = counted(look, shares, goal, exact / max(fast, 1e-9))
    subject = exact if look.subject is look.network else forward(look.subject, look.seen, look.goal)
    seconds = {
        name: _DRAWING[name] + each.exact * exact + (each.fast + each.besides) * fast + each.subject * subject
        for name, each in passes.items()
    }
    if whole is None or other is None:
        return Cost(None, seconds)
    work = sum((each.exact + each.fast) * whole + each.subject * other for each in passes.values())
    return Cost(round(work), seconds)


def counted(look: Look, shares: Mapping[str, float], goal: float, gain: float) -> dict[str, Passes]:
    """Return every part's passes. shares: of a pass, to each layer; goal: to what is explained.

    gain: how many fast passes are an exact one.
    """
    h, w = look.image.shape[-2:]
    units = portraits.depths(look)
    exact = 2 * sum(shares[name] for name in units) * portraits.EACH  # their deconvolutions
    found = {"layers": Passes(exact=1.0)}
    if look.top is not None:
        side = look.top.pictures.size
        seen = len(look.top.pictures) * side[0] * side[1] / (h * w)
        exact += seen * max(shares[name] for name in units) + 9 * exact
    if look.quick:
        found["units"] = Passes(exact=exact)
        found["maps"] = Passes(subject=2 * goal * len(reasons.QUICK))
        return found
    small = min(portraits.SIDE, max(h, w)) ** 2 / (h * w)
    made = 2 * look.steps * small * sum(shares[name] for name in units) * portraits.EACH
    found["units"] = Passes(exact=exact, fast=made, besides=(_SMALL - 1) * made)
    covers = squares(look.seen)
    covering = 2 * (1 + len(reasons.FORETELL)) * (reasons.STEPS + 1)  # of chance too
    found["maps"] = Passes(
        subject=goal
        * (
            2 * _JUDGED * len(reasons.QUICK)
            + 2 * (reasons.SAMPLES + reasons.POINTS)
            + COVERED * covers
            + covering / gain
        ),
        besides=gain * goal * RANDOM * len(reasons.QUICK),
    )
    kept = spread(look.shown, depths.KEPT)
    found["kept"] = Passes(fast=2 * depths.STEPS * sum(shares[name] for name in kept))
    areas = sum(tall * wide for tall, wide in depths.dream_sizes(look)) / (h * w) * depths.DREAM_STEPS
    found["dreams"] = Passes(fast=2 * areas * sum(shares[name] for name in depths.dreamt_of(look)))
    moved = sum(map(len, depths.MOVES.values()))
    pictures = len(depths.compared_by(look)) * max(h, w) ** 2 / (h * w)
    found["compared"] = Passes(
        fast=(2.4 if look.predictor else 1.2) * moved + pictures
    )  # a classifier to its end too
    return found


def squares(image: Tensor) -> int:
    """Return how many squares occlusion covers a picture by."""
    h, w = image.shape[-2:]
    side = max(1, round(max(h, w) / 7))
    step = max(1, side // 2)
    return (-(-max(0, h - side) // step) + 1) * (-(-max(0, w - side) // step) + 1)


def depths_of(
    network: Network, image: Tensor, layers: tuple[str, ...]
) -> tuple[dict[str, float], float | None]:
    """Return what share of a pass to the last layer a pass to each is, and that pass's multiply-adds."""
    counts = {name: multiply_adds(network, image, name) for name in layers}
    whole = counts[layers[-1]]
    if whole is None or not whole:
        return {name: (number + 1) / len(layers) for number, name in enumerate(layers)}, whole
    return {name: (count or 0.0) / whole for name, count in counts.items()}, whole


def multiply_adds(network: Network, image: Tensor, layer: str | None) -> float | None:
    """Count the multiply-adds of a pass, to a layer or to the end; None if it needs numbers."""
    import torch
    from torch.utils.flop_counter import flop_registry  # imports triton where that is installed

    from innervision.paint.work import Tally, ghost

    tally = Tally(flop_registry)
    with contextlib.suppress(Exception):  # a guest may do anything
        double = ghost(network)
        empty = torch.empty_like(image, device="meta")
        with torch.no_grad(), tally:
            double(empty) if layer is None else double.features(empty, (layer,))
        return float(tally.multiply_adds)
    return None


def forward(network: Network, image: Tensor, target: Target) -> float:
    """Return the seconds of a forward pass: half of what a gradient takes, once all is made ready."""
    from innervision.errors import Invalid
    from innervision.see.backward import gradient

    def back() -> None:
        with contextlib.suppress(Invalid):  # a guest may cut its gradients off: then forward is all there is
            gradient(network, image, target)

    return span(back) / 2
