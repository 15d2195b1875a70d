"""Batches of a data set in an order that is drawn anew each epoch, and can be gone on with from any place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.learn.augment import Augmentation, Draw, draw, mixed, mixed_labels, moved
from innervision.learn.dataset import DataSet
from innervision.learn.moving import one_hot, sent, shrunk, unit


class Batches:
    """A data set's batches, epoch by epoch: shuffled, augmented, as floats in 0..1.

    All that is drawn comes from (seed, epoch, batch) alone. So (epoch, batch) is a complete position: a run
    that begins there, and each of several processes that share a batch, sees what an unbroken single run
    sees. drop_last leaves out the rest that fills no batch; with shuffle off, pictures come in their order.
    small: a side in pixels, and for how many epochs from the first on pictures are shrunk to it.
    Raises Invalid for a batch larger than the set.
    """

    def __init__(
        self,
        data: DataSet,
        size: int,
        augmentation: Augmentation | None = None,
        *,
        seed: int = 0,
        classes: int | None = None,
        drop_last: bool = True,
        shuffle: bool = True,
        small: tuple[int, float] | None = None,
    ) -> None:
        if size < 1:
            raise Invalid(f"a batch of {size} is none: give 1 or more")
        if drop_last and size > len(data):
            raise Invalid(
                f"a batch of {size} is larger than the set: {data.name} has {len(data)} pictures; "
                f"choose a batch of {len(data)} or fewer"
            )
        self.data, self.size, self.seed = data, size, seed
        self.augmentation = augmentation or Augmentation()
        self.classes = len(data.classes) if classes is None else classes
        self.drop_last, self.shuffle, self.small = drop_last, shuffle, small
        # the alternating flip's coin of each picture: the same through all epochs, whatever the batch
        self._coins = torch.rand(len(data), generator=_generator(seed, "coins")) < 0.5

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return len(self.data) // self.size if self.drop_last else -(-len(self.data) // self.size)

    def order(self, epoch: int) -> Tensor:
        """Return the pictures' numbers in the order of this epoch."""
        if not self.shuffle:
            return torch.arange(len(self.data))
        return torch.randperm(len(self.data), generator=_generator(self.seed, epoch, "order"))

    def epoch(
        self, number: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch's batches from the one numbered `start`: images and their targets.

        images: Float[Tensor, "n c h w"] in 0..1, on the data's device, most often channels last. targets:
        labels, Int64[Tensor, "n"]; where the augmentation mixes, shares, Float[Tensor, "n classes"]. Of
        `world` processes the one of this rank gets its contiguous share of each batch.
        """
        if not 0 <= rank < world:
            raise Invalid(f"rank is {rank} of {world}; it must be between 0 and {world - 1}")
        if self.size % world:
            raise Invalid(
                f"a batch of {self.size} cannot be shared by {world} processes: choose a multiple of {world}"
            )
        order = self.order(number)
        for batch in range(start, len(self)):
            which = order[batch * self.size : (batch + 1) * self.size]
            yield self._batch(which, number, batch, rank, world)

    def _batch(self, which: Tensor, epoch: int, batch: int, rank: int, world: int) -> tuple[Tensor, Tensor]:
        data, kind = self.data, self.augmentation
        count = len(which)
        drawn = draw(
            count,
            (data.images.shape[-2], data.images.shape[-1]),
            kind,
            epoch=epoch,
            generator=_generator(self.seed, epoch, batch),
            coins=self._coins[which],
        )
        share = torch.arange(rank * count // world, (rank + 1) * count // world)
        images, labels = self._own(which, share, drawn)
        if drawn.mix is None:
            return self._sized(images, epoch, batch), labels
        partner = drawn.mix.partner[share]
        if world == 1:  # the partners are among them
            others, other_labels = images[sent(partner, images.device)], labels[sent(partner, labels.device)]
        else:
            others, other_labels = self._own(which, partner, drawn)
        shares, other_shares = (one_hot(each, self.classes) for each in (labels, other_labels))
        images = self._sized(mixed(images, others, drawn.mix), epoch, batch)
        return images, mixed_labels(shares, other_shares, drawn.mix)

    def _sized(self, images: Tensor, epoch: int, batch: int) -> Tensor:
        if self.small is None or epoch * len(self) + batch >= round(self.small[1] * len(self)):
            return images
        return shrunk(images, self.small[0])

    def _own(self, which: Tensor, places: Tensor, drawn: Draw) -> tuple[Tensor, Tensor]:
        """Return some pictures of a batch, with all that each undergoes by itself, and their labels."""
        data, rows = self.data, which[places]
        images = moved(data.images[sent(rows, data.images.device)], drawn.take(places), self.augmentation)
        return unit(images), data.labels[sent(rows, data.labels.device)]


def _generator(*key: int | str) -> torch.Generator:
    """Return a generator for this key; the hash spreads neighbouring keys, whose bare sums would meet."""
    digest = hashlib.sha256(" ".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
