"""Pictures by number, all of one size: a folder, a list of files, or an array such as CIFAR-10's."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from innervision import images
from innervision.errors import InnervisionError, Invalid
from innervision.images import Size

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic")
)
USUAL = 224  # the side of photographs for which no size is named
_RECORDS = {3073: 1, 3074: 2}  # bytes of a picture in CIFAR-10's and CIFAR-100's files -> labels before it


@runtime_checkable
class Pictures(Protocol):
    """Pictures by number, all of one size. One that cannot be read raises an InnervisionError."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> Size: ...  # height, width
    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> NDArray[np.uint8]: ...  # (h w 3) sRGB
    def label(self, number: int) -> str: ...
    def digest(self) -> str: ...  # tells these pictures from others


class Stack:
    """Pictures of an array (n h w 3) or (n h w), uint8; resized where another size is asked for."""

    def __init__(self, array: NDArray[Any], *, size: Size | None = None, name: str = "pictures") -> None:
        if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[3:] not in ((), (1,), (3,)):
            raise Invalid(
                f"an array of pictures is uint8 of shape (n, h, w, 3) or (n, h, w), "
                f"not {array.dtype} {array.shape}"
            )
        if 0 in array.shape:
            raise Invalid(f"an array of shape {array.shape} holds no pictures")
        self._array = array if array.ndim == 4 else array[..., None]
        self.name = name
        self.size: Size = size or (array.shape[1], array.shape[2])

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        pixels = np.broadcast_to(self._array[number], (*self._array.shape[1:3], 3))
        if pixels.shape[:2] == tuple(self.size):
            return pixels
        return images.to_bytes(images.Picture(pixels).tensor(self.size))

    def label(self, number: int) -> str:
        return f"{self.name} {number}"

    def digest(self) -> str:
        return hashlib.sha256(np.ascontiguousarray(self._array).data).hexdigest()


class Files:
    """Picture files, each resized by its shorter side and cut to the middle square of `side` pixels."""

    def __init__(self, sources: Sequence[str | Path], *, side: int = USUAL, name: str = "pictures") -> None:
        self._sources = tuple(sources)
        self.name = name
        self.size: Size = (side, side)

    def __len__(self) -> int:
        return len(self._sources)

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        picture = images.read(self._sources[number])
        side, short = self.size[0], min(picture.height, picture.width)
        size = (round(picture.height * side / short), round(picture.width * side / short))
        top, left = ((whole - side) // 2 for whole in size)
        return images.to_bytes(picture.tensor(size)[:, :, top : top + side, left : left + side])

    def label(self, number: int) -> str:
        return Path(self._sources[number]).name

    def digest(self) -> str:
        """Return a checksum of names and lengths: a data folder's contents take minutes to read."""
        seen = hashlib.sha256()
        for source in self._sources:
            path = Path(source)
            seen.update(f"{path.name}\0{path.stat().st_size if path.is_file() else 0}\0".encode())
        return seen.hexdigest()


class First:
    """The first `count` of some pictures."""

    def __init__(self, pictures: Pictures, count: int) -> None:
        self._pictures, self._count = pictures, count
        self.name, self.size = pictures.name, pictures.size

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        return self._pictures[number]

    def label(self, number: int) -> str:
        return self._pictures.label(number)

    def digest(self) -> str:
        return f"{self._pictures.digest()} {self._count}"


def first(pictures: Pictures, count: int) -> Pictures:
    """Return at most so many pictures, from the first."""
    if count < 1:
        raise Invalid(f"the first {count} pictures are none: give 1 or more")
    return pictures if len(pictures) <= count else First(pictures, count)


def as_pictures(pictures: Pictures | NDArray[Any] | Tensor) -> Pictures:
    """Take an array or tensor (n h w 3) or (n h w), uint8, for pictures; leave pictures as they are."""
    if isinstance(pictures, Tensor):
        pictures = pictures.cpu().numpy()
    return Stack(pictures) if isinstance(pictures, np.ndarray) else pictures


def open_pictures(sources: Iterable[str | os.PathLike[str]], *, size: int | None = None) -> Pictures:
    """Return the pictures of a data folder, of a data set's file, or of several picture files.

    A data set: CIFAR-10's or -100's binary version (.bin files, their folder, or the .tar.gz), MNIST's
    images (idx3-ubyte, plain or .gz, or their folder), a .npy array of uint8. size: side in pixels; by
    default a data set's own, and 224 for photographs. A folder is searched to the bottom, in the order
    of names. Raises Invalid where there is none, or no picture in it.
    """
    names = [os.fspath(source) for source in sources]
    if not names:
        raise Invalid("no pictures: name a folder, a data set's file or some picture files")
    if size is not None and size < 1:
        raise Invalid(f"size is {size}; it must be at least 1")
    if len(names) > 1:
        return Files(names, side=USUAL if size is None else size, name=f"{len(names)} pictures")
    path = Path(names[0])
    if not path.exists() and not names[0].startswith("sample:"):
        raise Invalid(f"no file or folder '{path}': check its name")
    arrays = list(_arrays(path))
    if arrays:
        square = None if size is None else (size, size)
        return Stack(np.concatenate(arrays), size=square, name=path.name.partition(".")[0])
    if not path.is_dir():
        return Files(names, side=USUAL if size is None else size, name=path.stem)
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise Invalid(f"no pictures in '{path}': there are none of {', '.join(sorted(SUFFIXES))}")
    return Files(files, side=USUAL if size is None else size, name=path.resolve().name)


def batch(pictures: Pictures, numbers: Iterable[int]) -> tuple[Tensor, list[int], list[tuple[int, str]]]:
    """Read pictures by number: (n 3 h w) sRGB 0..1, the numbers that could be read, and why others could not.

    A picture that is missing or damaged is not an error here: of a million, some are.
    """
    read: list[NDArray[np.uint8]] = []
    good: list[int] = []
    bad: list[tuple[int, str]] = []
    for number in numbers:
        try:
            read.append(pictures[number])
            good.append(number)
        except InnervisionError as error:
            bad.append((number, str(error)))
    pixels = np.stack(read) if read else np.empty((0, *pictures.size, 3), np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255), good, bad


def _arrays(path: Path) -> Iterator[NDArray[Any]]:
    """Yield a data set's arrays of pictures, or nothing where a path is none."""
    if path.is_dir():
        files = sorted(path.glob("*_batch*.bin")) or sorted(
            p for p in path.glob("*idx3-ubyte*") if p.suffix in ("", ".gz")
        )
        for file in files:
            yield from _arrays(file)
    elif path.name.endswith((".tar.gz", ".tgz")):
        with _whole(path), tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and m.name.endswith(".bin")]
            for member in sorted(members, key=lambda m: m.name):
                data: Any = archive.extractfile(member)
                yield _cifar(data.read(), member.name)
            if not members:
                raise Invalid(f"no .bin files in '{path}': take CIFAR's binary version")
    elif path.suffix == ".bin":
        yield _cifar(path.read_bytes(), str(path))
    elif "idx3-ubyte" in path.name:
        with _whole(path):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            magic, count, height, width = np.frombuffer(data, ">i4", 4)
            if magic != 2051:
                raise Invalid(f"'{path}' holds no images: its first number is {magic}, not 2051")
            yield np.frombuffer(data, np.uint8, offset=16).reshape(count, height, width)
    elif path.suffix == ".npy":
        with _whole(path):
            yield np.load(path, mmap_mode="r", allow_pickle=False)


def _cifar(data: bytes, name: str) -> NDArray[np.uint8]:
    for record, labels in _RECORDS.items():
        if data and len(data) % record == 0:
            planes = np.frombuffer(data, np.uint8).reshape(-1, record)[:, labels:]
            return planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    raise Invalid(f"'{name}' is no CIFAR file: {len(data):,} bytes are no whole number of 32x32 pictures")


class _whole:
    """Turn what readers raise at a damaged file into an error for a person."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        damaged = (OSError, EOFError, ValueError, zlib.error, tarfile.TarError)
        if isinstance(error, damaged) and not isinstance(error, InnervisionError):
            raise Invalid(f"'{self.path}' is cut short or damaged: {error}") from error
