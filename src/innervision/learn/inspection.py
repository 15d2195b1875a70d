"""What a data set is like: means and deviations, pictures that occur twice, examples of each class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision.learn.dataset import DataSet

_AT_ONCE = 4096  # pictures counted at a time


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of every channel over all pixels, in 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def statistics(data: DataSet) -> Statistics:
    """Return each channel's mean and standard deviation, exactly: from counts of the 256 values.

    The deviation is that of the set itself (divided by n), over pixels, not the mean of pictures' own.
    """
    counts = torch.zeros(data.channels, 256, dtype=torch.int64)
    for start in range(0, len(data), _AT_ONCE):
        part = data.images[start : start + _AT_ONCE].cpu()
        for channel in range(data.channels):
            counts[channel] += torch.bincount(part[:, channel].flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64) / 255
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1)
    variance = (shares * (values - mean[:, None]) ** 2).sum(1)
    return Statistics(tuple(mean.tolist()), tuple(variance.sqrt().tolist()))


@dataclass(frozen=True)
class Twins:
    """Pictures that are equal in every pixel."""

    within: tuple[int, ...]  # a set: how many of its pictures equal an earlier one of it
    across: tuple[tuple[int, int], ...]  # number in the first set, number in the second
    disagreeing: int  # of those across, with another class in the other set


def twins(first: DataSet, second: DataSet | None = None) -> Twins:
    """Find pictures that occur twice in a set, and pictures of the first that are in the second too.

    A test picture that was trained on measures nothing. Near copies (resized, saved anew) are not found.
    """
    seen: dict[bytes, int] = {}
    within = [_note(first, seen), 0]
    across: list[tuple[int, int]] = []
    if second is not None:
        if first.images.shape[1:] == second.images.shape[1:]:
            for number, key in enumerate(_keys(second)):
                if key in seen:
                    across.append((seen[key], number))
        within[1] = _note(second, {})
    other = second or first
    differ = sum(first.classes[first.labels[a]] != other.classes[other.labels[b]] for a, b in across)
    return Twins(tuple(within[: 1 + (second is not None)]), tuple(across), differ)


def _keys(data: DataSet) -> Sequence[bytes]:
    pixels = data.images.cpu().flatten(1).contiguous().numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in pixels]


def _note(data: DataSet, seen: dict[bytes, int]) -> int:
    """Note each picture's first number; return how many had been noted."""
    again = 0
    for number, key in enumerate(_keys(data)):
        again += key in seen
        seen.setdefault(key, number)
    return again


def examples(data: DataSet, each: int, seed: int = 0) -> list[Tensor]:
    """Return the numbers of up to `each` pictures of every class, drawn by seed, ascending."""
    generator = torch.Generator().manual_seed(seed)
    labels = data.labels.cpu()
    found: list[Tensor] = []
    for number in range(len(data.classes)):
        own = (labels == number).nonzero().flatten()
        found.append(own[torch.randperm(len(own), generator=generator)[:each]].sort().values)
    return found
