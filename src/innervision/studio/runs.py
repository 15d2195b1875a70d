"""Runs on disk as the studio shows them: a job's record, its files, its steps, its card."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from innervision.errors import RunUnusable
from innervision.files import atomic
from innervision.record import in_use, last_lines, read_card
from innervision.studio.history import MOST, told
from innervision.studio.works import WORKS, Work

RECORD = "job.json"
EVENTS = "events.jsonl"
INPUTS = "inputs"
"""Where the pictures lie that a job reads: copies, so that it can go on whatever happens to them."""

State = Literal["queued", "running", "done", "failed", "stopped", "interrupted"]
Resume = Literal["on", "anew", ""]

_CARD = 1 << 22  # bytes of a card, or of a record, that is read
_EVENTS = 1 << 26  # bytes of events that are read, the last ones


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that was asked for, and how far it is. `job.json` holds it."""

    id: str
    command: str
    options: Mapping[str, Any]
    """As they were filled in: pictures, networks and data sets by name."""
    words: tuple[str, ...] = ()
    """Of the command line, but for where the results go."""
    output: str | None = ""
    """What is written, in the run's folder; "" is the folder itself."""
    state: State = "queued"
    created: str = ""
    started: str = ""
    ended: str = ""
    step: int | None = None
    of: int | None = None
    text: str = ""
    error: str = ""
    result: Mapping[str, Any] | None = None
    """What the command said at its end."""
    own: bool = True
    """Whether the studio began it; else it was begun on the command line."""
    pid: int | None = None

    @property
    def work(self) -> Work | None:
        """How its command is carried out; None where a page cannot start it."""
        return WORKS.get(self.command)


def write(job: Job, runs: Path) -> None:
    """Write a job's record into its folder."""
    with atomic(runs / job.id / RECORD) as draft:
        draft.write_text(json.dumps(asdict(job), indent=2) + "\n", encoding="utf-8")


def read(folder: Path) -> Job | None:
    """Return the record in a folder; None where there is none, or none that makes sense."""
    data = _json(folder / RECORD)
    try:
        state: State = data["state"]
        if state not in get_args(State):
            return None
        texts = {name: str(data[name]) for name in ("created", "started", "ended", "text", "error")}
        return Job(
            id=folder.name,
            command=str(data["command"]),
            options=dict(data["options"]),
            words=tuple(map(str, data["words"])),
            output=None if data["output"] is None else str(data["output"]),
            state=state,
            step=_maybe(data["step"]),
            of=_maybe(data["of"]),
            result=None if data["result"] is None else dict(data["result"]),
            own=bool(data["own"]),
            pid=_maybe(data["pid"]),
            **texts,
        )
    except (TypeError, KeyError, ValueError, OverflowError):
        return None


def _maybe(value: Any) -> int | None:
    return None if value is None else int(value)


def found(folder: Path) -> Job | None:
    """Return the run in a folder that the command line began, by its card; None where there is none."""
    try:
        if (folder / "run.json").stat().st_size > _CARD:
            return None
        card = read_card(folder)
    except (OSError, RunUnusable, RecursionError):
        return None
    alive = card.status == "running" and in_use(folder)
    states: Mapping[str, State] = {"stopped": "stopped", "done": "done", "failed": "failed"}
    state: State = states.get(str(card.status), "running" if alive else "interrupted")
    latest = last_step(folder)
    done = None if card.result is None else card.result.count
    of = None if card.result is None else card.result.steps
    return Job(
        id=folder.name,
        command=str(card.command),
        options=clean({**dict(card.options), "preset": card.preset}),
        output=_within(card.output, folder),
        state=state,
        created=str(card.started),
        started=str(card.started),
        step=latest["step"] if done is None and latest else done,
        of=latest["of"] if of is None and latest else of,
        text=latest["text"] if latest else "",
        error=str(card.error)[:1000],
        own=False,
    )


def _within(output: str, folder: Path) -> str | None:
    """Return where an output lies in a run's folder; None where it lies elsewhere."""
    with contextlib.suppress(ValueError, OSError):
        return Path(output).relative_to(folder.absolute()).as_posix().removeprefix(".")
    return None


def resumable(job: Job, runs: Path) -> Resume:
    """Tell how a job can be resumed: on from where it was, anew from its beginning, or not at all.

    Of a job that is put into the queue, how it will begin.
    """
    if job.state in ("running", "done") or job.work is None:
        return ""
    folder = runs / job.id
    if job.work.goes_on == "resume" and any(
        (folder / name).is_file() for name in ("checkpoint.pt", "checkpoint.json")
    ):
        return "on"
    if not job.own:
        return ""  # its words are not known
    return "on" if job.work.goes_on == "same" and (folder / EVENTS).is_file() else "anew"


def card_of(job: Job, runs: Path) -> Any:
    """Return the card that the command has left, as JSON has it; None where there is none yet."""
    folder = runs / job.id
    names = ["run.json", *([f"{job.output}.run.json", f"{job.output}/run.json"] if job.output else [])]
    for name in [*names, "evaluation.json.run.json"]:
        data = _json(folder / name)
        if isinstance(data, dict):
            return clean(data)
    return None


def steps(folder: Path) -> list[dict[str, Any]]:
    """Return a run's steps from its events; where they are many, evenly some of them, and the last."""
    every = [step for line in last_lines(folder / EVENTS, _EVENTS) if (step := _step(line)) is not None]
    stride = -(-2 * len(every) // MOST) or 1
    return every[::-stride][::-1]


def last_step(folder: Path) -> dict[str, Any] | None:
    """Return the last step in a run's events."""
    for line in reversed(last_lines(folder / EVENTS, 1 << 16)):
        step = _step(line)
        if step is not None:
            return step
    return None


def _step(line: str) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        return told(event) if isinstance(event, dict) else None
    return None


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _CARD:
            return None
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def clean(value: Any, depth: int = 12) -> Any:
    """Return a value as strict JSON can hold it: what is no number becomes None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(key): clean(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [clean(each, depth - 1) for each in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return value if value is None or isinstance(value, int | bool) else str(value)
