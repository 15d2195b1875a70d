"""Labelled pictures read into one form, whatever they come from: archives, folders, tables."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from innervision import images as pictures
from innervision.errors import Invalid, unknown
from innervision.learn import archives, decoding, folders, sets
from innervision.learn.dataset import DataSet, hold_out, relabel, split
from innervision.learn.raw import Raw, Reading, fitted, many

__all__ = [
    "DataSet",
    "Part",
    "Reading",
    "Source",
    "check_labels",
    "finished",
    "hold_out",
    "parts",
    "read",
    "reading",
    "relabel",
    "split",
]

Part = Literal["train", "validation", "test", "any"]
Source = str | os.PathLike[str]
Value = TypeVar("Value")


def read(
    source: Source,
    part: Part = "train",
    *,
    size: int | None = None,
    channels: int | None = None,
    bad: Literal["refuse", "skip"] = "refuse",
    grey: Literal["expand", "refuse"] = "expand",
    lacking: Literal["refuse", "tell"] = "refuse",
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
    coloured ones become three equal channels, with a note, or are an error. lacking: whether a folder's class
    without pictures, and a single class, are errors, or only told in `notes`. classes: the names and order
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
        lacking=lacking,
        classes=classes,
        workers=workers,
        max_pixels=max_pixels,
    )
    return finished(work)


def finished(
    work: Generator[Reading, None, Value], tell: Callable[[Reading], None] = lambda _: None
) -> Value:
    """Carry work to its end, telling how far it is; return what came of it."""
    while True:
        try:
            tell(next(work))
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
    lacking: Literal["refuse", "tell"] = "refuse",
    classes: Sequence[str] | None = None,
    workers: int | None = None,
    max_pixels: int = pictures.MAX_PIXELS,
) -> Generator[Reading, None, DataSet]:
    """Read as `read` does, yielding how far it is; the generator's value is the DataSet."""
    for name, value, allowed in (
        ("part", part, ("train", "validation", "test", "any")),
        ("bad", bad, ("refuse", "skip")),
        ("grey", grey, ("expand", "refuse")),
        ("lacking", lacking, ("refuse", "tell")),
        ("channels", channels, (None, 1, 3)),
    ):
        if value not in allowed:
            raise Invalid(f"{name} is {value!r}; it must be one of {', '.join(map(str, allowed))}")
    if size is not None and size < 1:
        raise Invalid(f"size is {size}; it must be at least 1 pixel")
    classes = classes or None  # a network that has no names for its classes
    path = yield from _located(source)
    have = ("train", "test") if str(source) in sets.SETS else _parts(path)
    if part == "any":
        part = "test" if "test" in have else "train"
    if part not in have:
        raise Invalid(f"{path} has no {part} part, only {', '.join(have)}: {_how_to_divide(path)}")
    if _is_listed(path):
        listing = folders.listing(path, part, classes=classes, bad=bad, lacking=lacking)
        raw = yield from decoding.decode(
            listing,
            size=size,
            channels=channels or 3,
            bad=bad,
            lacking=lacking,
            workers=workers,
            max_pixels=max_pixels,
        )
    else:
        yield Reading(0, None, f"reading {path.name}")
        raw = archives.read(path, part, bad=bad, published=str(source) in sets.SETS)
        raw = fitted(raw, size=size, channels=channels)
    if grey == "refuse" and raw.grey and raw.images.shape[1] == 3:
        shown = ", ".join(raw.grey[:5]) + (", …" if len(raw.grey) > 5 else "")
        raise Invalid(
            f"{len(raw.grey)} of {many(len(raw.labels), 'picture')} grey in a coloured set: {shown}; "
            "take them out, or read them as three equal channels (grey='expand')"
        )
    found = _as_data(raw)
    return found if classes is None else relabel(found, classes)


def check_labels(
    source: Source, part: Part, classes: Sequence[str], *, bad: Literal["refuse", "skip"] = "refuse"
) -> None:
    """Raise Invalid where a part's files are not of these classes, by their folders or table; none is opened.

    Published sets are as they are.
    """
    path = finished(_located(source))
    if _is_listed(path):
        folders.listing(path, part, classes=classes, bad=bad)


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
    return _parts(finished(_located(source)))


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
