"""What excites a unit: pictures made so that it answers as strongly as it can, many units in one run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from innervision import nets
from innervision.core import Frame
from innervision.core.canvas import Size
from innervision.errors import Invalid
from innervision.machine import choose_precision
from innervision.network import Network
from innervision.see.presets import preset_of
from innervision.see.target import Target
from innervision.see.target import target as read
from innervision.see.together import Direction, Excited, Plan, Together, Unit

__all__ = ["Direction", "Excitation", "Excited", "Step", "Unit", "excite"]

_TOGETHER = 8 * 224**2  # pixels of the pictures descended together, unless said otherwise: about 1 GiB
_MOST = 64  # pictures; more together are no sooner


@dataclass(frozen=True, eq=False)
class Step:
    """One step of one batch of units."""

    count: int  # from 1, over all batches, of `steps`
    steps: int
    units: tuple[Unit, ...]
    frame: Frame  # its image holds every unit's pictures, one unit after another


def excite(
    network: Network,
    targets: Unit | str | Sequence[Unit | str],
    *,
    preset: str = "lucid",
    size: int | Size | None = None,
    steps: int | None = None,
    pictures: int = 1,
    diverse: float = 1.0,
    neuron: bool | None = None,
    batch: int | None = None,
    seed: int = 0,
    precision: str = "auto",
) -> Excitation:
    """Make pictures that excite units: iterate for Steps, or ask for `.results()`.

    targets: Target or its text ("class:207", "relu4_1:12", "relu4_1:12@5,7", "relu4_1"), or Direction; one or
    many. preset: "lucid", "lucid512", "maco", "maco256", or "yosinski1" … "yosinski4". size: a side or
    (height, width), by default the network's own. steps: by default the preset's. pictures: of each unit;
    diverse: the weight that asks those to differ. neuron: whether a channel means the one unit in the centre
    of its map, or all of it (the preset's choice by default). batch: units descended together. precision:
    "float32", "bfloat16", or "auto".

    Every unit begins from the same noise and sees the same views, and its gradient is its own: its pictures
    do not depend on which others are made with it (but for rounding). Raises Invalid for what is not allowed,
    and while iterating Diverged.
    """
    listed = [targets] if isinstance(targets, (str, Target, Direction)) else list(targets)
    units = tuple(read(each, network) if isinstance(each, str) else each for each in listed)
    if not units:
        raise Invalid("nothing to excite: name a unit, such as relu4_1:12 or class:207")
    if pictures < 1 or (batch is not None and batch < 1) or (steps is not None and steps < 1):
        raise Invalid("pictures, batch and steps must be at least 1")
    for unit in units:
        _check(network, unit)
    chosen = preset_of(preset)
    side = usual_side(network) if size is None else size
    plan = Plan(
        preset=chosen,
        size=(side, side) if isinstance(side, int) else (side[0], side[1]),
        steps=chosen.steps if steps is None else steps,
        pictures=pictures,
        diverse=diverse if pictures > 1 else 0.0,
        centre=chosen.centre if neuron is None else neuron,
        seed=seed,
    )
    if min(plan.size) < 1:
        raise Invalid(f"a picture of {plan.size[0]}x{plan.size[1]}: each side must be at least 1 pixel")
    seen = chosen.views * plan.size[0] * plan.size[1]
    together = batch or max(1, min(_MOST, int(_TOGETHER / seen)) // pictures)
    return Excitation(network, units, plan, together, precision)


class Excitation(Iterator[Step]):
    """Units at work: an iterator of Steps, with what has come of them so far."""

    def __init__(
        self, network: Network, units: Sequence[Unit], plan: Plan, together: int, precision: str
    ) -> None:
        self.network = network
        self.units = tuple(units)
        self.plan = plan
        self.batches = tuple(_batches(self.units, together))
        self.steps = plan.steps * len(self.batches)
        self._precision = precision
        self._done: list[Excited] = []
        self._now: tuple[Together, Frame] | None = None
        self._steps = self._descend()

    def __iter__(self) -> Excitation:
        return self

    def __next__(self) -> Step:
        return next(self._steps)

    def alone(self, units: Sequence[Unit]) -> Excitation:
        """Return the work on some of the units by the same plan, from its beginning: to try what it takes."""
        return Excitation(self.network, units, self.plan, len(units), self._precision)

    def results(self) -> list[Excited]:
        """Run to the end and return what excites each unit, in their order."""
        for _ in self:
            pass
        return self.so_far()

    def so_far(self) -> list[Excited]:
        """Return what has come of the units begun so far."""
        return self._done + ([] if self._now is None else self._now[0].excited(self._now[1].image))

    def _descend(self) -> Iterator[Step]:
        plain = _looked_through(self.network, self._precision)
        count = 0
        for units in self.batches:
            work = Together(plain, units, self.plan)
            for frame in work.frames():
                count += 1
                self._now = work, frame
                yield Step(count, self.steps, units, frame)
            self._done += self.so_far()[len(self._done) :]
            self._now = None


def _check(network: Network, unit: Unit) -> None:
    if unit.layer is not None:
        network.check((unit.layer,))
    elif isinstance(unit, Target) and unit.channel is None:
        raise Invalid("which class? name it: class:207")


def usual_side(network: Network) -> int:
    """Return the side of the pictures that a network was made for; 224 where it is not known."""
    known = nets.NETS[network.name].input_size if network.name in nets.NETS else 224
    return network.input_size or known


def _batches(units: Sequence[Unit], together: int) -> Iterator[tuple[Unit, ...]]:
    """Yield units that can be descended together: of one layer, one kind and one place, in their order."""

    def kind(unit: Unit) -> tuple[object, ...]:
        if isinstance(unit, Direction):
            return unit.layer, unit.place, "direction", unit.power
        return unit.layer, unit.place, unit.channel is None, 0.0

    now: list[Unit] = []
    for unit in units:
        if now and (len(now) == together or kind(unit) != kind(now[0])):
            yield tuple(now)
            now = []
        now.append(unit)
    yield tuple(now)


def _looked_through(network: Network, precision: str) -> Network:
    """Return the network frozen, in the precision meant: itself where it is so, else a copy."""
    if network.dtype == torch.float64:
        dtype = torch.float64
    elif precision in ("auto", "float32", "bfloat16"):
        dtype = choose_precision(precision, network.device)
    else:
        raise Invalid(f"precision is {precision!r}; give auto, float32 or bfloat16")
    tensors = [t for t in network.module.parameters()]
    if any(t.requires_grad or t.dtype != dtype for t in tensors) or network.module.training:
        return network.frozen(dtype)
    return network
