"""What all layers answer to a picture: one pass, kept as long as there is room, drawn a layer at a time."""

from __future__ import annotations

import json
import re
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from innervision import images, machine
from innervision.errors import OutOfMemory
from innervision.images import Picture
from innervision.learn.raw import squared
from innervision.memory import gib
from innervision.network import Network
from innervision.see.tokens import as_maps
from innervision.studio.graph import Graph
from innervision.studio.networks import Opened
from innervision.studio.problems import Refused

SIZES = (8, 1024)  # pixels a side
BEST = 10  # classes told
_SMALL = 4 * 2**20  # bytes of answers: for less, waking other threads layer by layer takes more than it saves
_KEY = re.compile(r"(?P<net>[a-z0-9_.-]{1,80})~(?P<picture>[a-z0-9-]{1,40})~(?P<size>[0-9]{1,4})")

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Key:
    """What was looked at, through what, at which size. It is written so that a link to it lasts."""

    net: str
    picture: str
    size: int

    def __str__(self) -> str:
        return f"{self.net}~{self.picture}~{self.size}"

    @classmethod
    def read(cls, text: str) -> Key:
        found = _KEY.fullmatch(text)
        if found is None or not SIZES[0] <= int(found["size"]) <= SIZES[1]:
            raise Refused(404, "no such answer here: look at a picture first (POST /api/look)")
        return cls(found["net"], found["picture"], int(found["size"]))


@dataclass(frozen=True)
class View:
    """The picture as a network is given it, and the part of the whole that this is."""

    height: int
    width: int
    box: tuple[int, int, int, int]  # left, top, right, bottom, in the picture's own pixels

    def told(self) -> dict[str, Any]:
        return {"width": self.width, "height": self.height, "box": list(self.box)}

    def on_picture(self, box: Sequence[int]) -> list[int]:
        """Return a box of the network's pixels in those of the picture."""
        left, top, right, bottom = self.box
        x, y = (right - left) / self.width, (bottom - top) / self.height
        l, t, r, b = box
        return [round(v) for v in (left + l * x, top + t * y, left + r * x, top + b * y)]


@dataclass(frozen=True, eq=False)
class Seen:
    """One layer's answer."""

    name: str
    kind: str
    maps: Tensor  # (c, h, w) float32, on the CPU, without infinities
    lo: Numbers  # (c,)
    hi: Numbers
    mean: Numbers
    dead: int  # channels that are 0 at every place
    faulty: int  # channels with values that are no numbers, which stand as 0


@dataclass(frozen=True, eq=False)
class Look:
    """What a network answers to a picture."""

    key: Key
    stamp: str  # of the network as it was open
    view: View
    layers: dict[str, Seen]
    predictions: list[dict[str, Any]]
    seconds: float
    size: int  # bytes

    def __getitem__(self, layer: str) -> Seen:
        found = self.layers.get(layer)
        if found is None:
            raise Refused(409, f"{layer} answers no maps to a picture of this size")
        return found


def tag(stamp: str, *parts: object) -> str:
    """Return an ETag of what an answer is made of; stamp: of the network."""
    return f'"{stamp}-{zlib.crc32("/".join(map(str, parts)).encode()):08x}"'


def size_for(graph: Graph, size: int | None) -> int:
    """Return the size at which a network looks: what is asked for, or the one that it takes."""
    if graph.fits == "fixed" or size is None:
        return graph.side
    return size


def image_of(graph: Graph, picture: Picture, size: int) -> tuple[Tensor, View]:
    """Return a picture (1, 3, h, w) as a network takes it: whole, or its middle square."""
    h, w = picture.height, picture.width
    tall, wide = seen_at(graph, h, w, size)
    if graph.fits == "any":
        return picture.tensor((tall, wide)), View(tall, wide, (0, 0, w, h))
    side = min(h, w)
    left, top = (w - side) // 2, (h - side) // 2
    image = torch.from_numpy(squared(picture, tall)).float().div_(255)[None]
    return image, View(tall, wide, (left, top, left + side, top + side))


def seen_at(graph: Graph, height: int, width: int, size: int) -> images.Size:
    """Return the height and width at which a picture is looked at: no side below the network's least."""
    if graph.fits != "any":
        side = max(size, graph.least)
        return side, side
    tall, wide = images.fit(height, width, longest=size)
    if min(tall, wide) >= graph.least:
        return tall, wide
    scale = graph.least / min(height, width)
    return max(graph.least, round(height * scale)), max(graph.least, round(width * scale))


def bytes_for(graph: Graph, size: images.Size) -> int:
    """Return about how many bytes all answers to a picture of a height and width take."""
    return int(4 * graph.values * size[0] * size[1] / graph.side**2)


def look(opened: Opened, key: Key, picture: Picture, room: int) -> Look:
    """Return what all layers answer to a picture, in one pass. Raises OutOfMemory beyond so many bytes."""
    clock = time.perf_counter()
    graph, network = opened.graph, opened.network
    needed = bytes_for(graph, seen_at(graph, picture.height, picture.width, key.size))
    if needed > room:
        raise OutOfMemory(
            f"at {key.size} px the answers to this picture take {gib(needed)}, more than {gib(room)}: "
            "choose a smaller size"
        )
    with machine.threads(1 if needed <= _SMALL else None), torch.inference_mode(False), torch.no_grad():
        image, view = image_of(graph, picture, key.size)
        found, answer = answers(network, graph, image.to(network.device), graph.shown)
        shown = {name: maps(value, (view.height, view.width)) for name, value in found.items()}
        kinds = {node.name: node.kind for node in graph.nodes}
        layers = {name: seen(name, kinds[name], value) for name, value in shown.items() if value is not None}
    size = sum(4 * one.maps.numel() for one in layers.values())
    guesses = predictions(network, answer)
    return Look(key, opened.stamp, view, layers, guesses, time.perf_counter() - clock, size)


def answers(
    network: Network, graph: Graph, image: Tensor, names: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return what layers answer to an image, and the network's own answer where it is one of classes.

    In one pass, but for a network whose answer is no layer's: that is looked through twice.
    """
    classes = len(graph.answers) == 1
    wanted = list(names)
    if classes and graph.output is not None and graph.output not in wanted:
        wanted.append(graph.output)
    found = network.features(image, wanted)
    answer = None
    if classes:
        answer = network(image) if graph.output is None else found[graph.output]
    return {name: found[name] for name in names}, answer


def predictions(network: Network, answer: Tensor | None) -> list[dict[str, Any]]:
    """Return the likeliest classes, the likeliest first; none where a network ends in no classes."""
    if answer is None:
        return []
    logits = answer.detach().float().cpu().flatten(1)[0]
    shares = logits.double().softmax(0)
    if not bool(shares.isfinite().all()):
        return []
    names = network.classes if len(network.classes) == len(logits) else ()
    order = logits.argsort(descending=True, stable=True)[:BEST].tolist()
    return [
        {"label": names[n] if names else f"class {n}", "p": float(f"{float(shares[n]):.6g}"), "class": n}
        for n in order
    ]


def maps(answer: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Return a layer's answer as maps (c, h, w), float32, on the CPU; one value a channel is a map too.

    None where it has no maps at this size: tokens that are no grid of the picture.
    """
    found = answer[:, :, None, None] if answer.ndim == 2 else as_maps(answer, size)
    return None if found is None else found[0].float().cpu().contiguous()


def seen(name: str, kind: str, maps: Tensor) -> Seen:
    """Return a layer's maps with what is told of each channel. What is no number becomes 0."""
    numbers = told_of(maps)
    faulty = 0
    if not np.isfinite(numbers).all():
        faulty = int((~maps.isfinite()).flatten(1).any(1).sum())
        maps = torch.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
        numbers = told_of(maps.double())
    lo, hi, mean = numbers
    return Seen(name, kind, maps, lo, hi, mean, int(((lo == 0) & (hi == 0)).sum()), faulty)


def told_of(maps: Tensor) -> Numbers:
    """Return the least, the greatest and the mean value of each channel, (3, c)."""
    flat = maps.flatten(1)
    return torch.stack((*flat.aminmax(dim=1), flat.mean(1))).double().numpy()


def told(look: Look) -> bytes:
    """Return a look as JSON: written at once, for a model's validation would take longer than the look."""
    layers = [
        entry(look, one) | {"lo": rounded(one.lo), "hi": rounded(one.hi), "mean": rounded(one.mean)}
        for one in look.layers.values()
    ]
    return json.dumps(about(look, layers), allow_nan=False, separators=(",", ":")).encode()


def about(look: Look, layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is told of a look, with this of its layers."""
    return {
        "key": str(look.key),
        "size": look.key.size,
        "seconds": round(look.seconds, 4),
        "view": look.view.told(),
        "predictions": look.predictions,
        "layers": layers,
    }


def entry(look: Look, seen: Seen) -> dict[str, Any]:
    """Return what is told of a layer, but its channels."""
    c, h, w = seen.maps.shape
    return {
        "name": seen.name,
        "kind": seen.kind,
        "channels": c,
        "h": h,
        "w": w,
        "dead": seen.dead,
        "faulty": seen.faulty,
        "etag": tag(look.stamp, look.key, seen.name),
    }


def rounded(values: Numbers, digits: int = 6) -> list[float]:
    """Return numbers with so many digits that count: half as long as JSON."""
    sizes = np.abs(values)
    with np.errstate(divide="ignore"):
        places = digits - 1 - np.floor(np.log10(sizes, where=sizes > 0, out=np.zeros_like(sizes)))
    scale = 10.0 ** np.clip(places, -300, 300)
    return (np.round(values * scale) / scale).tolist()


def sprite(seen: Seen, cell: int) -> tuple[bytes, tuple[int, int, int]]:
    """Return a layer's maps as bytes (c, h', w'), each channel's lo..hi as 0..255, no side above `cell`.

    Larger maps are averaged over areas.
    """
    maps = seen.maps
    c, h, w = sprite_size(seen, cell)
    with torch.no_grad():
        if maps.shape != (c, h, w):
            maps = F.interpolate(maps[None], (h, w), mode="area")[0]
        lo, hi = (torch.from_numpy(each).float()[:, None, None] for each in (seen.lo, seen.hi))
        scale = torch.where(hi > lo, 255 / (hi - lo), 0.0)
        data = ((maps - lo) * scale).add_(0.5).clamp_(0, 255).to(torch.uint8)
    return data.numpy().tobytes(), (c, h, w)


def sprite_size(seen: Seen, cell: int) -> tuple[int, int, int]:
    """Return channels, height and width of a layer's sprite."""
    c, h, w = seen.maps.shape
    return (c, *images.fit(h, w, longest=min(cell, max(h, w))))


def plane(seen: Seen, channel: int) -> tuple[bytes, tuple[int, int, int]]:
    """Return a channel's map as it is: float32, little-endian, row by row."""
    c, h, w = seen.maps.shape
    if not 0 <= channel < c:
        raise Refused(404, f"no channel {channel} in {seen.name}, which has 0 … {c - 1}")
    return seen.maps[channel].numpy().astype("<f4", copy=False).tobytes(), (1, h, w)
