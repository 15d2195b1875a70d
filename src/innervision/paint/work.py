"""The work of an evaluation, told from shapes: whether it can be done, multiply-adds, the tensors alive."""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from innervision.images import Size
from innervision.network import Network

if TYPE_CHECKING:
    from innervision.paint.gatys import Painting

SMALL = 64
"""The side in pixels of a picture that reaches every layer of our own nets."""


class Tally(TorchDispatchMode):
    """Counts what torch does: the bytes of tensors alive, `now` and at most (`top`), and multiply-adds.

    formulas: the floating point operations of those of torch's operations that are counted.
    """

    def __init__(self, formulas: Mapping[Any, Callable[..., int]] | None = None) -> None:
        super().__init__()
        self._formulas = formulas or {}
        self.now = self.top = self.multiply_adds = 0
        self._met: dict[int, weakref.ref[Any]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch imports its compiler for it: a second, and 30 MiB

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for each in tree_leaves((args, kwargs)):
            self._meet(each, known=True)  # what comes in unmet was there before
        answer = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.multiply_adds += formula(*args, **(kwargs or {}), out_val=answer) // 2
        for each in tree_leaves(answer):
            self._meet(each)
        return answer

    def _meet(self, value: Any, *, known: bool = False) -> None:
        if not isinstance(value, Tensor):
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, 0 if known else storage.nbytes()
        if key in self._met:
            return

        def gone(_: object) -> None:
            self.now -= size
            del self._met[key]

        self._met[key] = weakref.ref(storage, gone)
        self.now += size
        self.top = max(self.top, self.now)


def multiply_adds(painting: Painting, size: Size) -> int | None:
    """Count those of a forward pass at a size to the deepest layer wanted; None if it needs numbers.

    Back to the picture is as many again: the kernel transposed meets the same positions. Convolutions and
    matrix products count as they are defined, whatever quicker way is taken; Gram matrices are not in it.
    """
    from torch.utils.flop_counter import flop_registry  # imports triton where that is installed

    goals, tally = painting.goals, Tally(flop_registry)
    with contextlib.suppress(Exception):  # a guest may do anything
        double = ghost(painting.network)
        with torch.no_grad(), tally:
            double.features(_empty(size), (*goals.content_layers, *goals.style_layers))
        return tally.multiply_adds
    return None


def held(network: Network, size: Size, layers: Iterable[str]) -> float | None:
    """Return about how many bytes a pixel one evaluation holds, found in no time; None where it cannot be.

    Found on a small picture; where a guest refuses that, at the size itself, computing nothing.
    """
    with contextlib.suppress(Exception):  # a guest may do anything
        return _held(network, torch.zeros(1, 3, SMALL, SMALL, device=network.device), layers)
    with contextlib.suppress(Exception):
        return _held(ghost(network), _empty(size), layers)
    return None


def _held(network: Network, image: Tensor, layers: Iterable[str]) -> float:
    tally = Tally()
    with torch.inference_mode(False), torch.enable_grad():  # the caller may be under either
        image = torch.zeros_like(image).requires_grad_()
        with tally:
            found = network.features(image, layers)
            torch.autograd.backward([answer.sum() for answer in found.values()])
            del found
    return (tally.top - tally.now) / image[0, 0].numel()


def look(network: Network, size: Size, layers: Iterable[str]) -> None:
    """Raise what a network raises for a picture of a size, found with as little work as tells it.

    Our own nets are chains of convolutions: the narrower side decides. A guest may want one size alone. It
    is asked on the device "meta"; one that cannot answer there on a small picture, and at the size itself
    only where it refuses that.
    """
    side, guest = min(*size, SMALL), ":" in network.name
    with torch.no_grad():
        if guest:
            try:
                ghost(network).features(_empty(size), layers)
                return
            except Exception as error:
                # torch says which of its operations need numbers: all else is of the size
                if not isinstance(error, NotImplementedError) and "meta" not in str(error).lower():
                    raise
        try:
            network.features(torch.zeros(1, 3, side, side, device=network.device), layers)
        except Exception:
            if not guest or size == (side, side):
                raise
            network.features(torch.zeros(1, 3, *size, device=network.device), layers)


def ghost(network: Network) -> Network:
    """Return a network's double on torch's device "meta", which knows shapes and computes nothing."""
    doubles: dict[int, Any] = {}  # stand in for the weights, which are not copied
    for tensor in network.module.buffers():
        doubles[id(tensor)] = tensor.to("meta")
    for tensor in network.module.parameters():
        doubles[id(tensor)] = torch.nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
    module = copy.deepcopy(network.module, doubles)
    return _Plain(module, name=network.name, preprocessing=network.preprocessing)


def _empty(size: Size) -> Tensor:
    return torch.empty(1, 3, *size, device="meta")


class _Plain(Network):
    """A network that takes no short cut: modules run as they stand."""

    def _chain(self, wanted: tuple[str, ...], device: torch.device) -> None:
        return None
