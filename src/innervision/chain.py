"""A frozen chain of convolutions, run by hand: the same numbers as its modules, sooner and in less memory.

Looking through a network at an image needs the gradient to the image alone. For a plain chain of
convolutions, ReLUs and poolings (VGG's base) that allows, on any device:

- the data gradient of a stride-1 convolution as a forward convolution with the flipped, transposed
  kernel, which runs at full speed where the library's own backward does not (conv1_2 of VGG19 in
  bfloat16 on an AVX-512 CPU at 512x384: 33 ms instead of 76 ms);
- gradients masked and summed in place, and of the forward pass nothing kept but each ReLU's answer
  and each pooling's indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LAST = torch.channels_last
_mask = torch.ops.aten.threshold_backward.grad_input
_unpool_max = torch.ops.aten.max_pool2d_with_indices_backward
_unpool_average = torch.ops.aten.avg_pool2d_backward


@dataclass(frozen=True)
class Convolution:
    weight: Tensor
    bias: Tensor | None
    padding: tuple[int, int]
    back: Tensor  # the same kernel flipped and transposed: its convolution is the data gradient
    back_padding: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)

    def backward(self, g: Tensor) -> Tensor:
        return F.conv2d(g, self.back, None, padding=self.back_padding)


@dataclass(frozen=True)
class Rectifier:
    in_place: bool  # false where the convolution before it is wanted too


@dataclass(frozen=True)
class Pooling:
    kind: str  # "max" or "average"
    size: tuple[int, int]
    stride: tuple[int, int]


Link = Convolution | Rectifier | Pooling


@dataclass(frozen=True)
class Chain:
    """Links in order, each with the name under which its answer is wanted (or "")."""

    links: tuple[tuple[Link, str], ...]

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Return name -> activation of the wanted layers for a network's input x (n, c, h, w)."""
        names = [name for _, name in self.links if name]
        if torch.is_grad_enabled() and x.requires_grad:
            return dict(zip(names, _Run.apply(x, self), strict=True))  # pyright: ignore[reportArgumentType]
        answers: dict[str, Tensor] = {}
        for link, name in self.links:
            x = _forward(link, x, None)
            if name:
                answers[name] = x
        return answers


def chain_of(module: nn.Module, wanted: tuple[str, ...]) -> Chain | None:
    """Return the chain from a module's input to the deepest wanted layer, or None where it is no plain chain.

    None for anything but exact Conv2d (stride 1, no dilation, zero padding, one group), ReLU, MaxPool2d
    and AvgPool2d in (nested) Sequentials, and for modules with hooks, which a short cut would pass by.
    """
    links: list[tuple[Link, str]] = []
    left = set(wanted)
    for name, part in _flatten(module, ""):
        link = _link(part)
        if link is None:
            return None
        links.append((link, name if name in left else ""))
        left.discard(name)
        if not left:
            return Chain(tuple(_protect(links)))
    return None


def _protect(links: list[tuple[Link, str]]) -> Iterator[tuple[Link, str]]:
    before = "wanted"  # the input is the caller's
    for link, name in links:
        yield (Rectifier(in_place=not before) if isinstance(link, Rectifier) else link), name
        before = name


def _flatten(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module).forward is nn.Sequential.forward and not _hooked(module):
        for name, child in module.named_children():
            yield from _flatten(child, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, module


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


def _link(part: nn.Module) -> Link | None:
    if _hooked(part):
        return None
    if type(part) is nn.Conv2d:
        return _convolution(part)
    if type(part) is nn.ReLU:
        return Rectifier(in_place=True)
    if type(part) is nn.MaxPool2d and not (part.ceil_mode or part.return_indices):
        if _pair(part.padding) == (0, 0) and _pair(part.dilation) == (1, 1):
            return Pooling("max", _pair(part.kernel_size), _pair(part.stride))
    if type(part) is nn.AvgPool2d and not part.ceil_mode and part.divisor_override is None:
        if _pair(part.padding) == (0, 0):
            return Pooling("average", _pair(part.kernel_size), _pair(part.stride))
    return None


def _convolution(part: nn.Conv2d) -> Convolution | None:
    plain = part.stride == (1, 1) and part.dilation == (1, 1) and part.groups == 1
    if not plain or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return None
    back_padding = tuple(k - 1 - p for k, p in zip(part.kernel_size, part.padding, strict=True))
    if min(back_padding) < 0:
        return None
    weight = part.weight.detach()
    back = weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=_LAST)
    bias = None if part.bias is None else part.bias.detach()
    return Convolution(weight.contiguous(memory_format=_LAST), bias, part.padding, back, back_padding)  # pyright: ignore[reportArgumentType]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _forward(link: Link, x: Tensor, tape: list[Tensor] | None) -> Tensor:
    """Take one link forward; put on the tape what the way back needs."""
    match link:
        case Convolution():
            return link.forward(x.contiguous(memory_format=_LAST))
        case Rectifier():
            y = x.relu_() if link.in_place else x.relu()
            if tape is not None:
                tape.append(y)
            return y
        case Pooling(kind="max"):
            if tape is None:
                return F.max_pool2d(x, link.size, link.stride)
            y, indices = torch.ops.aten.max_pool2d_with_indices(x, link.size, link.stride)
            tape += [x, indices]
            return y
        case Pooling():
            if tape is not None:
                tape.append(x)
            return F.avg_pool2d(x, link.size, link.stride)


def _backward(link: Link, g: Tensor, tape: list[Tensor]) -> Tensor:
    """Take one link backward, consuming its part of the tape; g is ours and may be overwritten."""
    match link:
        case Convolution():
            return link.backward(g)
        case Rectifier():
            return _mask(g, tape.pop(), 0, grad_input=g)
        case Pooling(kind="max"):
            indices, x = tape.pop(), tape.pop()
            return _unpool_max(g, x, link.size, link.stride, (0, 0), (1, 1), False, indices)
        case Pooling():
            return _unpool_average(g, tape.pop(), link.size, link.stride, (0, 0), False, True, None)


class _Run(torch.autograd.Function):
    """The chain with its gradient to the input, once differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chain: Chain) -> tuple[Tensor, ...]:
        tape: list[Tensor] = []
        answers: list[Tensor] = []
        for link, name in chain.links:
            x = _forward(link, x, tape)
            if name:
                answers.append(x)
        ctx.save_for_backward(*tape)
        ctx.chain = chain
        ctx.set_materialize_grads(False)
        return tuple(answers)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        tape, given = list(ctx.saved_tensors), list(gradients)
        g: Tensor | None = None
        for link, name in reversed(ctx.chain.links):
            if name:
                more = given.pop()
                if more is not None:
                    # a copy, since the way back writes into it and it may belong to the caller
                    g = more.clone(memory_format=_LAST) if g is None else g.add_(more)
            if g is not None:
                g = _backward(link, g, tape)
            else:
                del tape[len(tape) - _kept(link) :]
        return g, None


def _kept(link: Link) -> int:
    match link:
        case Convolution():
            return 0
        case Pooling(kind="max"):
            return 2
        case _:
            return 1
