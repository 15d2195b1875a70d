"""Layers of tokens as maps: which token of a transformer's layer stands where in the picture.

A vision transformer's layers answer (n, tokens, c), a windowed one's often (n, h, w, c). Both are arranged
as maps (n, c, h, w) by what a picture of a known size can have been cut into: patches of p pixels make a grid
of ⌊H/p⌋ x ⌊W/p⌋ (or rounded up, where the edge was padded). Tokens in front of the grid are set apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from innervision.chain import Answers
from innervision.errors import Invalid
from innervision.network import Network

APART = (0, 1, 2, 5)
"""How many tokens may stand in front of the grid: none; a class token; that and one of distillation; that and
four registers."""

Size = tuple[int, int]


def as_maps(answer: Tensor, size: Size) -> Tensor | None:
    """Return a layer's answer to pictures of (height, width) as maps (n, c, h, w), or None if it has none.

    (n, c, h, w): as it is. (n, h, w, c): turned, which it is taken for only where h x w is a grid of the
    picture's patches and the last two sides are not. (n, tokens, c): the grid, without what is set apart.
    A view of the answer, with its gradient.
    """
    if answer.ndim == 4:
        _, one, two, three = answer.shape
        turned = _cut(size, (one, two)) and not _cut(size, (two, three))
        return answer.permute(0, 3, 1, 2) if turned else answer
    found = grid(answer.shape[1], size) if answer.ndim == 3 else None
    if found is None:
        return None
    apart, (h, w) = found
    return answer[:, apart:].transpose(1, 2).unflatten(2, (h, w))


class Arranged(Network):
    """A network of the same module whose layers of tokens answer maps, for what asks for channels and places.

    Layers that answer maps, and tokens on no grid, answer as they do.
    """

    def __init__(self, module: nn.Module, *, like: Network) -> None:
        super().__init__(
            module,
            name=like.name,
            preprocessing=like.preprocessing,
            classes=like.classes,
            input_size=like.input_size,
        )
        self._lock = like._lock  # one module, one at a time
        if module is like.module:
            self._kernels, self._fragile = like._kernels, like._fragile

    def answers(self, image: Tensor, layers: Iterable[str]) -> Mapping[str, Tensor]:
        found = super().answers(image, layers)
        if isinstance(found, Answers):  # of a chain of convolutions, each when it is asked for: maps all
            return found
        return {name: arranged(each, (image.shape[-2], image.shape[-1])) for name, each in found.items()}


def arranged(answer: Tensor, size: Size) -> Tensor:
    """Return the same; the answer as it is where it has no maps."""
    maps = as_maps(answer, size)
    return answer if maps is None else maps


def maps_of(layer: str, answer: Tensor, size: Size, wanted: str) -> Tensor:
    """Return its maps; raise Invalid, saying what is wanted, for a layer that answers no maps."""
    maps = as_maps(answer, size)
    if maps is None:
        tokens = ""
        if answer.ndim == 3:
            tokens = (
                f"; its {answer.shape[1]} tokens are no grid of a picture of {size[0]}x{size[1]}, nor with "
                f"{', '.join(map(str, APART[1:-1]))} or {APART[-1]} of them set apart"
            )
        raise Invalid(f"layer {layer!r} answers {tuple(answer.shape)}: {wanted}{tokens}")
    return maps


def set_apart(answer: Tensor, size: Size) -> int:
    """Return how many tokens of a layer's answer stand in front of its grid."""
    found = grid(answer.shape[1], size) if answer.ndim == 3 else None
    return 0 if found is None else found[0]


def grid(tokens: int, size: Size) -> tuple[int, Size] | None:
    """Return how many tokens stand apart, as few as can be, and the grid's (h, w); None if it is none."""
    for apart in APART:
        for h in range(1, tokens - apart + 1):
            w, rest = divmod(tokens - apart, h)
            if not rest and h * w > 1 and _cut(size, (h, w)):
                return apart, (h, w)
    return None


def _cut(size: Size, sides: Size) -> bool:
    """Tell whether square patches cut a picture into so many rows and columns, the rest cut off or padded."""
    tall, wide = size
    grids = ((tall // p, wide // p) for p in range(1, max(size) + 1))
    padded = ((-(-tall // p), -(-wide // p)) for p in range(1, max(size) + 1))
    return sides in grids or sides in padded
