"""Convolutions by kernels laid out once as the library wants them, on a CPU.

oneDNN lays a kernel out anew in each call. On small maps of wide layers that takes longer than the products:
of VGG19 in bfloat16, conv4_2 on 7x7 takes 1.0 ms instead of 2.4, conv5_1 on 3x3 0.3 instead of 0.9 (one
thread). The operations are those of torch's compiler, and no part of torch's interface: they are tried first,
and where they fail nothing is packed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch.ops carries no annotations)

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.shapes import Float

_MOST = 1024  # places of all maps together: of more, the products take nearly all the time
_TYPES = (torch.float32, torch.bfloat16)
_ONE = [1, 1]


def pays(x: Float[Tensor, "n _ h w"], weight: Float[Tensor, "k c y x"]) -> bool:
    """Tell whether a packed kernel is the sooner way to convolve x."""
    n, _, h, w = x.shape
    small = n * h * w <= _MOST and weight.device.type == "cpu" and x.dtype == weight.dtype in _TYPES
    return small and _works(weight.dtype)


def pack(weight: Float[Tensor, "k c y x"], x: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return a kernel laid out for pictures such as x; those of other sizes it convolves as well."""
    return _operations()[0](weight, padding, _ONE, _ONE, 1, x.shape)


def convolve(
    x: Float[Tensor, "n c h w"], kernel: Tensor, bias: Tensor | None, padding: tuple[int, int]
) -> Float[Tensor, "n k y x"]:
    """Convolve with a packed kernel; what comes of it is laid out channels last."""
    x = x.contiguous(memory_format=torch.channels_last)
    return _operations()[1](x, kernel, bias, padding, _ONE, _ONE, 1, "none", [], "")


@cache
def _operations() -> tuple[Any, Any]:
    found: Any = torch.ops.mkldnn
    return found._reorder_convolution_weight.default, found._convolution_pointwise.default


@cache
@torch.inference_mode(False)
@torch.no_grad()
def _works(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    x = torch.linspace(-1, 1, 2 * 8 * 5 * 4).view(2, 8, 5, 4).to(dtype)
    weight = torch.linspace(1, -1, 16 * 8 * 9).view(16, 8, 3, 3).to(dtype)
    bias = torch.linspace(0, 1, 16).to(dtype)
    try:
        found = convolve(x, pack(weight, x, (1, 1)), bias, (1, 1)).float()
    except (RuntimeError, AttributeError, TypeError):
        return False
    expected = F.conv2d(x.float(), weight.float(), bias.float(), padding=1)
    return bool((found - expected).abs().max() <= 0.02 * expected.abs().max())
