"""Rules at a ReLU: what a signal on its way back to the picture may pass, other than the plain gradient.

The rules are hung on autograd's own graph, between the forward pass and the way back. So a ReLU is met
however it was written (nn.ReLU, F.relu, x.relu_(), x.clamp(min=0), x * (x > 0), one module called twice),
nothing of the network is replaced or hooked, and all of it is gone with the graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from innervision.errors import Invalid, unknown
from innervision.network import Network
from innervision.see.nonlinear import Watch, Way, name_of

Rule = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(what comes down, what the plain gradient would let pass, the ReLU's input if kept) -> what passes."""


def _deconvnet(down: Tensor, passed: Tensor, x: Tensor | None) -> Tensor:
    return down.clamp(min=0)


def _guided(down: Tensor, passed: Tensor, x: Tensor | None) -> Tensor:
    through = passed.clamp(min=0)
    return through if x is None else through * (x > 0)  # clamp(min=0), unlike ReLU, is open at 0


RULES: Mapping[str, Rule] = MappingProxyType({"deconvnet": _deconvnet, "guided": _guided})
"""deconvnet: max(g, 0) whatever the forward mask (Zeiler & Fergus 2013); guided: max(g, 0) · [x > 0]
(Springenberg et al. 2014)."""


def bend(answer: Tensor, rule: str, picture: Tensor, watch: Watch) -> int:
    """Hang a rule on every ReLU between an answer and a picture; return how many there are.

    answer: with its graph. autograd.grad(answer, …) then gives what the rule lets through. Max poolings need
    no rule: autograd goes back to where the maximum was, which is unpooling by switches. watch: what saw
    the answer being made. 0 means that there is no nonlinearity on the way, where the rule's result is the
    plain gradient. Gates beside ReLUs, and normalisation, keep their own gradient.
    Raises Invalid where an activation other than ReLU stands on the way, for which there is no rule, and
    where a part of the way cannot be seen: a gradient made by hand, or a write into a part of a tensor.
    """
    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    way = Way(answer, picture)
    rectifiers: dict[Any, tuple[int, Tensor | None]] = {}
    for node in way.nodes:
        name = name_of(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction) or "DifferentiableGraph" in name:
            raise Invalid(
                f"the network computes a gradient of its own ({name.removesuffix('Backward')}), within which "
                f"{rule} cannot see its ReLUs: use the module as it is before compiling, scripting or "
                "checkpointing, or method 'gradient'"
            )
        if name.endswith("CopySlices"):
            raise Invalid(
                f"the network overwrites a part of a tensor in place, within which {rule} cannot see its "
                "ReLUs: write y = relu(part) there, or use method 'gradient'"
            )
        if node in watch.rectified:
            rectifiers[node] = watch.rectified[node]
        elif node in watch.choices:
            raise _none_for(rule, f"{watch.choices[node]}(), a choice of its own that is no ReLU")
        elif (place := _rectified(node, name)) is not None:
            rectifiers[node] = place, _input(node)
    gates: set[str] = set()
    for _, name, weighs in way.activations(rectifiers):
        if not weighs:
            raise _none_for(rule, name)
        gates.add(name)
    if gates and not rectifiers:
        raise _none_for(rule, " and ".join(sorted(gates)))
    for node, (place, x) in rectifiers.items():
        node.register_hook(_hook(RULES[rule], place, x))
    return len(rectifiers)


def _rectified(node: Any, name: str) -> int | None:
    """Return which input of a node is rectified, max(x, 0), or None for another operation."""
    match name:
        case "Relu":
            return 0
        case "Hardtanh":
            return 0 if node._saved_min_val == 0 else None  # ReLU6
        case "ClampMin" | "Clamp":
            return 0 if _zero(node._saved_min) else None
        case "Maximum" | "Fmax":  # torch.maximum(x, 0) in either order
            return 0 if _zero(node._saved_other) else 1 if _zero(node._saved_self) else None
        case _:
            return None


def _zero(bound: Any) -> bool:
    if isinstance(bound, Tensor):
        return not bool(bound.any())
    return bound is not None and bound == 0


def _input(node: Any) -> Tensor | None:
    """Return a clamp's input, where autograd has kept it; ReLU keeps its answer, and needs none."""
    x = getattr(node, "_saved_self", None) if name_of(node) in ("ClampMin", "Clamp") else None
    return None if x is None else x.detach()


def _hook(rule: Rule, place: int, x: Tensor | None) -> Callable[[Any, Any], Any]:
    """Return a hook that knows no node: one that did would keep the graph, and itself, for ever."""

    def hook(passed: tuple[Tensor | None, ...], down: tuple[Tensor | None, ...]) -> Any:
        through = passed[place]
        if through is None or down[0] is None:
            return None
        return tuple(rule(down[0], g, x) if n == place and g is not None else g for n, g in enumerate(passed))

    return hook


def _none_for(rule: str, activation: str) -> Invalid:
    return Invalid(
        f"{rule} is a rule for ReLUs, and this network has {activation}: its result would be no {rule} map. "
        "Use method 'gradient', 'smoothgrad' or 'integrated'"
    )


@contextlib.contextmanager
def watched(network: Network, picture: Tensor) -> Iterator[Watch]:
    """Let a network run its modules one by one, and see what they make of a picture."""
    with by_its_modules(network), Watch(picture) as watch:
        yield watch


@contextlib.contextmanager
def by_its_modules(network: Network) -> Iterator[None]:
    """Let a network run its modules one by one, never a chain's short cut, within which no ReLU is seen."""
    handle = network.module.register_forward_hook(lambda *_: None)  # someone listens: no short cut
    try:
        yield
    finally:
        handle.remove()
