"""What a training will cost, from a few steps that are taken on a copy."""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass

import torch

from innervision.core.fit import drawing_from
from innervision.learn.judge import Judge
from innervision.learn.train import Training
from innervision.machine import threads


@dataclass(frozen=True)
class Cost:
    """Seconds as measured on this machine, in the state in which it was."""

    seconds: float
    """Of all that is left."""
    step: float
    """Of one step."""
    steps: int
    """That are left."""
    pictures: float
    """Learned from in a second."""
    loading: float
    """The share of a step that goes to reading and augmenting pictures."""


def cost(training: Training) -> Cost:
    """Return what is left to do and how long it will take, evaluations at the epochs' ends included.

    One part of a batch goes through a copy of the network and back, twice where that takes no more than two
    seconds; the training itself is left as it was.
    """
    recipe, share = training.recipe, training.recipe.batch // training.world
    module = copy.deepcopy(training.module).train()
    optimiser = recipe.optimiser(module, dict(recipe.slow))
    judge = Judge(recipe, training.data, training.device, training.dtype)
    size = min(recipe.micro or share, share)
    with threads(training.threads), drawing_from(0, training.device), torch.enable_grad():
        clock = _Clock(training.device)
        # the last epoch's, for in the first ones pictures may be smaller
        last = (training.steps - 1) // len(training.batches)
        batch = next(iter(training.batches.epoch(last, 0, training.rank, training.world)))
        loading = clock.lap()
        part = (batch[0][:size], batch[1][:size])
        passing = moving = 0.0
        for _ in range(2):
            judge(module, part).backward()
            passing = clock.lap()
            optimiser.step()
            moving = clock.lap()
            if passing > 2:
                break
    parts = math.ceil(share / size)
    step = loading + parts * passing + moving
    left = training.steps - training.done
    held = 0 if training.validation is None else len(training.validation)
    evaluations = math.ceil(left / len(training.batches))
    looking = evaluations * held * passing / size / 3 / training.world  # the way back takes two thirds
    saved = 0.0
    if recipe.small is not None:
        side, part = recipe.small
        few = max(0, round(part * training.steps) - training.done)
        saved = few * parts * passing * (1 - (side / recipe.size) ** 2)
    return Cost(left * step + looking - saved, step, left, recipe.batch / step, loading / step)


class _Clock:
    def __init__(self, device: torch.device) -> None:
        self._device, self._last = device, time.perf_counter()

    def lap(self) -> float:
        """Return the seconds since the lap before."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        before, self._last = self._last, time.perf_counter()
        return self._last - before
