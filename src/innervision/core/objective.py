"""Objectives: weighted sums of named terms, kept as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from innervision.shapes import Float

Measure = Callable[[Mapping[str, Tensor], Float[Tensor, "n c h w"]], Float[Tensor, ""]]
"""(activations by layer, image of sRGB 0..1) -> a scalar."""


@dataclass(frozen=True)
class Term:
    """One named part of a loss: weight · measure, and the layers the measure reads."""

    name: str
    measure: Measure
    layers: tuple[str, ...] = ()
    weight: float = 1.0

    def __str__(self) -> str:
        return f"{self.weight:g} · {self.name}"


@dataclass(frozen=True)
class Objective:
    """A weighted sum of Terms: add two, scale one by a number, print it, or evaluate it.

    >>> print(match(net, photo, ["relu4_2"]) + 1e-2 * smooth())
    1 · match relu4_2 + 0.01 · smooth
    """

    terms: tuple[Term, ...] = ()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers all terms read, each once, in order of mention."""
        return tuple(dict.fromkeys(layer for term in self.terms for layer in term.layers))

    def __add__(self, other: Objective) -> Objective:
        return Objective(self.terms + other.terms)

    def __mul__(self, factor: float) -> Objective:
        return Objective(tuple(replace(t, weight=t.weight * factor) for t in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return " + ".join(str(t) for t in self.terms) or "0"

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the total, and every term's weighted value (detached; terms of one name are summed).

        Terms are evaluated in the activations' own order, so that these may be computed as they are needed.
        """
        place = {layer: number for number, layer in enumerate(activations)}

        def deepest(term: Term) -> int:
            return max((place[layer] for layer in term.layers), default=-1)

        total = torch.zeros((), device=image.device, dtype=image.dtype)
        values = dict.fromkeys((term.name for term in self.terms), total)
        for term in sorted(self.terms, key=deepest):
            value = term.weight * term.measure(activations, image)
            total = total + value.to(total)
            values[term.name] = values[term.name] + value.detach().to(total)
        return total, values
