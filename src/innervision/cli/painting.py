"""A painting at work, to its end or until Ctrl-C: what has been painted is not lost, whatever fails."""

from __future__ import annotations

import contextlib
import shlex
import signal
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from innervision.cli.seeing import say

if TYPE_CHECKING:
    from innervision.cli.progress import Listener
    from innervision.paint.gatys import Painting
    from innervision.record import Result, Run


def paint(painting: Painting, run: Run | None, output: str, told: Listener, *, checkpoints: bool) -> bool:
    """Paint to the end, or until Ctrl-C; write the picture, and tell whether it is finished."""
    clock = time.perf_counter()
    told.begin(painting)
    stopped = False
    watched = (
        contextlib.nullcontext(painting)
        if run is None
        else contextlib.closing(run.watch(painting, checkpoints=checkpoints))
    )
    with interrupts() as wanted:  # until all is kept: the first Ctrl-C may come as the picture is written
        with rescue(painting, run, output):
            with watched as frames:
                for frame in frames:
                    told.frame(painting, frame, time.perf_counter() - clock)
                    if wanted and frame.count < frame.steps:
                        stopped = True
                        break
            painting.save(output)
        result = conclude(painting, output, time.perf_counter() - clock if run is None else run.seconds)
        if run is not None:
            close(run, painting, result, stopped=stopped)
    event = {"event": "result", "status": "stopped" if stopped else "done", **asdict(result)}
    event["run"] = None if run is None else str(run.folder)
    told.end(event, farewell(painting, result, run, stopped))
    return not stopped


@contextlib.contextmanager
def rescue(painting: Painting, run: Run | None, output: str) -> Iterator[None]:
    """Where painting or writing fails, keep what there is: the best picture so far, and a checkpoint.

    A disk may be full, or memory short, for one of the two alone. A loss that is no longer a number leaves
    nothing to go on with: it would come to the same.
    """
    from innervision.errors import Diverged

    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)  # what the evaluation held: memory may be what is short
        if painting.best is not None:
            with contextlib.suppress(Exception):
                painting.save(output)
                say(f"the best picture so far is in {place(painting, output)}")
        if run is not None and not isinstance(error, Diverged):
            with contextlib.suppress(Exception):
                run.save_checkpoint(painting)
            if run.resumable:
                say(further(run))
        raise


def close(run: Run, painting: Painting, result: Result, *, stopped: bool) -> None:
    """Close the run's folder; where that fails, say where the picture is, which is written already."""
    try:
        if stopped:
            run.stop(painting, result)
        else:
            run.finish(result)
    except Exception:
        what = "best picture so far" if stopped else "picture"
        say(f"the {what} is in {place(painting, result.output)}")
        if stopped and run.resumable:
            say(further(run))
        raise


class Ear:
    """Hears Ctrl-C: the first one is noted, so that a step may end; a second one stops at once."""

    def __init__(self) -> None:
        self.wanted: list[int] = []

    def __call__(self, number: int, _: object) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted.append(number)
        with contextlib.suppress(RuntimeError):  # a line that is being written may be what it broke into
            say("finishing this step; Ctrl-C again stops at once")


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Yield a list that Ctrl-C fills, so that a step may end first; a second one stops at once."""
    ear = Ear()
    before = signal.signal(signal.SIGINT, ear)
    try:
        yield ear.wanted
    finally:
        signal.signal(signal.SIGINT, before)


def conclude(painting: Painting, output: str, seconds: float) -> Result:
    """Return what came of the painting, now that its picture is written."""
    from innervision.files import sha256
    from innervision.record import Result

    latest, best = painting.latest, painting.best
    assert latest is not None and best is not None
    where = output if output == "-" else str(Path(output).absolute())
    return Result(
        output=where,
        sha256="" if output == "-" else sha256(where),
        count=latest.count,
        steps=latest.steps,
        total=best.total,
        values=dict(best.values),
        seconds=round(seconds, 3),
    )


def farewell(painting: Painting, result: Result, run: Run | None, stopped: bool) -> str:
    """Return what is said at the end."""
    if painting.recipe.color == "transfer-only":
        done = f"recoloured in {result.seconds:.1f} s"
    else:
        done = f"{result.count} of {result.steps} evaluations in {result.seconds:.1f} s"
        done += f", total {result.total:.4g}"
    where = place(painting, result.output)
    if not stopped:
        return f"wrote {where}: {done}" + (f"; run {run.folder}" if run else "")
    return f"stopped; the best picture so far is in {where}: {done}\n{further(run)}"


def place(painting: Painting, output: str) -> str:
    """Return where the best picture is, and its size while it is not yet the one that was ordered."""
    assert painting.best is not None
    where = "standard output" if output == "-" else output
    h, w = painting.best.image.shape[-2:]
    return where if (h, w) == painting.sitting.size else f"{where}, at {w}x{h}"


def further(run: Run | None) -> str:
    """Return how to go on."""
    if run is None:
        return "there is no run to go on with"
    return f"go on by: innervision stylize --resume {shlex.quote(str(run.folder))}"
