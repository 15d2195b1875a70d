"""A frozen chain of convolutions, run by hand: the same numbers as its modules, sooner and in less memory.

Looking through a network at an image needs the gradient to the image alone. For a plain chain of
convolutions, ReLUs and poolings (VGG's base) that allows, on any device:

- the data gradient of a stride-1 convolution as a forward convolution with the flipped, transposed
  kernel, which runs at full speed where the library's own backward does not (conv1_2 of VGG19 in
  bfloat16 on an AVX-512 CPU at 512x384: 33 ms instead of 76 ms);
- 3x3 convolutions of wide layers in float32 on a CPU by Winograd's method (see `winograd`);
- a ReLU before a max pooling done after it, on a quarter of the values;
- gradients masked in place, and of the forward pass nothing kept but each ReLU's answer and each
  pooling's indices, freed as the way back passes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import memory, winograd
from innervision.shapes import Float

_LAST = torch.channels_last
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # as many bytes as a number has
_mask = torch.ops.aten.threshold_backward.grad_input
_unpool_max = torch.ops.aten.max_pool2d_with_indices_backward
_unpool_average = torch.ops.aten.avg_pool2d_backward


class Kernel:
    """A convolution's weights, and the form of them last needed, made ready once."""

    def __init__(self, weight: Tensor) -> None:
        self.source = weight
        self.version = weight._version
        self.forth = weight.contiguous(memory_format=_LAST)
        self._back: Tensor | None = None
        self._turned: Tensor | None = None

    def of(self, weight: Tensor) -> bool:
        """Tell whether these are the weights as they stand: neither replaced nor overwritten since."""
        return self.source.data_ptr() == weight.data_ptr() and self.version == weight._version

    def back(self) -> Tensor:
        """Return the kernel flipped and transposed: its convolution is the data gradient."""
        back = self._back  # another thread may want the other form meanwhile
        if back is None:
            with memory.apart():
                back = self.source.flip(2, 3).transpose(0, 1).contiguous(memory_format=_LAST)
            self._back, self._turned = back, None
        return back

    def turned(self) -> Tensor:
        """Return the kernel as Winograd's method wants it."""
        turned = self._turned
        if turned is None:
            with memory.apart():
                turned = winograd.transform(self.source)
            self._back, self._turned = None, turned
        return turned


@dataclass(frozen=True, eq=False)
class Convolution:
    kernel: Kernel
    bias: Tensor | None
    padding: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        if winograd.pays(x, self.kernel.source):
            return winograd.convolve(x, self.kernel.turned(), self.bias, self.padding)
        return F.conv2d(x.contiguous(memory_format=_LAST), self.kernel.forth, self.bias, padding=self.padding)

    def backward(self, g: Tensor) -> Tensor:
        if winograd.pays(g, self.kernel.source):
            return winograd.data_gradient(g, self.kernel.turned(), self.padding)
        kh, kw = self.kernel.source.shape[2:]
        rest = (kh - 1 - self.padding[0], kw - 1 - self.padding[1])
        return F.conv2d(g, self.kernel.back(), None, padding=rest)


@dataclass(frozen=True)
class Rectifier:
    in_place: bool = True  # false where what it overwrites is wanted too, or the caller's


@dataclass(frozen=True)
class Pooling:
    kind: str  # "max" or "average"
    size: tuple[int, int]
    stride: tuple[int, int]


Link = Convolution | Rectifier | Pooling


@dataclass(frozen=True, eq=False)
class Part:
    """Links in a row, and the name under which the last one's answer is wanted."""

    links: tuple[Link, ...]
    name: str


@dataclass(frozen=True, eq=False)
class Chain:
    """A network as far as the deepest layer wanted: a part for each layer that is."""

    parts: tuple[Part, ...]

    def __call__(self, x: Float[Tensor, "n c h w"]) -> Answers:
        """Return the wanted layers' answers to a network's input x."""
        return Answers(self.parts, x)


class Answers(Mapping[str, Float[Tensor, "n c h w"]]):
    """Name -> activation, each computed when first asked for, after those before it.

    autograd goes back over what was done last first. So where each answer is measured before the next is
    asked for, its gradient is made just before it is used, and what a part has kept is freed once it is
    passed: gradients of all layers, and all that was kept, are never held at once.
    """

    def __init__(self, parts: Sequence[Part], x: Tensor) -> None:
        self._names = tuple(part.name for part in parts)
        self._left = deque(parts)
        self._found: dict[str, Tensor] = {}
        self._x = x
        self._grad = torch.is_grad_enabled()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> Float[Tensor, "n c h w"]:
        if name not in self._names:
            raise KeyError(name)
        with torch.inference_mode(False), torch.set_grad_enabled(self._grad):
            while name not in self._found:
                part = self._left[0]
                self._x = self._found[part.name] = _run(part, self._x)
                self._left.popleft()  # now that it went well: who asks again after an error begins there
        return self._found[name]


def _run(part: Part, x: Tensor) -> Tensor:
    if torch.is_grad_enabled() and x.requires_grad:
        return cast(Tensor, _Run.apply(x, part))
    for link in part.links:
        x = _forward(link, x, None)
    return x


def chain_of(module: nn.Module, wanted: tuple[str, ...], kernels: dict[str, Kernel]) -> Chain | None:
    """Return the chain from a module's input to the deepest wanted layer, or None where it is no plain chain.

    None for anything but exact Conv2d (stride 1, no dilation, zero padding, one group), ReLU, MaxPool2d
    and AvgPool2d, each once, in (nested) Sequentials, and for modules with hooks, which a short cut would
    pass by. kernels: the convolutions made ready before, by layer; kept up to date.
    """
    parts: list[Part] = []
    links: list[Link] = []
    left = set(wanted)
    met: set[nn.Module] = set()
    before = "the caller's"  # what a ReLU must not overwrite has a name
    for name, part in _flatten(module, ""):
        link = None if part in met or altered(part) else _link(part, name, kernels)
        if link is None:
            return None
        if isinstance(link, Rectifier) and before:
            link = replace(link, in_place=False)
        if isinstance(link, Pooling) and link.kind == "max" and links and isinstance(links[-1], Rectifier):
            # the larger of two rectified is the rectified larger: a ReLU after the pooling does a quarter
            links[-1:] = [link, Rectifier()]
        else:
            links.append(link)
        met.add(part)
        before = name if name in left else ""
        if before:
            parts.append(Part(tuple(links), name))
            links.clear()
            left.discard(name)
        if not left:
            return Chain(tuple(parts))
    return None


def _flatten(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module).forward is nn.Sequential.forward and not altered(module):
        for name, child in module._modules.items():  # named_children() passes over a module met before
            if child is not None:
                yield from _flatten(child, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, module


def altered(module: nn.Module) -> bool:
    """Tell whether someone listens in on a module, or has given it a forward() of its own."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return any(hooks) or bool(module._backward_pre_hooks) or "forward" in vars(module)


def _link(part: nn.Module, name: str, kernels: dict[str, Kernel]) -> Link | None:
    if type(part) is nn.Conv2d:
        return _convolution(part, name, kernels)
    if type(part) is nn.ReLU:
        return Rectifier()
    if type(part) is nn.MaxPool2d:
        plain = not (part.ceil_mode or part.return_indices) and _pair(part.dilation) == (1, 1)
    elif type(part) is nn.AvgPool2d:
        plain = not part.ceil_mode and part.divisor_override is None
    else:
        return None
    if not plain or _pair(part.padding) != (0, 0):
        return None
    kind = "max" if isinstance(part, nn.MaxPool2d) else "average"
    return Pooling(kind, _pair(part.kernel_size), _pair(part.stride))


def _convolution(part: nn.Conv2d, name: str, kernels: dict[str, Kernel]) -> Convolution | None:
    plain = part.stride == (1, 1) and part.dilation == (1, 1) and part.groups == 1
    if not plain or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return None
    (kh, kw), (ph, pw) = part.kernel_size, part.padding
    weight = part.weight.detach()
    if ph >= kh or pw >= kw or weight.is_inference():  # the latter's versions are not counted
        return None
    kernel = kernels.get(name)
    if kernel is None or not kernel.of(weight):
        kernel = kernels[name] = Kernel(weight)
    return Convolution(kernel, None if part.bias is None else part.bias.detach(), (ph, pw))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _forward(link: Link, x: Tensor, tape: list[Tensor] | None) -> Tensor:
    """Take one link forward; put on the tape what the way back needs."""
    match link:
        case Convolution():
            return link.forward(x)
        case Rectifier():
            y = x.relu_() if link.in_place else x.relu()
            if tape is not None:
                tape.append(y)
            return y
        case Pooling(kind="max"):
            if tape is None:
                return F.max_pool2d(x, link.size, link.stride)
            # of x the way back needs the shape alone
            if link.size == link.stride == (2, 2) and min(x.shape[2:]) > 1:  # else refused, as by any pooling
                y, where = _halve(x)
            else:
                y, where = torch.ops.aten.max_pool2d_with_indices(x, link.size, link.stride)
            tape += [where, x.new_empty(1).expand(x.shape)]
            return y
        case Pooling():
            if tape is not None:
                tape.append(x)
            return F.avg_pool2d(x, link.size, link.stride)


def _backward(link: Link, g: Tensor, tape: list[Tensor], ours: bool) -> Tensor:
    """Take one link backward, consuming its part of the tape; g may be overwritten if it is ours."""
    match link:
        case Convolution():
            return link.backward(g)
        case Rectifier():
            return _mask(g, tape.pop(), 0, grad_input=g if ours else torch.empty_like(g))
        case Pooling(kind="max"):
            shape = tape.pop().shape
            x = torch.empty(shape, dtype=g.dtype, device=g.device, memory_format=_LAST)
            if link.size == link.stride == (2, 2):
                return _double(g, x, tape.pop())
            return _unpool_max(g, x, link.size, link.stride, (0, 0), (1, 1), False, tape.pop())
        case Pooling():
            return _unpool_average(g, tape.pop(), link.size, link.stride, (0, 0), False, True, None)


def _halve(x: Tensor) -> tuple[Tensor, Tensor]:
    """Pool 2x2 to the largest, and tell where it was (the first of equals).

    Three bits of an integer as wide as a number, where the library keeps an index of eight bytes: 1 right
    above, 2 right below, 4 below. They are the signs of differences.
    """
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    a, b, c, d = (x[:, :, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1))
    above, below = torch.maximum(a, b), torch.maximum(c, d)
    where = _sign(a - b).bitwise_and_(1)
    where |= _sign(c - d).bitwise_and_(2)
    where |= _sign(above - below).bitwise_and_(4)
    return torch.maximum(above, below), where


def _sign(x: Tensor) -> Tensor:
    """Return all bits set where x is below 0, else none."""
    return x.view(_BITS[x.element_size()]).__irshift__(8 * x.element_size() - 1)


def _double(g: Tensor, x: Tensor, where: Tensor) -> Tensor:
    """Fill x with the gradient to `_halve`'s picture.

    By its bits: g & mask is one share, g ^ share the other. Ten times sooner than choosing by torch.where().
    """
    h, w = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    x[:, :, h:].zero_()
    x[:, :, :, w:].zero_()
    bits, out = g.view(where.dtype), x.view(where.dtype)
    top = 8 * g.element_size() - 1
    right_above, right_below, below = ((where << (top - bit)) >> top for bit in range(3))  # bit to mask
    lower = below.bitwise_and_(bits)
    for i, (share, right) in enumerate(((bits ^ lower, right_above), (lower, right_below))):
        places = out[:, :, i:h:2, 1:w:2]
        torch.bitwise_and(share, right, out=places)
        torch.bitwise_xor(share, places, out=out[:, :, i:h:2, 0:w:2])
    return x


class _Run(torch.autograd.Function):
    """A part of a chain with its gradient to the input, once differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, part: Part) -> Tensor:
        tape: list[Tensor] = []
        for link in part.links:
            x = _forward(link, x, tape)
        ctx.save_for_backward(*tape)
        ctx.part = part
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, None]:
        tape = list(ctx.saved_tensors)
        g = gradient.contiguous(memory_format=_LAST)
        for link in reversed(ctx.part.links):
            # what comes first may belong to the caller, who has not given it away
            g = _backward(link, g, tape, ours=g is not gradient)
        return g, None
