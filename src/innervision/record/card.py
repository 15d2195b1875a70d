"""The card of a run: what was run, on what, and with what result."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from innervision.errors import RunUnusable
from innervision.files import atomic

RUNS = Path("runs")
"""Where runs lie unless a folder is named, below the working folder."""


@dataclass(frozen=True)
class Input:
    """A file a run reads; `source` is its full path, or "blank", or "sample:NAME"."""

    role: str  # content, style, start, weights, net
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


def write_card(card: RunCard, folder: Path) -> None:
    """Write a run's card into its folder."""
    with atomic(folder / "run.json") as draft:
        draft.write_text(json.dumps(_plain(asdict(card)), indent=2) + "\n", encoding="utf-8")


def read_card(folder: Path | str) -> RunCard:
    """Read a run's card; RunUnusable if there is none, or it is damaged."""
    path = Path(folder) / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data = {f.name: data[f.name] for f in fields(RunCard)}
        data["inputs"] = tuple(Input(**one) for one in data["inputs"])
        data["result"] = None if data["result"] is None else Result(**data["result"])
        card = RunCard(**data)
        for part in (card, *card.inputs, *filter(None, [card.result])):
            _check(part)
        return card
    except (FileNotFoundError, NotADirectoryError):
        raise RunUnusable(f"'{folder}' holds no run (no run.json): see innervision runs") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = f"no {error}" if isinstance(error, KeyError) else error
        raise RunUnusable(f"'{path}' cannot be read as a run card: {why}") from error


_KINDS: Mapping[str, type | tuple[type, ...]] = MappingProxyType(
    {  # annotation -> what JSON gives for it
        "str": str,
        "int": int,
        "float": (int, float),
        "Mapping[str, Any]": dict,
        "Mapping[str, str]": dict,
        "dict[str, float]": dict,
    }
)


def _check(part: RunCard | Input | Result) -> None:
    """Raise TypeError for a field that holds another kind of value."""
    for each in fields(part):
        value, kind = getattr(part, each.name), _KINDS.get(str(each.type))
        if kind is not None and not isinstance(value, kind):
            raise TypeError(f"{each.name} is {value!r}")
    if isinstance(part, Result) and not all(isinstance(v, int | float) for v in part.values.values()):
        raise TypeError(f"values is {part.values!r}")


def list_runs(folder: Path | str = RUNS) -> list[tuple[Path, RunCard]]:
    """Return the runs in a folder, oldest first; what is not one is passed over."""
    found: list[tuple[Path, RunCard]] = []
    for path in Path(folder).glob("*/run.json"):
        if not path.is_file():  # a pipe would have nothing to say, for ever
            continue
        with contextlib.suppress(RunUnusable):
            found.append((path.parent, read_card(path.parent)))
    return sorted(found, key=lambda run: (run[1].started, run[0]))


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))
