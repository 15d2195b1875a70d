"""A network whose ReLUs let a gradient through where a whole picture has closed them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from innervision.network import Network
from innervision.see.rules import by_its_modules
from innervision.see.tokens import Arranged


class Opened(Arranged):
    """A network that, while it is `opened`, gives dead units a gradient to wake up by.

    At a ReLU that passes no gradient at all to one of the pictures, what comes down is passed on where it
    would raise the ReLU's input (Lucid's redirected ReLU gradient, Olah et al. 2017). A ReLU is met however
    it was written, as a node of autograd's graph; nothing of the module is replaced.
    """

    def __init__(self, module: nn.Module, *, like: Network) -> None:
        super().__init__(module, like=like)
        self.opened = False
        self.dead = False
        """Whether the latest way back met a picture that needed it."""

    def answers(self, image: Tensor, layers: Iterable[str]) -> Mapping[str, Tensor]:
        if not self.opened:
            return super().answers(image, layers)
        self.dead = False
        with self._lock, by_its_modules(self):
            found = super().answers(image, layers)
        for node in _rectifiers(found.values()):
            node.register_hook(self._let_through)
        return found

    def _let_through(self, passed: tuple[Tensor | None, ...], down: tuple[Tensor | None, ...]) -> Any:
        through, above = passed[0], down[0]
        if through is None or above is None:
            return None
        dead = ~through.flatten(1).any(1)
        if not bool(dead.any()):
            return None
        self.dead = True
        # of a loss: what is below 0 would raise the input, and all of it stands before closed ReLUs
        opened = above.clamp(max=0) * dead.view(-1, *[1] * (above.ndim - 1)).to(above)
        return (through + opened, *passed[1:])


def _rectifiers(answers: Iterable[Tensor]) -> Iterator[Any]:
    """Yield the nodes of the answers' graphs that are ReLUs or ReLU6, each once."""
    left = [answer.grad_fn for answer in answers]
    met = set(left)
    while left:
        node = left.pop()
        if node is None:
            continue
        name = node.name()
        if name.startswith("ReluBackward") or (
            name.startswith("HardtanhBackward") and getattr(node, "_saved_min_val", None) == 0
        ):
            yield node
        for before, _ in node.next_functions:
            if before not in met:
                met.add(before)
                left.append(before)
