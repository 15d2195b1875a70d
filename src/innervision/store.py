"""The folder for fetched files, and downloads that resume and are checked.

Nothing is created by importing or by asking; a folder appears when the first file is written into it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urlsplit

import platformdirs

from innervision._transfer import Progress, Source, forget, size_of, transfer
from innervision.errors import DownloadFailed, Invalid, WeightsMissing
from innervision.files import atomic, checksum, claim, disk, sha256

__all__ = ["Progress", "atomic", "checksum", "download", "fetch", "home", "offline", "sha256"]


def home() -> Path:
    """Return the folder for fetched files: $INNERVISION_HOME, else in the system's cache folder."""
    chosen = os.environ.get("INNERVISION_HOME")
    if not chosen:
        return platformdirs.user_cache_path("innervision")
    try:
        return Path(chosen).expanduser()
    except RuntimeError as error:  # ~NAME
        raise Invalid(f"INNERVISION_HOME is {chosen!r}, and there is no such user: name a folder") from error


def offline() -> bool:
    """Return whether $INNERVISION_OFFLINE forbids the network."""
    return os.environ.get("INNERVISION_OFFLINE", "").lower() not in ("", "0", "no", "false")


def download(
    url: str,
    path: Path | str,
    *,
    sha256: str = "",
    md5: str = "",
    size: int | None = None,
    timeout: float = 30.0,
) -> Iterator[Progress]:
    """Fetch a URL into `path`, yielding Progress; checked by its SHA-256 (or MD5) before it appears there.

    `sha256` may be the beginning of a checksum, as in torchvision's file names; `md5` is for publishers who
    give nothing else; `timeout` is the longest silence, in seconds. What has come lies in `NAME.part` and is
    gone on with, in this call after a broken line (four attempts) and in the next call after that. When
    another process fetches the same file, its progress is shown and its file is taken.

    Raises WeightsMissing where there is no network, DownloadFailed where the transfer does not succeed.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise Invalid(f"cannot fetch {url!r}: only http:// and https:// addresses are allowed")
    if bool(sha256) == bool(md5):
        raise Invalid(f"fetching {url} needs one checksum, sha256 or md5")
    kind: Literal["sha256", "md5"] = "sha256" if sha256 else "md5"
    path = Path(path)
    choose = "set INNERVISION_HOME to" if path.is_relative_to(home()) else "choose"
    source = Source(url, path, kind, (sha256 or md5).lower(), size, timeout, choose)
    if not re.fullmatch("[0-9a-f]{8,64}", source.digest):
        raise Invalid(f"{source.digest!r} is no {kind}: at least its first 8 hexadecimal digits are needed")
    return _download(source)


def fetch(
    url: str,
    path: Path | str,
    *,
    sha256: str = "",
    md5: str = "",
    size: int | None = None,
    timeout: float = 30.0,
) -> Path:
    """Fetch a URL into `path` as `download` does, and return the path."""
    for _ in download(url, path, sha256=sha256, md5=md5, size=size, timeout=timeout):
        pass
    return Path(path)


def _download(source: Source) -> Iterator[Progress]:
    with disk(source.path, source.choose):  # a folder that may not be looked into
        there = source.is_right(source.path)
    if there:
        yield _all(source)
        return
    if offline():
        lack = f"{source.path.name} is not on this machine and INNERVISION_OFFLINE is set"
        raise WeightsMissing(f"{lack}: {source.by_hand()}")
    with disk(source.path, source.choose):
        source.path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = source.path.with_name(source.path.name + ".lock")
    while (lock := _lock(lock_path, source.choose)) is None:
        yield Progress(size_of(source.part), source.size)
        time.sleep(0.2)
    try:
        if source.is_right(source.path):  # the process that held the lock has brought it
            yield _all(source)
        else:
            yield from transfer(source)
            _check(source)
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            lock_path.unlink()
        lock.close()


def _all(source: Source) -> Progress:
    size = source.path.stat().st_size
    return Progress(size, size)


def _lock(path: Path, choose: str) -> IO[bytes] | None:
    """Return the locked file, or None where another holds it; the system lets go of it if we die."""
    with disk(path, choose):
        file = path.open("ab")
    try:
        claim(file)
        held = os.path.samestat(os.fstat(file.fileno()), path.stat())  # else its holder removed it meanwhile
    except (BlockingIOError, PermissionError, FileNotFoundError):
        held = False
    except OSError:
        held = True  # a file system without locks: the checksum still guards the result
    if held:
        return file
    file.close()
    return None


def _check(source: Source) -> None:
    """Put the part in its place if its checksum is right, and drop it if not."""
    found = checksum(source.part, source.kind)
    if not found.startswith(source.digest):
        size = size_of(source.part)
        forget(source)
        raise DownloadFailed(
            f"{source.url} is not the expected file: {source.kind} {source.digest} expected, {found} found "
            f"({size:,} bytes, thrown away); try again, or {source.by_hand()}"
        )
    with disk(source.path, source.choose):
        with source.part.open("rb+") as file:
            os.fsync(file.fileno())
        source.part.replace(source.path)
    source.tag.unlink(missing_ok=True)
