"""Files that are written whole or not at all, claimed by one process, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from innervision.errors import InnervisionError

if sys.platform == "win32":
    import msvcrt

    def claim(file: IO[bytes]) -> None:
        """Lock an open file for this process, or raise BlockingIOError or PermissionError at once."""
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def claim(file: IO[bytes]) -> None:
        """Lock an open file for this process, or raise BlockingIOError or PermissionError at once."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic(path: Path | str) -> Generator[Path]:
    """Yield a name beside `path` to write to; the file takes its place whole, or not at all.

    The name keeps the suffix, from which writers guess a format. Missing folders are made. What was written
    reaches the disk before it replaces `path`, and is removed when the block raises. A link is written
    through. A full disk or a folder that cannot be written to is an InnervisionError.
    """
    path = Path(os.path.realpath(path))
    draft = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        with disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here, so that a folder without permission shows before the work; not by mkstemp, whose
            # files nobody else may read.
            draft.touch()
        try:
            yield draft
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _unwritable(path, error) from error
            raise
        with disk(path):
            with draft.open("rb+") as file:
                os.fsync(file.fileno())
            draft.replace(path)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def disk(path: Path, choose: str = "choose") -> Generator[None]:
    """Turn the system's refusal to write `path` into an error for a person.

    choose: how another folder is named, in words.
    """
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error, choose) from error


def _unwritable(path: Path, error: OSError, choose: str = "choose") -> InnervisionError:
    if error.errno in _NO_ROOM:
        return InnervisionError(f"no room to write {path}: free some space, or {choose} another folder")
    why = error.strerror or str(error)
    return InnervisionError(f"cannot write {path}: {why}; {choose} a folder that you may write to")


def checksum(path: Path | str, kind: Literal["sha256", "md5"] = "sha256") -> str:
    """Return a file's checksum in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()


def sha256(path: Path | str) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return checksum(path)
