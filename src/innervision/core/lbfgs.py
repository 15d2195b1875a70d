"""L-BFGS as an image wants it: one evaluation a step, no line search, a scale that outlives a size."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from innervision import memory

_RECENT = 10  # losses
_LAST = ("place", "gradient", "step")
_FIRST, _GROWTH, _FARTHEST = 0.1, 4.0, 1.0  # largest part of a step taken before any curvature is known


class LimitedMemory:
    """L-BFGS (Liu & Nocedal 1989; two-loop recursion, Nocedal & Wright alg. 7.4) on one contiguous tensor.

    Departures from torch.optim.LBFGS: exactly one evaluation a step; a direction that does not descend
    forgets the memory instead of stalling; no threshold that depends on the objective's scale; a first step
    whose largest part is 0.1 (of L1 norm 1 that is 1e-4 at 512 px, which bfloat16 does not see), grown until
    it has told a curvature; a step to a loss above the last ten's is taken back in part (the nonmonotone
    rule of Grippo, Lampariello & Lucidi 1986: a stiff term such as `gamut` can throw the picture far out,
    which in ordinary transfers never happens); and `scale`, the step that the last curvature pair found
    right, can be handed on to the next, larger size: without it each size spends its first three evaluations
    to find it again (Tübingen x Starry Night at 256 px: 3 evaluations of 60 saved).
    """

    def __init__(self, parameter: Tensor, history: int, *, scale: float | None = None) -> None:
        self.parameter = parameter
        self.scale = scale
        numbers = parameter.detach()
        # all that is remembered has its place from the start, with one for the pair still in question
        with memory.apart():
            self._room = numbers.new_empty(history + 1, 2, numbers.numel())  # (step, change)
            held = numbers.new_empty(3, numbers.numel())
        self._taken = 0  # places taken so far, in turn
        self._pairs: deque[tuple[int, float]] = deque(maxlen=history)  # (place, 1 / step·change)
        # where the last step began, the gradient there, and the step
        self._place, self._gradient, self._step = held
        self._moved = False  # whether these three hold anything yet
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
            self._direct(g)
            self._place.copy_(self.parameter.flatten())
            self._gradient.copy_(g)
            self._moved = True
            self._recent.append(loss)
            self.parameter.add_(self._step.view_as(self.parameter))

    def _step_back(self, loss: float) -> None:
        """Shorten the last step to the minimum of the parabola through what is known along it."""
        slope = float(self._gradient @ self._step)
        share = -slope / (2 * (loss - self._recent[-1] - slope))
        self._step.mul_(max(share, 0.1))  # at most a half, since the loss has risen
        self.parameter.copy_((self._place + self._step).view_as(self.parameter))

    def _learn(self, g: Tensor) -> None:
        """Take in the last step and what it did to the gradient."""
        if not self._moved:
            return
        place = self._next()
        step, change = self._room[place]
        step.copy_(self._step)
        torch.sub(g, self._gradient, out=change)
        curvature, square = float(change @ step), float(change @ change)
        if square and curvature > 1e-10 * (square * float(step @ step)) ** 0.5:
            self._pairs.append((place, 1 / curvature))
            self._taken += 1
            self.scale = curvature / square

    def _next(self) -> int:
        return self._taken % self._room.shape[0]

    def _direct(self, g: Tensor) -> None:
        """Set the step to take, down from here."""
        if self.scale is None:  # nothing is known yet: a step too small to harm
            steep = float(g.abs().max())
            before = _GROWTH * float(self._step.abs().max()) if self._moved else 0.0
            reach = min(before or _FIRST, _FARTHEST)
            torch.mul(g, -reach / steep if steep else 0.0, out=self._step)
            return
        q = self._step.copy_(g)
        along: list[float] = []
        for place, rho in reversed(self._pairs):
            step, change = self._room[place]
            along.append(rho * float(step @ q))
            q.sub_(change, alpha=along[-1])
        q.mul_(self.scale)
        for (place, rho), a in zip(self._pairs, reversed(along), strict=True):
            step, change = self._room[place]
            q.add_(step, alpha=a - rho * float(change @ q))
        if float(g @ q) <= 0:
            self._pairs.clear()
            torch.mul(g, self.scale, out=q)
        q.neg_()

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what `load_state_dict` needs to go on bit for bit."""
        last = (self._place, self._gradient, self._step)
        return {
            "scale": self.scale,
            "pairs": [(*self._room[place].clone(), rho) for place, rho in self._pairs],
            **dict(zip(_LAST, (t.clone() if self._moved else None for t in last), strict=True)),
            "recent": list(self._recent),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a state back."""
        self.scale = state["scale"]
        self._pairs.clear()
        self._taken = 0
        for step, change, rho in state["pairs"]:
            place = self._next()
            self._room[place, 0], self._room[place, 1] = step, change
            self._pairs.append((place, rho))
            self._taken += 1
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._moved = state["step"] is not None
        if self._moved:
            for own, name in zip((self._place, self._gradient, self._step), _LAST, strict=True):
                own.copy_(state[name].flatten())
