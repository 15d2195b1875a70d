"""Receptive fields by arithmetic: a pass through the network is followed, step by step.

The pass is made with tensors without numbers, so that a picture costs nothing, and steps are met however they
are written. What has no fixed window is named instead.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from innervision.network import Network

Pair = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom, the last two excluded: as PIL.Image.crop takes it."""


@dataclass(frozen=True)
class Field:
    """Unit (y, x) of a layer sees `size` pixels down and across, from start + stride · (y, x) on.

    A start below 0 is padding: the first unit's field begins so many pixels outside the picture.
    """

    size: Pair
    stride: Pair
    start: Pair

    def __str__(self) -> str:
        (h, w), (down, across) = self.size, self.stride
        seen = f"{h}" if h == w else f"{h}x{w}"
        return f"{seen} px, stride {down if down == across else f'{down}x{across}'}"


def box(field: Field, y: int, x: int, size: Pair | None = None) -> Box:
    """Return the pixels that the unit in row y and column x sees: left, top, right, bottom.

    size: the picture's (height, width), at whose edges the box ends; without it, it may lie outside.
    """
    top, left = (a + s * i for a, s, i in zip(field.start, field.stride, (y, x), strict=True))
    bottom, right = top + field.size[0], left + field.size[1]
    if size is None:
        return (left, top, right, bottom)
    h, w = size
    return (max(0, left), max(0, top), min(w, right), min(h, bottom))


def receptive_fields(network: Network, size: Pair = (224, 224)) -> dict[str, Field]:
    """Return layer -> receptive field, by r ← r + (k−1)·d·j and j ← j·s at each step of a real pass.

    (Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks".) A kernel k of
    dilation d and stride s makes a field r of stride j wider; padding p puts its start p·j before. Where
    branches meet, the field is what any of them sees. size: the picture's, on which TensorFlow's "SAME"
    padding depends. Left out: layers that are never called, that answer no maps, or that see through a step
    with no fixed window (global pooling, attention, enlargement): `followed` names it, and `by_gradient`
    answers for those. Batch normalisation, by numbers kept from training, acts on each place by itself;
    normalisation by a picture's own numbers over places (group, instance, or layer normalisation of whole
    maps) has no window, and nor has a gate that looks at all places (squeeze and excitation).
    """
    return {name: seen for name, seen in followed(network, size).items() if isinstance(seen, Field)}


def followed(network: Network, size: Pair = (224, 224)) -> dict[str, Field | str]:
    """Return layer -> receptive field, or the first step on its way that has no fixed window, in words.

    The rest is as in `receptive_fields`; layers that are never called, or answer no tensor, are left out.
    """
    try:
        module = copy_with(network.module, lambda p, _: torch.empty_like(p, device="meta")).eval()
    except Exception:  # a guest's own __deepcopy__ may raise anything
        return {}
    x = network.preprocessing(torch.zeros(1, 3, *size)).to("meta", network.dtype)
    follow = _Follow(x)
    found: dict[str, Field | str] = {}

    def hear(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, answer: object) -> None:
            seen = follow.seen(answer)
            if seen is not None:
                found.setdefault(name, seen)

        return hook

    for name, part in module.named_modules(remove_duplicate=False):
        part.register_forward_hook(hear(name))
    try:
        with torch.no_grad(), _Named(follow), follow:
            module(x)
    except Exception:  # what a guest does with values fails on a pass without any: what came before stands
        pass
    follow.forget()
    found.pop("", None)
    return found


# these act on each place by itself
_NAMES = """
    relu hardtanh clamp clamp_min clamp_max threshold leaky_relu elu celu selu gelu silu mish softplus tanh
    sigmoid hardswish hardsigmoid prelu _prelu_kernel add sub rsub mul div neg maximum minimum exp log abs pow
    sqrt square cat clone detach alias lift_fresh _to_copy copy native_dropout dropout where gt ge lt le eq
    native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit cudnn_batch_norm
    _batch_norm_no_update miopen_batch_norm channel_shuffle
"""
_WINDOWLESS = frozenset(_NAMES.split())


_STEPS = {
    "mean": "a mean over places",
    "sum": "a sum over places",
    "amax": "a maximum over places",
    "_adaptive_avg_pool2d": "pooling to a fixed size",
    "adaptive_max_pool2d": "pooling to a fixed size",
    "native_batch_norm": "batch normalisation by the picture's own numbers",
    "_native_batch_norm_legit": "batch normalisation by the picture's own numbers",
    "native_group_norm": "group normalisation",
    "native_layer_norm": "layer normalisation over places",
    "bmm": "attention, or another product of places",
    "mm": "a fully connected layer",
    "addmm": "a fully connected layer",
    "convolution": "a transposed convolution",
    "cat": "a step that puts maps beside each other",
}
_AXES = (2, 3)  # of rows and columns, in (n, c, h, w)


@dataclass(frozen=True)
class _Seen:
    """The field of a tensor's values, and which of its axes count rows and columns."""

    field: Field
    axes: Pair = _AXES


class _Follow(TorchDispatchMode):
    """Notes what every tensor that is made from x sees, or the step after which that is no fixed window."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._kept: dict[int, tuple[Tensor, _Seen | str]] = {}  # tensors too: their ids are not used again
        self.note(x, _Seen(Field((1, 1), (1, 1), (0, 0))))

    def seen(self, answer: object) -> Field | str | None:
        """Return a tensor's field or its step without one; None for what was not made from the picture."""
        noted = self.noted(answer)
        return noted.field if isinstance(noted, _Seen) else noted

    def noted(self, answer: object) -> _Seen | str | None:
        return self._kept.get(id(answer), (None, None))[1]

    def forget(self) -> None:
        """Let go of the tensors."""
        self._kept.clear()

    def note(self, tensor: Tensor, seen: _Seen | str) -> None:
        self._kept[id(tensor)] = (tensor, seen)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ins = [t for t in _tensors((args, kwargs)) if id(t) in self._kept]
        before = [self._kept[id(t)][1] for t in ins]
        outs = func(*args, **(kwargs or {}))
        if ins:
            name = func.overloadpacket.__name__.rstrip("_")
            for out in _tensors(outs):
                seen = _after(name, args, ins, before, out)
                self.note(out, seen or _lost(name, out))
        return outs


_WHOLE = {
    F.linear: "a fully connected layer",
    F.instance_norm: "instance normalisation",
    F.scaled_dot_product_attention: "attention",
    F.multi_head_attention_forward: "attention",
    F.interpolate: "enlargement",
}


def _lost(name: str, out: Tensor) -> str:
    """Return in words the step at which there came to be no window."""
    if name in ("view", "_unsafe_view", "transpose", "permute", "clone"):
        return {2: "flattening", 3: "a layer of tokens"}.get(out.ndim, "a step that moves places")
    return _STEPS.get(name, "enlargement" if "upsample" in name else name)


class _Named(TorchFunctionMode):
    """Tells of functions that come apart into several steps what they are as a whole."""

    def __init__(self, follow: _Follow) -> None:
        super().__init__()
        self._follow = follow

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = [self._follow.noted(t) for t in _tensors((args, kwargs))]
        out = func(*args, **(kwargs or {}))
        seen = next((each for each in before if isinstance(each, _Seen)), None)
        if seen is not None and func is F.linear and 3 not in seen.axes and args[0].ndim == 4:
            self._follow.note(out, seen)  # of channels last: at each place by itself
        elif seen is not None and func in _WHOLE:
            for each in _tensors(out):
                if isinstance(self._follow.noted(each), str):
                    self._follow.note(each, _WHOLE[func])
        return out


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _tensors(part)


def _after(
    name: str, args: Any, ins: list[Tensor], before: list[_Seen | str], out: Tensor
) -> _Seen | str | None:
    """Return what an operation's result sees, made out of tensors that see this; None without a window."""
    lost = next((each for each in before if isinstance(each, str)), None)
    known = [each for each in before if isinstance(each, _Seen)]
    if lost is not None:
        return lost
    x, first, axes = ins[0], known[0].field, known[0].axes
    if out.ndim != 4 or any(each.axes != axes for each in known):
        return None
    match name:
        case "convolution" if not args[6] and axes == _AXES:
            return _Seen(_widened(first, tuple(args[1].shape[2:]), *(pair(args[n]) for n in (3, 4, 5))))
        case "max_pool2d_with_indices" | "max_pool2d" | "avg_pool2d" if axes == _AXES:
            kernel, stride, padding, dilation = _window(args)
            return _Seen(_widened(first, kernel, stride, padding, dilation if name[0] == "m" else (1, 1)))
        case "constant_pad_nd" | "reflection_pad2d" | "replication_pad2d" if axes == _AXES:
            return _Seen(_widened(first, (1, 1), (1, 1), (_at(args[1], 2), args[1][0]), (1, 1)))
        case "permute":
            order = [axis % 4 for axis in args[1]]
            return _Seen(first, (order.index(axes[0]), order.index(axes[1])))
        case name if "batch_norm" in name and any(arg is True for arg in args):
            return None  # by the numbers of the batch itself
        case "native_layer_norm" if not {4 - n for n in range(1, len(args[1]) + 1)} & {*axes}:
            return known[0]  # over the channels of each place
        case name if name in _WINDOWLESS or (
            name in ("view", "_unsafe_view", "expand") and x.shape == out.shape
        ):
            same = all(t.ndim == 4 and all(t.shape[n] == out.shape[n] for n in axes) for t in ins)
            across = name == "cat" and (axes != _AXES or not _along_channels(args))
            both = reduce(_either, (each.field for each in known)) if same and not across else None
            return None if both is None else _Seen(both, axes)
        case _:
            return None


def _widened(field: Field, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Field:
    steps = zip(field.size, field.stride, field.start, kernel, stride, padding, dilation, strict=True)
    new = [(r + (k - 1) * d * j, j * s, a - p * j) for r, j, a, k, s, p, d in steps]
    return Field(*((down, across) for down, across in zip(*new, strict=True)))


def _either(a: Field | None, b: Field | None) -> Field | None:
    """Return the field of what sees all that either sees."""
    if a is None or b is None or a.stride != b.stride:
        return None
    start = (min(a.start[0], b.start[0]), min(a.start[1], b.start[1]))
    ends = [max(f.start[n] + f.size[n] for f in (a, b)) for n in (0, 1)]
    return Field((ends[0] - start[0], ends[1] - start[1]), a.stride, start)


def _window(args: Any) -> tuple[Pair, Pair, Pair, Pair]:
    """Return kernel, stride, padding and dilation of a pooling's arguments (x, kernel, stride, …)."""
    kernel = pair(args[1])
    stride = pair(args[2]) if len(args) > 2 and args[2] not in ([], ()) else kernel
    padding, dilation = (pair(args[n]) if len(args) > n else (n - 3, n - 3) for n in (3, 4))
    return kernel, stride, padding, dilation if not isinstance(dilation[0], bool) else (1, 1)


def _along_channels(args: Any) -> bool:
    return len(args) > 1 and args[1] in (1, -3)


def _at(pads: Any, place: int) -> int:
    return pads[place] if len(pads) > place else 0


def pair(value: Any) -> Pair:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (values[0], values[-1])


def copy_with(module: nn.Module, stand_in: Callable[[Tensor, str], Tensor]) -> nn.Module:
    """Copy a module with other tensors in the place of its own, which are not copied."""
    named: Iterable[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    memo: dict[int, Any] = {}
    for name, tensor in named:
        new = stand_in(tensor.detach(), name)
        memo[id(tensor)] = nn.Parameter(new, requires_grad=False) if isinstance(tensor, nn.Parameter) else new
    copied = copy.deepcopy(module, memo)
    for part in copied.modules():  # a caller's hooks are not ours to call
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            hooks.clear()
    return copied
