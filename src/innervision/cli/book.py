"""The folder of a training: its card, its events, its checkpoints."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import click

from innervision.cli.course import MACHINE, Course
from innervision.cli.order import machine, versions
from innervision.errors import Diverged, InnervisionError, Invalid, RunUnusable
from innervision.files import disk, sha256
from innervision.learn import checkpoints
from innervision.learn.train import Lesson, Training
from innervision.record import Input, Result, Run, RunCard, keep_events, open_run, take
from innervision.record.card import write_card


class Book:
    """A run's folder while it is trained: card, events, checkpoints. Use it as a context."""

    def __init__(
        self,
        training: Training,
        course: Course,
        folder: Path,
        *,
        cadence: float,
        tensorboard: bool,
        seconds: float,
    ) -> None:
        self.training, self.folder, self.cadence = training, folder, cadence
        self._keep_every: int = course.options["keep_every"]
        self._board = _board(folder, training.done) if tensorboard else None
        card = describe(training, course, folder)
        self.run = open_run(folder, card) if course.before is None else _reopened(folder, course.before, card)
        self._before = seconds
        self._began = self._saved = time.perf_counter()
        self._took = 0.0  # the last checkpoint, in seconds
        self._last = float("nan")
        self._events: IO[str] | None = None

    @property
    def seconds(self) -> float:
        """Of training, over all sittings."""
        return self._before + time.perf_counter() - self._began

    def __enter__(self) -> Book:
        try:
            if self._keep_every and not self.training.done:
                checkpoints.keep(self.training.network.module, self.folder, 0)
            keep_events(self.folder, self.training.done)
            with disk(self.folder / "events.jsonl"):
                self._events = (self.folder / "events.jsonl").open("a", encoding="utf-8")
        except BaseException:
            self.run.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()
        if self._board is not None:
            self._board.close()
        fails = isinstance(error, InnervisionError) and not isinstance(error, Diverged)
        if fails and (self.folder / checkpoints.FILE).is_file():
            click.echo(further(self.folder), err=True)
        self.run.__exit__(kind, error, trace)

    def enter(self, lesson: Lesson) -> None:
        """Write a step down, and a checkpoint where one is due."""
        for event in events_of(lesson, self.training, self.seconds):
            assert self._events is not None
            with disk(self.folder / "events.jsonl"):
                self._events.write(json.dumps(event) + "\n")
                self._events.flush()
            if self._board is not None:
                for key, value in event.items():
                    if isinstance(value, float) and key not in ("seconds", "position"):
                        self._board.add_scalar(key, value, event["count"])
        if lesson.tick.loss is not None:
            self._last = lesson.tick.loss
        at_end = lesson.training is not None
        if at_end and self._keep_every and lesson.tick.epoch % self._keep_every == 0:
            checkpoints.keep(self.training.network.module, self.folder, lesson.tick.epoch)
        # where a checkpoint takes long, training shall still have 98 % of the time
        if time.perf_counter() - self._saved >= max(self.cadence, 50 * self._took):
            self.save_checkpoint()

    def save_checkpoint(self) -> None:
        """Write where the training stands."""
        began = time.perf_counter()
        now = self.training.checkpoint()
        checkpoints.save(replace(now, state={**now.state, "seconds": self.seconds}), self.folder)
        self._saved = time.perf_counter()
        self._took = self._saved - began

    def stop(self) -> None:
        """Close a run that is to be gone on with."""
        self.save_checkpoint()
        result = self._result(self.folder / checkpoints.FILE, {})
        self.run.card = replace(self.run.card, status="stopped", result=result)
        write_card(self.run.card, self.folder)

    def finish(self, values: dict[str, float], loss: float) -> None:
        """Close a run that has come to its end."""
        result = self._result(self.folder / "model.safetensors", values)
        self.run.finish(replace(result, total=loss))
        checkpoints.remove(self.folder)

    def _result(self, output: Path, values: dict[str, float]) -> Result:
        return Result(
            output=str(output.absolute()),
            sha256=sha256(output),
            count=self.training.done,
            steps=self.training.steps,
            total=self._last,
            values=values,
            seconds=round(self.seconds, 3),
        )


def events_of(lesson: Lesson, training: Training, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield a step as an event, and an epoch's end as another."""
    tick = lesson.tick
    text = f"epoch {tick.epoch}/{-(-training.steps // len(training.batches))}"
    at = {"count": tick.count, "of": training.steps, "text": text, "seconds": round(seconds, 3)}
    if tick.loss is not None:
        position = round(tick.count / len(training.batches), 4)
        yield {"event": "step", **at, "position": position, "loss": tick.loss, "lr": tick.lr}
    if lesson.training is not None:
        scores = {"loss": lesson.training.loss, "accuracy": lesson.training.accuracy, "lr": tick.lr}
        if lesson.validation is not None:
            scores |= {
                "validation_loss": lesson.validation.loss,
                "validation_accuracy": lesson.validation.accuracy,
            }
        yield {"event": "epoch", **at, "epoch": tick.epoch, **scores, "best": lesson.best}


def describe(training: Training, course: Course, folder: Path) -> RunCard:
    """Return the card of a run that is about to begin, or to go on."""
    plan, data = training.recipe, training.data
    inputs = [Input("data", course.data, data.sha256)]
    if plan.start:
        path = Path(plan.start)
        inputs.append(Input("start", plan.start, sha256(path) if path.is_file() else ""))
    if ":" in plan.net:
        file = plan.net.rpartition(":")[0]
        inputs.append(Input("net", file, sha256(file)))
    return RunCard(
        command="train",
        line=shlex.join(["innervision", *sys.argv[1:]]),
        preset=plan.name,
        options={**course.options, "data": course.data},
        seed=training.seed,
        inputs=tuple(inputs),
        output=str(folder.absolute()),
        versions=versions(),
        machine=machine(
            threads=training.threads,
            device=training.device,
            precision=str(training.dtype).removeprefix("torch."),
            processes=training.world,
        ),
    )


def _reopened(folder: Path, before: RunCard, card: RunCard) -> Run:
    """Claim the folder of a run that was broken off; its own card stays."""
    fixed = {"data": card.options["data"], "threads": before.options["threads"]}
    options = {**MACHINE, **before.options, **fixed}
    now = replace(card, options={**card.options, "threads": before.options["threads"]})
    if faults := replace(before, options=options).differences(now):
        raise RunUnusable(f"the run in '{folder}' cannot be gone on with: {'; '.join(faults)}; start it anew")
    return Run(folder, replace(before, status="running", error=""), take(folder))


def _board(folder: Path, count: int) -> Any:
    """Return a writer of TensorBoard's files; what it wrote after the checkpoint is hidden."""
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise Invalid("--tensorboard needs a package: pip install 'innervision[tensorboard]'") from error
    return SummaryWriter(str(folder / "tensorboard"), purge_step=count + 1 if count else None)


def further(folder: Path) -> str:
    """Return how to go on."""
    return f"go on by: innervision train --resume {shlex.quote(str(folder))}"
