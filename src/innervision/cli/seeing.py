"""What the commands that look into networks share: the network they open, what they tell, what they leave."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from innervision.cli import STARTED
from innervision.cli.options import Several
from innervision.cli.order import machine, versions
from innervision.errors import InnervisionError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from torch import Tensor

    from innervision.images import Picture
    from innervision.network import Network


_OWN = "[default: the network's own]"


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that name a network; `open_network` takes their values."""
    for option in reversed(
        (
            click.option(
                "--net",
                default="vgg19",
                show_default=True,
                help="a network by name (see innervision nets), a run's folder, or FILE.py:FUNCTION",
            ),
            click.option(
                "--weights",
                help="a weights file: .safetensors, .pth, .h5 or .npz [default: what comes with the network]",
            ),
            click.option("--mean", type=Several(float), help=f"of its input, a number a channel {_OWN}"),
            click.option("--std", type=Several(float), help=f"of its input, a number a channel {_OWN}"),
            click.option("--range", "range_", type=float, help=f"what white is to it: 1 or 255 {_OWN}"),
            click.option("--order", type=click.Choice(["RGB", "BGR"]), help=f"of its channels {_OWN}"),
            click.option(
                "--classes",
                type=click.Path(path_type=Path),
                help="a file with the names of its classes, one a line",
            ),
            click.option(
                "--device",
                default="auto",
                show_default=True,
                help="cpu, cuda, cuda:1, mps …; auto is a CUDA GPU where there is one",
            ),
        )
    ):
        command = option(command)
    return command


def telling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --quiet and --json; `telling` takes their values."""
    command = click.option(
        "--json", "as_json", is_flag=True, help="write events as JSON lines to standard output"
    )(command)
    return click.option("--quiet", is_flag=True, help="say nothing but errors")(command)


def precision_option(help: str) -> Callable[..., Any]:
    """Return the option that names the network's precision, for a command that need not be exact."""
    kinds = click.Choice(["auto", "float32", "bfloat16"])
    return click.option("--precision", type=kinds, default="auto", show_default=True, help=help)


def limit_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --max-pixels, whose value `open_picture` takes."""
    text = "largest picture to read, in pixels [default: 178956970]"
    return click.option("--max-pixels", type=click.IntRange(1), help=text)(command)


def snapshots_option(every: int) -> Callable[..., Any]:
    """Return the option that names a folder for the picture as it comes."""
    text = f"a folder to keep the picture as it comes, every {every} steps, in its snapshots"
    return click.option("--run", type=click.Path(path_type=Path), help=text)


def stem(source: str) -> str:
    """Return what a picture's outputs are named after."""
    return Path(source.removeprefix("sample:")).stem


def file_of(layer: str) -> str:
    """Return a layer's name as a file may bear it, in its own folder: a guest's may hold a / (%2F here)."""
    return re.sub(r"[^\w.+-]", lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), layer)


def open_network(chosen: Mapping[str, Any]) -> Network:
    """Return the network that a command's parameters name, frozen in float32, on its device."""
    from innervision import network
    from innervision.machine import choose_device

    own = network.load(
        chosen["net"],
        weights_file=chosen["weights"],
        mean=chosen["mean"],
        std=chosen["std"],
        range=chosen["range_"],
        order=chosen["order"],
    )
    if chosen.get("classes") is not None:
        own.classes = tuple(read_classes(chosen["classes"]))
    return own.to(choose_device(chosen["device"])).frozen()


def read_classes(file: Path) -> list[str]:
    """Return the names in a file, one a line; Invalid where there is none to read."""
    from innervision.errors import Invalid

    try:
        names = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"'{file}' cannot be read as names of classes, one a line: {error}") from error
    if not any(names):
        raise Invalid(f"'{file}' is empty: give the name of a class on each line")
    return names


def open_picture(source: str, size: int | None, max_pixels: int | None = None) -> tuple[Picture, Any]:
    """Return a picture and its tensor (1, 3, h, w), its longest side at most `size`."""
    from innervision import images

    picture = images.read(source, max_pixels=max_pixels or images.MAX_PIXELS)
    longest = max(picture.height, picture.width)
    side = longest if size is None else min(size, longest)
    return picture, picture.tensor(images.fit(picture.height, picture.width, longest=side))


def fingerprint(image: Tensor) -> str:
    """Return what tells a picture's numbers from any others: the SHA-256 of their bytes."""
    return hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest()


class Telling:
    """Tells how far work is: a bar on a terminal, plain lines elsewhere, JSON events, or nothing."""

    def __init__(self, kind: str, bar: Progress | None = None) -> None:
        self._kind, self._bar = kind, bar
        self._task = bar.add_task("", total=None) if bar else None
        self._began, self._said = time.perf_counter(), 0.0

    def step(self, done: int, of: int, text: str = "", **values: Any) -> None:
        """Tell that `done` of `of` steps are done."""
        seconds = time.perf_counter() - self._began
        if self._kind == "json":
            event = {"event": "step", "step": done, "of": of, "text": text, "seconds": round(seconds, 3)}
            emit({**event, **values})
        elif self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=of, description=text)
        elif self._kind == "plain" and (done == of or seconds - self._said > 5):
            from innervision.cli.progress import time_left  # what it imports, a command's help need not

            to_go = time_left(done, of, seconds)
            left = f", about {to_go:.0f} s left" if to_go else ""
            say(f"{done}/{of} {text}{left}")
            self._said = seconds

    def say(self, text: str) -> None:
        """Tell a line that a person reads."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        elif self._kind == "plain":
            say(text)

    def end(self, text: str, **values: Any) -> None:
        """Tell what came of it."""
        if self._bar is not None:
            self._bar.stop()
        if self._kind == "json":
            emit({"event": "result", **values})
        elif self._kind != "quiet":
            say(text)


def say(text: str) -> None:
    """Tell a line to a person. That nobody reads it, as where Ctrl-C ended the pager too, stops no work."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def emit(event: Mapping[str, Any]) -> None:
    """Write an event; where nobody reads any more, let it be as Ctrl-C: what is done so far is kept."""
    try:
        click.echo(json.dumps(event))
    except BrokenPipeError:
        with Path(os.devnull).open("wb") as nothing:  # else Python's last flush would fail, too
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        # a Ctrl-C that ended the reader, too, has been heard already, and a second one would stop at once
        if not getattr(signal.getsignal(signal.SIGINT), "wanted", ()):
            signal.raise_signal(signal.SIGINT)
    except OSError as error:
        why = error.strerror or str(error)
        raise InnervisionError(f"cannot write events to standard output: {why}") from error


@contextlib.contextmanager
def telling(*, quiet: bool, as_json: bool) -> Iterator[Telling]:
    """Yield the telling that fits what was asked for and where it is read; within, SIGTERM is as Ctrl-C."""
    with as_ctrl_c(), _telling(quiet=quiet, as_json=as_json) as told:
        yield told


@contextlib.contextmanager
def as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM, with which systems end what runs, do what Ctrl-C does: what is done so far is kept."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # somebody else listens
        yield
        return

    def hear(number: int, frame: Any) -> None:
        usual = signal.getsignal(signal.SIGINT)
        if not callable(usual):  # begun in the background of a shell, where Ctrl-C says nothing
            raise KeyboardInterrupt
        usual(number, frame)

    signal.signal(signal.SIGTERM, hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _telling(*, quiet: bool, as_json: bool) -> Iterator[Telling]:
    if quiet or as_json:
        yield Telling("json" if as_json else "quiet")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = terminal()
    if console is None:
        yield Telling("plain")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield Telling("bar", bar)


def terminal() -> Console | None:
    """Return the console of standard error where a bar can be drawn: on a terminal that is not a dumb one."""
    from rich.console import Console

    console = Console(stderr=True)
    # FORCE_COLOR, by which builds want their logs in colour, makes no terminal
    there = console.file.isatty() or os.environ.get("TTY_COMPATIBLE") == "1"
    return console if there and console.is_interactive else None


def began() -> datetime:
    """Return when the command at work began; now, where none is."""
    now = datetime.now().astimezone()
    context = click.get_current_context(silent=True)
    return now if context is None else context.meta.get(STARTED, now)


def leave_card(
    command: str, output: str | Path, chosen: Mapping[str, Any], sources: Mapping[str, str], *, seed: int = 0
) -> Path | None:
    """Write beside an output what was run, on what and where: run.json in a folder, else OUTPUT.run.json.

    chosen: the command's parameters. sources: role -> what was read ("blank", "sample:NAME" or a file).
    Returns where it is; None for '-', standard output, which has nothing beside it.
    """
    if str(output) == "-":
        return None
    import torch

    from innervision import samples
    from innervision.files import atomic, sha256
    from innervision.machine import choose_device
    from innervision.record import Input, RunCard

    inputs: list[Input] = []
    for role, source in sources.items():
        sample = source.startswith("sample:")
        path = samples.path(source.removeprefix("sample:")) if sample else Path(source).absolute()
        inputs.append(Input(role, source if sample else str(path), sha256(path) if path.is_file() else ""))
    card = RunCard(
        command=command,
        line=shlex.join(["innervision", *sys.argv[1:]]),
        preset="",
        options={name: str(v) if isinstance(v, Path) else v for name, v in chosen.items()},
        seed=seed,
        inputs=tuple(inputs),
        output=str(Path(output).absolute()),
        versions=versions(),
        machine=machine(threads=torch.get_num_threads(), device=choose_device(chosen.get("device", "cpu"))),
        started=began().isoformat(timespec="seconds"),
        status="done",
    )
    where = Path(output)
    where = where / "run.json" if where.is_dir() else where.with_name(where.name + ".run.json")
    with atomic(where) as draft:
        draft.write_text(json.dumps(asdict(card), indent=2) + "\n", encoding="utf-8")
    return where
