"""A command at work in a process, and process group, of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, Any

PROGRAM = (sys.executable, "-P", "-m", "innervision")  # -P: a file torch.py in the working folder is not ours
NICE = 5  # a job steps back a little, so that looking stays fluent beside it
_LINE = 1 << 20  # bytes of a line that is read at once; what is longer is no event
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL: there SIGTERM ends by force
_STOPS = (signal.SIGINT, signal.SIGTERM, KILL)  # what asking once, twice and three times sends
STOPPED = frozenset(code for number in _STOPS for code in (128 + number, -number))
"""Exit codes of a command that was asked to stop."""


class Child:
    """`python -m innervision WORDS`; its standard output is its events, the end of its errors its error.

    lock: a file that this process has claimed. The child holds it too, so that whoever cannot claim it knows
    that the child, or one of its own, still lives.
    """

    def __init__(self, words: Sequence[str], lock: IO[bytes]) -> None:
        self._asked = 0
        self._errors: deque[str] = deque(maxlen=60)
        self._process = subprocess.Popen(
            [*PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **_apart(lock),
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        )
        if sys.platform != "win32":
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICE)
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._read_errors, self._reap)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Its number, and its group's."""
        return self._process.pid

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield its events until it ends; what else it prints is passed over."""
        out = self._process.stdout
        assert out is not None
        whole = True  # whether the last line was read to its end
        while line := out.readline(_LINE):
            began, whole = whole, line.endswith(b"\n")
            if not began or not line.startswith(b"{"):
                continue
            with contextlib.suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and isinstance(event.get("event"), str):
                    yield event
        for thread in self._threads:
            thread.join()
        out.close()

    def stop(self) -> None:
        """Ask it to stop: as Ctrl-C does, then by SIGTERM, then by force."""
        number = _STOPS[min(self._asked, len(_STOPS) - 1)]
        self._asked += 1
        signal_group(self._process.pid, number)

    def kill(self) -> None:
        """End it by force."""
        signal_group(self._process.pid, KILL)

    @property
    def asked(self) -> int:
        """How often it was asked to stop."""
        return self._asked

    @property
    def stopped(self) -> bool:
        """Whether it ended because it was asked to, by whomever."""
        # one that is still beginning ends with Python's own word
        return self.code in STOPPED or self._last() == "KeyboardInterrupt"

    @property
    def code(self) -> int:
        """Its exit code; below 0, the signal that ended it."""
        return self._process.wait()

    @property
    def error(self) -> str:
        """What it said last of what went wrong, in a line."""
        lines = [line for line in self._errors if line.strip()]
        for mark in ("innervision: ", "Error: "):
            for line in reversed(lines):
                if line.startswith(mark):
                    return line.removeprefix(mark).strip()
        code = self.code
        if code < 0:
            name = signal.Signals(-code).name if -code in [*signal.Signals] else str(-code)
            why = ", perhaps for want of memory" if -code == KILL else ""
            return f"its process was ended by {name}{why}"
        return self._last() or f"its process ended with exit code {code}"

    def _last(self) -> str:
        return next((line.strip() for line in reversed(self._errors) if line.strip()), "")

    def _read_errors(self) -> None:
        errors = self._process.stderr
        assert errors is not None
        with errors:
            while line := errors.readline(4000):
                self._errors.append(line.decode("utf-8", "replace").rstrip()[:1000])

    def _reap(self) -> None:
        self._process.wait()
        # what it has left behind would keep its output open
        signal_group(self._process.pid, KILL)


def _apart(lock: IO[bytes]) -> dict[str, Any]:
    """Return what begins a process in a group of its own, for Ctrl-C at the server is not its own."""
    if sys.platform == "win32":  # where a lock is not handed on: a job that a dead server leaves is not found
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
    return {"start_new_session": True, "pass_fds": (lock.fileno(),)}


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if it is still there; never to our own."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":  # a group hears of Ctrl-Break alone, which the command takes for Ctrl-C
            os.kill(pid, signal.CTRL_BREAK_EVENT if number == signal.SIGINT else number)
        elif pid != os.getpgrp():
            os.killpg(pid, number)
