"""Batch normalisations taken into the convolutions before them: fewer passes over the same maps."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from innervision.chain import altered

_NORMS = frozenset(("native_batch_norm", "_native_batch_norm_legit_no_training"))
_ALIKE = 1e-4  # of the greatest answer: what a fold may change it by roundings, and no more


def folded(module: nn.Module, look: Callable[[nn.Module], Tensor]) -> tuple[nn.Module, Tensor] | None:
    """Return a copy of a module that answers alike with fewer normalisations, and what it answers.

    look: runs a module, or as much of it as is wanted, and returns what it answers. A normalisation goes
    into a convolution, once each called by its own module, whose answer nothing else has read. The copy is
    in evaluation mode and shares all other weights. None where there is nothing to fold, and where a fold
    fails or alters the answer.
    """
    if not any(type(part) is nn.BatchNorm2d for part in module.modules()):
        return None
    try:
        shared: dict[int, Any] = {id(t): t for t in itertools.chain(module.parameters(), module.buffers())}
        twin = copy.deepcopy(module, shared).eval()
        with _Watch() as watch:
            before = look(twin)
        pairs = list(_pairs(twin, watch))
        for convolution, name in pairs:
            _fold(twin, convolution, name)
        after = look(twin)
        alike = bool((after - before).abs().max() <= _ALIKE * before.abs().max())
    except Exception:  # a guest may do anything
        return None
    return (twin, after) if pairs and alike else None


@dataclass(eq=False)
class _Convolved:
    """A convolution that was met: what it answered, by which weight, and what has read the answer since."""

    answer: weakref.ref[Tensor]
    weight: Tensor
    readers: list[tuple[str, list[Any]]] = field(default_factory=list)


class _Watch(TorchDispatchMode):
    """Notes convolutions, and what reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[_Convolved] = []
        self.uses: dict[int, int] = {}
        self._latest: dict[int, _Convolved] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        for t in given:
            self.uses[id(t)] = self.uses.get(id(t), 0) + 1
            one = self._latest.get(id(t))
            if one is not None and one.answer() is t:
                one.readers.append((name, given[1:]))
        out = func(*args, **kwargs)
        if name == "convolution" and not args[6]:
            one = _Convolved(weakref.ref(out), args[1])
            self.met.append(one)
            self._latest[id(out)] = one
        return out


def _pairs(module: nn.Module, watch: _Watch) -> Iterator[tuple[nn.Conv2d, str]]:
    """Yield convolutions with the names of the normalisations that alone read them."""
    named = list(module.named_modules(remove_duplicate=False))
    for one in watch.met:
        if len(one.readers) != 1 or one.readers[0][0] not in _NORMS or watch.uses[id(one.weight)] != 1:
            continue
        by = {id(t) for t in one.readers[0][1]}
        convolutions = [
            m for _, m in named if isinstance(m, nn.Conv2d) and m._parameters.get("weight") is one.weight
        ]
        norms = [(n, m) for n, m in named if type(m) is nn.BatchNorm2d and id(m.running_mean) in by]
        if len(convolutions) == len(norms) == 1:
            (name, norm), convolution = norms[0], convolutions[0]
            if watch.uses[id(norm.running_mean)] == 1 and not altered(convolution) and not altered(norm):
                yield convolution, name


def _fold(module: nn.Module, convolution: nn.Conv2d, name: str) -> None:
    """Take a normalisation into the convolution before it: w·γ/σ, (b − μ)·γ/σ + β."""
    norm: Any = module.get_submodule(name)
    weight = convolution.weight.detach()
    with torch.no_grad():
        mean, variance = norm.running_mean.double(), norm.running_var.double()
        gain = (variance + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.double())
        bias = -mean if convolution.bias is None else convolution.bias.double() - mean
        bias = bias * gain + (0.0 if norm.bias is None else norm.bias.double())
        kernel = (weight.double() * gain.view(-1, 1, 1, 1)).to(weight.dtype)
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    convolution.weight = nn.Parameter(kernel, requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=False)
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, nn.Identity())
