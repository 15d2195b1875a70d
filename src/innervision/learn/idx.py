"""MNIST's idx files, packed or not, alone or in a folder."""

from __future__ import annotations

import gzip
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from innervision.errors import Invalid
from innervision.learn import sets
from innervision.learn.raw import Raw, whole

_STEMS = MappingProxyType({"train": "train", "test": "t10k"})
_MOST = 2**30  # numbers of one file: twenty times the largest published one


def files(path: Path) -> Mapping[str, tuple[Path, Path]]:
    """Return part -> the files of its pictures and labels: in a folder, or where a file is one of them."""
    found: dict[str, tuple[Path, Path]] = {}
    if not path.is_dir() and "ubyte" not in path.name:
        return found
    inside = [path, path / "raw", path / "MNIST" / "raw", path / "FashionMNIST" / "raw"]
    for folder in inside if path.is_dir() else [path.parent]:
        for part, stem in _STEMS.items():
            images, labels = (_file(folder, f"{stem}-{what}") for what in ("images", "labels"))
            if images and labels and part not in found and (path.is_dir() or path in (images, labels)):
                found[part] = (images, labels)
    return found


def _file(folder: Path, stem: str) -> Path | None:
    names = [f"{stem}{dot}idx{n}-ubyte{end}" for dot in "-." for n in (1, 3) for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_set(path: Path, part: str) -> tuple[Raw, bool]:
    """Return a part of MNIST, Fashion-MNIST or what has their form, and whether it is as published."""
    first, second = files(path)[part]
    (images, image_sum), (labels, label_sum) = read(first), read(second)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        shapes = f"{'x'.join(map(str, images.shape))} and {'x'.join(map(str, labels.shape))}"
        raise Invalid(f"'{first}' and '{second.name}' do not belong together: {shapes} numbers")
    names = [f"{_STEMS[part]}-images-idx3-ubyte", f"{_STEMS[part]}-labels-idx1-ubyte"]
    card = next((c for c in sets.SETS.values() if c.unpacked.get(names[1]) == label_sum), None)
    known = card is not None and card.unpacked[names[0]] == image_sum
    if card is None and images.shape[1:] == (28, 28) and labels.max(initial=0) < 10:
        card = sets.SETS["fashion-mnist" if "fashion" in str(path).lower() else "mnist"]
    classes = card.classes if card else tuple(map(str, range(int(labels.max(initial=0)) + 1)))
    return Raw(images[:, None], labels.astype(np.int64), classes, card.name if card else path.name), known


def read(path: Path) -> tuple[NDArray[np.uint8], str]:
    """Read an idx file of bytes, plain or gzip; return it, and the md5 of its unpacked contents.

    Two zero bytes, 8 for bytes, the number of dimensions; each of these as a big-endian int32; the numbers.
    """
    with whole(path), path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        head = stream.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
            raise Invalid(f"'{path}' is no idx file of bytes, MNIST's form: it begins {head.hex(' ') or '…'}")
        sides = stream.read(4 * head[3])
        shape = tuple(int.from_bytes(sides[n : n + 4], "big") for n in range(0, 4 * head[3], 4))
        count = math.prod(shape)
        if count > _MOST:
            raise Invalid(f"'{path}' announces {count:,} numbers, more than any of these sets has")
        body = stream.read(count + 1)  # one more, to see that it ends there
    if len(body) != count or len(sides) != 4 * head[3]:
        have = f"only {len(body):,}" if len(body) < count else "more"
        raise Invalid(f"'{path}' is cut short or damaged: it announces {count:,} numbers and has {have}")
    return np.frombuffer(body, np.uint8).reshape(shape), hashlib.md5(head + sides + body).hexdigest()
