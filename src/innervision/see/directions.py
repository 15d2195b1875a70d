"""Directions in the space of a layer's channels, as they are written: sums of channels, or a file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.target import Target, target
from innervision.see.together import Direction, Unit

_TERM = re.compile(r"(?P<sign>[+-]?)(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\*)?(?P<channel>\d+)")
_FORM = re.compile(r"(?P<layer>[^:@]+):(?P<what>[^@]+)(@(?P<y>\d+),(?P<x>\d+))?")


def unit(text: str, network: Network, side: int = 224) -> Unit:
    """Read a target, or a direction: "relu4_1:3+0.5*7-2*12", "relu4_1:vector.npy", either with @ROW,COLUMN.

    A sum weighs channels, the others by 0; "3-7" may be a range, and is refused: "3-1*7" is the difference.
    A file holds a number a channel, (c,), as numpy writes it. side: of the grey picture by which a layer's
    channels are counted. Raises Invalid for another form, for what the network does not have, and for a
    direction of no length.
    """
    found = _FORM.fullmatch(text.replace(" ", ""))
    what = found["what"] if found else ""
    if found is None or found["layer"] == "class" or not (re.search(r"[+*-]", what) or what.endswith(".npy")):
        return target(text, network)
    if re.fullmatch(r"\d+-\d+", what):
        first, _, last = what.partition("-")
        raise Invalid(
            f"{text!r} may be a range or a difference: many channels are asked for by excite's --targets, "
            f"a difference is written {found['layer']}:{first}-1*{last}"
        )
    layer, place = found["layer"], None if found["y"] is None else (int(found["y"]), int(found["x"]))
    count = channels(Target(layer), network, side)
    vector = _read(Path(what), text) if what.endswith(".npy") else _sum(what, count, text)
    if vector.shape != (count,) or not torch.isfinite(vector).all() or not vector.any():
        raise Invalid(
            f"{text!r} is no direction in {layer}: it takes {count} finite numbers, not all of them 0, "
            f"one a channel, and this is {tuple(vector.shape)}"
        )
    return Direction(layer, vector, place, name=Path(what).stem if what.endswith(".npy") else what)


def channels(target: Target, network: Network, side: int) -> int:
    """Return how many channels a layer, or how many classes the output, has."""
    if target.layer is not None:
        network.check((target.layer,))
    grey = torch.full((1, 3, side, side), 0.5, device=network.device)
    with torch.no_grad():
        return target.of(network, grey).shape[1]


def _sum(what: str, count: int, text: str) -> Tensor:
    terms = list(_TERM.finditer(what))
    if "".join(term[0] for term in terms) != what or any(not term["sign"] for term in terms[1:]):
        raise Invalid(f"{text!r} is no sum of channels: write it as in relu4_1:3+0.5*7-2*12")
    vector = torch.zeros(count)
    for term in terms:
        channel = int(term["channel"])
        if channel >= count:
            raise Invalid(f"no channel {channel} in {text.partition(':')[0]}, which has 0 … {count - 1}")
        weight = float(term["weight"] or 1)
        vector[channel] += -weight if term["sign"] == "-" else weight
    return vector


def _read(file: Path, text: str) -> Tensor:
    try:
        numbers = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise Invalid(f"{text!r}: '{file}' cannot be read as numbers of numpy's .npy: {error}") from error
    if numbers.dtype.kind not in "fiu":
        raise Invalid(f"{text!r}: '{file}' holds {numbers.dtype}, not numbers")
    return torch.from_numpy(numbers.astype(np.float32))
