"""Schedules: how the learning rate goes over the epochs, as factors of its greatest value.

A schedule is called with how many epochs are done, as a fraction, and how many there will be. Each is plain
data, so that it can be printed, saved and compared.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from innervision.errors import Invalid

Schedule = Callable[[float, float], float]
"""(epochs done, epochs in all) -> what the learning rate is multiplied by."""


@dataclass(frozen=True)
class Constant:
    """Always 1."""

    def __call__(self, done: float, epochs: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Steps:
    """1, then from each epoch of `at` on the factor beside it: Steps((81, 122), (0.125, 0.0125))."""

    at: tuple[float, ...]
    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.at) != len(self.factors) or list(self.at) != sorted(self.at):
            raise Invalid(f"steps at {self.at} with factors {self.factors}: rising epochs, a factor for each")

    def __call__(self, done: float, epochs: float) -> float:
        return (1.0, *self.factors)[bisect.bisect_right(self.at, done)]


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to `floor`: floor + (1 − floor) · (1 + cos πt) / 2, t the share done.

    Loshchilov & Hutter 2017 (SGDR) eq. 5, without restarts.
    """

    floor: float = 0.0

    def __call__(self, done: float, epochs: float) -> float:
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * _share(done, epochs))) / 2


@dataclass(frozen=True)
class Tanh:
    """From near 1 to near 0 along a hyperbolic tangent: (1 − tanh(L + (U − L)·t)) / 2, t the share done.

    Hsueh, Li & Wu 2019 (HTD) eq. 6, whose own limits for CIFAR are these.
    """

    lower: float = -6.0
    upper: float = 3.0

    def __call__(self, done: float, epochs: float) -> float:
        return (1 - math.tanh(self.lower + (self.upper - self.lower) * _share(done, epochs))) / 2


@dataclass(frozen=True)
class Triangle:
    """Straight lines: from `start` up to 1 at the share `peak` of all epochs, then down to `end`.

    Jordan 2024 (airbench) has .2, .23, .07; peak 0 is a straight way down from 1.
    """

    start: float = 0.2
    peak: float = 0.23
    end: float = 0.07

    def __post_init__(self) -> None:
        if not 0 <= self.peak < 1:
            raise Invalid(f"peak is {self.peak}; it must be a share of the epochs, from 0 to below 1")

    def __call__(self, done: float, epochs: float) -> float:
        t = _share(done, epochs)
        if t < self.peak:
            return self.start + (1 - self.start) * t / self.peak
        return 1 + (self.end - 1) * (t - self.peak) / (1 - self.peak)


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine from 1/`first` up to 1 at the share `peak`, and another down to 1/(first·last).

    Smith & Topin 2018, annealed by cosines as in PyTorch's OneCycleLR, whose defaults these are; momentum is
    left alone.
    """

    peak: float = 0.3
    first: float = 25.0
    last: float = 1e4

    def __post_init__(self) -> None:
        if not 0 < self.peak < 1:
            raise Invalid(f"peak is {self.peak}; it must be a share of the epochs, between 0 and 1")

    def __call__(self, done: float, epochs: float) -> float:
        t, low = _share(done, epochs), 1 / self.first
        if t <= self.peak:
            return 1 + (low - 1) * (1 + math.cos(math.pi * t / self.peak)) / 2
        end = low / self.last
        return end + (1 - end) * (1 + math.cos(math.pi * (t - self.peak) / (1 - self.peak))) / 2


@dataclass(frozen=True)
class WarmUp:
    """A straight line from `start` to what comes at the end of `epochs`; then another schedule for the rest.

    The other sees the epochs that are left, as if it began there: half of all at least, however few.
    """

    epochs: float
    then: Schedule = field(default_factory=Cosine)
    start: float = 0.0

    def __call__(self, done: float, epochs: float) -> float:
        span = min(self.epochs, epochs / 2)
        left = epochs - span
        if done < span:
            top = self.then(0.0, left)
            return self.start + (top - self.start) * done / span
        return self.then(done - span, left)


def explain(schedule: Any) -> str:
    """Say a schedule in a few words: "cosine", "steps at (81, 122) factors (0.125, 0.0125)"."""
    parts = asdict(schedule)
    if isinstance(schedule, WarmUp):
        return f"warm-up of {schedule.epochs:g} epochs, then {explain(schedule.then)}"
    return " ".join([type(schedule).__name__.lower(), *(f"{name} {value}" for name, value in parts.items())])


def _share(done: float, epochs: float) -> float:
    return min(done / epochs, 1.0) if epochs > 0 else 1.0
