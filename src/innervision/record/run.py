"""A run folder that is being written, and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import torch
from PIL import Image

from innervision.core import Frame
from innervision.errors import RunUnusable
from innervision.files import atomic, claim, disk
from innervision.record.card import RUNS, Result, RunCard, read_card, write_card
from innervision.record.events import (
    draw_curve,
    draw_sheet,
    frame_event,
    keep_events,
    read_events,
    snapshot_event,
)

STDIN = "stdin"
"""The file in a run's folder that keeps the picture which came by standard input."""


@runtime_checkable
class Work(Protocol):
    """What a Run records: an iterator of frames that tells which are worth keeping."""

    changes: list[tuple[int, float]]  # (count, percentage) from snapshot to snapshot

    def __iter__(self) -> Iterator[Frame]: ...
    def snapshot_due(self, frame: Frame) -> bool: ...
    def show(self, frame: Frame) -> Image.Image: ...
    def checkpoint(self) -> dict[str, Any]: ...


class Run:
    """A run folder that is being written; it belongs to one process until it is closed.

    Use it as a context: a run left by an exception is marked failed (by KeyboardInterrupt, stopped).
    """

    def __init__(
        self, folder: Path, card: RunCard, lock: IO[bytes], seconds: float = 0.0, count: int = 0
    ) -> None:
        self.folder = folder
        self.card = card
        self.seconds = seconds  # of work, over all sittings
        self.count = count  # steps done
        self._checkpoint = folder / "checkpoint.pt"
        self._lock = lock
        try:
            write_card(self.card, self.folder)
        except BaseException:
            lock.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if error is not None and self.card.status == "running":
                status = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
                self.card = replace(self.card, status=status, error=str(error) or type(error).__name__)
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    write_card(self.card, self.folder)
        finally:
            self._lock.close()

    def watch(self, work: Work, *, checkpoints: bool = False) -> Generator[Frame]:
        """Yield the work's frames, recording each; with `checkpoints` a crash can be gone on from too."""
        clock = time.perf_counter()
        before = self.seconds
        events_path = self.folder / "events.jsonl"
        with disk(self.folder / "snapshots"):
            (self.folder / "snapshots").mkdir(exist_ok=True)
        with disk(events_path):
            events = events_path.open("a", encoding="utf-8")
        try:
            for frame in work:
                self.seconds = before + time.perf_counter() - clock
                self.count = frame.count
                self._tell(events, frame_event(frame, self.seconds))
                if work.snapshot_due(frame):
                    path = self.folder / "snapshots" / f"{frame.count:04d}.png"
                    with atomic(path) as draft:
                        work.show(frame).save(draft)
                    self._tell(events, snapshot_event(frame, work.changes, path.name))
                if checkpoints and work.snapshot_due(frame):
                    self.save_checkpoint(work)
                yield frame
        finally:
            with disk(events_path):
                events.close()

    @staticmethod
    def _tell(events: IO[str], event: dict[str, Any]) -> None:
        with disk(Path(events.name)):
            events.write(json.dumps(event) + "\n")
            events.flush()

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file in the run's folder, such as a picture that came by standard input."""
        with atomic(self.folder / name) as draft:
            draft.write_bytes(data)

    def save_checkpoint(self, work: Work) -> None:
        """Save where the work stands, so that `resume_run` can go on from there."""
        saved = {"seconds": self.seconds, "count": self.count, "work": work.checkpoint()}
        # through a file of Python's: torch's own does not tell why it cannot write
        with atomic(self._checkpoint) as draft, draft.open("wb") as file:
            try:
                torch.save(saved, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # which its closing line comes on top of
                    raise error.__context__ from None
                raise

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._checkpoint.is_file()

    def stop(self, work: Work, result: Result) -> None:
        """Close a run that is to be gone on with."""
        self.save_checkpoint(work)
        self._close("stopped", result)

    def finish(self, result: Result) -> None:
        """Close a run that has come to its end."""
        self._close("done", result)

    def _close(self, status: str, result: Result) -> None:
        # the card first: the pictures of the run are a courtesy, the result is not
        self.card = replace(self.card, status=status, error="", result=result)
        write_card(self.card, self.folder)
        if status == "done":  # what nobody goes on from makes room for the pictures
            with disk(self._checkpoint):
                self._checkpoint.unlink(missing_ok=True)
        events = read_events(self.folder)
        draw_curve(events, self.folder / "curve.png")
        draw_sheet(events, self.folder)


def new_folder(command: str, parent: Path = RUNS) -> Path:
    """Return a name for a new run's folder: the time, and four digits that keep two runs apart."""
    return parent / f"{command}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def open_run(folder: Path | str, card: RunCard) -> Run:
    """Make a run folder and claim it; RunUnusable if another process is at it, or it holds a run."""
    folder = Path(folder)
    lock = take(folder)
    if (folder / "run.json").exists():
        lock.close()
        raise RunUnusable(
            f"'{folder}' holds a run already: name another folder, or go on with it by "
            f"--resume {shlex.quote(str(folder))}"
        )
    return Run(folder, card, lock)


def resume_run(folder: Path | str, card: RunCard) -> tuple[Run, dict[str, Any]]:
    """Claim a stopped run's folder to go on as `card`; return it with the work's checkpoint.

    Its own card stays, but for the output, and events after the checkpoint are forgotten. Raises RunUnusable
    where there is nothing to go on from, or when pictures, options or versions differ: the rest would not be
    what an unbroken run had painted.
    """
    folder = Path(folder)
    before = read_card(folder)
    lock = take(folder)
    try:
        path = folder / "checkpoint.pt"
        if before.status == "done":
            raise RunUnusable(f"the run in '{folder}' is done: there is nothing left to go on with")
        if not path.is_file():
            raise RunUnusable(f"'{folder}' holds no checkpoint.pt: start the run anew")
        if faults := before.differences(card):
            raise RunUnusable(
                f"the run in '{folder}' cannot be gone on with: {'; '.join(faults)}; start it anew"
            )
        try:
            saved = torch.load(path, weights_only=True)
            seconds, count, work = float(saved["seconds"]), int(saved["count"]), saved["work"]
        except Exception as error:  # torch.load raises almost anything for a damaged file
            raise RunUnusable(f"'{path}' is damaged ({type(error).__name__}): start the run anew") from error
        keep_events(folder, count)
    except BaseException:
        lock.close()
        raise
    card = replace(before, status="running", error="", output=card.output)
    return Run(folder, card, lock, seconds, count), work


def take(folder: Path) -> IO[bytes]:
    """Return the folder's lock, which the system lets go of when this process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    except OSError as error:
        why = error.strerror or str(error)
        raise RunUnusable(
            f"cannot keep a run in '{folder}': {why}; name another folder by --run, or keep none by --no-run"
        ) from error
    try:
        claim(lock)
    except (BlockingIOError, PermissionError):
        lock.close()
        raise RunUnusable(
            f"another process is writing into '{folder}': wait for it, or name another folder by --run"
        ) from None
    except OSError:
        pass  # a file system without locks
    return lock


def in_use(folder: Path | str) -> bool:
    """Tell whether a process is writing into a run's folder."""
    lock = Path(folder) / ".lock"
    if not lock.is_file() or not os.access(lock, os.W_OK):
        return False
    with lock.open("ab") as file:
        try:
            claim(file)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
    return False
