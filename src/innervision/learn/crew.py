"""Several processes that decode picture files, and what they make of them, in order."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

from innervision.learn._decoder import ANSWER, BAD, LENGTH, decoded

FEW = 128  # so many files are decoded before another process has started


def squares(
    files: Sequence[Path], shape: tuple[int, int, int], workers: int | None, max_pixels: int
) -> Generator[tuple[int, bytes], None, None]:
    """Yield each file's kind and its pixels, or the reason why there are none, in the order of the files.

    workers: processes at most, by default one a core. Few files are decoded in this process.
    """
    channels, side, _ = shape
    count = min(_cores() if workers is None else workers, len(files) // FEW)
    if count < 2:
        for file in files:
            yield decoded(os.fspath(file), side, channels, max_pixels)
        return
    idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
    crew = [Worker(side, channels, max_pixels) for _ in range(count)]
    for worker in crew:
        idle.put(worker)

    def job(file: Path) -> tuple[int, bytes]:
        worker = idle.get()
        try:
            return worker.decode(file)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(count)
    waiting: deque[Future[tuple[int, bytes]]] = deque()
    try:
        for file in files:
            waiting.append(pool.submit(job, file))
            if len(waiting) >= 8 * count:  # so many squares are held at most
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for worker in crew:
            worker.stop()
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """A process that decodes; one that a file kills is replaced, and the file named."""

    def __init__(self, *options: int) -> None:
        self._options = options
        self._stopped = False
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        # the caller's own path: what it can import, the process can too
        code = f"import sys; sys.path[:] = {sys.path!r}; from innervision.learn._decoder import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *map(str, self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,  # nothing is left to write when a process has died
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def decode(self, file: Path) -> tuple[int, bytes]:
        """Return a file's kind and its pixels, or BAD and why."""
        path = os.fsencode(file)
        try:
            self._stream("stdin").write(LENGTH.pack(len(path)) + path)
            kind, length = ANSWER.unpack(self._exactly(ANSWER.size))
            return kind, self._exactly(length)
        except (OSError, EOFError, ValueError):
            if self._stopped:
                return BAD, b"stopped"
            code = self._end()
            self._process = self._start()
            return BAD, f"'{file}' ended the process that decoded it (exit code {code})".encode()

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._stopped = True
        self._process.kill()
        self._end()

    def _end(self) -> int:
        code = self._process.wait()
        for name in ("stdin", "stdout"):
            self._stream(name).close()
        return code

    def _stream(self, name: str) -> IO[bytes]:
        return getattr(self._process, name)

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._stream("stdout").read(size - len(data))
            if not part:
                raise EOFError("the process ended")
            data += part
        return bytes(data)
