"""A process that decodes picture files for its parent: a path in, a square of bytes out, to the last.

A request is a path's length (4 bytes) and the path; an answer is a kind (1 byte), a length (4 bytes), and
pixels or the reason why there are none. No `multiprocessing`: it would run the caller's script once more.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

COLOURED, GREY, BAD = range(3)
LENGTH = struct.Struct(">I")
ANSWER = struct.Struct(">BI")


def decoded(path: str, size: int, channels: int, max_pixels: int) -> tuple[int, bytes]:
    """Return a file's kind and its pixels (channels, size, size), or BAD and the reason."""
    from innervision import images
    from innervision.errors import InnervisionError
    from innervision.learn.raw import is_grey, squared

    try:
        picture = images.read(path, max_pixels=max_pixels)
        return (GREY if is_grey(picture) else COLOURED), squared(picture, size, channels).tobytes()
    except InnervisionError as error:
        return BAD, str(error).encode()
    except MemoryError:
        return BAD, f"'{path}' needs more memory than there is".encode()


def serve(requests: BinaryIO, answers: BinaryIO, size: int, channels: int, max_pixels: int) -> None:
    """Answer requests until the stream of them ends."""
    while len(head := requests.read(LENGTH.size)) == LENGTH.size:
        path = os.fsdecode(requests.read(LENGTH.unpack(head)[0]))
        kind, body = decoded(path, size, channels, max_pixels)
        answers.write(ANSWER.pack(kind, len(body)))
        answers.write(body)
        answers.flush()


def main() -> None:
    """Serve as a child process: standard output carries answers, and nothing else may write to it."""
    import torch

    torch.set_num_threads(1)  # there are as many processes as are to work
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        serve(sys.stdin.buffer, answers, *map(int, sys.argv[1:4]))
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)  # the parent has gone or is stopping
