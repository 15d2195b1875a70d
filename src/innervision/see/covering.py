"""A picture covered at many places in turn: in squares where that is sooner, and side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import torch
from torch import Tensor, nn

from innervision.chain import altered
from innervision.listen import evaluating, listen
from innervision.machine import threads
from innervision.network import Network
from innervision.see.folded import folded
from innervision.see.squares import Box, Kept, covered, whole
from innervision.see.target import Target
from innervision.see.tokens import arranged

_MOST = 4  # batches side by side: each holds maps of its own


class Covered:
    """A picture (1, 3, h, w), sRGB 0..1, and what a target answers where it is covered by a grey value."""

    def __init__(self, network: Network, image: Tensor, target: Target, value: float) -> None:
        self.network, self.target = network, target
        given, cover = (each.to(network.device) for each in (image, torch.full_like(image, value)))
        x, self.cover = (network.preprocessing(each).to(network.dtype) for each in (given, cover))
        self.x = x.contiguous(memory_format=torch.channels_last)
        self.module, self._own = network.module, False
        # a GPU waits longer to be given small work than it takes over large
        self._kept = Kept() if x.device.type == "cpu" else None
        self._fragile: set[str] = set()
        fold = None
        if self._kept is not None and x.dtype in (torch.float32, torch.float64):
            fold = folded(network.module, lambda module: self._answer(module, self.x))
        if fold is None:
            self.uncovered = self._answer(self.module, self.x)
        else:
            (self.module, self.uncovered), self._own = fold, True

    def answers(self, windows: Sequence[Box], batch: int) -> tuple[Tensor, Tensor]:
        """Return a classifier's answers to the picture covered by each window, and the scores of all.

        batch: windows looked at together. On a CPU several batches go side by side, each with its share of
        the threads: within pieces of work as small as these, threads wait more than they work.
        """
        batches = [windows[start : start + batch] for start in range(0, len(windows), batch)]
        beside = self._beside(min(_MOST, torch.get_num_threads(), len(batches)))
        seen = _side_by_side(beside, batches) if beside else [self._by(each) for each in batches]
        return torch.cat([answer for answer, _ in seen]), torch.cat([score for _, score in seen])

    def _beside(self, count: int) -> list[Covered]:
        """Return so many of these that can work at one time, each by a copy of the module; else none."""
        free = self._kept is not None and not torch.is_autocast_enabled("cpu")
        if count < 2 or not free or any(map(altered, self.module.modules())):
            return []
        try:
            return [self._twin() for _ in range(count)]
        except Exception:  # not every guest can be copied
            return []

    def _twin(self) -> Covered:
        """Return the same, by a module of its own that shares the weights."""
        weights: dict[int, Any] = {id(t): t for t in self.module.parameters()}
        twin = copy.copy(self)
        twin.module, twin._own = copy.deepcopy(self.module, weights).eval(), True
        twin._kept, twin._fragile = Kept(), set(self._fragile)
        return twin

    def _by(self, windows: Sequence[Box]) -> tuple[Tensor, Tensor]:
        answer = self._in_squares(windows)
        if answer is None:
            x = self.x.repeat(len(windows), 1, 1, 1)
            for one, (left, top, right, bottom) in zip(x, windows, strict=True):
                one[:, top:bottom, left:right] = self.cover[0, :, top:bottom, left:right]
            answer = self._answer(self.module, x)
        score = self.target.score(answer)
        return (answer if answer.ndim == 2 else score[:, None]), score

    def _in_squares(self, windows: Sequence[Box]) -> Tensor | None:
        if self._kept is None:
            return None
        try:
            with torch.inference_mode(False), torch.no_grad():
                squares = covered(self.x, self.cover, windows, self._kept)
            return whole(self._answer(self.module, squares))
        except Exception:  # a guest may do anything; what is wrong with it, the plain way tells
            self._kept = None
            return None

    @torch.inference_mode(False)
    @torch.no_grad()
    def _answer(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return what the target's layer answers to the network's input, run as its modules say."""
        if self._own:
            return self._answer_of(module, x)
        with self.network._lock, evaluating(module):
            return self._answer_of(module, x)

    def _answer_of(self, module: nn.Module, x: Tensor) -> Tensor:
        layer = self.target.layer
        if layer is None:
            return module(x)
        found = listen(module, x, (layer,), self._fragile)[layer]
        return arranged(found, (x.shape[-2], x.shape[-1]))


def _side_by_side(beside: Sequence[Covered], batches: Sequence[Sequence[Box]]) -> list[tuple[Tensor, Tensor]]:
    """Look at batches, each worker at every so many-th; return what was seen, in their order."""
    count, stopped = len(beside), Event()

    def work(number: int) -> list[tuple[Tensor, Tensor]]:
        return [beside[number]._by(each) for each in batches[number::count] if not stopped.is_set()]

    with threads(torch.get_num_threads() // count), ThreadPoolExecutor(count) as pool:
        try:
            parts = list(pool.map(work, range(count)))
        finally:
            stopped.set()  # an interrupted caller does not wait for all of it
    return [parts[number % count][number // count] for number in range(len(batches))]
