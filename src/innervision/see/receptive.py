"""Receptive fields: which pixels a unit can see, worked out twice.

`receptive_fields` follows a pass through the network and does the arithmetic of each step; no number of the
picture is computed. `by_gradient` makes every weight positive and looks where a unit's gradient to the
picture is not 0. The first is exact wherever it gives an answer; the second answers for any module.
`followed` says besides which step it is that has no fixed window.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from innervision.errors import Invalid
from innervision.listen import listen
from innervision.network import Network
from innervision.see.steps import Box, Field, Pair, box, copy_with, followed, pair, receptive_fields
from innervision.see.tokens import maps_of

__all__ = ["Box", "Field", "Pair", "box", "by_gradient", "followed", "receptive_fields"]


def by_gradient(
    network: Network, layer: str, *, start: int = 64, most: int = 1024, statistics: bool = False
) -> Field:
    """Return a layer's receptive field by where the gradient of its middle unit is not 0.

    In float64 on a copy with positive weights, so that nothing cancels out; a max pooling passes gradient to
    its whole window. The picture grows from `start` to `most` pixels until the field does not touch its
    edges; a field that fills even that is what a global step sees: the picture whole, stride 0. statistics:
    whether normalisation by a map's own numbers (group, instance, layer) counts as the global step that it
    is; by default it is left out, so that the field says where a unit mostly looks.
    Raises Invalid for a layer that answers no maps, or none at all.
    """
    (name,) = network.check((layer,))
    try:
        module = copy_with(network.module, _positive).eval()
    except Exception as error:
        raise Invalid(
            f"{network.name} cannot be copied, so its receptive fields stay unknown: {error}"
        ) from error
    side, error = start, None
    while side <= most:
        try:
            middle, (down, across), (y, x), corner = _supports(network, module, name, side, statistics)
        except Invalid:
            raise
        except Exception as small:  # a kernel larger than the map, or a guest that takes other sizes
            side, error = 2 * side, small
            continue
        left, top, right, bottom = middle
        if top > 0 and left > 0 and bottom < side and right < side:
            size, begin = (bottom - top, right - left), (top - y * down, left - x * across)
            return Field(size, (down, across), begin)
        # the first unit sees half a field at most, unless a step is global
        if middle == corner and 2 * side > most:
            return Field((side, side), (0, 0), (0, 0))
        side, error = 2 * side, None
    if error is not None:
        raise Invalid(f"layer {layer!r} of {network.name} has no answer to {side // 2} px: {error}")
    raise Invalid(f"a unit of {layer!r} sees more than {most // 2} px: raise `most`")


def _supports(
    network: Network, module: nn.Module, layer: str, side: int, statistics: bool
) -> tuple[Box, Pair, Pair, Box]:
    """Return the middle unit's field, the shift to the next units', the unit, and the first one's field."""
    image = torch.zeros(1, 3, side, side)
    with torch.inference_mode(False), torch.enable_grad():
        # tiny, so that no ReLU6 is ever at its end
        x = torch.full_like(network.preprocessing(image), 1e-6, dtype=torch.float64).requires_grad_()
        with _Linear(statistics):
            answer = listen(module, x, (layer,), set())[layer]
        whole = maps_of(layer, answer, (side, side), "no map, so no receptive field")[0].sum(0)
        h, w = whole.shape
        y, x0 = h // 2, w // 2

        def seen(row: int, column: int) -> Box:
            (g,) = torch.autograd.grad(whole[row, column], x, retain_graph=True)
            lit = (g[0] != 0).any(0)
            rows, columns = (lit.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
            return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows else (0, 0, 0, 0)

        here = seen(y, x0)
        down = seen(y - 1, x0) if h > 1 else here
        across = seen(y, x0 - 1) if w > 1 else here
        return here, (here[3] - down[3], here[2] - across[2]), (y, x0), seen(0, 0)


class _Linear(TorchFunctionMode):
    """Lets every unit of a window through a max pooling; normalisation by statistics is a sum, or nothing."""

    _POOLS = (torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices)
    _NORMS = (F.group_norm, F.layer_norm, F.instance_norm, torch.group_norm, torch.layer_norm)

    def __init__(self, statistics: bool) -> None:
        super().__init__()
        self._statistics = statistics

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._NORMS:
            return _normalised(func, args[0], kwargs, args[1:]) if self._statistics else args[0]
        if func in self._POOLS:
            return _summed(*args, **{k: v for k, v in kwargs.items() if k != "return_indices"})
        return func(*args, **kwargs)


def _normalised(func: Any, x: Tensor, kwargs: dict[str, Any], args: Any) -> Tensor:
    """Add to each value the mean of those that it is normalised with."""
    if func in (F.layer_norm, torch.layer_norm):
        shape = kwargs.get("normalized_shape") or args[0]
        return x + x.mean(tuple(range(-len(shape), 0)), keepdim=True)
    return x + x.mean(tuple(range(1 if "group" in func.__name__ else 2, x.ndim)), keepdim=True)


def _summed(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *_: Any,
) -> Tensor:
    """Pool to the mean of each window, where a max pooling would take the largest."""
    size, pad, apart = pair(kernel_size), pair(padding), pair(dilation)
    step = size if stride is None or stride in ([], ()) else pair(stride)
    # what an incomplete last window lacks is 0
    more = [s - 1 if ceil_mode else 0 for s in step]
    x = F.pad(input, (pad[1], pad[1] + more[1], pad[0], pad[0] + more[0]))
    c = x.shape[1]
    kernel = torch.full((c, 1, *size), 1 / (size[0] * size[1]), dtype=x.dtype)
    return F.conv2d(x, kernel, stride=step, dilation=apart, groups=c)


def _positive(tensor: Tensor, name: str) -> Tensor:
    """Return 1 over the fan-in for weights, 1 for scales, 0 for biases and means; of one number's memory."""
    if not tensor.is_floating_point():
        return tensor.cpu().clone()
    last = name.rpartition(".")[2]
    value = (
        0.0 if last in ("bias", "running_mean") else 1.0 / max(1, tensor[0].numel() if tensor.ndim > 1 else 1)
    )
    return torch.full((), value, dtype=torch.float64).expand(tensor.shape)
