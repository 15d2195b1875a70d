"""Picture files decoded once, by several processes, into one file that is mapped from then on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from innervision import images, store
from innervision._decode import hush, identify
from innervision.errors import InnervisionError, Invalid
from innervision.files import atomic, disk
from innervision.learn._decoder import BAD, GREY
from innervision.learn.crew import squares
from innervision.learn.folders import Listing, told
from innervision.learn.raw import Raw, Reading, many
from innervision.memory import gib

_USUAL = 224  # the side where files have several sizes
_SMALL = 256  # up to this side, files of one size keep it


@dataclass(frozen=True)
class _Cache:
    """What is known of a decoded listing beside its pixels, kept as JSON."""

    count: int
    pixels_sha256: str
    bad: tuple[tuple[int, str], ...]  # number of the file, reason
    grey: tuple[int, ...]


def decode(
    found: Listing,
    *,
    size: int | None,
    channels: int,
    bad: Literal["refuse", "skip"],
    lacking: Literal["refuse", "tell"] = "refuse",
    workers: int | None = None,
    max_pixels: int = images.MAX_PIXELS,
) -> Generator[Reading, None, Raw]:
    """Decode a listing's files to squares of `size` pixels, yielding how far it is.

    What comes of it is kept in the store's folder "decoded", under a key of the files' names, lengths and
    times, the size and the channels, and mapped into memory: a second call reads no picture. size None: the
    files' own where a sample of them is square, small and of one size, else 224. Raises Invalid for files
    that cannot be read, naming them, unless bad is "skip"; and for a class none of whose files can be,
    unless lacking is "tell" (then `notes` say it).
    """
    yield Reading(0, len(found.files), "looking at files")
    side = size or _usual_size(found.files)
    shape = (channels, side, side)
    key = _key(found, side, channels, max_pixels)
    path = store.home() / "decoded" / f"{_safe(found.name)}-{side}-{key}.u8"
    cache = _known(path, shape)
    if cache is None:
        cache = yield from _make(found, path, shape, workers, max_pixels)
    skipped = [*found.bad, *((_name(found, n), why) for n, why in cache.bad)]
    if skipped and bad == "refuse":
        raise Invalid(told(skipped, len(found.files) + len(found.bad), f"'{found.name}'"))
    lost = {n for n, _ in cache.bad}
    labels = np.array([label for n, label in enumerate(found.labels) if n not in lost], np.int64)
    empty = sorted(set(found.labels) - set(labels.tolist()))
    if empty and lacking == "refuse":
        raise Invalid(f"no picture of class {found.classes[empty[0]]!r} can be read: {skipped[0][1]}")
    grey = tuple(_name(found, n) for n in cache.grey)
    every = (cache.count, *shape)
    return Raw(
        # a copy on write: whoever changes a picture changes neither the file nor anyone else's
        images=np.memmap(path, np.uint8, "c", shape=every) if cache.count else np.empty(every, np.uint8),
        labels=labels,
        classes=found.classes,
        name=found.name,
        notes=(
            *found.notes,
            *(f"no picture of class {found.classes[n]!r} can be read" for n in empty),
            *_notes(len(skipped), len(grey), cache.count, channels),
        ),
        skipped=tuple(skipped),
        grey=grey if len(grey) < cache.count else (),
        pixels_sha256=cache.pixels_sha256,
    )


def _notes(skipped: int, grey: int, count: int, channels: int) -> Iterator[str]:
    if skipped:
        yield f"{many(skipped, 'file')} left out that cannot be used"
    if grey and channels == 3:
        yield f"{grey} of {many(count, 'picture')} {'is' if grey == 1 else 'are'} grey: three equal channels"


def _name(found: Listing, number: int) -> str:
    file = found.files[number]
    return str(file.relative_to(found.root)) if file.is_relative_to(found.root) else str(file)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)[:40]


def _usual_size(files: Sequence[Path]) -> int:
    """Return the side that files share if they are small squares, by a sample of 32; else 224."""
    sides = {_header(file) for file in files[:: max(1, len(files) // 32)]} - {(0, 0)}
    side = sides.pop() if len(sides) == 1 else (0, 0)
    return side[0] if side[0] == side[1] and 0 < side[0] <= _SMALL else _USUAL


def _header(file: Path) -> tuple[int, int]:
    """Return a file's width and height without decoding it; (0, 0) where it cannot be told."""
    try:
        with file.open("rb") as stream, hush():
            image = identify(stream)
            return image.size if image else (0, 0)
    except Exception:  # whatever a damaged file raises: reading it will tell
        return (0, 0)


def _key(found: Listing, side: int, channels: int, max_pixels: int) -> str:
    """Return what tells this decoding from others; a file that is gone counts as empty."""
    seen = hashlib.sha256(f"1 {side} {channels} {max_pixels}".encode())
    for number, file in enumerate(found.files):
        try:
            stat = file.stat()
            facts = f"{stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            facts = "gone"
        seen.update(f"\0{_name(found, number)}\0{facts}".encode("utf-8", "surrogateescape"))
    return seen.hexdigest()[:16]


def _known(path: Path, shape: tuple[int, int, int]) -> _Cache | None:
    """Return what a former call found, None if there is nothing or it is not whole."""
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        cache = _Cache(
            count=int(facts["count"]),
            pixels_sha256=str(facts["pixels_sha256"]),
            bad=tuple((int(n), str(why)) for n, why in facts["bad"]),
            grey=tuple(map(int, facts["grey"])),
        )
        return cache if path.stat().st_size == cache.count * int(np.prod(shape)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _make(
    found: Listing, path: Path, shape: tuple[int, int, int], workers: int | None, max_pixels: int
) -> Generator[Reading, None, _Cache]:
    """Decode every file into `path`, whole or not at all, and what is known of it into a JSON beside it."""
    each = int(np.prod(shape))
    _check_room(path, each * len(found.files))
    seen = hashlib.sha256()
    bad: list[tuple[int, str]] = []
    grey: list[int] = []
    count = 0
    with atomic(path) as draft, draft.open("wb") as file:
        work = squares(found.files, shape, workers, max_pixels)
        with contextlib.closing(work):
            for number, (kind, body) in enumerate(work):
                if kind == BAD or len(body) != each:
                    bad.append((number, body.decode("utf-8", "replace")))
                else:
                    file.write(body)
                    seen.update(body)
                    count += 1
                    if kind == GREY:
                        grey.append(number)
                yield Reading(number + 1, len(found.files), f"decoding {found.name}")
    with atomic(path.with_suffix(".json")) as draft:
        facts = {"count": count, "pixels_sha256": seen.hexdigest(), "bad": bad, "grey": grey}
        draft.write_text(json.dumps(facts), encoding="utf-8")
    return _Cache(count, seen.hexdigest(), tuple(bad), tuple(grey))


def _check_room(path: Path, size: int) -> None:
    with disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if size > free:
        raise InnervisionError(
            f"decoded, these pictures take {gib(size)}, and {path.parent} has {gib(free)}: free some, choose "
            "a smaller size, or name another folder in INNERVISION_HOME"
        )
