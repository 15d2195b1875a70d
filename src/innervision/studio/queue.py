"""The jobs: begun one after the other, watched, stopped, resumed; kept on disk through whatever happens."""

from __future__ import annotations

import re
import shutil
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Protocol

from innervision.files import claim, disk
from innervision.record import new_folder
from innervision.studio import labour, runs
from innervision.studio.forms import Sources
from innervision.studio.ledger import Ledger, now, told_of
from innervision.studio.orders import words
from innervision.studio.process import Child
from innervision.studio.runs import Job
from innervision.studio.works import WORKS, output_of

WAITING = 50  # jobs in the queue at most
_PATIENCE = (10.0, 3.0, 3.0)  # seconds that a job has to end after each asking, when the server stops


class Unready(Exception):
    """What is asked of a job does not go with its state."""


class Full(Unready):
    """Too many jobs wait."""


class Places(Sources, Protocol):
    """What jobs choose from: networks, and pictures."""

    def picture(self, id: str) -> Path:
        """Return a picture's file; raise where there is none."""
        ...

    def called(self, id: str) -> str:
        """Return a picture's name."""
        ...


class Jobs:
    """The jobs of a folder of runs, one at a time. Several threads may ask; `close` ends it."""

    def __init__(self, ledger: Ledger, places: Places, *, patience: Sequence[float] = _PATIENCE) -> None:
        self.folder = ledger.folder
        self.ledger, self._places, self._patience = ledger, places, patience
        self._turn = threading.Condition(ledger.lock)
        self._queue: deque[str] = deque()
        self._child: tuple[str, Child] | None = None
        self._thread: threading.Thread | None = None
        self._lock: IO[bytes] | None = None
        self._closing = False

    def ahead(self, id: str) -> int | None:
        """Return how many jobs are to be done before a queued one."""
        with self._turn:
            return self._queue.index(id) + (self._child is not None) if id in self._queue else None

    def start(self) -> None:
        """Find what an earlier server has left: jobs that were running or waiting are interrupted."""
        if not self.folder.is_dir() or not self._claimed():
            return
        for path in sorted(self.folder.iterdir()):
            job = None if path.name.startswith(".") or path.is_symlink() else runs.read(path)
            if job is None:
                continue
            self.ledger.jobs[job.id] = job
            if job.state == "running":
                labour.end_orphan(path, job.pid)
                card = runs.found(path)
                last = runs.last_step(path)  # the record of a server that died says nothing of steps
                at = {} if last is None else {name: last[name] for name in ("step", "of")}
                state = "done" if card and card.state == "done" else "interrupted"
                self.ledger.update(job.id, state=state, pid=None, **at)
            elif job.state == "queued":
                self.ledger.update(job.id, state="interrupted")

    def submit(self, command: str, options: Mapping[str, Any]) -> Job:
        """Put a job into the queue. Raises Invalid for what is not allowed, Unready, and Full."""
        if command not in WORKS:
            words(command, options, self._places, lambda *_: Path())  # says so
        id = new_folder(command, self.folder).name
        copies: dict[Path, Path] = {}

        def picture(option: str, picture: str) -> Path:
            source = self._places.picture(picture)
            # under its own name, for that is what reports call it
            name = f"{_filed(self._places.called(picture))}{source.suffix}"
            target = self.folder / id / runs.INPUTS / f"{option}-{len(copies) + 1}" / name
            copies[target] = source
            return target

        line = words(command, options, self._places, picture)
        with self._turn:
            self._ready()
            job = Job(
                id=id,
                command=command,
                options=dict(options),
                words=tuple(line),
                output=output_of(command, options),
                created=now(),
            )
            try:
                with disk(self.folder / id):
                    for target, source in copies.items():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(source, target)
                runs.write(job, self.folder)
            except BaseException:
                shutil.rmtree(self.folder / id, ignore_errors=True)
                raise
            self._enqueue(job)
        return job

    def stop(self, id: str) -> Job:
        """Ask a job to stop: a first time as Ctrl-C does, so that it keeps what it has; then by force."""
        with self._turn:
            job = self.ledger.jobs.get(id)
            if id in self._queue:
                self._queue.remove(id)
                return self.ledger.update(id, state="stopped", ended=now())
            if self._child is not None and self._child[0] == id:
                self._child[1].stop()
                return self.ledger.update(id, save=False, text="stopping")
        if job is None and (found := self.ledger.get(id)) is not None and found.state == "running":
            raise Unready("this run was begun on the command line: stop it there")
        raise Unready("this job is not at work: there is nothing to stop")

    def resume(self, id: str) -> Job:
        """Put a job into the queue again: on from where it was, or else anew."""
        with self._turn:
            self._ready()
            job = self.ledger.get(id)
            how = "" if job is None else runs.resumable(job, self.folder)
            if job is None or not how:
                state = "" if job is None else f" it is {job.state}"
                raise Unready(f"this job cannot be resumed:{state or ' there is none'}")
            if how == "anew":
                labour.clear(self.folder / id)
            if how == "anew" or WORKS[job.command].goes_on != "resume":
                self.ledger.renew(id)
            if not job.own:  # the result goes into the run's folder, where a page can see it
                output = WORKS[job.command].output
                job = replace(job, output=output)
            job = replace(job, state="queued", error="", ended="", text="", result=None)
            runs.write(job, self.folder)
            self._enqueue(job)
        return job

    def remove(self, id: str) -> None:
        """Remove a job and all it has written; runs of the command line are left alone."""
        with self._turn:
            job = self.ledger.jobs.get(id)
            if job is None or not job.own:
                raise Unready("this run was begun on the command line: remove its folder by hand")
            if self._child is not None and self._child[0] == id:
                raise Unready("this job is at work: stop it first")
            if id in self._queue:
                self._queue.remove(id)
            self.ledger.forget(id)
            shutil.rmtree(self.folder / id, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether a job is at work."""
        return self._child is not None

    def hurry(self) -> None:
        """Let `close` wait no longer: the job at work is ended by force."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
            if self._child is not None:
                self._child[1].stop()
                self._child[1].kill()

    def hang_up(self) -> None:
        """Let everyone who follows a job go: a server that is to stop would wait for them."""
        self.ledger.hang_up()

    def close(self) -> None:
        """Stop: the job at work is interrupted and may keep what it has; those that wait are kept."""
        with self._turn:
            self._closing = True
            self._turn.notify_all()
        for patience in self._patience:
            with self._turn:
                if self._child is not None:
                    self._child[1].stop()
            if self._thread is not None:
                self._thread.join(patience)
                if self._thread.is_alive():
                    continue
            break
        self.hang_up()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _claimed(self) -> bool:
        """Whether these runs are this server's: two would carry out each other's jobs."""
        if self._lock is None:
            own = self.folder / ".studio"
            own.mkdir(parents=True, exist_ok=True)
            lock = (own / "lock").open("ab")
            try:
                claim(lock)
            except (BlockingIOError, PermissionError):
                lock.close()
                return False
            except OSError:
                pass  # a file system without locks
            self._lock = lock
        return True

    def _ready(self) -> None:
        if self._closing:
            raise Unready("the studio is being stopped: start it again, and ask once more")
        if not self._claimed():
            raise Unready(f"another studio works on the runs in '{self.folder}': go to it, or stop it")
        if len(self._queue) >= WAITING:
            raise Full(f"{WAITING} jobs wait already: let some end, or stop them")

    def _enqueue(self, job: Job) -> None:
        self.ledger.jobs[job.id] = job
        self._queue.append(job.id)
        history = self.ledger.history(job.id)
        history.reopen()
        history.add("state", told_of(job))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
            self._thread.start()
        self._turn.notify_all()

    def _work(self) -> None:
        """Carry out what waits, one job after the other, until the server stops."""
        while True:
            with self._turn:
                while not self._queue and not self._closing:
                    self._turn.wait()
                if self._closing:
                    return
                id = self._queue.popleft()
                try:
                    child, lock = self._begin(self.ledger.jobs[id])
                except Exception as error:  # this job's trouble is not the others'
                    self._end(id, {"state": "failed", "error": f"it could not begin: {error}"[:1000]})
                    continue
                self._child = (id, child)
            try:
                end = labour.carry_out(self.ledger, id, child, lambda: self._closing)
            except Exception as error:
                child.kill()
                end = {"state": "failed", "error": f"it was lost: {error}"[:1000]}
            finally:
                lock.close()
            with self._turn:
                self._child = None
                self._end(id, end)

    def _end(self, id: str, changes: Mapping[str, Any]) -> None:
        self.ledger.update(id, ended=now(), pid=None, text="", **changes)

    def _begin(self, job: Job) -> tuple[Child, IO[bytes]]:
        folder, work = self.folder / job.id, WORKS[job.command]
        go_on = runs.resumable(job, self.folder) == "on"
        lock = labour.take(folder)
        try:
            child = Child(labour.command_line(job, work, folder, go_on=go_on), lock)
        except BaseException:
            lock.close()
            raise
        self.ledger.update(job.id, state="running", started=now(), ended="", pid=child.pid)
        return child, lock


def _filed(name: str) -> str:
    """Return a picture's name without its suffix, as a file may bear it."""
    return re.sub(r"[^\w-]+", "-", Path(name).stem)[:60].strip("-") or "picture"
