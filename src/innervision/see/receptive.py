"""Receptive fields: which pixels a unit can see, worked out twice.

`receptive_fields` follows a pass through the network and does the arithmetic of each step; no number of the
picture is computed. `by_gradient` makes every weight positive and looks where a unit's gradient to the
picture is not 0. The first is exact wherever it gives an answer; the second answers for any module.
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

from innervision.errors import Invalid
from innervision.listen import listen
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
    with no fixed window (global pooling, attention, enlargement): `by_gradient` answers for those.
    Normalisation by a map's own statistics (group, layer, instance) counts as a step without a window.
    """
    try:
        module = _copy(network.module, lambda p, _: torch.empty_like(p, device="meta")).eval()
    except Exception:  # a guest's own __deepcopy__ may raise anything
        return {}
    x = network.preprocessing(torch.zeros(1, 3, *size)).to("meta", network.dtype)
    follow = _Follow(x)
    found: dict[str, Field] = {}

    def hear(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, answer: object) -> None:
            field = follow.field(answer)
            if field is not None:
                found.setdefault(name, field)

        return hook

    for name, part in module.named_modules(remove_duplicate=False):
        part.register_forward_hook(hear(name))
    try:
        with torch.no_grad(), follow:
            module(x)
    except Exception:  # what a guest does with values fails on a pass without any: what came before stands
        pass
    found.pop("", None)
    return found


# these act on each place by itself
_NAMES = """
    relu hardtanh clamp clamp_min clamp_max threshold leaky_relu elu celu selu gelu silu mish softplus tanh
    sigmoid hardswish hardsigmoid prelu _prelu_kernel add sub rsub mul div neg maximum minimum exp log abs pow
    sqrt square cat clone detach alias lift_fresh _to_copy copy native_dropout dropout where gt ge lt le eq
    native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit cudnn_batch_norm
    _batch_norm_with_update _batch_norm_no_update miopen_batch_norm channel_shuffle
"""
_WINDOWLESS = frozenset(_NAMES.split())


class _Follow(TorchDispatchMode):
    """Notes the field of every tensor that is made from x; None where a step has no fixed window."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self._kept: dict[int, tuple[Tensor, Field | None]] = {}  # tensors too: their ids are not used again
        self._note(x, Field((1, 1), (1, 1), (0, 0)))

    def field(self, answer: object) -> Field | None:
        """Return a tensor's field, if it has one."""
        return self._kept.get(id(answer), (None, None))[1]

    def _note(self, tensor: Tensor, field: Field | None) -> None:
        self._kept[id(tensor)] = (tensor, field)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        ins = [t for t in _tensors((args, kwargs)) if id(t) in self._kept]
        fields = [self._kept[id(t)][1] for t in ins]
        outs = func(*args, **(kwargs or {}))
        if ins:
            for out in _tensors(outs):
                self._note(out, _after(func, args, ins, fields, out))
        return outs


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict):
        yield from _tensors(tuple(tree.values()))
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _tensors(part)


def _after(func: Any, args: Any, ins: list[Tensor], fields: list[Field | None], out: Tensor) -> Field | None:
    """Return the field of what an operation makes out of tensors with these."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) or out.ndim != 4:
        return None
    x, first = ins[0], known[0]
    match func.overloadpacket.__name__.rstrip("_"):
        case "convolution" if not args[6]:
            return _widened(first, tuple(args[1].shape[2:]), *(_pair(args[n]) for n in (3, 4, 5)))
        case "max_pool2d_with_indices" | "max_pool2d" | "avg_pool2d" as name:
            kernel, stride, padding, dilation = _window(args)
            return _widened(first, kernel, stride, padding, dilation if name[0] == "m" else (1, 1))
        case "constant_pad_nd" | "reflection_pad2d" | "replication_pad2d":
            return _widened(first, (1, 1), (1, 1), (_at(args[1], 2), args[1][0]), (1, 1))
        case name if name in _WINDOWLESS or (
            name in ("view", "_unsafe_view", "expand") and x.shape == out.shape
        ):
            same = all(t.ndim == 4 and t.shape[2:] == out.shape[2:] for t in ins)
            return reduce(_either, known) if same and (name != "cat" or _along_channels(args)) else None
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
    kernel = _pair(args[1])
    stride = _pair(args[2]) if len(args) > 2 and args[2] not in ([], ()) else kernel
    padding, dilation = (_pair(args[n]) if len(args) > n else (n - 3, n - 3) for n in (3, 4))
    return kernel, stride, padding, dilation if not isinstance(dilation[0], bool) else (1, 1)


def _along_channels(args: Any) -> bool:
    return len(args) > 1 and args[1] in (1, -3)


def _at(pads: Any, place: int) -> int:
    return pads[place] if len(pads) > place else 0


def _pair(value: Any) -> Pair:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (values[0], values[-1])


def by_gradient(network: Network, layer: str, *, start: int = 64, most: int = 1024) -> Field:
    """Return a layer's receptive field by where the gradient of its middle unit is not 0.

    In float64 on a copy with positive weights, so that nothing cancels out; a max pooling passes gradient to
    its whole window, and normalisation by a map's own statistics is left out. The picture grows from `start`
    to `most` pixels until the field does not touch its edges; a field that fills even that is what a global
    step sees: the picture whole, stride 0. Raises Invalid for a layer that answers no maps, or none at all.
    """
    (name,) = network.check((layer,))
    try:
        module = _copy(network.module, _positive).eval()
    except Exception as error:
        raise Invalid(
            f"{network.name} cannot be copied, so its receptive fields stay unknown: {error}"
        ) from error
    side, error = start, None
    while side <= most:
        try:
            middle, (down, across), (y, x), corner = _supports(network, module, name, side)
        except RuntimeError as small:  # a kernel larger than the map
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


def _supports(network: Network, module: nn.Module, layer: str, side: int) -> tuple[Box, Pair, Pair, Box]:
    """Return the middle unit's field, the shift to the next units', the unit, and the first one's field."""
    image = torch.zeros(1, 3, side, side)
    with torch.inference_mode(False), torch.enable_grad():
        # tiny, so that no ReLU6 is ever at its end
        x = torch.full_like(network.preprocessing(image), 1e-6, dtype=torch.float64).requires_grad_()
        with _Linear():
            answer = listen(module, x, (layer,), set())[layer]
        if answer.ndim != 4:
            raise Invalid(f"layer {layer!r} answers {tuple(answer.shape)}: no map, so no receptive field")
        whole = answer[0].sum(0)
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
    """Lets every unit of a window through a max pooling, and passes over normalisation by statistics."""

    _POOLS = (torch.max_pool2d, F.max_pool2d, F.max_pool2d_with_indices)
    _NORMS = (F.group_norm, F.layer_norm, F.instance_norm, torch.group_norm, torch.layer_norm)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self._NORMS:
            return args[0]
        if func in self._POOLS:
            return _summed(*args, **{k: v for k, v in kwargs.items() if k != "return_indices"})
        return func(*args, **kwargs)


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
    size, pad, apart = _pair(kernel_size), _pair(padding), _pair(dilation)
    step = size if stride is None or stride in ([], ()) else _pair(stride)
    # what an incomplete last window lacks is 0
    more = [s - 1 if ceil_mode else 0 for s in step]
    x = F.pad(input, (pad[1], pad[1] + more[1], pad[0], pad[0] + more[0]))
    c = x.shape[1]
    kernel = torch.full((c, 1, *size), 1 / (size[0] * size[1]), dtype=x.dtype)
    return F.conv2d(x, kernel, stride=step, dilation=apart, groups=c)


def _copy(module: nn.Module, stand_in: Callable[[Tensor, str], Tensor]) -> nn.Module:
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


def _positive(tensor: Tensor, name: str) -> Tensor:
    """Return 1 over the fan-in for weights, 1 for scales, 0 for biases and means; of one number's memory."""
    if not tensor.is_floating_point():
        return tensor.cpu().clone()
    last = name.rpartition(".")[2]
    value = (
        0.0 if last in ("bias", "running_mean") else 1.0 / max(1, tensor[0].numel() if tensor.ndim > 1 else 1)
    )
    return torch.full((), value, dtype=torch.float64).expand(tensor.shape)
