"""What `innervision compare` is about to do and what it will cost, and what it says of too few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from innervision.cli import beforehand
from innervision.cli.beforehand import Plan
from innervision.cli.seeing import open_network, open_picture

if TYPE_CHECKING:
    from innervision.network import Network
    from innervision.see.compare import Similarity
    from innervision.see.pictures import Pictures

_TRIED = 4  # pictures that are looked at to tell what many will take
_BIASED = 0.1  # what layers without anything in common may come to and be told apart from those that have


def caution(found: Similarity, *, biased: bool) -> str:
    """Say how far the numbers can be trusted, where the pictures are too few for it; else nothing."""
    import numpy as np

    from innervision.see.compare import ENOUGH

    seen = found.of - len(found.skipped)
    if biased and found.chance is not None:
        by_chance = float(np.nanmedian(found.chance))
        if not by_chance > _BIASED:
            return ""
        # by chance 1 / (1 + n/d) for features of d directions, and there are more the longer one looks
        wanted = float(f"{9 * seen * by_chance / max(1 - by_chance, 1e-6):.1g}")
        return (
            f"with {seen:,} pictures --biased brings layers that have nothing in common to "
            f"{by_chance:.2f}, and what is no higher means nothing (a floor of 0.1 would take {wanted:,.0f} "
            "pictures or more); without --biased there is no such floor"
        )
    if biased or seen >= ENOUGH:
        return ""
    return (
        f"only {seen} pictures: by chance alone numbers may be off by {2 * found.noise:.2f} and more; "
        f"from about {ENOUGH} pictures on, nearly all are right to 0.1"
    )


def plan(chosen: Mapping[str, Any], kind: str, second: Network | None, pictures: Pictures | None) -> Plan:
    """Return what is about to be done. kind: of question; pictures: those looked at."""
    network = open_network(chosen)
    output = Path(chosen["output"] or "compare.png")
    files = (*beforehand.beside(output), str(output.with_suffix(".csv")))
    through = beforehand.about(network)
    if kind == "invariance":
        work, seconds, held = _invariance(chosen, network)
    else:
        assert pictures is not None
        height, width = pictures.size
        through = f"{len(pictures):,} pictures of {width}x{height} px, {through}"
        if kind == "checkpoints":
            work, seconds, held = _checkpoints(chosen, network, pictures)
        elif kind == "parts":
            work, seconds, held = _parts(chosen, network, pictures)
        else:
            work, seconds, held = _similarity(chosen, network, second, pictures)
            through += "" if second is None else f"; {beforehand.about(second)}"
    told = beforehand.memory(network.device)
    if told["memory"] is not None:
        told["memory"] += held
    return Plan((work, through), seconds, files, **told)


Cost = tuple[str, float, int]  # what is done, its seconds, and bytes that it holds beyond a trial's


def _similarity(
    chosen: Mapping[str, Any], network: Network, second: Network | None, pictures: Pictures
) -> Cost:
    from innervision.see.compare import cka
    from innervision.see.pictures import first

    some = first(pictures, 3 * _TRIED)

    def trial() -> Iterator[Similarity]:
        sides = {"other": second, "other_layers": chosen["layers2"]}
        return cka(network, some, chosen["layers"], batch_size=_TRIED, **sides)

    found = next(trial())
    each = beforehand.pace(trial()) * max(1, len(some) // _TRIED) / len(some)
    together = len(pictures) if chosen["biased"] else min(chosen["batch"], len(pictures))
    sides = [(network, found.rows)] + ([] if second is None else [(second, found.columns)])
    features = [size for net, layers in sides for size in _features(net, layers, pictures)]
    # what is reckoned between pictures grows with those held together; features are held in groups
    each += 2 * together * sum(features) / _products()
    held = together * max(4 * max(features), min(2**29 // max(1, together), 4 * sum(features)))
    kind = "biased" if chosen["biased"] else f"unbiased, {together} pictures at a time"
    other = "each other" if second is None and not chosen["layers2"] else beforehand.names(found.columns)
    what = f"{beforehand.names(found.rows)} with {other}: linear CKA ({kind})"
    return what, each * len(pictures), held


def _features(network: Network, layers: Sequence[str], pictures: Pictures) -> list[int]:
    """Return how many numbers each layer answers to a picture."""
    from innervision.see.pictures import batch

    image, _, bad = batch(pictures, (0,))
    if bad:
        return [0 for _ in layers]
    answers = network.features(image.to(network.device), layers)
    return [answer.numel() for answer in answers.values()]


def _products() -> float:
    """Return how many multiply-adds of float64 there are in a second, twice counted."""
    import torch

    block = torch.ones(64, 2**16, dtype=torch.float64)
    return 2 * 64 * 64 * 2**16 / beforehand.span(lambda: block @ block.T, 3)


def _invariance(chosen: Mapping[str, Any], network: Network) -> Cost:
    from innervision.see.invariance import MOVES, invariance

    _, image = open_picture(chosen["invariance"], chosen["size"] or 224, chosen["max_pixels"])
    tried = MOVES["shift"][:_TRIED]
    seconds = beforehand.span(lambda: invariance(network, image, "shift", chosen["layers"], amounts=tried))
    count = sum(map(len, MOVES.values()))
    height, width = image.shape[-2:]
    work = f"how far features move with a picture of {width}x{height} px, moved {count} times"
    return work, seconds * (count + len(MOVES)) / (len(tried) + 1), 0


def _checkpoints(chosen: Mapping[str, Any], network: Network, pictures: Pictures) -> Cost:
    from innervision.see.pictures import first
    from innervision.see.target import target
    from innervision.see.units import most_at_once, top_images

    unit, files = target(chosen["target"], network), chosen["checkpoints"]
    batch = most_at_once(pictures.size)
    some = first(pictures, 3 * batch)
    layers = None if unit.layer is None else (unit.layer,)
    each = beforehand.pace(top_images(network, some, layers, k=1)) / min(batch, len(some))
    return f"{unit} at each of {len(files)} checkpoints", each * len(pictures) * len(files), 0


def _parts(chosen: Mapping[str, Any], network: Network, pictures: Pictures) -> Cost:
    from innervision.see.correspondence import DRAWS
    from innervision.see.pictures import batch
    from innervision.see.units import seen_by_default

    layers = chosen["layers"] or seen_by_default(network)
    image, _, _ = batch(pictures, (0,))
    each = beforehand.span(lambda: network.features(image.to(network.device), layers))
    work = f"a part of each picture hidden, and {DRAWS} times others: {beforehand.names(layers)}"
    return work, each * len(pictures) * (2 + DRAWS), 0
