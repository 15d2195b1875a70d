"""What is to be trained, on what and by how many processes; and what is said of it beforehand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import torch
import torch.distributed as dist

from innervision import models
from innervision.cli.progress import duration
from innervision.cli.using import told_reading
from innervision.errors import RunUnusable, unknown
from innervision.learn import checkpoints
from innervision.learn.data import DataSet, Part, check_labels, parts, reading, split
from innervision.learn.recipe import Recipe
from innervision.learn.recipes import recipe
from innervision.learn.sets import SETS
from innervision.learn.start import net_name
from innervision.learn.train import Training
from innervision.machine import choose_device
from innervision.nets import NETS
from innervision.record import RunCard, read_card
from innervision.weights import WEIGHTS

if TYPE_CHECKING:
    from innervision.cli.seeing import Telling
    from innervision.learn.cost import Cost

MACHINE: Mapping[str, Any] = {"seed": 0, "threads": None, "device": "auto", "bad": "refuse", "keep_every": 0}
"""Options that are no recipe's, and what they are where they are not typed."""

_FEW = 12  # classes up to which each one's count is told


@dataclass(frozen=True)
class Team:
    """This process, and how many there are."""

    rank: int
    world: int
    device: torch.device


@contextlib.contextmanager
def join(device: str) -> Iterator[Team]:
    """Join the other processes, where torchrun has started several, and leave them at the end."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    own = choose_device(device)
    if world == 1:
        yield Team(0, 1, own)
        return
    if own.type == "cuda" and own.index is None:
        own = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own)
    kind = "nccl" if own.type == "cuda" else "gloo"
    dist.init_process_group(kind, timeout=timedelta(hours=1))  # decoding a large folder takes its time
    try:
        yield Team(dist.get_rank(), world, own)
    finally:
        dist.destroy_process_group()


@dataclass(frozen=True)
class Course:
    """What is to be trained."""

    recipe: Recipe
    data: str
    options: Mapping[str, Any]
    """What was typed of the recipe's, and all of MACHINE."""
    before: RunCard | None = None
    """The card of the run that is gone on with."""


def new_course(name: str, data: str | None, typed: Mapping[str, Any]) -> Course:
    """Return a course that begins; paths become full ones, so that it can be gone on with from anywhere."""
    chosen = {key: value for key, value in typed.items() if value is not None}
    net = str(chosen.get("net", ""))
    if ":" in net:
        file, _, function = net.rpartition(":")
        chosen["net"] = f"{Path(file).absolute()}:{function}"
    elif net and net not in NETS:
        raise unknown("network", net, NETS)
    if chosen.get("start") and chosen["start"] not in WEIGHTS:
        chosen["start"] = str(Path(chosen["start"]).absolute())
    plan = recipe(name, **{key: value for key, value in chosen.items() if key not in MACHINE})  # pyright: ignore[reportArgumentType]
    source = data or plan.data
    if not source:
        raise click.UsageError(f"{name} is for your own pictures: name their folder by --data")
    if source not in SETS and Path(source).exists():
        source = str(Path(source).absolute())
    return Course(plan, source, {**MACHINE, **chosen})


def old_course(folder: Path, name: str | None, data: str | None, typed: Mapping[str, Any]) -> Course:
    """Return the course of a run that is gone on with, or is done; what is typed now must say the same."""
    card = read_card(folder)
    if card.command != "train":
        raise RunUnusable(f"'{folder}' holds a run of innervision {card.command}, not of train")
    if name is not None and name != card.preset:
        raise RunUnusable(f"the run in '{folder}' is of the recipe {card.preset}, not of {name}")
    before = {**MACHINE, **card.options, "threads": card.machine["threads"]}
    source = str(before.pop("data"))
    for key, value in typed.items():
        if value != before.get(key):
            raise RunUnusable(f"{key} is {value}, and was {before.get(key)} in '{folder}': leave it out")
    again = new_course(card.preset, data or source, before)
    if card.status == "done" and (again.data != source or not (folder / models.WEIGHTS).is_file()):
        raise RunUnusable(f"the run in '{folder}' is done: there is nothing left to go on with")
    return replace(again, before=card)


def prepare(course: Course, folder: Path, team: Team, told: Telling) -> tuple[Training, float]:
    """Read the training pictures; return the training, and the seconds that were spent on it before.

    A run that is gone on with stands where its folder's checkpoint says; without one, at its beginning.
    """
    plan = course.recipe
    if team.rank > 0:
        dist.barrier()  # the first fetches and decodes, the others find it done
    data = read(course, "train", told)
    if team.world > 1 and team.rank == 0:
        dist.barrier()
    if "test" in parts(course.data):  # looked at when all is trained; what is wrong with it is told now
        check_labels(course.data, "test", data.classes, bad=course.options["bad"])
    held: DataSet | None = None
    if plan.validation:
        if "validation" in parts(course.data):
            held = read(course, "validation", told, data.classes)
        else:
            data, held = split(data, plan.validation, course.options["seed"])
    found = None if course.before is None else checkpoints.load(folder)
    training = Training(
        plan,
        data,
        held,
        seed=course.options["seed"],
        device=team.device,
        threads=course.options["threads"],
        rank=team.rank,
        world=team.world,
        every=1 if team.device.type == "cpu" else 10,
        resume=found,
    )
    return training, 0.0 if found is None else float(found.state.get("seconds", 0.0))


def read(course: Course, part: Part, told: Telling, classes: tuple[str, ...] | None = None) -> DataSet:
    """Read a part of the data as the recipe's network takes it, telling how far it is."""
    plan = course.recipe
    work = reading(
        course.data,
        part,
        size=plan.size,
        channels=len(plan.preprocessing.mean),
        bad=course.options["bad"],
        classes=classes,
    )
    return told_reading(work, told)


def introduce(training: Training) -> list[str]:
    """Return what is about to be done: network, data, steps, precision and why."""
    plan, data, held = training.recipe, training.data, training.validation
    weights = list(training.module.parameters())
    every, some = (sum(p.numel() for p in weights if p.requires_grad or fixed) for fixed in (True, False))
    counts = f"{every:,} parameters" + ("" if every == some else f", {some:,} of them trained")
    dtype = str(training.dtype).removeprefix("torch.")
    chip = "GPU" if training.device.type == "cuda" else "processor"
    gains = f"this {chip} {'computes in it' if dtype == 'bfloat16' else 'would only emulate bfloat16'}"
    why = gains if plan.precision == "auto" else "as the recipe says"
    threads = f"{training.threads} thread{'s' * (training.threads != 1)}"
    on = threads if training.device.type == "cpu" else str(training.device)
    shared = f", {training.world} processes" if training.world > 1 else ""
    out = f", {len(held):,} held out" if held is not None else ""
    height, width = data.size
    lines = [
        f"{net_name(plan.net)} on {data.name} by the recipe {plan.name}: {counts}",
        f"{len(data):,} pictures of {width}x{height} in {len(data.classes)} classes{out}; {of_each(data)}",
        f"{training.steps:,} steps of {plan.batch}, {training.epochs:.4g} epochs, in {dtype} ({why}), "
        f"{on}{shared}",
    ]
    if training.started_from is not None:
        more = list(training.started_from.lines())
        shown = more if len(more) <= 8 else [*more[:7], f"… and {len(more) - 7} lines more"]
        lines += [f"started from {shown[0]}", *(f"  {line}" for line in shown[1:])]
    return lines


def of_each(data: DataSet) -> str:
    """Return how many pictures the classes have: one number where they are alike, else each, or the ends."""
    counts = data.counts()
    few, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[few] == counts[most]:
        return f"{counts[few]:,} of each class"
    if len(counts) <= _FEW:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items())
    return f"from {counts[few]:,} ({few}) to {counts[most]:,} ({most}) of a class"


def forecast(cost: Cost) -> str:
    """Return what it will cost, for a person."""
    return (
        f"about {duration(cost.seconds)} on this machine: {cost.steps:,} steps of {cost.step:.3g} s, "
        f"{cost.pictures:.0f} pictures a second, {100 * cost.loading:.1f} % of it for reading them"
    )
