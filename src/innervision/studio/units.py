"""One unit: what it answers, what it is like, what it looks for, and how it came to be."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innervision import images, network
from innervision.errors import InnervisionError, Invalid
from innervision.learn import checkpoints
from innervision.network import Network
from innervision.see import backward, cam
from innervision.see.contact import contact_sheet, strongest, window
from innervision.see.pictures import Pictures, open_pictures
from innervision.see.presets import PHOTOGRAPHS
from innervision.see.target import Target
from innervision.see.units import TopImages, digest
from innervision.studio.graph import Graph, Node
from innervision.studio.looking import Look, View, image_of
from innervision.studio.networks import Opened
from innervision.studio.problems import Refused, missing

NEIGHBOURS = 12
_PLACES = 28  # a side, of the maps by which units are compared
_SIDE = 112  # of the photographs for it, where a network takes any
_SAME = frozenset(("ReLU", "ReLU6", "BatchNorm2d", "BatchNorm1d", "Dropout", "Tanh", "Sigmoid", "Identity"))


def node_of(graph: Graph, layer: str, channel: int) -> Node:
    """Return a unit's layer; raise Refused where there is no such unit."""
    if layer not in graph:
        raise missing("layer", layer)
    node = graph[layer]
    if not node.maps:
        raise Refused(409, f"{layer} answers {node.shape}, in which no units stand apart")
    if not 0 <= channel < node.shape[0]:
        raise Refused(404, f"no channel {channel} in {layer}, which has 0 … {node.shape[0] - 1}")
    return node


def activation(look: Look, node: Node, channel: int) -> dict[str, Any]:
    """Return what a unit answers to a picture, where it answers most, and what it sees there."""
    maps = look[node.name].maps[channel]
    place = int(maps.argmax())
    row, column = divmod(place, maps.shape[1])
    view = look.view
    left, top, right, bottom = window(node.field, (view.height, view.width), (row, column))
    inside = max(0, left), max(0, top), min(view.width, right), min(view.height, bottom)
    return {
        "max": float(maps.max()),
        "mean": float(maps.double().mean()),
        "at": (row, column),
        "box": view.on_picture(inside),
    }


def alike(opened: Opened, layer: str, photographs: Sequence[images.Picture]) -> Tensor:
    """Return how a layer's units answer to photographs, as rows (c, n) whose products are correlations.

    A unit that answers the same everywhere is alike to none: its row is 0. Where a layer has one place only,
    the rows are its weights, or of the layer before it that has as many.
    """
    graph = opened.graph
    node = graph[layer]
    side = min(_SIDE, graph.side) if graph.fits == "any" else graph.side
    rows: list[Tensor] = []
    with torch.no_grad():
        for photograph in photographs:
            image, _ = image_of(graph, photograph, side)
            answer = Target(layer).of(opened.network, image.to(opened.network.device))
            if answer.ndim != 4 or answer.shape[2:].numel() < 2:
                return _unit_rows(_weights(opened, node))
            maps = answer.float().cpu()
            small = images.fit(*maps.shape[2:], longest=min(_PLACES, max(maps.shape[2:])))
            rows.append(F.interpolate(maps, small, mode="area")[0].flatten(1))
    found = torch.nan_to_num(torch.cat(rows, 1), nan=0.0, posinf=0.0, neginf=0.0)
    return _unit_rows(found - found.mean(1, keepdim=True))


def _unit_rows(rows: Tensor) -> Tensor:
    sizes = rows.norm(dim=1, keepdim=True)
    return torch.where(sizes > 1e-12, rows / sizes.clamp(min=1e-12), 0.0)


def _weights(opened: Opened, node: Node) -> Tensor:
    """Return the weights of a layer's units (c, n), or of those before that it hands on one by one."""
    c = node.shape[0]
    for _ in range(6):
        weight = getattr(opened.network.module.get_submodule(node.name), "weight", None)
        if isinstance(weight, Tensor) and weight.ndim > 1 and len(weight) == c:
            return weight.detach().float().cpu().flatten(1)
        if len(node.inputs) != 1 or node.kind not in _SAME:
            break
        node = opened.graph[node.inputs[0]]
    return torch.zeros(c, 1)


def neighbours(rows: Tensor, channel: int) -> list[dict[str, Any]]:
    """Return the units that are most alike, the most alike first."""
    found = rows @ rows[channel]
    found[channel] = -2
    order = found.argsort(descending=True, stable=True)[:NEIGHBOURS].tolist()
    return [
        {"channel": n, "similarity": round(float(found[n]), 4)}
        for n in order
        if n != channel and float(found[n]) != 0
    ]


def deconvolved(network: Network, image: Tensor, unit: Target) -> Image.Image:
    """Draw what of a picture a unit answers to: its deconvolution, or the gradient where that has no rule."""
    try:
        map = backward.deconvnet(network, image, unit).map
    except Invalid:  # no rule for this network's activations
        map = backward.gradient(network, image, unit).map
    return Image.fromarray(images.to_bytes(backward.show(map, beyond=0.001)))


def evidence(network: Network, image: Tensor, unit: Target) -> Image.Image:
    """Draw where in a picture the evidence for a unit lies, by LayerCAM in the layer before it."""
    return backward.overlay(image, cam.layer_cam(network, image, unit))


def mapped(network: Network, image: Tensor, unit: Target) -> Image.Image:
    """Draw where a unit answers, over the picture."""
    with torch.no_grad():
        answer = unit.pick(unit.of(network, image)).float()
    maps = answer.view(1, 1, 1, 1) if answer.ndim == 1 else answer[:, None]
    large = F.interpolate(maps.clamp(min=0), image.shape[-2:], mode="bilinear", align_corners=False)
    return backward.overlay(image, torch.nan_to_num(large[:, 0], nan=0.0, posinf=0.0))


DRAWN: Mapping[str, Callable[[Network, Tensor, Target], Image.Image]] = MappingProxyType(
    {"deconvnet": deconvolved, "cam": evidence, "map": mapped}
)


def target(opened: Opened, layer: str, channel: int) -> Target:
    """Return what is asked of a network for a unit."""
    return Target(layer, channel)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class Index:
    """The pictures that excite units most, as `innervision units` has found them, and where those lie."""

    found: TopImages
    pictures: Pictures

    def sheet(self, network: Network, layer: str, channel: int, *, deconv: bool) -> Image.Image:
        """Draw what a unit sees of its strongest pictures."""
        unit = strongest(network, self.found, self.pictures, layer, (channel,), deconv=deconv)
        return contact_sheet(unit, tile=96)


def index_of(runs: Path, opened: Opened) -> Index | None:
    """Return the latest index in the runs' folder that is of this network; None where there is none."""
    digests: dict[str, str] = {}
    for file in sorted(runs.glob("*/index.safetensors"), key=lambda path: -path.stat().st_mtime):
        try:
            found = TopImages.load(file)
            if found.key["network"] != opened.network.name or found.done != found.of:
                continue
            kind = str(found.key["precision"])
            if kind not in digests:
                dtype = getattr(torch, kind)
                same = dtype == opened.network.dtype
                digests[kind] = digest(opened.network if same else opened.network.frozen(dtype))
            if found.key["weights"] != digests[kind]:
                continue
            card = json.loads((file.parent / "run.json").read_text(encoding="utf-8"))
            (source,) = (Path(one["source"]) for one in card["inputs"] if one["role"] == "data")
            return Index(found, open_pictures((source,), size=found.key["size"][0]))
        except (InnervisionError, OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # one that cannot be read, or whose pictures are gone
    return None


def history(folder: Path | None) -> list[str]:
    """Return the epochs after which a run kept its network's weights."""
    return [] if folder is None else [str(epoch) for epoch in checkpoints.kept(folder)]


def at_epoch(folder: Path | None, epoch: str) -> Network:
    """Return a run's network as it was after an epoch."""
    kept = {} if folder is None else {str(n): file for n, file in checkpoints.kept(folder).items()}
    if epoch not in kept or folder is None:
        raise missing("checkpoint", epoch)
    return network.load_folder(folder, weights_file=kept[epoch]).frozen()


def view_of(opened: Opened, picture: images.Picture, size: int) -> tuple[Tensor, View]:
    """Return a picture as a network is given it, on its device."""
    image, view = image_of(opened.graph, picture, size)
    return image.to(opened.network.device), view


def photographs() -> tuple[str, ...]:
    """Return the ids of the samples by which units are compared."""
    return tuple(f"sample-{name}" for name in PHOTOGRAPHS)
