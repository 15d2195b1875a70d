"""What several nets share: start weights, and pooling by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from innervision.errors import unknown

POOLINGS = ("max", "average")
_DRAWS = frozenset({"normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_", "trunc_normal_"})
_FILLS = frozenset({"fill_", "zero_"})


def pool(pooling: str, size: int, stride: int, *, ceil: bool = False) -> nn.MaxPool2d | nn.AvgPool2d:
    """Return a pooling layer that keeps the largest value or the mean of each window.

    Average pooling gives every pixel of a window its share of the gradient and, Gatys 2016 (section 2) found,
    slightly more appealing pictures. A mean is never above the maximum, so activations shrink with every
    pooling layer: loss weights chosen for "max" do not carry over to "average".
    `ceil` keeps the incomplete windows at the right and bottom edges; they average the pixels they have.
    """
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    kind = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
    return kind(size, stride, ceil_mode=ceil)


class Undrawn(TorchFunctionMode):
    """Make layers without the start values that torch would draw, only for them to be thrown away.

    Torch's device "meta" would do so too; but drawing there imports sympy, which takes a second and 40 MiB.
    There all that fills is left out.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _DRAWS or name in _FILLS:
            tensor = args[0] if args else kwargs["tensor"]
            if name in _DRAWS or tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@torch.no_grad()
def he_normal(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw start weights for a net of ReLUs: He et al. 2015 eq. 10, by fan-in, biases 0.

    A weight is normal with standard deviation √(2 / fan-in), fully connected layers and the last one
    included. Batch normalisation starts as the identity. Values come from `generator`, or from torch's own.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, math.sqrt(2 / fan_in), generator=generator)
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
