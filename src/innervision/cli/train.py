"""innervision train: train a network by a recipe."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from innervision.cli.seeing import telling, telling_options
from innervision.cli.using import machine_options


@click.command()
@click.option("--recipe", "name", help="how to train: see innervision recipes [default: by the data]")
@click.option(
    "--data",
    help="cifar10, mnist, fashion-mnist, cifar100, an archive, a folder of class folders, or a .csv "
    "[default: the recipe's]",
)
@click.option("--net", help="another network: by name, or FILE.py:FUNCTION, as that function builds it")
@click.option("--start", help="weights to start from: by name, a file, or a run's folder; none for none")
@click.option("--size", type=click.IntRange(1), help="side of the pictures in pixels")
@click.option("--epochs", type=float, help="times that every picture is learned from")
@click.option("--batch", type=click.IntRange(1), help="pictures a step")
@click.option("--micro", type=click.IntRange(1), help="pictures that go through the network at once")
@click.option("--lr", type=float, help="the greatest learning rate")
@click.option("--clip", type=float, help="the greatest norm of a gradient")
@click.option("--label-smoothing", type=float, help="the share of a label that all classes divide")
@click.option(
    "--class-weights/--no-class-weights", default=None, help="let a class count the more, the rarer it is"
)
@click.option("--validation", type=float, help="share of the training pictures that is held out; 0 for none")
@click.option("--keep", type=click.Choice(["last", "best"]), help="which weights: best on what is held out")
@click.option(
    "--patience", type=click.IntRange(1), help="epochs without a better result, after which it stops"
)
@click.option(
    "--views", type=click.Choice(["1", "2", "6"]), help="views of a test picture, reported beside the plain"
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="auto is bfloat16 where the processor gains from it [default: the recipe's]",
)
@machine_options
@click.option(
    "-o",
    "--run",  # torchrun takes this form for its own
    "folder",
    type=click.Path(path_type=Path),
    help="folder of the run [default: runs/train-…]",
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="RUN", help="go on with a stopped run, bit for bit"
)
@click.option(
    "--checkpoint-every",
    "cadence",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="seconds from checkpoint to checkpoint; more where one takes long",
)
@click.option(
    "--keep-every",
    type=click.IntRange(0),
    default=0,
    metavar="EPOCHS",
    help="keep the weights after every so many epochs too, and at the start; 0 for none",
)
@click.option("--dry-run", is_flag=True, help="say the work and the expected time; train nothing")
@click.option("--no-report", is_flag=True, help="write no figures and no page at the end")
@click.option("--tensorboard", is_flag=True, help="write TensorBoard's files too (extra: tensorboard)")
@telling_options
@click.pass_context
def train(
    ctx: click.Context,
    name: str | None,
    data: str | None,
    folder: Path | None,
    resume: Path | None,
    cadence: float,
    dry_run: bool,
    no_report: bool,
    tensorboard: bool,
    quiet: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a network by a recipe, and leave a folder that every other command takes by --net.

    Ctrl-C ends the step and keeps a checkpoint; a second one stops at once. Of several processes, started by
    torchrun, each takes its share. The test pictures are looked at once, at the end.
    """
    from innervision import record
    from innervision.cli.course import forecast, introduce, join, new_course, old_course, prepare
    from innervision.cli.training import follow
    from innervision.errors import RunUnusable
    from innervision.learn.cost import cost

    options = typed(ctx)
    if resume is not None:
        if folder is not None or dry_run:
            raise click.UsageError("--resume goes on in the run's folder: leave --run and --dry-run out")
        course = old_course(resume, name, data, options)
        if course.before is not None and course.before.status == "done":
            result = {} if course.before.result is None else course.before.result.values
            with telling(quiet=quiet, as_json=as_json) as told:
                told.end(f"already done: {resume}", status="done", run=str(resume), **result)
            return
    else:
        course = new_course(name or usual(data), data, options)
    where = resume or folder or record.new_folder("train")
    if resume is None and (where / "run.json").exists():  # said before the work
        raise RunUnusable(f"'{where}' holds a run already: name another folder, or go on with it by --resume")
    with contextlib.ExitStack() as open_things:
        team = open_things.enter_context(join(course.options["device"]))
        silent = team.rank > 0
        told = open_things.enter_context(telling(quiet=quiet or silent, as_json=as_json and not silent))
        training, seconds = prepare(course, where, team, told)
        for line in introduce(training):
            told.say(line)
        if training.done == 0 and team.world == 1:
            expected = cost(training)
            if dry_run:
                told.end(forecast(expected), **asdict(expected))
                return
            told.say(forecast(expected))
        if not follow(
            training,
            course,
            where,
            team,
            told,
            seconds=seconds,
            cadence=cadence,
            report=not no_report,
            tensorboard=tensorboard,
        ):
            ctx.exit(130)


def typed(ctx: click.Context) -> dict[str, Any]:
    """Return the options of the recipe and of the machine that were typed."""
    from innervision.cli.course import MACHINE
    from innervision.learn.recipes import Options

    found: dict[str, Any] = {}
    for name in (*Options.__annotations__, *MACHINE):
        if name in ctx.params and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            found[name] = ctx.params[name]
    if "views" in found:
        found["views"] = int(found["views"])
    if found.get("start") == "none":
        found["start"] = ""
    return found


def usual(data: str | None) -> str:
    """Return the recipe for data where none is named."""
    if data is None or data in ("mnist", "fashion-mnist"):
        return "lenet5-modern"
    return "fast93" if data in ("cifar10", "cifar100") else "folder"
