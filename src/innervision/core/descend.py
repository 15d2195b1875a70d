"""descend(): the one loop that moves pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from innervision.core.canvas import Canvas, Size
from innervision.core.edits import Edit
from innervision.core.lbfgs import LimitedMemory
from innervision.core.objective import Objective
from innervision.core.views import View, still
from innervision.errors import Diverged, Invalid
from innervision.network import Network


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS (Liu & Nocedal 1989) without line search, one evaluation a step.

    history: pairs kept; each costs two images of memory (100 → 20 pairs: a few per cent more evaluations).
    """

    history: int = 20

    def __call__(self, parameter: Tensor) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(
            [parameter],
            lr=1.0,
            max_iter=1,
            history_size=self.history,
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); the learning rate is in the canvas's own units."""

    lr: float

    def __call__(self, parameter: Tensor) -> torch.optim.Optimizer:
        return torch.optim.Adam([parameter], lr=self.lr)


@dataclass(frozen=True)
class Stage:
    """Everything that changes with scale. One step is one evaluation of the objective."""

    objective: Objective
    steps: int
    size: Size | None = None
    optimiser: Lbfgs | Adam = Lbfgs()
    view: View = still
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One evaluation: the image that was judged, and the value of every term for it.

    stage from 0; step from 1, within its stage; count from 1, over all stages, of `steps`.
    """

    stage: int
    step: int
    count: int
    steps: int
    image: Tensor  # (1, 3, h, w) sRGB, detached, on the canvas's device; values may leave 0..1
    total: float
    values: dict[str, float]
    last: bool
    """Whether this is the stage's last step."""
    checkpoint: Callable[[], dict[str, Any]]
    """Returns all that `descend(..., resume=)` needs to go on after this step, bit for bit on a CPU.
    Valid until the next frame is asked for."""


class _Descent:
    """The state behind the generator: canvas, optimiser, position."""

    def __init__(self, network: Network, canvas: Canvas, generator: torch.Generator | None) -> None:
        self.network = network
        self.canvas = canvas
        self.generator = generator
        self.optimiser: LimitedMemory | torch.optim.Optimizer | None = None

    def begin(self, stage: Stage, canvas: Canvas) -> None:
        before, pixels = self.optimiser, self.canvas.parameter.numel()
        self.canvas = canvas
        self.optimiser = stage.optimiser(canvas.parameter)
        if isinstance(self.optimiser, LimitedMemory) and isinstance(before, LimitedMemory) and before.scale:
            # a mean over more pixels has smaller gradients, and bears longer steps, by as much
            self.optimiser.scale = before.scale * canvas.parameter.numel() / pixels

    def step(self, stage: Stage, step: int, where: str) -> tuple[Tensor, float, dict[str, float]]:
        """Evaluate once, move once; return the image judged, its total and its terms."""
        optimiser = self.optimiser
        assert optimiser is not None
        seen: list[tuple[Tensor, float, dict[str, float]]] = []

        def closure() -> Tensor:
            optimiser.zero_grad()
            image = self.canvas.render()
            looked = stage.view(image, self.generator)
            activations = self.network.features(looked, stage.objective.layers)
            total, values = stage.objective(activations, image)
            numbers = {name: float(value) for name, value in values.items()}
            _check(float(total.detach()), numbers, where)
            total.backward()
            seen.append((image.detach(), float(total.detach()), numbers))
            return total

        # The caller may be under no_grad() or inference_mode(): this step is not.
        with torch.inference_mode(False), torch.enable_grad():
            optimiser.step(closure)
        if stage.edits:
            with torch.no_grad():
                image = self.canvas.render()
                for edit in stage.edits:
                    image = edit(image, step)
                self.canvas.repainted(image)
        return seen[0]

    def checkpoint(self, stage: int, step: int) -> dict[str, Any]:
        assert self.optimiser is not None
        return {
            "stage": stage,
            "step": step,
            "canvas": self.canvas.state(),
            "optimiser": self.optimiser.state_dict(),
            "generator": None if self.generator is None else self.generator.get_state(),
        }

    def resume(self, stage: Stage, canvas: Canvas, saved: dict[str, Any]) -> None:
        canvas.restore(saved["canvas"])
        self.begin(stage, canvas)
        assert self.optimiser is not None
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.generator is not None and saved["generator"] is not None:
            self.generator.set_state(saved["generator"])


def descend(
    network: Network,
    canvas: Canvas,
    stages: Sequence[Stage],
    *,
    generator: torch.Generator | None = None,
    resume: dict[str, Any] | None = None,
) -> Iterator[Frame]:
    """Descend each stage in turn, yielding a Frame a step.

    Stopping is ceasing to iterate: nothing global is changed between frames. A stage with a size
    starts from the canvas resized to it. resume: a `Frame.checkpoint()`, with the same canvas kind
    and stages. Raises Invalid for a plan that cannot work, Diverged when a term is no longer a number.
    """
    _check_plan(network, stages)
    descent = _Descent(network, canvas, generator)
    first, done = (resume["stage"], resume["step"]) if resume else (0, 0)
    steps = sum(stage.steps for stage in stages)
    count = sum(stage.steps for stage in stages[:first]) + done
    for number in range(first, len(stages)):
        stage = stages[number]
        if resume is not None and number == first:
            descent.resume(stage, descent.canvas, resume)
        else:
            fresh = descent.canvas if stage.size is None else _resized(descent.canvas, stage.size)
            descent.begin(stage, fresh)
            done = 0
        for step in range(done + 1, stage.steps + 1):
            count += 1
            image, total, values = descent.step(stage, step, f"step {step} of stage {number + 1}")
            here = partial(descent.checkpoint, number, step)
            yield Frame(number, step, count, steps, image, total, values, step == stage.steps, here)


def _resized(canvas: Canvas, size: Size) -> Canvas:
    with torch.inference_mode(False):
        return canvas.resized(size)


def _check_plan(network: Network, stages: Sequence[Stage]) -> None:
    if not stages:
        raise Invalid("nothing to descend: give at least one stage")
    for stage in stages:
        network.check(stage.objective.layers)
        if not stage.objective.terms:
            raise Invalid("an objective without terms has nothing to descend")
        if stage.steps < 1:
            raise Invalid(f"{stage.steps} steps: give at least 1")
        if isinstance(stage.optimiser, Lbfgs) and (stage.view.moving or stage.edits):
            raise Invalid(
                "L-BFGS remembers earlier steps, so the picture must not be moved or edited between: use Adam"
            )


def _check(total: float, values: dict[str, float], where: str) -> None:
    if math.isfinite(total):
        return
    bad = next((name for name, value in values.items() if not math.isfinite(value)), "total")
    raise Diverged(
        f"the term '{bad}' is no longer a number at {where} ({values.get(bad, total)}): "
        "give smaller weights or a smaller learning rate"
    )
