"""descend(): the one loop that moves pixels."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from innervision import memory
from innervision.core.canvas import Canvas, Size
from innervision.core.edits import Edit, Informed
from innervision.core.lbfgs import LimitedMemory
from innervision.core.objective import Objective
from innervision.core.steepest import Steepest
from innervision.core.views import View, still
from innervision.errors import Diverged, Invalid
from innervision.network import Network
from innervision.shapes import Float


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS without line search, one evaluation a step (see `LimitedMemory`).

    history: pairs kept; each costs two images of memory. Tübingen x Starry Night at 512 px: 100 → 20 a few
    per cent more evaluations, 20 → 12 the final loss 1 % higher and 38 MiB less.
    """

    history: int = 12

    def __call__(self, parameter: Tensor, steps: int) -> LimitedMemory:
        return LimitedMemory(parameter, min(self.history, steps))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015); the learning rate is in the canvas's own units."""

    lr: float

    def __call__(self, parameter: Tensor, steps: int) -> torch.optim.Optimizer:
        return torch.optim.Adam([parameter], lr=self.lr)


@dataclass(frozen=True)
class Nadam:
    """Adam with Nesterov's momentum (Dozat 2016); the learning rate is in the canvas's own units."""

    lr: float

    def __call__(self, parameter: Tensor, steps: int) -> torch.optim.Optimizer:
        return torch.optim.NAdam([parameter], lr=self.lr)


@dataclass(frozen=True)
class Sgd:
    """Plain gradient descent; with `progress`, each step lowers a picture's loss by so much (`Steepest`).

    lr: of every step, or, with progress, at most; in the canvas's own units.
    """

    lr: float
    progress: float | None = None

    def __call__(self, parameter: Tensor, steps: int) -> torch.optim.Optimizer:
        return Steepest(parameter, self.lr, self.progress)


@dataclass(frozen=True)
class Stage:
    """Everything that changes with scale. One step is one evaluation of the objective.

    size: what the canvas is resized to first (None: left as it is). view: how the network looks at the image
    in each step; the terms that judge the image itself see it whole. edits: made in order after each step.
    """

    objective: Objective
    steps: int
    size: Size | None = None
    optimiser: Lbfgs | Adam | Nadam | Sgd = Lbfgs()
    view: View = still
    edits: tuple[Edit | Informed, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """One evaluation: the image that was judged, and the value of every term for it.

    stage from 0; step from 1, within its stage; count from 1, over all stages, of `steps`.
    """

    stage: int
    step: int
    count: int
    steps: int
    image: Float[Tensor, "n 3 h w"] = field(repr=False)
    """sRGB, detached, on the canvas's device; values may leave 0..1."""
    total: float
    values: dict[str, float]
    last: bool
    """Whether this is the stage's last step."""
    checkpoint: Callable[[], dict[str, Any]] = field(repr=False)
    """Returns all that `descend(..., resume=)` needs to go on after this step, bit for bit on a CPU.

    It stays as it is, but must be asked for before the next frame; later it raises Invalid.
    """


class _Descent:
    """The state behind the generator: canvas, optimiser, position."""

    def __init__(self, network: Network, canvas: Canvas, generator: torch.Generator | None) -> None:
        self.network = network
        self.canvas = canvas
        self.generator = generator or torch.Generator().manual_seed(0)
        self.optimiser: LimitedMemory | torch.optim.Optimizer | None = None
        self.objective: Objective | None = None
        self.at = (0, 0)

    # The caller may be under no_grad() or inference_mode(); what is made and done here is not. (Leaving
    # inference_mode() turns gradients on, even under no_grad().)
    @torch.inference_mode(False)
    def begin(self, stage: Stage) -> None:
        """Resize the canvas and take a fresh optimiser, with the scale of the one before."""
        before, pixels = self.optimiser, self.canvas.parameter.numel()
        if stage.size is not None:
            self.canvas = self.canvas.resized(stage.size)
        self.optimiser = stage.optimiser(self.canvas.parameter, stage.steps)
        alike = self.objective is not None and _signs(self.objective) == _signs(stage.objective)
        self.objective = stage.objective
        if isinstance(self.optimiser, LimitedMemory) and isinstance(before, LimitedMemory) and before.scale:
            # a mean over more pixels has smaller gradients, and bears longer steps, by as much
            more = self.canvas.parameter.numel() / pixels
            self.optimiser.scale = before.scale * more if alike else None

    @torch.inference_mode(False)
    def step(self, stage: Stage, number: int, step: int) -> tuple[Tensor, float, dict[str, float]]:
        """Evaluate once, move once; return the image judged, its total and its terms."""
        optimiser = self.optimiser
        assert optimiser is not None
        seen: list[tuple[Tensor, float, dict[str, float]]] = []
        gradients: list[Tensor] = []
        informed = any(isinstance(edit, Informed) for edit in stage.edits)

        def closure() -> Any:  # a float, torch says, and takes a tensor
            optimiser.zero_grad()
            image = self.canvas.render()
            if informed:
                image.register_hook(gradients.append)
            answers = self.network.answers(stage.view(image, self.generator), stage.objective.layers)
            total, values = stage.objective(answers, image)
            del answers  # so that the way back frees them as it passes
            # one transfer for all: each would make a GPU wait
            numbers = cast(list[float], torch.stack([total.detach(), *values.values()]).tolist())
            named = dict(zip(values, numbers[1:], strict=True))
            _check(numbers[0], named, f"step {step} of stage {number + 1}")
            total.backward(inputs=[self.canvas.parameter])  # a guest's own weights may ask for gradients too
            seen.append((image.detach(), numbers[0], named))
            return total

        optimiser.step(closure)
        if stage.edits:
            with torch.no_grad():
                image = self.canvas.render()
                for edit in stage.edits:
                    if isinstance(edit, Informed):
                        image = edit.edit(image, step, gradients[0])
                    else:
                        image = edit(image, step)
                self.canvas.repainted(image)
        self.at = (number, step)
        return seen[0]

    def checkpoint(self, number: int, step: int) -> dict[str, Any]:
        if self.at != (number, step):
            raise Invalid(
                f"the descent has gone on from step {step} of stage {number + 1} to step {self.at[1]} of "
                f"stage {self.at[0] + 1}: take a frame's checkpoint before asking for the next"
            )
        assert self.optimiser is not None
        return {
            "stage": number,
            "step": step,
            "canvas": self.canvas.state(),
            "optimiser": _copy(self.optimiser.state_dict(), self.optimiser),
            "generator": self.generator.get_state(),
        }

    @torch.inference_mode(False)
    def resume(self, stage: Stage, saved: Mapping[str, Any]) -> None:
        self.canvas.restore(saved["canvas"])
        self.optimiser = stage.optimiser(self.canvas.parameter, stage.steps)
        self.objective = stage.objective
        self.optimiser.load_state_dict(_copy(saved["optimiser"], self.optimiser))
        self.generator.set_state(saved["generator"])


def descend(
    network: Network,
    canvas: Canvas,
    stages: Iterable[Stage],
    *,
    generator: torch.Generator | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Generator[Frame]:
    """Descend each stage in turn, yielding a Frame a step.

    Stopping is ceasing to iterate: nothing global is changed between frames (but see `memory.kept`). The
    canvas is moved in place up to the first stage with a size, which starts from a resized copy. generator:
    what moving views draw from (None: a fresh one of seed 0). resume: a `Frame.checkpoint()`, with a canvas
    of the same kind and the same stages; then the first frame is the one after it.
    Raises Invalid, at once, for a plan that cannot work, and Diverged when a term is no longer a number.
    """
    plan = tuple(stages)
    _check_plan(network, plan)
    if resume is not None:
        _check_resume(plan, resume)
    return _frames(_Descent(network, canvas, generator), plan, resume)


def _frames(descent: _Descent, plan: Sequence[Stage], resume: Mapping[str, Any] | None) -> Generator[Frame]:
    first, done = (resume["stage"], resume["step"]) if resume is not None else (0, 0)
    steps = sum(stage.steps for stage in plan)
    count = sum(stage.steps for stage in plan[:first]) + done
    for number, stage in enumerate(plan[first:], first):
        with memory.kept():
            if resume is not None and number == first:
                descent.resume(stage, resume)
            else:
                descent.begin(stage)
                done = 0
            for step in range(done + 1, stage.steps + 1):
                count += 1
                image, total, values = descent.step(stage, number, step)
                checkpoint = partial(descent.checkpoint, number, step)
                last = step == stage.steps
                yield Frame(number, step, count, steps, image, total, values, last, checkpoint)


def _signs(objective: Objective) -> list[tuple[str, float]]:
    """Return what tells whether two sizes' objectives ask for the same."""
    return [(term.name, term.weight) for term in objective.terms]


def _copy(state: dict[str, Any], optimiser: object) -> dict[str, Any]:
    """Copy a state that its optimiser would go on to write into: torch's, not ours."""
    return state if isinstance(optimiser, LimitedMemory) else copy.deepcopy(state)


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


def _check_resume(stages: Sequence[Stage], saved: Mapping[str, Any]) -> None:
    missing = {"stage", "step", "canvas", "optimiser", "generator"} - saved.keys()
    if missing:
        raise Invalid(f"resume takes a Frame's checkpoint(); this one lacks {', '.join(sorted(missing))}")
    number, step = int(saved["stage"]), int(saved["step"])
    if number >= len(stages) or step > stages[number].steps:
        plan = ", ".join(str(stage.steps) for stage in stages)
        raise Invalid(
            f"the checkpoint is of step {step} of stage {number + 1}, and the stages have {plan} steps: "
            "resume with the stages it was made with"
        )
    if ("pairs" in saved["optimiser"]) != isinstance(stages[number].optimiser, Lbfgs):
        raise Invalid(f"stage {number + 1} had another optimiser: resume with the stages it was made with")


def _check(total: float, values: Mapping[str, float], where: str) -> None:
    if math.isfinite(total):
        return
    bad = next((name for name, value in values.items() if not math.isfinite(value)), None)
    what = "the total" if bad is None else f"the term {bad!r}"
    value = total if bad is None else values[bad]
    raise Diverged(
        f"{what} is {value}, no longer a number, at {where}: give smaller weights, or Adam with a smaller "
        "learning rate"
    )
