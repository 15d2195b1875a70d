"""L-BFGS as an image wants it: one evaluation a step, no line search, a scale that outlives a size."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class LimitedMemory:
    """L-BFGS (Liu & Nocedal 1989; two-loop recursion, Nocedal & Wright alg. 7.4) on one contiguous tensor.

    Departures from torch.optim.LBFGS: exactly one evaluation a step; a direction that does not descend
    forgets the memory instead of stalling; no threshold that depends on the objective's scale; and `scale`,
    the step that the last curvature pair found right, can be handed on to the next, larger size: without it
    each size spends its first three evaluations to find it again (Tübingen x Starry Night at 256 px:
    3 evaluations of 60 saved). The first step of all has an L1 norm of 1.
    """

    def __init__(self, parameter: Tensor, history: int, *, scale: float | None = None) -> None:
        self.parameter = parameter
        self.scale = scale
        # (step, change, 1 / step·change); no tensor kept here is ever written to again
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
        self._gradient: Tensor | None = None
        self._step: Tensor | None = None

    def zero_grad(self) -> None:
        """Forget the parameter's gradient."""
        self.parameter.grad = None

    def step(self, closure: Callable[[], Tensor]) -> None:
        """Evaluate once by `closure`, which fills the parameter's gradient, and move once."""
        closure()
        gradient = self.parameter.grad
        assert gradient is not None
        with torch.no_grad():
            g = gradient.detach().clone().flatten()
            self._learn(g)
            step = self._direction(g)
            self._gradient, self._step = g, step
            self.parameter.add_(step.view_as(self.parameter))

    def _learn(self, g: Tensor) -> None:
        """Take in the last step and what it did to the gradient."""
        if self._gradient is None or self._step is None:
            return
        change = g - self._gradient
        curvature, square = float(change @ self._step), float(change @ change)
        if square and curvature > 1e-10 * (square * float(self._step @ self._step)) ** 0.5:
            self._pairs.append((self._step, change, 1 / curvature))
            self.scale = curvature / square

    def _direction(self, g: Tensor) -> Tensor:
        if self.scale is None:  # nothing is known yet: a step too small to harm
            length = float(g.abs().sum())
            return g * (-1 / length if length else 0.0)
        q = g.clone()
        along: list[float] = []
        for step, change, rho in reversed(self._pairs):
            along.append(rho * float(step @ q))
            q.sub_(change, alpha=along[-1])
        q.mul_(self.scale)
        for (step, change, rho), a in zip(self._pairs, reversed(along), strict=True):
            q.add_(step, alpha=a - rho * float(change @ q))
        if float(g @ q) <= 0:
            self._pairs.clear()
            return g * -self.scale
        return q.neg_()

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on bit for bit; memory is shared, never written to."""
        return {
            "scale": self.scale,
            "pairs": list(self._pairs),
            "gradient": self._gradient,
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.scale = state["scale"]
        self._pairs.clear()
        self._pairs.extend(state["pairs"])
        self._gradient, self._step = state["gradient"], state["step"]
