"""Optimisers as plain data, and the groups of weights they treat apart; Muon for a network's filters.

Each is called with a module and gives a torch optimiser. Its groups carry a `name`, by which a schedule may
treat them apart: "kernels" (weights of convolutions and dense layers), "biases" (and whatever else has one
dimension), "norms" (of batch normalisation), and "whiten" (of a layer of that name: see `nets.cifar`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innervision.errors import Invalid

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024: steep at 0, and within 0.68 … 1.13 after five


@dataclass(frozen=True)
class Sgd:
    """Gradient descent with momentum, Nesterov's by default (Sutskever et al. 2013, as torch has it).

    weight_decay: added to the gradient, times the weight. Keras's L2 penalty l2·w² is weight_decay 2·l2.
    decay: which weights it concerns: "kernels", or "all". norm_lr, whiten_lr: multiply the rate of
    what is learned in batch normalisation, and of a "whiten" layer's bias; their decay is divided by the
    same, so that all weights shrink alike.
    """

    lr: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    decay: Literal["kernels", "all"] = "kernels"
    norm_lr: float = 1.0
    whiten_lr: float = 1.0

    def __post_init__(self) -> None:
        _check(self, lr=self.lr, norm_lr=self.norm_lr, whiten_lr=self.whiten_lr)

    def groups(self, module: nn.Module, slow: Mapping[str, float] | None = None) -> list[dict[str, Any]]:
        """Return the module's weights as this optimiser treats them."""
        own = {"norms": self.norm_lr, "whiten": self.whiten_lr}
        return groups(module, self.lr, self.weight_decay, decay=self.decay, own=own, slow=slow)

    def __call__(self, module: nn.Module, slow: Mapping[str, float] | None = None) -> torch.optim.Optimizer:
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(
            self.groups(module, slow), lr=self.lr, momentum=self.momentum, nesterov=nesterov
        )


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    decay: Literal["kernels", "all"] = "kernels"

    def __post_init__(self) -> None:
        _check(self, lr=self.lr)

    def __call__(self, module: nn.Module, slow: Mapping[str, float] | None = None) -> torch.optim.Optimizer:
        parts = groups(module, self.lr, self.weight_decay, decay=self.decay, slow=slow)
        return torch.optim.AdamW(parts, lr=self.lr, betas=self.betas)


@dataclass(frozen=True)
class Muon:
    """Orthogonalised momentum for the filters of convolutions, and gradient descent for all else.

    Jordan et al. 2024. A filter bank (out, in, h, w) is taken as a matrix (out, in·h·w); momentum's update is
    replaced by the nearest matrix whose singular values are all about 1 (`orthogonalised`), and the bank is
    first scaled to the norm √out, as in airbench: then `lr` is how far each step turns it.
    """

    lr: float = 0.24
    momentum: float = 0.6
    iterations: int = 5
    rest: Sgd = field(default_factory=lambda: Sgd(0.1))

    def __post_init__(self) -> None:
        _check(self, lr=self.lr)
        if self.iterations < 1:
            raise Invalid(f"iterations is {self.iterations}; it must be at least 1")

    def __call__(self, module: nn.Module, slow: Mapping[str, float] | None = None) -> torch.optim.Optimizer:
        parts: list[dict[str, Any]] = []
        for group in self.rest.groups(module, slow):
            usual = {**group, "orthogonal": False, "momentum": self.rest.momentum}
            parts.append({**usual, "params": [p for p in group["params"] if p.ndim != 4]})
            lr = self.lr * group["lr"] / self.rest.lr  # slow filters stay slow
            own = {"name": "filters", "lr": lr, "orthogonal": True, "momentum": self.momentum}
            filters = [p for p in group["params"] if p.ndim == 4]
            parts.append({**own, "params": filters, "weight_decay": 0.0})
        parts = [group for group in parts if group["params"]]
        return Orthogonal(sorted(parts, key=lambda group: not group["orthogonal"]), self.iterations)


Optimiser = Sgd | AdamW | Muon


def with_lr(optimiser: Optimiser, lr: float) -> Optimiser:
    """Return the same with another learning rate; Muon's other rate changes in proportion."""
    if isinstance(optimiser, Muon):
        moved = replace(optimiser, lr=lr)  # complains of the rate that was given, before the other follows
        return replace(moved, rest=replace(optimiser.rest, lr=optimiser.rest.lr * lr / optimiser.lr))
    return replace(optimiser, lr=lr)


def groups(
    module: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    *,
    decay: Literal["kernels", "all"] = "kernels",
    own: Mapping[str, float] | None = None,
    slow: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    """Return a module's trainable weights in groups by kind, each with its rate and decay.

    own: kinds ("norms") whose rate is multiplied and whose decay is divided by as much. slow: the beginnings
    of names ("conv1") whose rate is multiplied; the first that fits counts.
    Raises Invalid where nothing can be trained.
    """
    norms = {id(p) for part in module.modules() if isinstance(part, _NORMS) for p in part.parameters()}
    found: dict[tuple[str, float], dict[str, Any]] = {}
    for name, weight in module.named_parameters():
        if not weight.requires_grad:
            continue
        kind = "norms" if id(weight) in norms else "kernels" if weight.ndim > 1 else "biases"
        if f".{name}".rpartition(".")[0].endswith(".whiten"):
            kind = "whiten"
        factor = next((f for start, f in (slow or {}).items() if name.startswith(start)), 1.0)
        more = (own or {}).get(kind, 1.0)
        decays = weight_decay / more if kind == "kernels" or decay == "all" else 0.0
        usual = {"name": kind, "params": [], "lr": lr * more * factor, "weight_decay": decays}
        found.setdefault((kind, factor), usual)["params"].append(weight)
    if not found:
        raise Invalid("no weight can be trained: each has requires_grad=False")
    order = ("kernels", "biases", "norms", "whiten")  # the first group's rate is the one that is told
    return sorted(found.values(), key=lambda group: (order.index(group["name"]), -group["lr"]))


class Orthogonal(torch.optim.Optimizer):
    """Muon's steps for groups marked `orthogonal`, momentum's with Nesterov's look ahead for the others."""

    def __init__(self, parts: list[dict[str, Any]], iterations: int) -> None:
        super().__init__(parts, {"lr": 0.0, "momentum": 0.0, "weight_decay": 0.0, "orthogonal": False})
        self.iterations = iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                gradient = weight.grad.add(weight, alpha=group["weight_decay"])
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(gradient)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
                update = gradient.add(buffer, alpha=group["momentum"])
                if group["orthogonal"]:
                    # the filters' own norm says nothing where batch normalisation follows
                    weight.mul_(math.sqrt(len(weight)) / weight.norm().clamp_min(1e-12))
                    flat = orthogonalised(update.reshape(len(update), -1), self.iterations)
                    update = flat.view(update.shape).to(weight.dtype)
                weight.add_(update, alpha=-group["lr"])


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Return a matrix (m, n) with its singular vectors kept and its singular values brought near 1.

    Newton and Schulz's iteration by a polynomial of degree five, x ← ax + b(xxᵀ)x + c(xxᵀ)²x, which needs
    no decomposition: Jordan et al. 2024 (Muon). Values end within 0.68 … 1.13 after five, but for those that
    were below a hundredth of the norm. Computed in the matrix's own dtype.
    """
    a, b, c = _QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.mT
    x = x / x.norm().clamp_min(1e-12)
    for _ in range(iterations):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    return x if wide else x.mT


def _check(optimiser: Any, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise Invalid(f"{name} is {value}; it must be above 0")
    momentum = getattr(optimiser, "momentum", 0.0)
    if not 0 <= momentum < 1:
        raise Invalid(f"momentum is {momentum}; it must be from 0 to below 1")
