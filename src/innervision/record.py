"""Runs on disk: what was run, on what, with what result, and all that is needed to go on with it.

    run.json          the RunCard
    events.jsonl      one line a frame, a snapshot, an end
    snapshots/        NNNN.png, by count of steps
    sheet.png         the snapshots side by side
    curve.png         every term over the steps
    checkpoint.pt     where a stopped run goes on, bit for bit

Every file is written whole or not at all, but for the events, whose last line may be cut by a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from PIL import Image

from innervision import sheets
from innervision.core import Frame
from innervision.errors import RunUnusable
from innervision.files import atomic, claim, disk

RUNS = Path("runs")
"""Where runs lie unless a folder is named, below the working folder."""

STDIN = "stdin"
"""The file in a run's folder that keeps the picture which came by standard input."""


@dataclass(frozen=True)
class Input:
    """A file a run reads; `source` is its full path, or "blank", or "sample:NAME"."""

    role: str  # content, style, start, weights
    source: str
    sha256: str


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    output: str
    sha256: str
    count: int  # steps done
    steps: int  # steps planned
    total: float
    values: dict[str, float]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class RunCard:
    """What was run, on what, and with what result."""

    command: str
    line: str  # as it was typed
    preset: str
    options: Mapping[str, Any]
    seed: int
    inputs: tuple[Input, ...]
    output: str
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    started: str = field(default_factory=lambda: datetime.now().astimezone().isoformat(timespec="seconds"))
    status: str = "running"  # running, stopped, done, failed
    error: str = ""
    result: Result | None = None

    def differences(self, other: RunCard) -> list[str]:
        """Say what keeps this run from going on as the other: pictures, options, versions."""
        faults = [
            f"{name} is {_plain(new)}, was {_plain(self.options.get(name))}"
            for name, new in other.options.items()
            if _plain(self.options.get(name)) != _plain(new)
        ]
        for name, version in other.versions.items():
            if name != "python" and self.versions.get(name) != version:
                faults.append(f"{name} is {version}, was {self.versions.get(name)}")
        mine, theirs = ([(i.role, i.sha256) for i in card.inputs] for card in (self, other))
        if len(mine) != len(theirs):
            faults.append(f"{len(theirs)} files are read, {len(mine)} were")
        for was, now in zip(self.inputs, other.inputs, strict=False):
            if (was.role, was.sha256) != (now.role, now.sha256):
                faults.append(f"the {was.role} {was.source} is not the same file any more")
        return faults


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

    def __init__(self, folder: Path, card: RunCard, lock: IO[bytes], done: float = 0.0) -> None:
        self.folder = folder
        self.card = card
        self.seconds = done  # of work, over all sittings
        self.count = 0  # steps done
        self._lock = lock
        try:
            self._write_card()
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
                    self._write_card()
        finally:
            self._lock.close()

    def watch(self, work: Work, *, checkpoints: bool = False) -> Generator[Frame]:
        """Yield the work's frames, recording each; with `checkpoints` a crash can be gone on from too."""
        clock = time.perf_counter()
        before = self.seconds
        (self.folder / "snapshots").mkdir(exist_ok=True)
        events_path = self.folder / "events.jsonl"
        with disk(events_path):
            events = events_path.open("a", encoding="utf-8")
        try:
            for frame in work:
                self.seconds = before + time.perf_counter() - clock
                self.count = frame.count
                found = [frame_event(frame, self.seconds)]
                if work.snapshot_due(frame):
                    path = self.folder / "snapshots" / f"{frame.count:04d}.png"
                    with atomic(path) as draft:
                        work.show(frame).save(draft)
                    found.append(snapshot_event(frame, work.changes, path.name))
                with disk(events_path):
                    events.writelines(json.dumps(event) + "\n" for event in found)
                    events.flush()
                if checkpoints and work.snapshot_due(frame):
                    self._save_checkpoint(work)
                yield frame
        finally:
            with disk(events_path):
                events.close()

    def keep(self, name: str, data: bytes) -> None:
        """Keep a file in the run's folder, such as a picture that came by standard input."""
        with atomic(self.folder / name) as draft:
            draft.write_bytes(data)

    def stop(self, work: Work, result: Result) -> None:
        """Close a run that is to be gone on with."""
        self._save_checkpoint(work)
        self._close("stopped", result)

    def finish(self, result: Result) -> None:
        """Close a run that has come to its end."""
        self._close("done", result)
        (self.folder / "checkpoint.pt").unlink(missing_ok=True)

    def _close(self, status: str, result: Result) -> None:
        # the card first: the pictures of the run are a courtesy, the result is not
        self.card = replace(self.card, status=status, error="", result=result)
        self._write_card()
        events = read_events(self.folder)
        draw_curve(events, self.folder / "curve.png")
        draw_sheet(events, self.folder)

    def _save_checkpoint(self, work: Work) -> None:
        with atomic(self.folder / "checkpoint.pt") as draft:
            torch.save({"seconds": self.seconds, "count": self.count, "work": work.checkpoint()}, draft)

    def _write_card(self) -> None:
        with atomic(self.folder / "run.json") as draft:
            draft.write_text(json.dumps(_plain(asdict(self.card)), indent=2) + "\n", encoding="utf-8")


def new_folder(command: str, parent: Path = RUNS) -> Path:
    """Return a name for a new run's folder: the time, and four digits that keep two runs apart."""
    return parent / f"{command}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def open_run(folder: Path | str, card: RunCard) -> Run:
    """Make a run folder and claim it; RunUnusable if another process is at it, or it holds a run."""
    folder = Path(folder)
    lock = _take(folder)
    if (folder / "run.json").exists():
        lock.close()
        raise RunUnusable(
            f"'{folder}' holds a run already: name another folder, or go on with it by --resume {folder}"
        )
    return Run(folder, card, lock)


def resume_run(folder: Path | str, card: RunCard) -> tuple[Run, dict[str, Any]]:
    """Claim a stopped run's folder to go on as `card`; return it with the work's checkpoint.

    Events after the checkpoint are forgotten. Raises RunUnusable where there is nothing to go on from, or
    when pictures, options or versions differ: the rest would not be what an unbroken run had painted.
    """
    folder = Path(folder)
    before = read_card(folder)
    lock = _take(folder)
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
        kept = [event for event in read_events(folder) if event["count"] <= count]
        with atomic(folder / "events.jsonl") as draft:
            draft.write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")
    except BaseException:
        lock.close()
        raise
    return Run(folder, replace(card, started=before.started), lock, seconds), work


def _take(folder: Path) -> IO[bytes]:
    """Return the folder's lock, which the system lets go of when this process ends."""
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
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
    if not lock.exists() or not os.access(lock, os.W_OK):
        return False
    with lock.open("ab") as file:
        try:
            claim(file)
        except (BlockingIOError, PermissionError):
            return True
        except OSError:
            return False
    return False


def read_card(folder: Path | str) -> RunCard:
    """Read a run's card; RunUnusable if there is none, or it is damaged."""
    path = Path(folder) / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data = {f.name: data[f.name] for f in fields(RunCard)}
        data["inputs"] = tuple(Input(**one) for one in data["inputs"])
        data["result"] = None if data["result"] is None else Result(**data["result"])
        return RunCard(**data)
    except (FileNotFoundError, NotADirectoryError):
        raise RunUnusable(f"'{folder}' holds no run (no run.json): see innervision runs") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunUnusable(f"'{path}' cannot be read as a run card: {error}") from error


def list_runs(folder: Path | str = RUNS) -> list[tuple[Path, RunCard]]:
    """Return the runs in a folder, oldest first; what is not one is passed over."""
    found: list[tuple[Path, RunCard]] = []
    for path in Path(folder).glob("*/run.json"):
        with contextlib.suppress(RunUnusable):
            found.append((path.parent, read_card(path.parent)))
    return sorted(found, key=lambda run: (run[1].started, run[0]))


def read_events(folder: Path | str) -> list[dict[str, Any]]:
    """Return a run's events; a last line cut by a crash is passed over."""
    path = Path(folder) / "events.jsonl"
    events: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
    return events


def frame_event(frame: Frame, seconds: float) -> dict[str, Any]:
    """Return a frame as an event."""
    return {
        "event": "frame",
        "stage": frame.stage,
        "step": frame.step,
        "count": frame.count,
        "steps": frame.steps,
        "size": list(frame.image.shape[-2:]),
        "total": frame.total,
        "values": dict(frame.values),
        "seconds": round(seconds, 3),
    }


def snapshot_event(frame: Frame, changes: Iterable[tuple[int, float]], file: str = "") -> dict[str, Any]:
    """Return a snapshot as an event; `change` is the percentage since the one before, if they compare."""
    change = dict(changes).get(frame.count)
    return {"event": "snapshot", "count": frame.count, "file": file, "change": change}


def draw_curve(events: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw every term over the steps, on a logarithmic scale."""
    frames = [event for event in events if event["event"] == "frame"]
    if not frames:
        return
    names = dict.fromkeys(name for event in frames for name in event["values"])
    lines = {name: [event["values"].get(name, 0.0) for event in frames] for name in names}
    counts = [event["count"] for event in frames]
    with atomic(path) as draft:
        sheets.curve(counts, {"total": [event["total"] for event in frames], **lines}).save(draft)


def draw_sheet(events: Iterable[Mapping[str, Any]], folder: Path, *, most: int = 12) -> None:
    """Set the snapshots side by side, each with its step and how much had changed; at most so many."""
    found = {event["count"]: event for event in events if event["event"] == "snapshot"}
    shown = [event for event in found.values() if (folder / "snapshots" / event["file"]).is_file()]
    if not shown:
        return
    if len(shown) > most:  # the first, the last, and what lies evenly between
        shown = [shown[round(n * (len(shown) - 1) / (most - 1))] for n in range(most)]
    labels = [snapshot_label(event) for event in shown]
    with contextlib.ExitStack() as files, atomic(folder / "sheet.png") as draft:
        paths = [folder / "snapshots" / event["file"] for event in shown]
        pictures = [files.enter_context(Image.open(path)) for path in paths]
        sheets.sheet(pictures, labels=labels, columns=4).save(draft)


def snapshot_label(event: Mapping[str, Any]) -> str:
    """Say a snapshot's step and, below, how much had changed."""
    change = event["change"]
    return f"step {event['count']}" + ("" if change is None else f"\n{change:.1f} % changed")


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))
