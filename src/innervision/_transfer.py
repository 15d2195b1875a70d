"""One file's way from a server to the disk: appended as it comes, and gone on with after each break."""

from __future__ import annotations

import http.client
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

from innervision.errors import DownloadFailed, WeightsMissing
from innervision.files import checksum, disk

_CHUNK = 1 << 18
_PAUSES = (0.5, 1.0, 2.0)  # seconds before the second, third and fourth attempt
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Progress:
    """Bytes on disk, and bytes in all where that is known."""

    done: int
    total: int | None


@dataclass(frozen=True)
class Source:
    """What is fetched, where to, and how it is recognised."""

    url: str
    path: Path
    kind: Literal["sha256", "md5"]
    digest: str  # in full, or its beginning
    size: int | None
    timeout: float
    choose: str  # how another folder is named where this one cannot be written

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


def transfer(source: Source) -> Iterator[Progress]:
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
                    said = " ".join(f"{error.code} {error.reason}".split())
                    raise DownloadFailed(f"{source.url} answered {said}; {source.by_hand()}") from error
            elif isinstance(error, urllib.error.URLError) and not came:
                lack = f"no connection to {urlsplit(source.url).netloc} ({error.reason})"
                raise WeightsMissing(f"{lack}: {source.by_hand()}") from error
            if pause is None:
                raise DownloadFailed(
                    f"{source.url} broke off at {size_of(source.part):,} bytes ({_reason(error)}); "
                    "trying again goes on from there"
                ) from error
        time.sleep(pause)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "the server fell silent"
    return str(error) or type(error).__name__


def _attempt(source: Source) -> Iterator[Progress]:
    """Ask once for what is lacking and append it; any OSError or HTTPException means: try again."""
    start = size_of(source.part)
    with _open(source, start) as answer:
        headers = answer.headers
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if headers.get("Content-Range") == f"bytes */{start}":
                return  # nothing lacks
            forget(source)
            raise http.client.HTTPException("the part is no beginning of the file")
        fits = re.match(rf"bytes {start}-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if answer.status == HTTPStatus.PARTIAL_CONTENT and not fits:
            forget(source)
            raise http.client.HTTPException("the server sent another range than was asked for")
        if answer.status != HTTPStatus.PARTIAL_CONTENT:  # the whole file, from its beginning
            start = 0
        length = headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else None
        if start and fits and fits[1] != "*":  # the length is the range's, which may end before the file does
            total = int(fits[1])
        if source.size is not None and total not in (None, source.size):
            raise DownloadFailed(
                f"{source.url} has {total:,} bytes where {source.size:,} are expected: another file now; "
                f"{source.by_hand()}"
            )
        with disk(source.part, source.choose):
            file = source.part.open("ab" if start else "wb", buffering=0)  # closing has nothing left to write
            source.tag.write_text(_validator(headers), encoding="utf-8")
        with file:
            yield from _append(answer, file, start, total, source)


def _append(
    answer: http.client.HTTPResponse, file: FileIO, done: int, total: int | None, source: Source
) -> Iterator[Progress]:
    yield Progress(done, total)
    while total is None or done < total:
        block = answer.read1(_CHUNK if total is None else min(_CHUNK, total - done))
        if not block:
            break
        with disk(source.part, source.choose):
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) :]
        done += len(block)
        yield Progress(done, total)
    if total is not None and done < total:
        raise http.client.HTTPException(f"the line was cut, {total - done:,} bytes lack")


def _open(source: Source, start: int) -> http.client.HTTPResponse:
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


def forget(source: Source) -> None:
    source.part.unlink(missing_ok=True)
    source.tag.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
