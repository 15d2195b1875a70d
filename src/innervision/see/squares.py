"""Pictures that differ from one in a square each, carried through a network as those squares alone.

What a square changes of a layer is the square grown by the receptive field. `Squares` stands for a batch of
pictures, or for a layer's maps of them, but holds one picture's maps, kept from batch to batch, and of each
other its changed square. Convolutions and poolings compute the square that they change, from the one before
and what lies around it in the kept maps; what acts on each place by itself acts on the square. Any other
operation is given whole maps, and what comes of it is whole: so a module of any kind answers as it would to
the pictures themselves, but for rounding. A square that has grown over most of a map is made whole too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Pair = tuple[int, int]
Box = tuple[int, int, int, int]
"""Left, top, right and bottom, the last two excluded."""

_WHOLE = 0.7  # of a map: squares that cover more are no sooner than whole maps

# these act on each place by itself
_NAMES = """
    relu hardtanh clamp clamp_min clamp_max threshold leaky_relu elu celu gelu silu mish softplus tanh sigmoid
    hardswish hardsigmoid _prelu_kernel add sub rsub mul div neg maximum minimum exp log abs pow sqrt square
    clone _to_copy
"""
_PLACEWISE = frozenset(_NAMES.split())
_NORMAL = frozenset(("native_batch_norm", "_native_batch_norm_legit_no_training"))  # by known statistics


@dataclass(eq=False)
class Kept:
    """What each step of a pass made of the uncovered picture: later batches need not make it again."""

    steps: list[tuple[list[Any], Any]] = field(default_factory=list)
    at: int = 0

    def step(self, func: Any, given: list[Any], compute: Callable[[], Any]) -> Any:
        """Return what this step made of the same things before, else make it now."""
        asked = [func, *given]
        if self.at < len(self.steps):
            before, made = self.steps[self.at]
            if len(before) == len(asked) and all(map(_same, before, asked)):
                self.at += 1
                return made
            del self.steps[self.at :]  # a pass that takes another way
        made = compute()
        if isinstance(made, Tensor) and made.ndim == 4:
            made = made.contiguous(memory_format=torch.channels_last)  # as squares are cut out of it
        self.steps.append((asked, made))
        self.at += 1
        return made


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b)


@dataclass(frozen=True, eq=False)
class Part:
    """One picture's maps, and of others the squares in which they differ from it."""

    base: Tensor  # (1, c, h, w)
    squares: Tensor  # (n, c, h', w')
    tops: list[int]
    lefts: list[int]

    @property
    def size(self) -> Pair:
        return (self.squares.shape[2], self.squares.shape[3])

    def cut(self, tops: Sequence[int], lefts: Sequence[int], size: Pair, beyond: float = 0.0) -> Tensor:
        """Return what is seen through windows of one size, (n, c, *size); beyond: of what lies outside."""
        (n, c), (h, w) = self.squares.shape[:2], self.base.shape[2:]
        place = _spots(tops, lefts, size)
        down, across = place[0].clamp(0, h - 1), place[1].clamp(0, w - 1)
        sheet = self.base[0].permute(1, 2, 0).reshape(h * w, c)
        out = sheet.index_select(0, (down[:, :, None] * w + across[:, None]).flatten()).view(n, *size, c)
        for seen, spots, side in ((out, place[0], h), (out.transpose(1, 2), place[1], w)):
            if int(spots.min()) < 0 or int(spots.max()) >= side:
                seen[(spots < 0) | (spots >= side)] = beyond
        at = [y - top for y, top in zip(self.tops, tops, strict=True)]
        to = [x - left for x, left in zip(self.lefts, lefts, strict=True)]
        down, across = _spots(at, to, self.size)
        own = self.squares.permute(0, 2, 3, 1).reshape(-1, c)
        if own.numel():
            first = torch.arange(n)[:, None] * size[0]
            places = ((first + down)[:, :, None] * size[1] + across[:, None]).flatten()
            if (
                min(at) < 0
                or min(to) < 0
                or max(at) + self.size[0] > size[0]
                or max(to) + self.size[1] > size[1]
            ):
                inside = [(s >= 0) & (s < n) for s, n in ((down, size[0]), (across, size[1]))]
                shown = (inside[0][:, :, None] & inside[1][:, None]).flatten()
                places, own = places[shown], own[shown]
            out.view(-1, c).index_copy_(0, places, own)
        return out.permute(0, 3, 1, 2)

    def whole(self) -> Tensor:
        """Return all of the pictures' maps, (n, c, h, w)."""
        h, w = self.base.shape[2:]
        nowhere = [0] * len(self.squares)
        return self.cut(nowhere, nowhere, (h, w))


def _spots(tops: Sequence[int], lefts: Sequence[int], size: Pair) -> tuple[Tensor, Tensor]:
    """Return which rows (n, h') and columns (n, w') windows of one size show."""
    begins = torch.tensor([*tops, *lefts]).view(2, -1, 1)
    return begins[0] + torch.arange(size[0]), begins[1] + torch.arange(size[1])


def _lay(window: Tensor, top: int, left: int, sheet: Tensor, y: int, x: int) -> None:
    """Copy what a window at (top, left) shows of a sheet whose corner is at (y, x)."""
    low, high = max(top, y), min(top + window.shape[1], y + sheet.shape[1])
    first, last = max(left, x), min(left + window.shape[2], x + sheet.shape[2])
    if low < high and first < last:
        seen = sheet[:, low - y : high - y, first - x : last - x]
        window[:, low - top : high - top, first - left : last - left] = seen


class Squares(Tensor):
    """A batch of pictures, or of maps of them: in part (`Part`), or whole, and then for good.

    `part` and `maps` are both None of what is not known: where a pooling found its largest, which hardly any
    network asks for.
    """

    part: Part | None
    maps: Tensor | None
    kept: Kept

    # operations alone are taken over
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        held = "whole" if self.part is None else f"in squares of {tuple(self.part.squares.shape[2:])}"
        return f"Squares({tuple(self.shape)}, {held})"

    @classmethod
    def __torch_dispatch__(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        found = [t for t in _leaves(args, kwargs) if isinstance(t, Squares)]
        parts = [t.part for t in found if t.part is not None]
        made = _in_part(func, args, kwargs, found, parts) if len(parts) == len(found) else None
        if made is None:
            return _in_whole(func, args, kwargs)
        if isinstance(made, Squares) and made.maps is not None and not func._schema.is_mutable:
            return made.maps  # as plain from here on as the pictures themselves
        return made


def _squares(
    shape: Sequence[int], like: Tensor, kept: Kept, *, part: Part | None = None, maps: Tensor | None = None
) -> Squares:
    made: Any = Tensor._make_wrapper_subclass(Squares, tuple(shape), dtype=like.dtype, device=like.device)
    made.part, made.maps, made.kept = part, maps, kept
    return made


def covered(x: Tensor, cover: Tensor, boxes: Sequence[Box], kept: Kept) -> Squares:
    """Return a network's input x (1, c, h, w), covered by another of its size in each of some boxes.

    kept: of the same x; its pass begins anew.
    """
    kept.at = 0
    h, w = x.shape[2:]
    size = (max(b - t for _, t, _, b in boxes), max(r - l for l, _, r, _ in boxes))
    tops, lefts = [min(t, h - size[0]) for _, t, _, _ in boxes], [min(l, w - size[1]) for l, *_ in boxes]
    plain = Part(x, x.new_empty(len(boxes), x.shape[1], 0, 0), tops, lefts)
    squares = plain.cut(tops, lefts, size)
    for square, top, left, (l, t, r, b) in zip(squares, tops, lefts, boxes, strict=True):
        _lay(square, top, left, cover[0, :, t:b, l:r], t, l)
    return _made(Part(x, squares, tops, lefts), kept)


def whole(answer: Tensor) -> Tensor:
    """Return a plain tensor of what may be squares."""
    if not isinstance(answer, Squares):
        return answer
    if answer.part is not None:
        answer.maps, answer.part = answer.part.whole(), None
    if answer.maps is None:
        raise NotImplementedError("where a pooling found its largest is not followed")
    return answer.maps


def _base(squares: Squares) -> Tensor:
    assert squares.part is not None
    return squares.part.base


def _made(part: Part, kept: Kept) -> Squares:
    shape = (len(part.squares), *part.base.shape[1:])
    if part.squares.shape[2:].numel() >= _WHOLE * part.base.shape[2:].numel():
        return _squares(shape, part.base, kept, maps=part.whole())
    return _squares(shape, part.base, kept, part=part)


def _leaves(args: Any, kwargs: Any) -> list[Any]:
    """Return what an operation is given, that of lists one by one (torch's own way takes longer by far)."""
    found: list[Any] = []
    for given in (*args, *kwargs.values()):
        found.extend(given) if isinstance(given, list | tuple) else found.append(given)
    return found


def _with(of: Callable[[Squares], Tensor], args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what an operation is given, with what is made of each square in its place."""

    def one(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [of(t) if isinstance(t, Squares) else t for t in given]
        return of(given) if isinstance(given, Squares) else given

    return tuple(map(one, args)), {name: one(given) for name, given in kwargs.items()}


def _in_whole(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on whole maps: what comes of it are plain tensors, but what it writes into."""
    mine, named = _with(whole, args, kwargs)
    out = func(*mine, **named)
    if func._schema.is_mutable:
        # what is written into must be ours, and as it was declared: else the plain way is the only one
        given = args[0] if args else None
        if not isinstance(given, Squares) or out is not given.maps or out.shape != given.shape:
            raise NotImplementedError(f"{func} writes where squares are not followed")
        return given
    return out


def _in_part(func: Any, args: Any, kwargs: Any, found: list[Squares], parts: list[Part]) -> Any:
    """Do an operation on the squares; None where it wants whole maps."""
    name = func.overloadpacket.__name__
    given = _arguments(func, args, kwargs)
    first, kept, part = found[0], found[0].kept, parts[0]

    def base() -> Any:
        mine, named = _with(_base, args, kwargs)
        if func._schema.is_mutable:  # in place of a copy: earlier steps' maps stay
            mine = (mine[0].clone(), *mine[1:])
        asked = [_base(t) if isinstance(t, Squares) else t for t in _leaves(args, kwargs)]
        return kept.step(func, asked, lambda: func(*mine, **named))

    match name.rstrip("_"):
        case "convolution" if len(found) == 1 and given["input"] is first and not given["transposed"]:
            weight, bias, groups = given["weight"], given["bias"], given["groups"]
            slide = _Slide(tuple(weight.shape[2:]), *(given[n] for n in ("stride", "padding", "dilation")))

            def convolve(x: Tensor) -> Tensor:
                return func(x, weight, bias, slide.stride, (0, 0), slide.dilation, False, (0, 0), groups)

            return _made(slide.over(part, base(), 0.0, convolve), kept)
        case "max_pool2d_with_indices":
            slide = _Slide(*(given[n] for n in ("kernel_size", "stride", "padding", "dilation")))

            def largest(x: Tensor) -> Tensor:
                return func(x, slide.kernel, slide.stride, (0, 0), slide.dilation)[0]

            maps, where = base()
            pooled = _made(slide.over(part, maps, float("-inf"), largest), kept)
            return pooled, _squares(pooled.shape, where, kept)
        case "avg_pool2d" if not given["ceil_mode"] and given["divisor_override"] is None:
            slide = _Slide(given["kernel_size"], given["stride"], given["padding"], 1)
            if any(slide.padding) and not given["count_include_pad"]:
                return None

            def mean(x: Tensor) -> Tensor:
                return func(x, slide.kernel, slide.stride)

            return _made(slide.over(part, base(), 0.0, mean), kept)
        case "constant_pad_nd" if len(given["pad"]) <= 4 and min(given["pad"]) >= 0:
            left, _, top, _ = (*given["pad"], 0, 0)[:4]
            tops, lefts = [y + top for y in part.tops], [x + left for x in part.lefts]
            return _made(Part(base(), part.squares, tops, lefts), kept)
        case "cat" if given["dim"] in (1, -3) and _alike(args, found):
            return _together(func, args, kwargs, parts, base(), kept)
        case norm if norm in _NORMAL and not given.get("training") and given["input"] is first:
            return _together(func, args, kwargs, parts, base(), kept)
        case plain if plain in _PLACEWISE and _alike(args, found):
            return _together(func, args, kwargs, parts, base(), kept)
        case _:
            return None


def _arguments(func: Any, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return an operation's arguments by name, with its defaults."""
    names = func._schema.arguments
    return {
        a.name: args[n] if n < len(args) else kwargs.get(a.name, a.default_value) for n, a in enumerate(names)
    }


def _alike(args: Any, found: list[Squares]) -> bool:
    """Tell whether squares are of maps of one size, and all else is the same at each place."""
    size = found[0].shape[2:]
    others = [t for t in _leaves(args, {}) if isinstance(t, Tensor) and not isinstance(t, Squares)]
    return all(t.shape[2:] == size for t in found) and all(_even(t) for t in others)


def _even(t: Tensor) -> bool:
    """Tell whether a constant is a number, or one a channel: (1, c, 1, 1)."""
    return t.numel() == 1 or (
        t.ndim in (3, 4) and t.shape[-2:] == (1, 1) and (t.ndim == 3 or t.shape[0] == 1)
    )


def _together(func: Any, args: Any, kwargs: Any, parts: list[Part], base: Any, kept: Kept) -> Any:
    """Do what acts on each place by itself, on squares that hold all that any of them changes."""
    first = parts[0]
    tops, lefts, size = first.tops, first.lefts, first.size
    if any((p.tops, p.lefts, p.size) != (tops, lefts, size) for p in parts):
        h, w = first.base.shape[2:]
        tops, down = _reach([(p.tops, p.size[0]) for p in parts], h)
        lefts, across = _reach([(p.lefts, p.size[1]) for p in parts], w)
        size = (down, across)

    def square(t: Squares) -> Tensor:
        assert t.part is not None
        same = (t.part.tops, t.part.lefts, t.part.size) == (tops, lefts, size)
        return t.part.squares if same else t.part.cut(tops, lefts, size)

    mine, named = _with(square, args, kwargs)
    aside = _aside(func)
    if func._schema.is_mutable and aside is func:
        mine = (mine[0].clone(), *mine[1:])
    out = aside(*mine, **named)
    maps, squares = (base[0], out[0]) if isinstance(out, tuple) else (base, out)
    made = _made(Part(maps, squares, tops, lefts), kept)
    if func._schema.is_mutable:
        target = args[0]
        if not isinstance(target, Squares) or made.shape != target.shape:
            raise NotImplementedError(f"{func} writes where squares are not followed")
        target.part, target.maps = made.part, made.maps
        return target
    # of a normalisation, the statistics it would have used: empty, as they are the weights' own
    return (made, *out[1:]) if isinstance(out, tuple) else made


def _aside(func: Any) -> Any:
    """Return an operation in place as one that makes something new, where there is such."""
    if not func._schema.is_mutable:
        return func
    packet = getattr(torch.ops.aten, func.overloadpacket.__name__.rstrip("_"), None)
    return getattr(packet, func._overloadname, func)


def _reach(spans: list[tuple[list[int], int]], side: int) -> tuple[list[int], int]:
    """Return where windows of one length begin, and their length, that hold all of some spans."""
    begins = [min(each) for each in zip(*(starts for starts, _ in spans), strict=True)]
    ends = [
        max(each) for each in zip(*([s + length for s in starts] for starts, length in spans), strict=True)
    ]
    return _within(begins, ends, side)


def _within(begins: Sequence[int], ends: Sequence[int], side: int) -> tuple[list[int], int]:
    """Return where windows of one length begin within 0 … side that hold each begin … end, and the length."""
    length = min(side, max(1, max(end - begin for begin, end in zip(begins, ends, strict=True))))
    return [max(0, min(begin, side - length)) for begin in begins], length


class _Slide:
    """A kernel that slides over maps."""

    def __init__(self, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
        self.kernel, self.padding, self.dilation = _pair(kernel), _pair(padding), _pair(dilation)
        self.stride = _pair(stride) if stride not in ([], (), None) else self.kernel

    def over(self, part: Part, base: Tensor, beyond: float, run: Callable[[Tensor], Tensor]) -> Part:
        """Return the part that the kernel makes of a part; base: what it makes of the base. run: unpadded."""
        if self.kernel == self.stride == (1, 1) and self.padding == (0, 0):
            return Part(base, run(part.squares), part.tops, part.lefts)
        starts, lengths, windows, sizes = [], [], [], []
        for axis, begins in ((0, part.tops), (1, part.lefts)):
            k, s, p = (self.kernel[axis] - 1) * self.dilation[axis] + 1, self.stride[axis], self.padding[axis]
            last = part.squares.shape[2 + axis] - 1
            side = base.shape[2 + axis]
            # answer o sees the inputs o·s − p … o·s − p + k − 1
            low = [max(0, -((k - 1 - p - b) // s)) for b in begins]
            high = [min(side, (b + last + p) // s + 1) for b in begins]
            start, length = _within(low, high, side)
            starts.append(start)
            lengths.append(length)
            windows.append([o * s - p for o in start])
            sizes.append((length - 1) * s + k)
        seen = part.cut(windows[0], windows[1], (sizes[0], sizes[1]), beyond)
        return Part(base, run(seen), starts[0], starts[1])


def _pair(value: Any) -> Pair:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return (values[0], values[-1])
