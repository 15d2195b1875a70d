"""Which pixels a unit sees, for plain chains of layers; of others nothing is said."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from innervision.network import Network

Box = tuple[int, int, int, int]  # left, top, right, bottom: pixels, possibly beyond the picture
Axis = tuple[int, int, int]  # where the first field starts, from one to the next, a field's length

_SLIDING = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
_POINTWISE = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(
        nn.Hardswish,
        nn.Threshold,
        nn.Identity,
        nn.Dropout,
        nn.Dropout2d,
        nn.BatchNorm2d,
        nn.LocalResponseNorm,
    ),
)


def window(grid: tuple[Axis, Axis] | None, size: tuple[int, int], place: tuple[int, int]) -> Box:
    """Return what a unit at a place (row, column) of a map sees of a picture of a size (height, width).

    Along a side where the field is no shorter than the picture, and without a grid, it is the whole side.
    """
    sides: list[tuple[int, int]] = []
    for axis, length in enumerate(size):
        start, jump, field = (0, 0, length) if grid is None else grid[axis]
        first = start + jump * place[axis] if field < length else 0
        sides.append((first, first + min(field, length)))
    (top, bottom), (left, right) = sides
    return left, top, right, bottom


def grid_of(network: Network, layer: str, size: tuple[int, int]) -> tuple[Axis, Axis] | None:
    """Return how a layer's fields lie on a picture, down and across, or None where there is no plain chain.

    Along the chain r += (k-1)·j, start -= p·j, j *= s (Araujo et al. 2019, section 2.2), k a kernel's length,
    d·(k-1)+1 if it is dilated. In evaluation mode batch normalisation looks at one place alone.
    """
    met = _chain(network, layer, size)
    return None if met is None else (_along(met, 0), _along(met, 1))


def _along(met: list[nn.Module], axis: int) -> Axis:
    start, jump, field = 0, 1, 1
    for module in met:
        if isinstance(module, _POINTWISE):
            continue
        kernel, stride, dilation = (
            _of(getattr(module, name, 1), axis) for name in ("kernel_size", "stride", "dilation")
        )
        reach = dilation * (kernel - 1)
        padding: Any = module.padding
        if isinstance(padding, str):
            padding = reach // 2 if padding == "same" else 0
        field += reach * jump
        start -= _of(padding, axis) * jump
        jump *= stride
    return start, jump, field


def _of(value: Any, axis: int) -> int:
    return value if isinstance(value, int) else value[axis]


def _chain(network: Network, layer: str, size: tuple[int, int]) -> list[nn.Module] | None:
    """Return the modules a picture passes one after the other on its way to a layer, or None.

    Each must take the very tensor that the one before has answered, so that nothing happens between them.
    """
    met: list[nn.Module] = []
    passed: list[object] = []  # the module's input, then every answer; None once the chain is broken

    def begin(_module: nn.Module, inputs: tuple[object, ...]) -> None:
        passed[:] = inputs[:1]

    def step(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        plain = isinstance(module, (*_SLIDING, *_POINTWISE)) and len(inputs) == 1
        whole = bool(passed) and passed[-1] is not None and plain and inputs[0] is passed[-1]
        met.append(module)
        passed.append(output if whole else None)

    def end(_module: nn.Module, _inputs: object, output: object) -> None:
        ends.append(output)

    ends: list[object] = []
    parts = [part for part in network.module.modules() if not any(part.children())]
    handles = [part.register_forward_hook(step) for part in parts]
    handles.append(network.module.register_forward_pre_hook(begin))
    handles.append(network.module.get_submodule(layer).register_forward_hook(end))
    try:
        with torch.no_grad():
            network.features(torch.full((1, 3, *size), 0.5, device=network.device), (layer,))
    finally:
        for handle in handles:
            handle.remove()
    whole = bool(ends) and passed[-1] is not None and ends[0] is passed[-1]
    return met if whole else None
