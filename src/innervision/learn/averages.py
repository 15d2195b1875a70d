"""Averages of weights over the steps: an exponential one beside the network, or one it is pulled to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from innervision.errors import Invalid


@dataclass(frozen=True)
class Ema:
    """An exponential moving average beside the network, which is what is evaluated and kept.

    decay: how much of the average stays at each step; at first less, (1 + n)/(10 + n) after n steps, so that
    the random start is soon forgotten.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise Invalid(f"decay is {self.decay}; it must be from 0 to below 1")

    def stays(self, count: int, steps: int) -> float:
        """Return how much of the average stays at this step."""
        return min(self.decay, (1 + count) / (10 + count))


@dataclass(frozen=True)
class Lookahead:
    """Slow weights that follow every so many steps, and to which the network is set back (Zhang et al. 2019).

    With airbench's schedule (Jordan 2024): at each of these steps slow^every · t³ of the slow weights stays,
    t the share done, so that they weigh only near the end. The network itself is what is evaluated.
    """

    every: int = 5
    slow: float = 0.95

    def __post_init__(self) -> None:
        if self.every < 1 or not 0 <= self.slow <= 1:
            raise Invalid(f"every is {self.every} and slow {self.slow}: at least 1, and from 0 to 1")

    def stays(self, count: int, steps: int) -> float:
        """Return how much of the slow weights stays at this step."""
        return self.slow**self.every * (count / steps) ** 3


class Averaging:
    """The averaged values of one module, batch normalisation's statistics among them."""

    def __init__(self, kind: Ema | Lookahead, module: nn.Module) -> None:
        self.kind = kind
        self.values = {name: value.detach().clone() for name, value in _floating(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, count: int, steps: int) -> None:
        """Take in the module's values after step `count` of `steps`; Lookahead moves the module too."""
        kind = self.kind
        looks = isinstance(kind, Lookahead)
        if looks and count % kind.every and count != steps:
            return
        # at the end the network becomes its slow weights, which are not moved again
        part = 0.0 if looks and count == steps else 1 - kind.stays(count, steps)
        for name, value in _floating(module).items():
            mine = self.values[name]
            if part:
                mine.lerp_(value, part)
            if looks:
                value.copy_(mine)

    @torch.no_grad()
    def fill(self, module: nn.Module) -> None:
        """Give the averaged values to a module of the same kind."""
        for name, value in _floating(module).items():
            value.copy_(self.values[name])

    @torch.no_grad()
    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Take values that were saved."""
        for name, value in self.values.items():
            value.copy_(values[name])


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if value.is_floating_point()}
