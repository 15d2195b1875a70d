"""Batches: each picture once an epoch, and the same ones from any place, by any number of processes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.learn.augment import Augmentation
from innervision.learn.batches import Batches
from innervision.learn.data import DataSet

CLASSES = ("a", "b", "c")
ALL = Augmentation(flip="alternating", shift=2, cutout=3, mixup=0.5, cutmix=1.0, colour=0.3)


def numbered(count: int = 50, side: int = 8) -> DataSet:
    """Pictures that say their own number in every pixel, but lighter on their right half."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, side, side).clone()
    images[..., side // 2 :] += 100
    return DataSet(images, torch.arange(count) % 3, CLASSES, "numbered")


def numbers(images: Tensor) -> list[int]:
    """Return each picture's number, mirrored or not."""
    return [round(float(image.min()) * 255) for image in images]


def same(one: list[tuple[Tensor, Tensor]], two: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_every_picture_comes_once_an_epoch_with_its_label() -> None:
    batches = Batches(numbered(), 8, seed=1, drop_last=False)
    seen: list[int] = []
    for images, labels in batches.epoch(0):
        assert images.dtype == torch.float32
        assert labels.tolist() == [n % 3 for n in numbers(images)]
        seen += numbers(images)
    assert sorted(seen) == list(range(50))
    assert len(batches) == 7
    assert seen != list(range(50))


def test_the_rest_that_fills_no_batch_is_left_out() -> None:
    batches = Batches(numbered(), 8, seed=1)
    epochs = [list(batches.epoch(number)) for number in range(20)]
    assert {len(epoch) for epoch in epochs} == {len(batches)} == {6}
    assert {len(images) for epoch in epochs for images, _ in epoch} == {8}
    left = Counter(n for epoch in epochs for images, _ in epoch for n in numbers(images))
    assert len(left) == 50, "which ones are left out changes"


def test_orders_differ_between_epochs_and_seeds_and_repeat() -> None:
    batches = Batches(numbered(), 10, seed=1)
    orders = {tuple(Batches(numbered(), 10, seed=s).order(e).tolist()) for s in range(4) for e in range(5)}
    assert len(orders) == 20
    assert torch.equal(batches.order(3), Batches(numbered(), 5, seed=1).order(3))
    plain = Batches(numbered(), 10, seed=1, shuffle=False)
    assert [n for images, _ in plain.epoch(4) for n in numbers(images)] == list(range(50))


@pytest.mark.parametrize("kind", [Augmentation(), Augmentation(flip="random", shift=0.2), ALL])
def test_a_run_that_begins_anywhere_sees_what_an_unbroken_one_sees(kind: Augmentation) -> None:
    whole = list(Batches(numbered(), 7, kind, seed=3).epoch(2))
    same(whole, list(Batches(numbered(), 7, kind, seed=3).epoch(2)))
    for start in (1, 4, 7):
        same(whole[start:], list(Batches(numbered(), 7, kind, seed=3).epoch(2, start)))
    other = list(Batches(numbered(), 7, kind, seed=4).epoch(2))
    assert not torch.equal(whole[0][0], other[0][0])


@pytest.mark.parametrize("kind", [Augmentation(), Augmentation(mixup=0.4), Augmentation(cutmix=1.0), ALL])
@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_that_one_alone_would_see(kind: Augmentation, world: int) -> None:
    def batches() -> Batches:
        return Batches(numbered(), 12, kind, seed=5)

    alone = list(batches().epoch(1))
    shares = [list(batches().epoch(1, rank=rank, world=world)) for rank in range(world)]
    together = [
        (torch.cat([each[0] for each in parts]), torch.cat([each[1] for each in parts]))
        for parts in zip(*shares, strict=True)
    ]
    same(alone, together)


def test_alternating_flips_keep_each_picture_s_coin_through_all_epochs() -> None:
    batches = Batches(numbered(), 10, Augmentation(flip="alternating"), seed=2)
    mirrored: dict[int, list[bool]] = {}
    for epoch in range(4):
        for images, _ in batches.epoch(epoch):
            for number, image in zip(numbers(images), images, strict=True):
                mirrored.setdefault(number, []).append(bool(image[0, 0, 0] > image[0, 0, -1]))
    assert len(mirrored) == 50
    assert all(sides in ([True, False] * 2, [False, True] * 2) for sides in mirrored.values())
    first = sum(sides[0] for sides in mirrored.values())
    assert 12 < first < 38


def test_mixed_targets_are_shares_of_all_classes() -> None:
    for images, targets in Batches(numbered(), 10, Augmentation(mixup=1.0), seed=2, classes=5).epoch(0):
        assert (images.shape, targets.shape) == ((10, 3, 8, 8), (10, 5))
        torch.testing.assert_close(targets.sum(1), torch.ones(10))
        assert not targets[:, 3:].any()


def test_what_cannot_be_done_is_refused() -> None:
    data = numbered(20)
    with pytest.raises(
        Invalid, match="a batch of 64 is larger than the set: numbered has 20 pictures; choose a batch"
    ):
        Batches(data, 64, seed=0)
    assert [len(labels) for _, labels in Batches(data, 64, seed=0, drop_last=False).epoch(0)] == [20]
    with pytest.raises(Invalid, match="a batch of 0 is none"):
        Batches(data, 0)
    with pytest.raises(
        Invalid, match="a batch of 10 cannot be shared by 4 processes: choose a multiple of 4"
    ):
        next(Batches(data, 10).epoch(0, rank=0, world=4))
    with pytest.raises(Invalid, match="rank is 2 of 2; it must be between 0 and 1"):
        next(Batches(data, 10).epoch(0, rank=2, world=2))


def test_pictures_are_small_in_the_first_epochs_only() -> None:
    """The same pictures, shrunk: a flat one stays what it is, and its place in the run alone decides."""
    plain, small = (Batches(numbered(), 10, seed=1, small=small) for small in (None, (4, 1.4)))
    seen = [batch for epoch in range(3) for batch in small.epoch(epoch)]
    assert [images.shape[-1] for images, _ in seen] == [4] * 7 + [8] * 8
    whole = [batch for epoch in range(3) for batch in plain.epoch(epoch)]
    for (ours, labels), (theirs, their_labels) in zip(seen, whole, strict=True):
        assert torch.equal(labels, their_labels)
        # a mean of the picture is a mean of the small one; the edge in its middle spreads alike to both sides
        torch.testing.assert_close(ours.mean((1, 2, 3)), theirs.mean((1, 2, 3)), rtol=0, atol=1e-6)
    same([seen[6], *seen[7:10]], [*small.epoch(1, start=1)])
