"""Several processes that train one network: each one's share of the batches, and what they agree on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from innervision.core.fit import Batch
from innervision.learn.batches import Batches


class Shares:
    """The batches of an epoch, of each this process's share."""

    def __init__(self, batches: Batches, rank: int, world: int) -> None:
        self._batches, self._rank, self._world = batches, rank, world

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, start: int = 0) -> Iterable[Batch]:
        return self._batches.epoch(number, start, self._rank, self._world)


def gathered(sums: Tensor, world: int) -> Tensor:
    """Return the sums over all processes."""
    if world > 1:
        sums = sums.clone()
        dist.all_reduce(sums)
    return sums


@torch.no_grad()
def agree(module: nn.Module, world: int) -> None:
    """Give each process the mean of all in batch normalisation's statistics, which each keeps alone."""
    if world > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= world
