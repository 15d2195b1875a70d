"""The files of a run that may be seen: what each is, and at which address."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from innervision.studio.runs import INPUTS, RECORD, Job

Kind = Literal["input", "preview", "result", "picture", "page", "video", "table", "data"]

_MOST = 2000  # listed of a run
_FACES = ("sheet.png", "overview.png", "confusion.png")  # what a run is known by that leaves a folder


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a run."""

    name: str
    kind: Kind
    size: int
    etag: str
    url: str


KINDS: Mapping[str, tuple[Kind, str]] = {
    ".png": ("picture", "image/png"),
    ".jpg": ("picture", "image/jpeg"),
    ".jpeg": ("picture", "image/jpeg"),
    ".webp": ("picture", "image/webp"),
    ".gif": ("picture", "image/gif"),
    ".html": ("page", "text/html; charset=utf-8"),
    ".mp4": ("video", "video/mp4"),
    ".csv": ("table", "text/csv; charset=utf-8"),
    ".json": ("data", "application/json"),
    ".jsonl": ("data", "application/x-ndjson"),
}
"""Suffix -> what it is, and its type; what is not here is given as bytes to be saved."""


def files(job: Job, runs: Path) -> list[File]:
    """Return the files of a run that may be seen, by name."""
    listed: list[File] = []
    for name, entry in _walk(runs / job.id, ""):
        with contextlib.suppress(OSError):
            listed.append(_file(job, name, entry.stat(follow_symlinks=False)))
        if len(listed) >= _MOST:
            break
    return sorted(listed, key=lambda file: file.name)


def face(job: Job, runs: Path) -> File | None:
    """Return the picture that a run is known by in a list: its result, else its latest snapshot."""
    folder = runs / job.id
    names = [job.output, f"{job.output}/0000.png"] if job.output else [*_FACES]
    with contextlib.suppress(OSError, ValueError):  # there are none
        names += [f"snapshots/{max(entry.name for entry in os.scandir(folder / 'snapshots'))}"]
    for name in names:
        path = folder / name
        if KINDS.get(path.suffix.lower(), ("", ""))[0] == "picture" and path.is_file():
            with contextlib.suppress(OSError):
                return _file(job, name, path.stat())
    return None


def _file(job: Job, name: str, about: os.stat_result) -> File:
    etag = f"{about.st_mtime_ns:x}-{about.st_size:x}"
    url = f"/api/jobs/{quote(job.id)}/files/{quote(name)}?v={etag}"
    return File(name=name, kind=_kind(name, job.output), size=about.st_size, etag=etag, url=url)


def _walk(folder: Path, above: str, depth: int = 2) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the plain files below a folder, but for what is hidden, ours, or of use to the command alone."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        name = entry.name
        if name.startswith((".", "checkpoint")) or name == RECORD or not name.isprintable():
            continue
        if entry.is_file(follow_symlinks=False):
            yield above + name, entry
        elif depth > 0 and entry.is_dir(follow_symlinks=False):
            yield from _walk(folder / name, f"{above}{name}/", depth - 1)


def _kind(name: str, output: str | None) -> Kind:
    top, _, rest = name.partition("/")
    if rest and top == INPUTS:
        return "input"
    if rest and top == "snapshots":
        return "preview"
    suffix = Path(name).suffix.lower()
    kind = KINDS[suffix][0] if suffix in KINDS else "data"
    return "result" if name == output or (top == output == "film" and kind == "picture") else kind
