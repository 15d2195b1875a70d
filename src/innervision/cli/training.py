"""A training at work, to its end or until Ctrl-C: its run folder, its events, and what is left at the end."""

from __future__ import annotations

import contextlib
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from innervision import saved
from innervision.cli.book import Book, further
from innervision.cli.course import Course, Team, read
from innervision.cli.painting import interrupts
from innervision.cli.progress import duration
from innervision.cli.using import told_logits
from innervision.learn import calibrate
from innervision.learn.data import parts
from innervision.learn.evaluate import evaluate
from innervision.learn.report import write as write_report
from innervision.learn.together import gathered
from innervision.learn.train import Lesson, Training
from innervision.machine import threads
from innervision.record import read_events

if TYPE_CHECKING:
    from innervision.cli.seeing import Telling


def follow(
    training: Training,
    course: Course,
    folder: Path,
    team: Team,
    told: Telling,
    *,
    seconds: float,
    cadence: float,
    report: bool,
    tensorboard: bool,
) -> bool:
    """Train to the end, or until Ctrl-C; leave the network and its report. Tell whether it is finished.

    seconds: that were spent on it before. cadence: from checkpoint to checkpoint, in seconds.
    """
    if team.rank > 0:  # the first process writes; the others only work
        with interrupts() as wanted, contextlib.closing(iter(training)) as lessons:
            for lesson in lessons:
                if _all_stop(bool(wanted), team) and not lesson.ends:
                    return False
        return True
    with contextlib.ExitStack() as open_things:
        book = open_things.enter_context(
            Book(training, course, folder, cadence=cadence, tensorboard=tensorboard, seconds=seconds)
        )
        wanted = open_things.enter_context(interrupts())
        lessons = open_things.enter_context(contextlib.closing(iter(training)))
        for lesson in lessons:
            book.enter(lesson)
            _tell(told, lesson, training)
            if _all_stop(bool(wanted), team) and not lesson.ends:
                book.stop()
                told.end(
                    f"stopped after {training.done} of {training.steps} steps\n{further(folder)}",
                    status="stopped",
                    run=str(folder),
                    count=training.done,
                    steps=training.steps,
                )
                return False
        book.save_checkpoint()
        result = conclude(training, course, book, told, report=report)
    told.end(farewell(result, folder, training), status="done", run=str(folder), **result)
    return True


def _all_stop(wanted: bool, team: Team) -> bool:
    """Whether any process was asked to stop: all must at the same step."""
    if team.world == 1:
        return wanted
    return bool(gathered(torch.tensor(float(wanted), device=team.device), team.world))


def _tell(told: Telling, lesson: Lesson, training: Training) -> None:
    tick = lesson.tick
    epochs = -(-training.steps // len(training.batches))
    loss = "" if tick.loss is None else f", loss {tick.loss:.4f}"
    values = {"epoch": tick.epoch, "loss": tick.loss, "lr": tick.lr}
    scores = lesson.training
    if scores is not None:
        values |= {"training_accuracy": scores.accuracy, "training_loss": scores.loss}
        text = f"epoch {tick.epoch}/{epochs}: loss {scores.loss:.4f}, {scores.accuracy:.2%} right"
        held = lesson.validation
        if held is not None:
            values |= {"validation_accuracy": held.accuracy, "validation_loss": held.loss}
            text += f"; held out: loss {held.loss:.4f}, {held.accuracy:.2%} right{', the best' * lesson.best}"
        told.say(text)
        if training.stopped and tick.count < training.steps:
            told.say(f"stopped early: none was better in {training.recipe.patience} epochs")
    told.step(tick.count, training.steps, f"epoch {tick.epoch}/{epochs}{loss}", **values)


def conclude(
    training: Training, course: Course, book: Book, told: Telling, *, report: bool
) -> dict[str, Any]:
    """Evaluate what is kept, once, and write network, report and card; return what came of it."""
    plan, held = training.recipe, training.validation
    kept = training.kept
    facts: dict[str, Any] = {
        "recipe": plan.name,
        "data": training.data.name,
        "data_sha256": training.data.sha256,
        "pictures": len(training.data),
        "held_out": 0 if held is None else len(held),
        "seed": training.seed,
        "epochs": round(training.done / len(training.batches), 4),
        "batch": plan.batch,
        "precision": str(training.dtype).removeprefix("torch."),
        "started_from": plan.start or None,
        "seconds": round(book.seconds, 1),
    }
    with threads(training.threads):
        plain = kept.frozen()  # in float32, as innervision evaluate looks through it
        temperature = None
        if held is not None:
            temperature = calibrate.temperature(told_logits(plain, held, 1, told, "measuring"), held.labels)
            if remark := calibrate.remark(temperature):
                told.say(f"temperature {remark}")
        facts["temperature"] = temperature
        apart = "test" in parts(course.data)
        test = read(course, "test", told, kept.classes) if apart else held
        # a temperature says nothing of the pictures by which it was chosen
        cooled = temperature if apart else None
        logits, views = torch.empty(0), dict[int, torch.Tensor]()
        if test is not None:
            logits = told_logits(plain, test, 1, told, "measuring")
            views = {n: told_logits(plain, test, n, told, "measuring") for n in (plan.views,) if n > 1}
            found = evaluate(logits, test.labels, test.classes, temperature=cooled or 1.0)
            facts |= {"accuracy": found.accuracy, "loss": found.loss, "ece": found.ece}
            facts |= {} if cooled is None else {"ece_calibrated": found.ece_calibrated}
            facts |= {f"accuracy_{n}_views": evaluate(v, test.labels).accuracy for n, v in views.items()}
            facts["measured_on"] = f"{found.n:,} pictures of the {'test' if apart else 'held-out'} part"
        options = {"classes": len(kept.classes)} if ":" not in plan.net else {}
        saved.save(kept, book.folder, net=plan.net, options=options, facts=facts)
        if test is not None and report:
            once = facts["epochs"] == 1
            rows = {
                "Run": str(book.folder),
                "Recipe": plan.name,
                "Trained": f"{facts['epochs']:g} epoch{'' if once else 's'} of "
                f"{facts['pictures']:,} pictures in {duration(facts['seconds'])}, {facts['precision']}",
                "Measured on": facts["measured_on"],
                "Seed": training.seed,
            }
            events = read_events(book.folder)
            more = {"temperature": cooled, "views": views, "facts": rows}
            write_report(book.folder, kept, test, logits, events, **more)
    book.finish({k: v for k, v in facts.items() if isinstance(v, float)}, facts.get("loss", math.nan))
    return facts


def farewell(facts: dict[str, Any], folder: Path, training: Training) -> str:
    """Return what is said at the end."""
    done = f"{training.done:,} steps in {duration(facts['seconds'])}"
    if "accuracy" not in facts:
        return f"trained: {done}; nothing was held out to measure it on; run {folder}"
    text = f"{facts['accuracy']:.2%} right of {facts['measured_on']}"
    views = training.recipe.views
    text += f", {facts[f'accuracy_{views}_views']:.2%} by {views} views" if views > 1 else ""
    page = f"page: {folder / 'index.html'}; " if (folder / "index.html").is_file() else ""
    return f"{text}; {done}\n{page}innervision predict|look PICTURE --net {shlex.quote(str(folder))}"
