"""What a dream asks for: more of what layers, channels or classes see, or of what another picture has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision.core import energy
from innervision.core.measures import same
from innervision.core.objective import Objective, Term
from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.target import Target
from innervision.see.together import Direction, Unit

_MATCHED = 2**24  # numbers of the table of likenesses held at once

Wish = tuple[Unit, float]
"""What is asked for more of, and its weight among others."""


def wished(network: Network, wishes: Sequence[Wish], guide: Tensor | None = None) -> Objective:
    """Return the objective that asks for these wishes, or for what their layers see in the guide picture."""
    if not wishes:
        raise Invalid("nothing to dream of: name a layer, a channel (relu4_3:12) or a class (class:207)")
    layers = network.check(target.layer for target, _ in wishes if target.layer is not None)
    if guide is None:
        terms = [(_asked(network, target), weight) for target, weight in wishes]
        return sum((weight * Objective((term,)) for term, weight in terms), Objective())
    if any(str(target) != target.layer for target, _ in wishes):
        raise Invalid("a guide picture is matched by all channels of a layer: name layers alone")
    with torch.no_grad():
        seen = network.features(guide, layers)
    return Objective(
        tuple(
            Term(f"guide {layer}", Guided(layer, seen[layer][0].flatten(1)), (layer,), weight)
            for layer, (_, weight) in zip(layers, wishes, strict=True)
        )
    )


def _asked(network: Network, target: Unit) -> Term:
    if isinstance(target, Direction):
        return Term(f"along {target}", Along(target), (target.layer,))
    if target.layer is None:
        return Term(str(target), Logit(network, target))
    if target.channel is None and target.place is None:
        return energy(target.layer).terms[0]
    return Term(f"energy {target}", Part(target.layer, target), (target.layer,))


@dataclass(frozen=True)
class Part:
    """-½ of the mean square of a channel, or of one unit."""

    layer: str
    target: Target

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        return -0.5 * self.target.pick(same(activations[self.layer])).square().mean()


@dataclass(frozen=True, eq=False)
class Along:
    """-½ of the mean square of what lies along a direction, where that is above 0, as if a ReLU followed."""

    target: Direction

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        a = same(activations[self.target.layer])
        if self.target.vector.shape != (a.shape[1],):
            raise Invalid(
                f"a direction in {self.target.layer} holds {a.shape[1]} numbers, one a channel, not "
                f"{tuple(self.target.vector.shape)}"
            )
        along = (a * self.target.vector.to(a).view(-1, *[1] * (a.ndim - 2))).sum(1, keepdim=True)
        part = Target(self.target.layer, 0, self.target.place).pick(along)
        return -0.5 * part.clamp(min=0).square().mean()


@dataclass(frozen=True, eq=False)
class Logit:
    """Minus a class's logit; where a network answers maps, minus their mean."""

    network: Network
    target: Target

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        return -self.target.pick(same(self.network(image))).mean()


@dataclass(frozen=True, eq=False)
class Guided:
    """Minus the likeness, xᵀy, of every place to that place of the guide which is most like it."""

    layer: str
    guide: Tensor  # (c, places)

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        x = activations[self.layer][0].flatten(1)
        with torch.no_grad():
            best = self._best(x.detach())
        return -(same(x) * same(best)).sum() / x.numel()

    def _best(self, x: Tensor) -> Tensor:
        """Return the guide's activation for each place of x (c, places), a block of places at a time."""
        guide = self.guide.to(x)
        rows = max(1, _MATCHED // guide.shape[1])
        return torch.cat([guide[:, (part.T @ guide).argmax(1)] for part in x.split(rows, 1)], 1)
