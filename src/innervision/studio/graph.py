"""The network as a graph: its layers in the order in which they answer, and which of them feed which.

One pass through the network is followed. Every tensor made on the way knows the layers whose answers it was
made of, with no other layer between; what a layer is given tells its inputs, however the module was written:
branches, sums, concatenations, blocks that end in a function.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from innervision.errors import Invalid, out_of_memory
from innervision.listen import evaluating
from innervision.network import Network
from innervision.see.receptive import Field, followed
from innervision.see.steps import copy_with
from innervision.see.tokens import as_maps

Fits = Literal["any", "square", "fixed"]
"""Which pictures a network takes: of any shape, square ones, or squares of one size."""

_TRIED = (224, 32, 28, 64, 96, 128, 256, 299, 384, 227)  # sides, where a network does not say

_LEAST = (8, 12, 16, 24, 32, 40, 48, 64, 96, 128)


@dataclass(frozen=True)
class Node:
    """A layer: a module that answers, or a block whose answer no module within it gives."""

    name: str
    kind: str  # of module: Conv2d, ReLU, …
    shape: tuple[int, ...]  # channels, height, width at the graph's side; as it is where it has no maps
    parameters: int
    inputs: tuple[str, ...]  # layers; none where it looks at the picture itself
    maps: bool  # whether it can be shown: maps, or one value a channel
    field: Field | None = None  # of the picture; None where a step on the way has no fixed window …
    through: str = ""  # … which this names, where it is known


@dataclass(frozen=True)
class Graph:
    """A network's layers, the first to answer first."""

    nodes: tuple[Node, ...]
    side: int  # of the picture for which shapes are stated
    fits: Fits
    least: int  # a side, in pixels: smaller pictures come to nothing on the way
    output: str | None  # the layer whose answer is the network's own
    answers: tuple[int, ...]  # shape of the network's answer to one picture, without the first side

    def __getitem__(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    def __contains__(self, name: object) -> bool:
        return any(node.name == name for node in self.nodes)

    @property
    def shown(self) -> tuple[str, ...]:
        """The layers that can be shown."""
        return tuple(node.name for node in self.nodes if node.maps)

    @property
    def values(self) -> int:
        """How many values those answer to a picture of `side`."""
        return sum(math.prod(node.shape) for node in self.nodes if node.maps)


def graph_of(network: Network) -> Graph:
    """Follow a pass through a network; raise Invalid where it answers no size tried, or has no layers.

    Without numbers where the module allows it, so that a picture costs nothing; else with zeros.
    """
    error: Exception | None = None
    for module, device, side in _ways(network):
        try:
            nodes, output, shape = _follow(network, module, (side, side), device)
        except Exception as failed:
            if out_of_memory(failed):
                raise
            error = failed
            continue
        if not nodes:
            raise Invalid(f"{network.name} has no layers that answer tensors: nothing can be shown of it")
        seen = followed(network, (side, side))
        return Graph(
            tuple(_with_field(node, seen.get(node.name, "")) for node in nodes),
            side,
            *_fits(network, module, side, device),
            output,
            shape,
        )
    raise Invalid(f"{network.name} answers pictures of no size that was tried: {error}")


def _ways(network: Network) -> Iterator[tuple[nn.Module, str, int]]:
    """Yield the module to follow, its device and a side, the cheapest first."""
    known = (network.input_size,) if network.input_size else ()
    stand_in = _stand_in(network)
    if stand_in is not None:
        for side in known or (*_TRIED, *range(8, 513, 4)):
            yield stand_in, "meta", side
    for side in known or _TRIED:  # what looks at values fails without any
        yield network.module, str(network.device), side


def _with_field(node: Node, seen: Field | str) -> Node:
    known = seen if isinstance(seen, Field) else None
    through = seen if isinstance(seen, str) else ""
    return Node(node.name, node.kind, node.shape, node.parameters, node.inputs, node.maps, known, through)


def _stand_in(network: Network) -> nn.Module | None:
    """Return a copy without numbers; None where there can be none."""
    try:
        return copy_with(network.module, lambda p, _: torch.empty_like(p, device="meta")).eval()
    except Exception:  # a guest's own __deepcopy__ may raise anything
        return None


def _fits(network: Network, module: nn.Module, side: int, device: str) -> tuple[Fits, int]:
    """Return which pictures a network takes, and the least side of them."""

    def takes(h: int, w: int) -> bool:
        try:
            with torch.no_grad(), evaluating(module):
                module(_picture(network, (h, w), device))
        except Exception as error:
            if out_of_memory(error):
                raise
            return False
        return True

    wide = takes(side, 2 * side) and takes(2 * side, side)
    if not wide and not takes(2 * side, 2 * side):
        return "fixed", side
    least = next((n for n in _LEAST if n < side and takes(n, n)), side)
    return ("any" if wide else "square"), least


def _picture(network: Network, size: tuple[int, int], device: str) -> Tensor:
    return network.preprocessing(torch.zeros(1, 3, *size)).to(device, network.dtype)


class _Sources(TorchDispatchMode):
    """Notes of every tensor that is made from the picture which layers' answers it was made of."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._kept: dict[int, tuple[Tensor, frozenset[str]]] = {}  # tensors too: ids are not used again
        self.answers: dict[int, str] = {}  # tensor -> the layer whose answer it is
        self.note(x, frozenset())

    def note(self, tensor: Tensor, sources: frozenset[str], answer: str = "") -> None:
        self._kept[id(tensor)] = (tensor, sources)
        self.answers.pop(id(tensor), None)
        if answer:
            self.answers[id(tensor)] = answer

    def of(self, tree: Any) -> frozenset[str] | None:
        """Return the layers of which all tensors in a tree were made; None where none is of the picture."""
        found = [self._kept[id(t)][1] for t in _tensors(tree) if id(t) in self._kept]
        return frozenset().union(*found) if found else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = self.of((args, kwargs))
        outs = func(*args, **(kwargs or {}))
        if before is not None:
            for out in _tensors(outs):
                self.note(out, before)
        return outs

    def forget(self) -> None:
        self._kept.clear()
        self.answers.clear()


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _tensors(part)


class _Pass:
    """What is heard of one pass."""

    def __init__(self, network: Network, size: tuple[int, int], sources: _Sources) -> None:
        self.network, self.size, self.sources = network, size, sources
        self.nodes: dict[str, Node] = {}
        self._given: dict[str, tuple[frozenset[str] | None, dict[int, int]]] = {}

    def before(self, name: str) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            versions = {id(t): t._version for t in _tensors((args, kwargs))}
            self._given.setdefault(name, (self.sources.of((args, kwargs)), versions))

        return hook

    def after(self, name: str, module: nn.Module) -> Any:
        leaf = not any(module.children())

        def hook(_: nn.Module, __: Any, answer: Any) -> Tensor | None:
            if name in self.nodes or not isinstance(answer, Tensor):
                return None  # a later call, or no layer that can be asked for
            given, versions = self._given.get(name, (None, {}))
            made_of = self.sources.of(answer)
            if made_of is None or (not leaf and id(answer) in self.sources.answers):
                return None  # not of the picture; or a layer's answer passed on
            inputs = given if leaf and given is not None else made_of
            self.nodes[name] = self._node(name, module, answer, inputs, leaf)
            changed = versions.get(id(answer)) != answer._version
            # what hands its input on unchanged is not where that input comes from
            mine = answer if changed else answer.detach()
            self.sources.note(mine, frozenset((name,)), name)
            return mine

        return hook

    def _node(self, name: str, module: nn.Module, answer: Tensor, inputs: frozenset[str], leaf: bool) -> Node:
        maps = as_maps(answer, self.size)
        shown = maps is not None or answer.ndim == 2
        shape = tuple(answer.shape[1:]) if maps is None else tuple(maps.shape[1:])
        shape = (*shape, 1, 1) if answer.ndim == 2 else shape
        order = [known for known in self.nodes if known in inputs]
        count = sum(p.numel() for p in module.parameters(recurse=leaf))
        return Node(name, type(module).__name__, shape, count, tuple(order), shown)


def _follow(
    network: Network, module: nn.Module, size: tuple[int, int], device: str
) -> tuple[list[Node], str | None, tuple[int, ...]]:
    """Return the nodes of one pass, the layer that gives the network's answer, and that answer's shape."""
    x = _picture(network, size, device)
    sources = _Sources(x)
    heard = _Pass(network, size, sources)
    handles: list[Any] = []
    try:
        for name, part in module.named_modules():
            if name:
                handles.append(part.register_forward_pre_hook(heard.before(name), with_kwargs=True))
                handles.append(part.register_forward_hook(heard.after(name, part)))
        with torch.inference_mode(False), torch.no_grad(), evaluating(module), sources:
            answer = module(x)
        output = sources.answers.get(id(answer))
        shape = tuple(answer.shape[1:]) if isinstance(answer, Tensor) else ()
    finally:
        for handle in handles:
            handle.remove()
        sources.forget()
    return [*heard.nodes.values()], output, shape
