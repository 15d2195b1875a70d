"""Publishers' archives: CIFAR's binary or pickled batches and MNIST's idx files, packed or unpacked."""

from __future__ import annotations

import hashlib
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from innervision.errors import Invalid
from innervision.files import checksum
from innervision.learn import idx, sets
from innervision.learn.pickled import arrays
from innervision.learn.raw import Raw, many, whole

_MOST = 2**30  # bytes of a batch: six times the largest published one
_LABELS = MappingProxyType(
    {"cifar10": 1, "cifar100": 2}
)  # before a picture's 3072 bytes; the last one counts
_BATCH = MappingProxyType(
    {
        "train": re.compile(r"data_batch_\d+(\.bin)?|train(\.bin)?"),
        "test": re.compile(r"test(_batch)?(\.bin)?"),
    }
)
_NAMES = MappingProxyType({"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt"})


def recognised(folder: Path) -> bool:
    """Whether a folder holds a publisher's files, by their names."""
    return bool(_batches(folder)) or bool(idx.files(folder))


def parts(path: Path) -> tuple[str, ...]:
    """Return which of "train" and "test" an archive has; raise Invalid for what is none of these sets."""
    if _is_tar(path):
        with whole(path), tarfile.open(path) as archive:
            found = {_part_of(Path(member.name).name) for member in archive if member.isfile()}
    else:
        names = _batches(path) if path.is_dir() else [path.name]
        found = {_part_of(name) for name in names} | set(idx.files(path))
    have = tuple(part for part in _BATCH if part in found)
    if not have:
        raise Invalid(
            f"'{path}' is no archive of CIFAR (data_batch_1.bin …, train.bin, or their python version) or of "
            "MNIST (train-images-idx3-ubyte, train-labels-idx1-ubyte …): give one of these, a folder with a "
            "folder a class, or a .csv of paths and labels"
        )
    return have


def read(path: Path, part: str, *, bad: Literal["refuse", "skip"], published: bool = False) -> Raw:
    """Read a part that an archive has. published: its checksum has been checked already.

    Raises Invalid for a damaged, shortened or strange file, and for labels that no class has; where bad is
    "skip", pictures with such labels are left out and named.
    """
    batches = _is_tar(path) or (_batches(path) if path.is_dir() else _part_of(path.name))
    raw, known = (_cifar if batches else idx.read_set)(path, part)
    if raw.name in sets.SETS and not (known or published or _is_published(path, raw.name)):
        note = f"not {raw.name} as it was published: its checksums differ; say so beside a figure"
        raw = replace(raw, notes=(*raw.notes, note))
    wrong = np.flatnonzero((raw.labels < 0) | (raw.labels >= len(raw.classes)))
    if not len(wrong):
        return raw
    if bad == "refuse":
        raise Invalid(
            f"'{path}' is mislabelled: picture {wrong[0]} has the label {raw.labels[wrong[0]]} where there "
            f"are 0 to {len(raw.classes) - 1}; it has {len(wrong)} such pictures (bad='skip' leaves them out)"
        )
    right = np.setdiff1d(np.arange(len(raw.labels)), wrong)
    skipped = tuple((f"{path.name}, picture {n}", f"no class {raw.labels[n]}") for n in wrong)
    note = f"{many(len(wrong), 'picture')} left out, whose label no class has"
    images, labels = raw.images[right], raw.labels[right]
    return replace(raw, images=images, labels=labels, skipped=skipped, notes=(*raw.notes, note))


def _is_tar(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".tar.gz", ".tgz", ".tar"))


def _part_of(name: str) -> str | None:
    """Return which part a file of CIFAR holds by its name, None if it is none."""
    return next((part for part, pattern in _BATCH.items() if pattern.fullmatch(name)), None)


def _batches(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if _part_of(p.name) and p.is_file())


def _is_published(path: Path, name: str) -> bool:
    """Whether a file is the publisher's archive itself, by its checksum."""
    file = sets.SETS[name].files[0]
    return path.is_file() and path.stat().st_size == file.size and checksum(path, "md5") == file.md5


def _cifar(path: Path, part: str) -> tuple[Raw, bool]:
    """Return a part of CIFAR-10 or -100, and whether each file's checksum is the publisher's."""
    found = _collected(path, part)
    batches = sorted(name for name in found if _part_of(name))
    kinds = {"cifar10" if "batch" in name else "cifar100" for name in batches}
    if len(kinds) > 1:
        raise Invalid(f"'{path}' holds files of CIFAR-10 and of CIFAR-100: keep them in two folders")
    card = sets.SETS[kinds.pop()]
    classes = tuple(found.get(_NAMES[card.name], b"").decode("utf-8", "replace").split()) or card.classes
    pixels: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for name in batches:
        reader = _records if name.endswith(".bin") else arrays
        where = name if path.name == name else f"{path}/{name}"
        images, own = reader(found[name], where, _LABELS[card.name])
        pixels.append(images)
        labels.append(own)
    count = sum(map(len, labels))
    whole_part = count == card.counts[part]
    note = f"{many(count, 'picture')} where {card.name}'s {part} part has {card.counts[part]:,}"
    known = whole_part and all(_md5(found[name]) == card.unpacked.get(name) for name in batches)
    raw = Raw(
        np.concatenate(pixels), np.concatenate(labels), classes, card.name, () if whole_part else (note,)
    )
    return raw, known


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _collected(path: Path, part: str) -> dict[str, bytes]:
    """Return the contents of a part's batches, and of the lists of names, from a folder, archive or file."""

    def wanted(name: str) -> bool:
        return _part_of(name) == part or name in _NAMES.values()

    if not _is_tar(path):
        folder, files = (path, path.iterdir()) if path.is_dir() else (path.parent, [path])
        names = [folder / name for name in _NAMES.values()]
        return {p.name: _bytes(p) for p in {*files, *names} if wanted(p.name) and p.is_file()}
    found: dict[str, bytes] = {}
    with whole(path), tarfile.open(path) as archive:
        for member in archive:
            name = Path(member.name).name
            if member.isfile() and wanted(name):
                _check(member.size, f"{path}/{member.name}")
                stream: Any = archive.extractfile(member)
                found[name] = stream.read()
    return found


def _bytes(path: Path) -> bytes:
    with whole(path):
        _check(path.stat().st_size, str(path))
        return path.read_bytes()


def _check(size: int, name: str) -> None:
    if size > _MOST:
        raise Invalid(f"'{name}' has {size:,} bytes, more than any file of these sets: it is something else")


def _records(data: bytes, name: str, labels: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read a binary batch: for each picture its labels, a byte each, then 32x32 red, green and blue bytes."""
    record = labels + 3072
    if not data or len(data) % record:
        raise Invalid(
            f"'{name}' is cut short or of another kind: {len(data):,} bytes are no whole number of pictures "
            f"of {record:,} bytes"
        )
    rows = np.frombuffer(data, np.uint8).reshape(-1, record)
    return rows[:, labels:].reshape(-1, 3, 32, 32), rows[:, labels - 1].astype(np.int64)
