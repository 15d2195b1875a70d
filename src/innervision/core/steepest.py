"""Steepest descent on pictures, each with a step of its own."""

# pyright: reportUnknownMemberType=false, reportIncompatibleMethodOverride=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Steepest(torch.optim.Optimizer):
    """x ← x − rate·g for each picture of a batch (n, ...), rate = min(lr, progress / ‖g‖²).

    progress: by how much a step is to lower a picture's loss, to first order; None: the rate is lr.
    (Yosinski et al. 2015, and "progress" of the authors' gradient_optimizer.py. The norm is the picture's
    own, so that pictures descended together move as they would alone.)
    """

    def __init__(self, parameter: Tensor, lr: float, progress: float | None = None) -> None:
        super().__init__([parameter], {"lr": lr, "progress": progress})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                rate: Any = group["lr"]
                if group["progress"] is not None:
                    square = gradient.flatten(1).square().sum(1)
                    wanted = group["progress"] / square.clamp(min=torch.finfo(square.dtype).tiny)
                    rate = wanted.clamp(max=group["lr"]).view(-1, *[1] * (gradient.ndim - 1))
                parameter.sub_(rate * gradient)
        return loss
