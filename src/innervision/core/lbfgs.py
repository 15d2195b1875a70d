"""L-BFGS as an image wants it: one evaluation a step, no line search, a scale that outlives a size."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_RECENT = 10  # losses


class LimitedMemory:
    """L-BFGS (Liu & Nocedal 1989; two-loop recursion, Nocedal & Wright alg. 7.4) on one contiguous tensor.

    Departures from torch.optim.LBFGS: exactly one evaluation a step; a direction that does not descend
    forgets the memory instead of stalling; no threshold that depends on the objective's scale, and a first
    step of L1 norm 1; a step to a loss above the last ten's is taken back in part (the nonmonotone rule of
    Grippo, Lampariello & Lucidi 1986: a stiff term such as `gamut` can throw the picture far out, which in
    ordinary transfers never happens); and `scale`, the step that the last curvature pair found right, can be
    handed on to the next, larger size: without it each size spends its first three evaluations to find it
    again (Tübingen x Starry Night at 256 px: 3 evaluations of 60 saved).
    """

    def __init__(self, parameter: Tensor, history: int, *, scale: float | None = None) -> None:
        self.parameter = parameter
        self.scale = scale
        # (step, change, 1 / step·change); no tensor kept here is ever written to again
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=history)
        self._place: Tensor | None = None  # where the last step began
        self._gradient: Tensor | None = None  # there
        self._step: Tensor | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)  # losses of the places stepped from

    def zero_grad(self) -> None:
        """Forget the parameter's gradient."""
        self.parameter.grad = None

    def step(self, closure: Callable[[], Tensor]) -> None:
        """Evaluate once by `closure`, which gives the parameter a new gradient tensor, and move once."""
        loss = float(closure().detach())
        gradient = self.parameter.grad
        assert gradient is not None
        with torch.no_grad():
            if self._recent and loss > max(self._recent):
                self._step_back(loss)
                return
            g = gradient.flatten()
            self._learn(g)
            step = self._direction(g)
            self._place, self._gradient, self._step = self.parameter.detach().clone(), g, step
            self._recent.append(loss)
            self.parameter.add_(step.view_as(self.parameter))

    def _step_back(self, loss: float) -> None:
        """Shorten the last step to the minimum of the parabola through what is known along it."""
        place, gradient, step = self._place, self._gradient, self._step
        assert place is not None and gradient is not None and step is not None
        slope = float(gradient @ step)
        share = -slope / (2 * (loss - self._recent[-1] - slope))
        self._step = step * max(share, 0.1)  # at most a half, since the loss has risen
        self.parameter.copy_(place + self._step.view_as(place))

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
            "place": self._place,
            "gradient": self._gradient,
            "step": self._step,
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.scale = state["scale"]
        self._pairs.clear()
        self._pairs.extend(state["pairs"])
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._place, self._gradient, self._step = state["place"], state["gradient"], state["step"]
