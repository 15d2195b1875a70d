"""The pictures that the studio knows: the samples, and what was sent to it; found by ids that it made."""

from __future__ import annotations

import hashlib
import io
import json
import re
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from innervision import images, samples
from innervision.errors import ImageTooLarge, NotAnImage
from innervision.files import atomic, disk
from innervision.images import Picture
from innervision.studio.cache import Cache
from innervision.studio.problems import Refused, missing

MOST_BYTES, MOST_PIXELS = 32 * 2**20, 50_000_000  # of one picture
MOST, MOST_ROOM = 5000, 8 * 2**30  # pictures, and their bytes on the disk
USUAL_SIDE, MOST_SIDE = 2048, 4096  # of a picture as it is shown
_SAMPLE = "sample-"
_ID = re.compile(r"[0-9a-f]{20}")
_SQUARES = 160  # pixels: a picture up to this side stays lossless


@dataclass(frozen=True)
class Entry:
    """A picture as its list has it."""

    id: str
    name: str
    width: int
    height: int


class Shelf:
    """Pictures by id: on the disk, each with its entry beside it, so that they are there after a restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] | None = None
        self._samples: tuple[Entry, ...] | None = None
        self._decoding = threading.BoundedSemaphore(2)  # large ones need several hundred MB each
        self._decoded: Cache[str, Picture] = Cache(96 * 2**20)
        self._shown: Cache[tuple[str, int], tuple[bytes, str]] = Cache(32 * 2**20)

    def sent(self) -> list[Entry]:
        """Return what was sent, the latest first."""
        return [*reversed(self._known().values())]

    def samples(self) -> tuple[Entry, ...]:
        if self._samples is None:
            found: list[Entry] = []
            for name in samples.SAMPLES:
                with Image.open(samples.path(name)) as picture:  # ours: upright, and of a known kind
                    found.append(Entry(_SAMPLE + name, name, *picture.size))
            self._samples = tuple(found)
        return self._samples

    def __getitem__(self, id: str) -> Entry:
        found = self._known().get(id) or next((e for e in self.samples() if e.id == id), None)
        if found is None:
            raise missing("picture", id)
        return found

    def source(self, id: str) -> str:
        """Return what a picture is read by: "sample:NAME", or the path of what was sent."""
        name = self[id].id
        return f"sample:{name.removeprefix(_SAMPLE)}" if name.startswith(_SAMPLE) else str(self._file(name))

    def read(self, id: str) -> Picture:
        """Return a picture, decoded; lately used ones are kept."""
        source = self.source(id)
        found = self._decoded.get(id)
        if found is None:
            with self._decoding:
                found = images.read(source, max_pixels=MOST_PIXELS)
            self._keep(id, found)
        return found

    def draft(self) -> Path:
        """Return a name for a file that is to be taken."""
        with disk(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f".{secrets.token_hex(8)}.part"

    def take(self, draft: Path, name: str) -> Entry:
        """Take a file in, if it is a picture within bounds; it is moved or removed, whatever happens.

        The same bytes sent again are the same picture, under its new name. Raises NotAnImage,
        ImageTooLarge, and Refused where there is no room for more.
        """
        try:
            with self._decoding:
                try:
                    picture = images.read(draft, max_pixels=MOST_PIXELS)
                except ImageTooLarge as error:
                    text = f"too large a picture: shrink it to {MOST_PIXELS // 10**6} million pixels or fewer"
                    raise ImageTooLarge(text) from error
                except NotAnImage as error:
                    raise NotAnImage(str(error).replace(f"'{draft}'", "what was sent")) from error
            with draft.open("rb") as file:
                id = hashlib.file_digest(file, "sha256").hexdigest()[:20]
            entry = Entry(id, _clean(name), picture.width, picture.height)
            with self._lock:
                known = self._known()
                if id not in known:
                    self._room(draft.stat().st_size)
                with disk(self.folder):
                    draft.replace(self._file(id))
                with atomic(self.folder / f"{id}.json") as told:
                    told.write_text(json.dumps(asdict(entry)) + "\n", encoding="utf-8")
                known.pop(id, None)
                known[id] = entry
            self._keep(id, picture)
            return entry
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def remove(self, id: str) -> None:
        """Remove what was sent. Samples stay."""
        if self[id].id.startswith(_SAMPLE):
            raise Refused(409, "the samples come with innervision, and stay")
        with self._lock:
            self._known().pop(id, None)
            for path in (self._file(id), self.folder / f"{id}.json"):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        self._decoded.drop(lambda key: key == id)
        self._shown.drop(lambda key: key[0] == id)

    def shown(self, id: str, side: int = USUAL_SIDE) -> tuple[bytes, str]:
        """Return a picture for a browser, its longest side at most `side`, and its media type.

        Always written anew from its pixels: what was sent is never handed on.
        """
        entry = self[id]
        size = images.fit(
            entry.height, entry.width, longest=min(side, MOST_SIDE, max(entry.width, entry.height))
        )
        found = self._shown.get((id, size[0]))
        if found is None:
            picture = self.read(id)
            with self._decoding:
                found = _encoded(picture, size)
            self._shown.put((id, size[0]), found, len(found[0]))
        return found

    def _keep(self, id: str, picture: Picture) -> None:
        size = picture.pixels.nbytes + (0 if picture.alpha is None else picture.alpha.nbytes)
        self._decoded.put(id, picture, max(size, self._decoded.room // 32))

    def _file(self, id: str) -> Path:
        return self.folder / f"{id}.picture"

    def _room(self, size: int) -> None:
        sizes = [self._file(id).stat().st_size for id in self._known() if self._file(id).exists()]
        if len(sizes) >= MOST or sum(sizes) + size > MOST_ROOM:
            raise Refused(409, f"{len(sizes)} pictures are here already: remove some")

    def _known(self) -> dict[str, Entry]:
        with self._lock:
            if self._entries is None:
                found = sorted(
                    (p for p in self.folder.glob("*.json") if _ID.fullmatch(p.stem)),
                    key=lambda path: path.stat().st_mtime,
                )
                read = (_entry(path) for path in found if self._file(path.stem).is_file())
                self._entries = {entry.id: entry for entry in read if entry is not None}
                for left in _left(self.folder):
                    with suppress(OSError):
                        left.unlink()
            return self._entries


def _entry(path: Path) -> Entry | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return Entry(path.stem, str(told["name"]), int(told["width"]), int(told["height"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _left(folder: Path) -> list[Path]:
    """Return what a process that was killed left half taken."""
    old = time.time() - 3600
    with suppress(OSError):
        return [path for path in folder.glob(".*.part") if path.stat().st_mtime < old]
    return []


def _clean(name: str) -> str:
    """Return a file's name as it may be shown: without its folder and what cannot be printed."""
    last = re.split(r"[/\\]", name)[-1].encode("utf-8", "replace").decode("utf-8")
    shown = "".join(sign for sign in last if sign.isprintable()).strip()
    return shown[:120] or "picture"


def _encoded(picture: Picture, size: tuple[int, int]) -> tuple[bytes, str]:
    small = Image.fromarray(images.to_bytes(picture.tensor(size)))
    lossless = max(size) <= _SQUARES
    if picture.alpha is not None:
        alpha = Image.fromarray(np.ascontiguousarray(picture.alpha))
        small.putalpha(alpha.resize(small.size, Image.Resampling.BOX))
        lossless = True
    buffer = io.BytesIO()
    if lossless:
        small.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue(), "image/png"
    small.save(buffer, "JPEG", quality=88)
    return buffer.getvalue(), "image/jpeg"
