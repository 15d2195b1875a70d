"""What a person, or a program, is told while a painting is at work. Standard output is left to pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from innervision.cli.seeing import as_ctrl_c, emit, say, terminal
from innervision.record import frame_event, snapshot_event

if TYPE_CHECKING:
    from rich.progress import Progress

    from innervision.core import Frame
    from innervision.paint.estimate import Estimate
    from innervision.paint.gatys import Painting

_ENOUGH, _SETTLED = 0.03, 2.0  # share done, and seconds, from which on the time left is told


@runtime_checkable
class Listener(Protocol):
    """Hears of a painting's frames."""

    def begin(self, painting: Painting) -> None: ...
    def frame(self, painting: Painting, frame: Frame, seconds: float) -> None: ...
    def end(self, event: dict[str, Any], text: str) -> None: ...


def introduce(painting: Painting) -> list[str]:
    """Return what is about to be done: sizes, stages, evaluations, network, precision and why."""
    import torch

    recipe, sitting = painting.recipe, painting.sitting
    sizes = [
        f"{name} {'blank' if p is None else f'{p.width}x{p.height}'}"
        for name, p in (("content", sitting.content), *(("style", style) for style in sitting.styles))
    ]
    h, w = sitting.size
    head = f"painting {w}x{h}; {', '.join(sizes)}"
    if recipe.color == "transfer-only":
        return [head, "colours alone: nothing is painted"]
    stages = ", ".join(f"{w}x{h} x {steps}" for (h, w), steps in sitting.stages)
    network = painting.network
    dtype = str(network.dtype).removeprefix("torch.")
    chip = "GPU" if network.device.type == "cuda" else "processor"
    if painting.latest is not None:
        why = "as before"  # a run that is gone on with, whose recipe now names what "auto" had been
    elif recipe.precision != "auto":
        why = "as asked"
    else:
        why = f"this {chip} {'computes in it' if dtype == 'bfloat16' else 'would only emulate bfloat16'}"
    count = recipe.threads or torch.get_num_threads()
    threads = f"{count} thread{'s' * (count != 1)}"
    return [
        head,
        f"{sitting.evaluations} evaluations: {stages}",
        f"{network.name} in {dtype} ({why}), {network.device}, {threads}",
    ]


def forecast(cost: Estimate) -> str:
    """Return what it will cost: work, time and memory.

    >>> forecast(Estimate(31_000_000_000_000, 250, 2**30, 20 * 2**30, longest=512, fits=True))
    'about 3.1e13 multiply-adds, 4 min on this machine, peak memory about 1.0 GiB of 20.0 GiB available'
    """
    work = "" if cost.multiply_adds is None else f"{cost.multiply_adds:.1e} multiply-adds, ".replace("+", "")
    time = "time not known" if cost.seconds is None else f"{duration(cost.seconds)} on this machine"
    return f"about {work}{time}, {needs(cost)}"


def needs(cost: Estimate) -> str:
    """Return the memory that it will take, of how much."""
    from innervision.memory import gib

    if cost.memory is None:
        return "peak memory not known on this system"
    of = "" if cost.available is None else f" of {gib(cost.available)} available"
    return f"peak memory about {gib(cost.memory)}{of}"


def duration(seconds: float) -> str:
    """Return a time as a person reads it: 40 s, 4 min, 2 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


def losses(frame: Frame) -> str:
    """Return the total and its parts: content, style, smooth, gamut."""
    parts: dict[str, float] = {}
    for name, value in frame.values.items():
        kind = name.split()[0]
        parts[kind] = parts.get(kind, 0.0) + value
    return f"total {frame.total:.4g} ({', '.join(f'{name} {value:.3g}' for name, value in parts.items())})"


def remaining(painting: Painting, first: int, frame: Frame, seconds: float) -> float | None:
    """Return the seconds still to go, a step costing as its pixels; `first` steps were done before.

    None while so little is done that nobody can tell (see `time_left`).
    """
    costs = [float(h * w) for (h, w), steps in painting.sitting.stages for _ in range(steps)]
    done, left = sum(costs[first : frame.count]), sum(costs[frame.count : frame.steps])
    return time_left(done, done + left, seconds)


def time_left(done: float, of: float, seconds: float) -> float | None:
    """Return the seconds still to go where `done` of `of` took so many; None while too little is done.

    Too little is less than 3 % or 2 seconds: what is done once, at the beginning, would count for every step.

    >>> time_left(1, 100, 20.0), time_left(5, 100, 1.0), time_left(5, 100, 20.0), time_left(9, 9, 0.1)
    (None, None, 380.0, 0.0)
    """
    if done >= of:
        return 0.0
    if done < _ENOUGH * of or seconds < _SETTLED:
        return None
    return seconds * (of - done) / done


def clock(seconds: float) -> str:
    """Return a time as a clock shows it.

    >>> clock(59.6), clock(5.2)
    ('1:00', '0:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def progress(painting: Painting, frame: Frame) -> str:
    """Return what a snapshot shows: step, size, losses, and how much has changed since the one before."""
    h, w = frame.image.shape[-2:]
    change = dict(painting.changes).get(frame.count)
    changed = "" if change is None else f"; {change:.2f} % changed"
    return f"step {frame.count}/{frame.steps} at {w}x{h}: {losses(frame)}{changed}"


class Silent:
    """Says nothing."""

    def begin(self, painting: Painting) -> None: ...
    def frame(self, painting: Painting, frame: Frame, seconds: float) -> None: ...
    def end(self, event: dict[str, Any], text: str) -> None: ...


class JsonLines:
    """Writes events as JSON lines to standard output; the last is the result."""

    def begin(self, painting: Painting) -> None:
        emit({"event": "start", "text": introduce(painting)})

    def frame(self, painting: Painting, frame: Frame, seconds: float) -> None:
        emit(frame_event(frame, seconds))
        if painting.snapshot_due(frame):
            emit(snapshot_event(frame, painting.changes))

    def end(self, event: dict[str, Any], text: str) -> None:
        emit(event)


class Plain:
    """Writes a line a snapshot to standard error."""

    def __init__(self) -> None:
        self._first: int | None = None

    def begin(self, painting: Painting) -> None:
        for line in introduce(painting):
            say(line)

    def frame(self, painting: Painting, frame: Frame, seconds: float) -> None:
        left = self._left(painting, frame, seconds)
        if painting.snapshot_due(frame) and frame.values:  # none where colours alone were matched
            times = f"{seconds:.0f} s" + (f", about {left:.0f} s left" if left else "")
            say(f"{progress(painting, frame)}; {times}")

    def end(self, event: dict[str, Any], text: str) -> None:
        say(text)

    def _left(self, painting: Painting, frame: Frame, seconds: float) -> float | None:
        """Return the seconds still to go, if they can be told; to be asked at each frame from the first."""
        self._first = frame.count - 1 if self._first is None else self._first
        return remaining(painting, self._first, frame, seconds)


class Bar(Plain):
    """Draws a bar with remaining time, size and losses on a terminal; each snapshot's line stays above it."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("looking at the pictures", total=None, left="")

    def begin(self, painting: Painting) -> None:
        for line in introduce(painting):
            self._say(line)

    def frame(self, painting: Painting, frame: Frame, seconds: float) -> None:
        left = self._left(painting, frame, seconds)
        if not frame.values:  # colours alone were matched
            return
        h, w = frame.image.shape[-2:]
        self._bar.update(
            self._task,
            completed=frame.count,
            total=frame.steps,
            description=f"{w}x{h} {losses(frame)}",
            left="" if left is None else f"{clock(left)} left",
        )
        if painting.snapshot_due(frame):
            self._say(progress(painting, frame))

    def end(self, event: dict[str, Any], text: str) -> None:
        self._bar.stop()
        super().end(event, text)

    def _say(self, line: str) -> None:
        self._bar.console.print(line, markup=False, highlight=False)  # above the bar, not across it


@contextlib.contextmanager
def listener(*, quiet: bool, as_json: bool) -> Iterator[Listener]:
    """Yield the listener that fits: JSON lines, none, a bar on a terminal, plain lines elsewhere.

    Within, SIGTERM is as Ctrl-C.
    """
    with as_ctrl_c(), _listener(quiet=quiet, as_json=as_json) as told:
        yield told


@contextlib.contextmanager
def _listener(*, quiet: bool, as_json: bool) -> Iterator[Listener]:
    if as_json:
        yield JsonLines()
        return
    if quiet:
        yield Silent()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    console = terminal()
    if console is None:
        yield Plain()
        return
    columns = (
        BarColumn(16, table_column=Column(min_width=16)),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True, min_width=9)),
        # what is cut on a narrow terminal is the losses
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        yield Bar(bar)
