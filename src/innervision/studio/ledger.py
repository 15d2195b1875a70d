"""What the studio knows of jobs and runs: those in memory, those on disk, and what happens to them."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from innervision.errors import InnervisionError
from innervision.studio import runs
from innervision.studio.files import files
from innervision.studio.history import History
from innervision.studio.runs import Job

_HISTORIES = 16  # kept in memory of jobs that are over; the others are read again


class Ledger:
    """The jobs of a folder of runs. Several threads may ask at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.lock = threading.RLock()
        self.jobs: dict[str, Job] = {}
        """Those of this server."""
        self._hung_up = False
        self._histories: OrderedDict[str, History] = OrderedDict()
        self._seen: dict[str, tuple[tuple[int, ...], Job]] = {}

    def get(self, id: str) -> Job | None:
        """Return a job, or a run that was made on the command line; None where there is none."""
        with self.lock:
            if id in self.jobs:
                return self.jobs[id]
        path = self.folder / id
        if id.startswith(".") or len(id) > 200 or path.name != id or not id.isprintable():
            return None
        if path.is_symlink():
            return None
        stamp = _stamp(path)
        if not any(stamp):
            return None
        with self.lock:
            before = self._seen.get(id)
        if before is not None and before[0] == stamp and before[1].state != "running":
            return before[1]
        found = runs.read(path) or runs.found(path)
        if found is not None:
            with self.lock:
                self._seen[id] = (stamp, found)
        return found

    def listing(self) -> list[Job]:
        """Return all jobs and runs, the latest first."""
        try:
            names = [path.name for path in self.folder.iterdir() if path.is_dir()]
        except OSError:
            names = []
        every = [job for name in names if (job := self.get(name)) is not None]
        return sorted(every, key=lambda job: (job.created, job.id), reverse=True)

    def update(self, id: str, *, save: bool = True, **changes: Any) -> Job:
        """Change a job, on disk too, and tell who follows."""
        with self.lock:
            job = self.jobs[id] = replace(self.jobs[id], **changes)
            history = self._histories.get(id)
            if save:
                with contextlib.suppress(InnervisionError):  # a full disk: what is in memory still holds
                    runs.write(job, self.folder)
        if history is not None:
            history.add("state", told_of(job))
            if job.state not in ("queued", "running"):
                history.end({"state": job.state})
        return job

    def note(self, id: str, step: Mapping[str, Any], *, stopping: bool) -> None:
        """Note how far a job is, in memory alone."""
        text = "stopping" if stopping else step["text"]
        with self.lock:
            self.jobs[id] = replace(self.jobs[id], step=step["step"], of=step["of"], text=text)

    def renew(self, id: str) -> None:
        """Forget what happened to a job, which begins again."""
        with self.lock:
            self._histories.pop(id, None)
        (self.folder / id / runs.EVENTS).unlink(missing_ok=True)

    def forget(self, id: str) -> None:
        """Forget a job; who follows it is let go."""
        with self.lock:
            self.jobs.pop(id, None)
            history = self._histories.pop(id, None)
        if history is not None and history.open:
            history.end({"state": "removed"})

    def history(self, id: str) -> History:
        """Return a job's events; those of one that is over are read from its folder."""
        with self.lock:
            if id in self._histories:
                self._histories.move_to_end(id)
                return self._histories[id]
        history = History()
        job = self.get(id)
        if job is not None:
            for step in runs.steps(self.folder / id):
                history.add("step", step)
            for file in files(job, self.folder):
                history.add("file", vars(file))
            history.add("state", told_of(job))
            if job.state not in ("queued", "running"):
                history.end({"state": job.state})
        with self.lock:
            history = self._histories.setdefault(id, history)
            if self._hung_up:
                history.hang_up()
            over = [key for key, each in self._histories.items() if not each.open and key != id]
            for key in over[: max(0, len(self._histories) - _HISTORIES)]:
                del self._histories[key]
        return history

    def refresh(self, id: str) -> None:
        """Look after a run that the command line is at work on: its new steps, and its end."""
        job, history = self.get(id), self.history(id)
        if job is None or not history.open or id in self.jobs:
            return
        steps = [event.data["step"] for event in history.since(0) if event.kind == "step"]
        for step in runs.steps(self.folder / id):
            if not steps or step["step"] > steps[-1]:
                history.add("step", step)
        if job.state not in ("queued", "running"):
            history.add("state", told_of(job))
            history.end({"state": job.state})

    def hang_up(self) -> None:
        """Let everyone who follows a job go, for good: a server that stops waits for them."""
        with self.lock:
            self._hung_up = True
            histories = list(self._histories.values())
        for history in histories:
            history.hang_up()


def told_of(job: Job) -> dict[str, Any]:
    """Return what who follows a job is told of its state."""
    names = ("state", "step", "of", "text", "error", "started", "ended")
    return {name: getattr(job, name) for name in names}


def _stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes when a run's record or card does; all 0 where there is none."""
    found: list[int] = []
    for name in (runs.RECORD, "run.json"):
        try:
            found.append((folder / name).stat().st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)


def now() -> str:
    """Return the time as records have it."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
