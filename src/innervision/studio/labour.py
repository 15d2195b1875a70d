"""A job being carried out: its command line, its events as they come, and what becomes of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from innervision.files import claim
from innervision.studio import runs
from innervision.studio.files import files
from innervision.studio.history import told
from innervision.studio.ledger import Ledger
from innervision.studio.process import KILL, Child, signal_group
from innervision.studio.runs import EVENTS, INPUTS, RECORD, Job, State, clean
from innervision.studio.works import WORKS, Work

LOCK = ".job.lock"
"""Held by whoever works in a run's folder, and by the process that does the work."""
_LOOK = 0.3  # seconds between looks for new files
_LOG = 1 << 24  # bytes of events that are kept of a job


def command_line(job: Job, work: Work, folder: Path, *, go_on: bool) -> list[str]:
    """Return the words after `python -m innervision`; with `go_on` those that go on with what is there."""
    place = [] if job.output is None else [f"--{work.flag}={folder / job.output if job.output else folder}"]
    if go_on and work.goes_on == "resume":
        # a training's output is its run's folder, which --resume names
        place = [f"--resume={folder}", *(place if job.output else [])]
        return [job.command, *place, *work.always, "--json"]
    own = [f"--{work.folder}={folder}"] if work.folder else []
    return [job.command, *place, *own, *work.always, "--json", *job.words]


def outcome(work: Work, child: Child, *, result: bool, closing: bool) -> State:
    """Return the state of a job whose process has ended.

    result: whether the command told what came of it. closing: whether the server is being stopped.
    """
    if child.code == 0 or (child.code in work.fine and result):
        return "done"
    if child.stopped and (child.asked or child.code == 128 + signal.SIGINT):
        return "interrupted" if closing else "stopped"
    return "failed"


def take(folder: Path) -> IO[bytes]:
    """Claim a run's folder for a job; OSError where another process holds it."""
    lock = (folder / LOCK).open("ab")
    try:
        claim(lock)
    except BaseException:
        lock.close()
        raise
    return lock


def end_orphan(folder: Path, pid: int | None, *, patience: float = 5.0) -> None:
    """End what a server that died has left at work in a run's folder: as Ctrl-C does, then by force."""
    for number in (signal.SIGINT, KILL):
        until = time.monotonic() + patience
        asked = False
        while time.monotonic() < until:
            try:
                take(folder).close()
                return
            except (BlockingIOError, PermissionError):
                # the lock's holder is in this group, so that no other has its number
                if not asked and pid is not None and pid > 1:
                    signal_group(pid, number)
                asked = True
                time.sleep(0.05)
            except OSError:
                return


def clear(folder: Path) -> None:
    """Remove what a job has written, so that it can begin anew; its record and its pictures stay."""
    for path in folder.iterdir():
        if path.name in (RECORD, INPUTS, LOCK):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def carry_out(ledger: Ledger, id: str, child: Child, closing: Callable[[], bool]) -> dict[str, Any]:
    """Follow a job's process to its end, telling of steps and files; return what has changed of the job."""
    job = ledger.jobs[id]
    folder, work = ledger.folder / id, WORKS[job.command]
    history = ledger.history(id)
    seen = {file.name: file.etag for file in files(job, ledger.folder)}
    result: dict[str, Any] | None = None
    looked = 0.0
    with contextlib.ExitStack() as opened:
        log = None if work.keeps_events else Log(folder / EVENTS)
        if log is not None:
            opened.callback(log.close)
        for event in child.events():
            step = told(event)
            if step is not None:
                ledger.note(id, step, stopping=child.asked > 0)
                history.add("step", step)
                if log is not None:
                    log.add(step)
            elif event["event"] == "result":
                result = clean({key: value for key, value in event.items() if key != "event"})
            elif event["event"] == "start" and isinstance(event.get("text"), list):
                history.add("note", {"text": "\n".join(map(str, event["text"]))[:2000]})
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                _show(ledger, job, seen)
    _show(ledger, job, seen)
    state = outcome(work, child, result=result is not None, closing=closing())
    error = child.error[:1000] if state == "failed" else ""
    changes = {"state": state, "error": error, "result": result}
    ran = runs.found(folder) if state == "done" and work.keeps_events else None
    if ran is not None:  # its last steps were those of what it was measured in
        changes |= {"step": ran.step, "of": ran.of}
    return changes


def _show(ledger: Ledger, job: Job, seen: dict[str, str]) -> None:
    """Tell of files that are new, or written anew."""
    history = ledger.history(job.id)
    for file in files(job, ledger.folder):
        if seen.get(file.name) != file.etag and file.name != EVENTS:
            seen[file.name] = file.etag
            history.add("file", vars(file))


class Log:
    """A job's steps as events.jsonl, for commands that keep none; what is beyond 16 MiB is left out."""

    def __init__(self, path: Path) -> None:
        self._room = _LOG
        self._file = path.open("w", encoding="utf-8")

    def add(self, step: Mapping[str, Any]) -> None:
        """Add a step."""
        flat = {"event": "step", "count": step["step"], **step, **step["terms"]}
        del flat["terms"]
        line = json.dumps(flat) + "\n"
        self._room -= len(line)
        if self._room > 0:
            with contextlib.suppress(OSError):  # of a full disk the command itself complains
                self._file.write(line)
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()
