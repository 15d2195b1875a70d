"""The folder for fetched files, and downloads that resume and are checked.

Nothing is created by importing or by asking; a folder appears when the first file is written into it.
"""

from __future__ import annotations

import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from typing import IO, Literal
from urllib.parse import urlsplit

import platformdirs

from innervision.errors import DownloadFailed, Invalid, WeightsMissing
from innervision.files import atomic, checksum, claim, disk, sha256

__all__ = ["Progress", "atomic", "checksum", "download", "fetch", "home", "offline", "sha256"]

_CHUNK = 1 << 18
_PAUSES = (0.5, 1.0, 2.0)  # seconds before the second, third and fourth attempt
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


def home() -> Path:
    """Return the folder for fetched files: $INNERVISION_HOME, else in the system's cache folder."""
    chosen = os.environ.get("INNERVISION_HOME")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("innervision")


def offline() -> bool:
    """Return whether $INNERVISION_OFFLINE forbids the network."""
    return os.environ.get("INNERVISION_OFFLINE", "").lower() not in ("", "0", "no", "false")


@dataclass(frozen=True)
class Progress:
    """Bytes on disk, and bytes in all where that is known."""

    done: int
    total: int | None


@dataclass(frozen=True)
class _Source:
    """What is fetched, where to, and how it is recognised."""

    url: str
    path: Path
    kind: Literal["sha256", "md5"]
    digest: str  # in full, or its beginning
    size: int | None
    timeout: float

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def tag(self) -> Path:
        """Holds the ETag or date of the file that the part belongs to."""
        return self.path.with_name(self.path.name + ".part.tag")

    def is_right(self, path: Path) -> bool:
        return path.is_file() and checksum(path, self.kind).startswith(self.digest)

    def by_hand(self) -> str:
        return f"fetch {self.url} by hand and save it as {self.path} ({self.kind} {self.digest})"


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
    source = _Source(url, Path(path), kind, (sha256 or md5).lower(), size, timeout)
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


def _download(source: _Source) -> Iterator[Progress]:
    if source.is_right(source.path):
        size = source.path.stat().st_size
        yield Progress(size, size)
        return
    if offline():
        lack = f"{source.path.name} is not on this machine and INNERVISION_OFFLINE is set"
        raise WeightsMissing(f"{lack}: {source.by_hand()}")
    with disk(source.path):
        source.path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = source.path.with_name(source.path.name + ".lock")
    while (lock := _lock(lock_path)) is None:
        yield Progress(_size(source.part), source.size)
        time.sleep(0.2)
    try:
        if not source.is_right(source.path):  # unless the process that held the lock has brought it
            yield from _transfer(source)
            _check(source)
    finally:
        with suppress(OSError):  # Windows does not remove an open file
            lock_path.unlink()
        lock.close()


def _lock(path: Path) -> IO[bytes] | None:
    """Return the locked file, or None where another holds it; the system lets go of it if we die."""
    with disk(path):
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


def _transfer(source: _Source) -> Iterator[Progress]:
    """Bring the part to its full length, going on after each break."""
    came = False
    for pause in (*_PAUSES, None):
        try:
            for progress in _attempt(source):
                came = True
                yield progress
            return
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
                if error.code not in _TEMPORARY:
                    said = f"{error.code} {error.reason}"
                    raise DownloadFailed(f"{source.url} answered {said}; {source.by_hand()}") from error
            elif isinstance(error, urllib.error.URLError) and not came:
                lack = f"no connection to {urlsplit(source.url).netloc} ({error.reason})"
                raise WeightsMissing(f"{lack}: {source.by_hand()}") from error
            if pause is None:
                raise DownloadFailed(
                    f"{source.url} broke off at {_size(source.part):,} bytes ({_reason(error)}); "
                    "trying again goes on from there"
                ) from error
        time.sleep(pause)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server fell silent"
    return str(error) or type(error).__name__


def _attempt(source: _Source) -> Iterator[Progress]:
    """Ask once for what is lacking and append it; any OSError or HTTPException means: try again."""
    start = _size(source.part)
    with _open(source, start) as answer:
        headers = answer.headers
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing lacks
            _forget(source)
            raise http.client.HTTPException("the part is no beginning of the file")
        fits = re.match(rf"bytes {start}-\d+/(\d+)", headers.get("Content-Range", ""))
        if answer.status == HTTPStatus.PARTIAL_CONTENT and not fits:
            _forget(source)
            raise http.client.HTTPException("the server sent another range than was asked for")
        if answer.status != HTTPStatus.PARTIAL_CONTENT:  # the whole file, from its beginning
            start = 0
        length = headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        if source.size is not None and total not in (None, source.size):
            raise DownloadFailed(
                f"{source.url} has {total:,} bytes where {source.size:,} are expected: another file now; "
                f"{source.by_hand()}"
            )
        with disk(source.part):
            file = source.part.open("ab" if start else "wb", buffering=0)  # closing has nothing left to write
            source.tag.write_text(_validator(headers), encoding="utf-8")
        with file:
            yield from _append(answer, file, start, total, source)


def _append(
    answer: http.client.HTTPResponse, file: FileIO, done: int, total: int | None, source: _Source
) -> Iterator[Progress]:
    yield Progress(done, total)
    while total is None or done < total:
        block = answer.read1(_CHUNK if total is None else min(_CHUNK, total - done))
        if not block:
            break
        with disk(source.part):
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
        done += len(block)
        yield Progress(done, total)
    if total is not None and done < total:
        raise http.client.HTTPException(f"the line was cut, {total - done:,} bytes lack")


def _open(source: _Source, start: int) -> http.client.HTTPResponse:
    request = urllib.request.Request(source.url)
    request.add_header("User-Agent", "innervision")
    request.add_header("Accept-Encoding", "identity")
    if start:
        request.add_header("Range", f"bytes={start}-")
        with suppress(OSError):
            if tag := source.tag.read_text(encoding="utf-8"):
                request.add_header("If-Range", tag)  # the whole file comes if it is not the same any more
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=source.timeout)
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return error  # type: ignore[return-value]  # an HTTPError is its own response
        raise


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from https to anything else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise DownloadFailed(f"{req.full_url} redirects to {newurl}, which is not followed: not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _validator(headers: Message) -> str:
    """Return what names this version of the file; a weak ETag is not for If-Range (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _check(source: _Source) -> None:
    """Put the part in its place if its checksum is right, and drop it if not."""
    found = checksum(source.part, source.kind)
    if not found.startswith(source.digest):
        size = _size(source.part)
        _forget(source)
        raise DownloadFailed(
            f"{source.url} is not the expected file: {source.kind} {source.digest} expected, {found} found "
            f"({size:,} bytes, thrown away); try again, or {source.by_hand()}"
        )
    with disk(source.path):
        with source.part.open("rb+") as file:
            os.fsync(file.fileno())
        source.part.replace(source.path)
    source.tag.unlink(missing_ok=True)


def _forget(source: _Source) -> None:
    source.part.unlink(missing_ok=True)
    source.tag.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
