"""How great a learning rate may be: Smith's range test."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from innervision import machine, sheets
from innervision.core.fit import Epochs, fit
from innervision.errors import Diverged, Invalid
from innervision.learn.data import DataSet
from innervision.learn.recipe import Recipe
from innervision.learn.schedules import Constant
from innervision.learn.train import Training

_SMOOTHING = 0.9  # of the losses, by an exponential mean
_BLOWN = 4.0  # times the least loss, at which the test ends


@dataclass(frozen=True)
class Trial:
    """One learning rate that was tried, and what came of it."""

    count: int
    steps: int
    lr: float
    loss: float
    smooth: float
    """The losses so far, as an exponential mean without its bias to the start."""


@dataclass(frozen=True)
class Suggestion:
    """What a range test comes to."""

    lr: float
    """Where the loss falls fastest over the logarithm of the rate."""
    least: float
    """Where it was least: a rate at or above this is too great."""


def find_lr(
    recipe: Recipe,
    data: DataSet,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
) -> Generator[Trial]:
    """Train from the start with a rate that grows evenly on a logarithmic scale, yielding a Trial a step.

    Ends early once the smoothed loss is four times its least, or no longer a number. The recipe's groups of
    weights keep their proportions. Smith 2017 (Cyclical learning rates), section 3.3, on Smith's linear scale
    replaced by a logarithmic one, as is usual.
    """
    if not 0 < low < high < math.inf or steps < 10:
        raise Invalid(
            f"from {low} to {high} in {steps} steps: rates must be above 0 and rise, in 10 steps or more"
        )
    plain = replace(recipe, schedule=Constant(), validation=0.0, keep="last", patience=None, average=None)
    training = Training(plain, data, seed=seed, device=device, threads=threads)
    base: float = training.optimiser.param_groups[0]["lr"]

    def factor(done: int, _: str) -> float:
        return low * (high / low) ** (done / (steps - 1)) / base

    return _trials(training, factor, training.batches, base, steps)


def _trials(
    training: Training, factor: Callable[[int, str], float], batches: Epochs, base: float, steps: int
) -> Generator[Trial]:
    mean, least = 0.0, math.inf
    ticks = fit(
        training.module,
        batches,
        training.judge,
        training.optimiser,
        factor,
        steps=steps,
        micro=training.recipe.micro,
        clip=training.recipe.clip,
        seed=training.seed,
    )
    with machine.threads(training.threads):
        try:
            for tick in ticks:
                assert tick.loss is not None
                mean = _SMOOTHING * mean + (1 - _SMOOTHING) * tick.loss
                smooth = mean / (1 - _SMOOTHING**tick.count)
                yield Trial(tick.count, steps, base * factor(tick.count - 1, ""), tick.loss, smooth)
                least = min(least, smooth)
                if tick.count > 10 and smooth > _BLOWN * least:
                    return
        except Diverged:
            return
        finally:
            ticks.close()


def suggest(trials: Sequence[Trial]) -> Suggestion:
    """Return the rate of a range test about which the loss falls fastest, before its smoothed least.

    That is where the straight line through the losses nearby, a fifth of the rates, is steepest.
    Raises Invalid where the loss never fell.
    """
    if len(trials) < 3:
        raise Invalid(f"{len(trials)} trials say nothing: try from a smaller rate")
    bottom = min(range(len(trials)), key=lambda n: trials[n].smooth)
    reach = min(max(3, trials[0].steps // 10), (len(trials) - 1) // 2)
    places = range(reach, max(bottom, reach + 1))  # whole lines alone: short ones follow the noise
    falls = {n: _slope(trials[n - reach : n + reach + 1]) for n in places}
    steepest = min(falls, key=lambda n: falls[n])
    if bottom == 0 or falls[steepest] >= 0:
        raise Invalid("the loss never fell: try from a smaller rate, or more steps")
    return Suggestion(trials[steepest].lr, trials[bottom].lr)


def _slope(trials: Sequence[Trial]) -> float:
    """Return the slope of the straight line nearest to the losses over the logarithms of the rates.

    Of the losses as they are: smoothed ones fall later than they, and at the start, where a mean is of few,
    swing more than they fall.
    """
    rates, losses = [math.log(trial.lr) for trial in trials], [trial.loss for trial in trials]
    return statistics.linear_regression(rates, losses).slope


def draw(trials: Sequence[Trial], found: Suggestion | None) -> Image.Image:
    """Draw the losses over the rates, and what is suggested."""
    ink, faint = map(sheets.hexadecimal, (sheets.INK, sheets.FAINT))
    figure, axes = sheets.plot((5.6, 3.6), "learning rate", "loss")
    rates = [trial.lr for trial in trials]
    axes.semilogx(rates, [trial.loss for trial in trials], color=faint, linewidth=0.8, label="a batch")
    axes.semilogx(rates, [trial.smooth for trial in trials], color="#8dd3c7", linewidth=2, label="smoothed")
    if found is not None:
        axes.axvline(
            found.lr, color="#fdb462", linewidth=1.5, label=f"falls fastest at {found.lr:.2g}: suggested"
        )
        axes.axvline(found.least, color="#fb8072", linestyle=":", label=f"least at {found.least:.2g}")
    low = min(min(trial.smooth, trial.loss) for trial in trials)
    first = trials[0].smooth
    axes.set_ylim(low - 0.1 * (first - low) - 1e-3, first + 0.6 * (first - low) + 1e-3)
    axes.legend(loc="lower left", frameon=False, fontsize=8, labelcolor=ink)
    return sheets.drawn(figure)
