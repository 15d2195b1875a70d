"""Labelled pictures in one form, whatever they were read from: uint8 tensors with labels and class names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from innervision import images as pictures
from innervision.errors import Invalid, unknown
from innervision.learn import archives, decoding, folders, sets
from innervision.learn.raw import Raw, Reading, fitted

__all__ = ["DataSet", "Reading", "hold_out", "parts", "read", "reading", "relabel", "split"]

Part = Literal["train", "validation", "test", "any"]
Source = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class DataSet:
    """Pictures and their labels, in memory or mapped from a file, in the order they were read."""

    images: Tensor  # UInt8[Tensor, "n c h w"], sRGB
    labels: Tensor  # Int64[Tensor, "n"]: places in `classes`
    classes: tuple[str, ...]
    name: str = "data"
    sha256: str = ""  # of pixels, labels and class names: the same data in another archive has the same
    notes: tuple[str, ...] = ()  # what its reader should know: files skipped, grey pictures, an altered copy
    skipped: tuple[tuple[str, str], ...] = ()  # file and reason, where `bad` was "skip"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise Invalid(
                "pictures are uint8 of shape (n, c, h, w), "
                f"not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise Invalid(
                f"{len(self.images)} pictures need as many labels, int64, "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise Invalid(
                f"labels must be 0 to {len(self.classes) - 1}: there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture."""
        return self.images.shape[2], self.images.shape[3]

    def counts(self) -> dict[str, int]:
        """Return how many pictures each class has, in the order of the classes."""
        each = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, each, strict=True))

    def subset(self, indices: Tensor | Sequence[int]) -> DataSet:
        """Return the pictures of these numbers, in this order, in memory."""
        which = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        seen = hashlib.sha256(f"{self.sha256} subset ".encode())
        seen.update(which.cpu().numpy().tobytes())
        chosen = self.images[which.to(self.images.device)]
        return replace(self, images=chosen, labels=self.labels[which], sha256=seen.hexdigest())


def read(
    source: Source,
    part: Part = "train",
    *,
    size: int | None = None,
    channels: int | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    grey: Literal["expand", "refuse"] = "expand",
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    max_pixels: int = pictures.MAX_PIXELS,
) -> DataSet:
    """Read one part of a data set: the test part is touched only when it is asked for.

    source: "cifar10", "cifar100", "mnist" or "fashion-mnist", fetched and checked where it is not on this
    machine; or a path: a publisher's archive or the folder it unpacks to, a folder with one folder a class
    (which may lie in train/, validation/ and test/), or a .csv of paths and labels (with a column "part",
    or all training). part: "any" is the test part where there is one, else all. size: the side in pixels,
    shorter side resized and the middle cut out; by default a set's own, for files of several sizes 224.
    channels: 1 or 3; by default a set's own, and 3 for files. bad: whether a file that cannot be read or has
    no valid label is an error, or left out and named in `skipped`. grey: whether grey pictures among
    coloured ones become three equal channels, with a note, or are an error. classes: the names and order
    wanted (a network's); labels are turned into that order. workers: processes that decode files.
    max_pixels: of a file, before anything is decoded.

    Raises Invalid for what is no such data, WeightsMissing or DownloadFailed where fetching fails.
    """
    work = reading(
        source,
        part,
        size=size,
        channels=channels,
        bad=bad,
        grey=grey,
        classes=classes,
        workers=workers,
        max_pixels=max_pixels,
    )
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def reading(
    source: Source,
    part: Part = "train",
    *,
    size: int | None = None,
    channels: int | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    grey: Literal["expand", "refuse"] = "expand",
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    max_pixels: int = pictures.MAX_PIXELS,
) -> Generator[Reading, None, DataSet]:
    """Read as `read` does, yielding how far it is; the generator's value is the DataSet."""
    for name, value, allowed in (
        ("part", part, ("train", "validation", "test", "any")),
        ("bad", bad, ("refuse", "skip")),
        ("grey", grey, ("expand", "refuse")),
        ("channels", channels, (None, 1, 3)),
    ):
        if value not in allowed:
            raise Invalid(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}")
    if size is not None and size < 1:
        raise Invalid(f"size is {size}; it must be at least 1 pixel")
    path = yield from _located(source)
    have = _parts(path)
    if part == "any":
        part = "test" if "test" in have else "train"
    if part not in have:
        raise Invalid(f"{path} has no {part} part, only {', '.join(have)}: {_how_to_divide(path)}")
    if _is_listed(path):
        listing = folders.listing(path, part, classes=classes, bad=bad)
        raw = yield from decoding.decode(
            listing, size=size, channels=channels or 3, bad=bad, workers=workers, max_pixels=max_pixels
        )
    else:
        yield Reading(0, None, f"reading {path.name}")
        raw = archives.read(path, part, bad=bad, published=str(source) in sets.SETS)
        raw = fitted(raw, size=size, channels=channels)
    if grey == "refuse" and raw.grey and raw.images.shape[1] == 3:
        shown = ", ".join(raw.grey[:5]) + (", …" if len(raw.grey) > 5 else "")
        raise Invalid(
            f"{len(raw.grey)} of {len(raw.labels)} pictures are grey in a coloured set: {shown}; "
            "take them out, or read them as three equal channels (grey='expand')"
        )
    found = _as_data(raw)
    return found if classes is None else relabel(found, classes)


def _located(source: Source) -> Generator[Reading, None, Path]:
    """Return where the data is; fetch a set that is known by name."""
    if str(source) in sets.SETS:
        return (yield from sets.fetching(sets.SETS[str(source)]))
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.suffix or os.sep in str(source):
        raise Invalid(f"no file or folder '{path}': check its name, or name a set: {', '.join(sets.SETS)}")
    raise unknown("data set or folder", str(source), sets.SETS)


def _is_listed(path: Path) -> bool:
    """Whether the data is single picture files, in folders or named by a table."""
    return path.suffix.lower() in (".csv", ".tsv") or (path.is_dir() and not archives.recognised(path))


def _parts(path: Path) -> tuple[str, ...]:
    return folders.parts(path) if _is_listed(path) else archives.parts(path)


def parts(source: Source) -> tuple[str, ...]:
    """Return the parts that there are, of "train", "validation" and "test"; nothing is fetched or decoded."""
    if str(source) in sets.SETS:
        return ("train", "test")
    work = _located(source)
    try:
        while True:
            next(work)
    except StopIteration as end:
        return _parts(end.value)


def _how_to_divide(path: Path) -> str:
    if path.suffix.lower() in (".csv", ".tsv"):
        return 'add a column "part" that says train, validation or test'
    if _is_listed(path):
        return "put the class folders into folders train and test; or hold out a share (split)"
    return "name the folder or archive that has it"


def _as_data(raw: Raw) -> DataSet:
    """Make a DataSet of what was read, with its checksum."""
    images = torch.from_numpy(np.require(raw.images, np.uint8, ["C", "W"]))
    labels = torch.from_numpy(np.ascontiguousarray(raw.labels, np.int64))
    if not len(labels):
        raise Invalid(f"{raw.name} holds no picture that can be read")
    pixels = raw.pixels_sha256 or hashlib.sha256(images.numpy().data).hexdigest()
    key = [list(raw.images.shape), list(raw.classes), pixels, hashlib.sha256(labels.numpy().data).hexdigest()]
    return DataSet(
        images=images,
        labels=labels,
        classes=raw.classes,
        name=raw.name,
        sha256=hashlib.sha256(json.dumps(key).encode()).hexdigest(),
        notes=raw.notes,
        skipped=raw.skipped,
    )


def relabel(data: DataSet, classes: Sequence[str]) -> DataSet:
    """Return the data with its labels as places in these classes, matched by name.

    The data may lack some of the classes. Raises Invalid where it has one that is not among them.
    """
    wanted = tuple(classes)
    if wanted == data.classes:
        return data
    place = {name: number for number, name in enumerate(wanted)}
    counts = data.counts()
    strange = [name for name in data.classes if name not in place and counts[name]]
    if strange:
        shown = ", ".join(map(repr, strange[:5])) + (", …" if len(strange) > 5 else "")
        have = f"{data.name} has {len(data.classes)} classes where {len(wanted)} are expected"
        names = ", ".join(wanted[:12]) + (", …" if len(wanted) > 12 else "")
        raise Invalid(f"{have}; {shown} {'is' if len(strange) == 1 else 'are'} not among {names}")
    to = torch.tensor([place.get(name, 0) for name in data.classes], device=data.labels.device)
    digest = hashlib.sha256(f"{data.sha256} {json.dumps(wanted)}".encode()).hexdigest()
    return replace(data, labels=to[data.labels], classes=wanted, sha256=digest)


def hold_out(data: DataSet, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the pictures kept and of those held out, each ascending; as `split` chooses."""
    if not 0 < share < 1:
        raise Invalid(f"share is {share}; it must be between 0 and 1, such as 0.1 for a tenth")
    labels = data.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    held: list[Tensor] = []
    for number in range(len(data.classes)):
        own = (labels == number).nonzero().flatten()
        if not len(own):
            continue
        if len(own) < 2:
            raise Invalid(
                f"class {data.classes[number]!r} has one picture, which cannot be both learned from and held "
                "out: add some, or take the class out"
            )
        count = min(max(1, round(len(own) * share)), len(own) - 1)
        held.append(own[torch.randperm(len(own), generator=generator)[:count]])
    out = torch.cat(held).sort().values
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[out] = False
    return kept.nonzero().flatten(), out


def split(data: DataSet, share: float, seed: int) -> tuple[DataSet, DataSet]:
    """Divide data into a part to learn from and a part held out, for choosing and stopping.

    share: of each class that is held out, so that both parts have the classes in one proportion; at least
    one picture a class, and never the last. The same seed holds out the same pictures. Raises Invalid for a
    class of a single picture.
    """
    kept, held = hold_out(data, share, seed)
    return data.subset(kept), data.subset(held)
