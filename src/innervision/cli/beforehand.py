"""What a command is about to do, told before it is done: the work, what it will cost, what it will write."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from innervision.network import Network

_TIMED, _LONG = 3, 4.0  # steps that are timed, after one that makes ready; seconds of them that are enough


@dataclass(frozen=True)
class Plan:
    """A command's work, before it is begun."""

    work: tuple[str, ...]
    """What will be computed, in lines."""
    seconds: float | None
    """On this machine, as if nothing else was at work; None where it cannot be told."""
    files: tuple[str, ...]
    """What will be written; a folder ends in "/"."""
    memory: int | None = None
    """Bytes at the peak, as a trial had it; None where no trial was like the work, or no one tells."""
    available: int | None = None

    def writing(self, folder: Path | None) -> Plan:
        """Return it with a folder more that is written, if there is one."""
        return self if folder is None else replace(self, files=(*self.files, f"{folder}/"))

    def said(self) -> str:
        """Return it as a person reads it."""
        return "\n".join([*self.work, self.cost(), f"would write {', '.join(self.files)}"])

    def cost(self) -> str:
        """Return what it will cost, in a line."""
        from innervision.cli.progress import duration
        from innervision.memory import gib

        spent = "time not known" if self.seconds is None else f"about {duration(self.seconds)}"
        said = f"{spent} on this machine, once the network is read"
        if self.memory is None:
            return said
        of = "" if self.available is None else f" of {gib(self.available)} available"
        return f"{said}; peak memory about {gib(self.memory)}{of}"

    def event(self) -> dict[str, Any]:
        """Return it as a program reads it."""
        seconds = None if self.seconds is None else round(self.seconds, 1)
        event = {"event": "estimate", "text": list(self.work), "seconds": seconds}
        return event | {"memory": self.memory, "available": self.available, "files": list(self.files)}


def dry_run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --dry-run; where it was given, `tell` its Plan and end."""
    text = "say what will be computed, what it will cost and what it will write; write nothing"
    return click.option("--dry-run", is_flag=True, help=text)(command)


def tell(plan: Plan, *, as_json: bool) -> None:
    """Write a plan to standard output: it is what was asked for."""
    click.echo(json.dumps(plan.event()) if as_json else plan.said())


def beside(output: object) -> tuple[str, str]:
    """Return an output and the card that is left beside it."""
    return str(output), f"{output}.run.json"


def about(network: Network, precision: torch.dtype | None = None) -> str:
    """Return a network as a person knows it: its name, where it runs, and in what precision."""
    dtype = str(precision or network.dtype).removeprefix("torch.")
    return f"{network.name} in {dtype} on {network.device}"


def names(several: Sequence[object], most: int = 8) -> str:
    """Return names with commas, the middle ones left out where they are many."""
    every = [str(each) for each in several]
    if len(every) > most:
        every = [*every[: most - 2], "…", every[-1]]
    return ", ".join(every)


def memory(device: torch.device) -> dict[str, int | None]:
    """Return the peak so far and what is available, as a Plan takes them: to be asked after a trial."""
    from innervision.memory import available, peak

    return {"memory": peak(device), "available": available(device)}


def pace(steps: Iterable[object]) -> float:
    """Return the seconds of a step: the least of a few, after one that makes ready.

    The work is left off there, sooner where a step is long. One that has a single step is timed by that.
    """
    taken: list[float] = []
    work: Iterator[object] = iter(steps)
    begun = time.perf_counter()
    for _ in work:
        taken.append(time.perf_counter() - begun)
        if len(taken) > _TIMED or (len(taken) > 1 and sum(taken) > _LONG):
            break
        begun = time.perf_counter()
    close = getattr(work, "close", None)
    if close is not None:
        close()
    return min(taken[1:] or taken, default=0.0)


def span(work: Callable[[], object], times: int = 2) -> float:
    """Return the seconds of the last of several times that work is done."""
    seconds = 0.0
    for _ in range(times):
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
    return seconds


def between(small: tuple[float, float], large: tuple[float, float], at: float) -> float:
    """Return a time at a size, by the straight line through two that were tried: (size, seconds) each.

    >>> between((1, 2.0), (3, 4.0), 2), between((3, 4.0), (3, 4.0), 9)
    (3.0, 4.0)
    """
    if small[0] == large[0]:
        return large[1]
    slope = max(0.0, (large[1] - small[1]) / (large[0] - small[0]))
    return large[1] - slope * (large[0] - at)
