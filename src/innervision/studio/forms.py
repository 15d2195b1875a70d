"""Forms made from the commands' own parameters: a field for each, with its kind, default, bounds and help."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from dataclasses import field as made
from pathlib import Path
from typing import Any, Literal, Protocol

import click

from innervision import nets, weights
from innervision.learn.recipes import RECIPES
from innervision.paint import recipes as painting
from innervision.see.presets import PRESETS as EXCITING
from innervision.studio import datasets
from innervision.studio.works import LEFT_OUT, LIMITS, TEXTS, WORKS, command

FIRST, MORE, NETWORK, MACHINE = "First", "More", "Network", "Machine"
_GROUPS = {"net": NETWORK, **dict.fromkeys(("device", "threads", "precision", "batch", "micro"), MACHINE)}

Kind = Literal["int", "float", "bool", "choice", "text", "picture", "pictures"]


class Sources(Protocol):
    """What a form chooses from by name, and the server alone knows the paths of."""

    def networks(self) -> Sequence[str]:
        """Return the networks' names."""
        ...

    def network(self, name: str) -> Mapping[str, str]:
        """Return the options that name a network to a command: net, weights, mean …"""
        ...


@dataclass(frozen=True, kw_only=True)
class Field:
    """An option of a command, as a page shows it."""

    name: str
    kind: Kind
    help: str = ""
    default: int | float | bool | str | None = None
    choices: tuple[str, ...] = ()
    """Of a choice all that is allowed; of a number the words that it can be too."""
    multiple: bool = False
    """Whether its value is a list."""
    required: bool = False
    group: str = MORE
    min: float | None = None
    max: float | None = None
    of: str = ""
    """What is named: "network", "data", "layers", "target"; "picture" where a choice can be a picture too."""
    flag: str = ""
    """As it is typed; of an argument nothing."""
    fetched: Mapping[str, int] = made(default_factory=dict)
    """Of a choice what has to be fetched first -> how many bytes."""
    off: str = ""
    """As the contrary of a flag is typed."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named set of values, of the option `preset` or `recipe`."""

    name: str
    text: str
    values: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A command, as a page shows it."""

    name: str
    text: str
    help: str
    groups: tuple[str, ...]
    options: tuple[Field, ...]
    presets: tuple[Preset, ...]
    resumable: bool
    """Whether it can be gone on with where it was stopped."""


OURS: Mapping[str, Field] = {
    "dream": Field(name="mp4", kind="bool", default=False, help="the film as one file, not as pictures"),
}
"""Choices of where a result goes, which the commands make by its name."""


def form(name: str, sources: Sources) -> Form:
    """Return the form of a command among WORKS."""
    own = command(name)
    work = WORKS[name]
    found = [_placed(field, work.first) for field in _fields(name, own, sources)]
    if name in OURS and importlib.util.find_spec("av") is not None:  # the extra `video`
        found.append(OURS[name])
    order = {each: number for number, each in enumerate(work.first)}
    found.sort(key=lambda field: order.get(field.name, len(order)))  # the others as the command has them
    groups = dict.fromkeys(field.group for field in found)
    last = [group for group in (MORE, NETWORK, MACHINE) if group in groups]
    paragraphs = (own.help or "").split("\n\n")
    return Form(
        name=name,
        text=" ".join(paragraphs[0].split()),
        help=" ".join(" ".join(paragraphs[1:]).split()),
        groups=(*(group for group in groups if group not in last), *last),
        options=tuple(found),
        presets=tuple(_presets(name)),
        resumable=bool(work.goes_on),
    )


def _placed(field: Field, first: Sequence[str]) -> Field:
    group = FIRST if field.name in first else field.group
    return replace(field, group=_GROUPS.get(field.name, group) if group == MORE else group)


def _fields(name: str, own: click.Command, sources: Sources) -> Iterator[Field]:
    defaults, groups = _recipe() if name == "stylize" else ({}, {})
    context = click.Context(own)
    for parameter in own.params:
        field = _field(name, parameter, sources)
        if field is None:
            continue
        default = defaults.get(field.name, parameter.get_default(context))
        if field.kind == "bool" and not field.off:
            default = bool(default)
        if not isinstance(default, int | float | str):
            default = None
        if field.kind == "choice" and default not in field.choices:
            default = None
        yield replace(field, default=default, group=groups.get(field.name, field.group))


def _field(name: str, parameter: click.Parameter, sources: Sources) -> Field | None:
    """Return a parameter's field but for its default; None for what a page does not show."""
    flag = max((text for text in parameter.opts if text.startswith("--")), key=len, default="")
    called = flag.removeprefix("--").replace("-", "_") or parameter.name or ""
    if isinstance(parameter, click.Argument) and called == "folder":
        called = "data"
    if called in LEFT_OUT:
        return None
    some = parameter.nargs == -1
    help = " ".join((getattr(parameter, "help", None) or "").split())
    base = Field(
        name=called, kind="text", help=help, multiple=some or bool(getattr(parameter, "multiple", False)),
        required=parameter.required or (called, name) in _NEEDED, flag=flag,
    )  # fmt: skip
    pictures = WORKS[name].pictures
    if called in pictures and called != "start":
        return replace(base, kind="pictures" if pictures[called] else "picture", multiple=pictures[called])
    known = datasets.known() if called == "data" else {}
    chosen = _named(name, called, sources, known)
    if chosen is not None:
        choices, of = chosen
        fetched = {each: known[each].fetched for each in choices if each in known and known[each].fetched}
        return replace(base, kind="choice", choices=tuple(choices), of=of, fetched=fetched)
    return _typed(base, parameter)


_NEEDED = {("content", "stylize"), ("styles", "stylize"), ("pictures", "predict")}


def _named(
    name: str, called: str, sources: Sources, known: Mapping[str, datasets.Place]
) -> tuple[Sequence[str], str] | None:
    """Return what an option is chosen from, and what that is, where the names are the server's."""
    learns = name in ("train", "find-lr")
    match called:
        case "net":
            own = (*nets.NETS, *guests(sources))
            return (own, "architecture") if learns else (sources.networks(), "network")
        case "net2":
            return sources.networks(), "network"
        case "data":
            here = [key for key, place in known.items() if place.folder is not None]
            return (here if name == "units" else tuple(known)), "data"
        case "preset":
            return tuple(painting.PRESETS if name == "stylize" else EXCITING), "preset"
        case "recipe":
            return tuple(RECIPES), "preset"
        case "start":
            words = ("none", *weights.WEIGHTS, *starts(sources))
            return (words, "start") if learns else (painting.STARTS, "picture")
        case "device":
            return _devices(), "device"
    return None


def guests(sources: Sources) -> dict[str, str]:
    """Return name -> FILE.py:FUNCTION of a user's own networks: what they build can be trained."""
    named = {name: sources.network(name)["net"] for name in sources.networks()}
    return {name: net for name, net in named.items() if ".py:" in net}


def starts(sources: Sources) -> dict[str, str]:
    """Return name -> place of the weights that a training can start from: a run's folder, or a file."""
    found: dict[str, str] = {}
    for name in sources.networks():
        known = sources.network(name)
        place = known["net"] if Path(known["net"]).is_dir() else known.get("weights", "")
        if place:
            found[name] = place
    return found


def _typed(base: Field, parameter: click.Parameter) -> Field | None:
    """Return a field by its parameter's type."""
    kind = parameter.type
    least, most = LIMITS.get(base.name, (None, None))
    if isinstance(parameter, click.Option) and parameter.is_flag:
        if not parameter.secondary_opts:
            return replace(base, kind="bool")
        off = parameter.secondary_opts[0]
        if off == f"--no-{base.flag.removeprefix('--')}":
            return replace(base, kind="bool", off=off)
        return replace(base, kind="choice", choices=(base.name, off.removeprefix("--")), of="flag", off=off)
    if isinstance(kind, click.Choice):
        return replace(base, kind="choice", choices=tuple(map(str, kind.choices)))
    if isinstance(kind, click.types.IntParamType) or kind.name == "pixels":
        words = ("content",) if kind.name == "pixels" else ()
        return replace(base, kind="int", choices=words, **_bounds(kind, least, most))
    if isinstance(kind, click.types.FloatParamType) or kind.name == "percent":
        return replace(base, kind="float", **_bounds(kind, None, None))
    if base.name in TEXTS:
        return replace(base, of=TEXTS[base.name])
    return None  # it may name a file


def _bounds(kind: click.ParamType, least: float | None, most: float | None) -> dict[str, Any]:
    """Return the narrower of a type's own bounds and ours."""
    low, high = getattr(kind, "min", None), getattr(kind, "max", None)
    lows, highs = ([v for v in pair if v is not None] for pair in ((low, least), (high, most)))
    return {"min": max(lows, default=None), "max": min(highs, default=None)}


def _devices() -> tuple[str, ...]:
    import torch

    cards = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    apple = ["mps"] if torch.backends.mps.is_available() else []
    return ("auto", "cpu", *cards, *apple)


def _recipe() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the defaults and the groups of painting's options."""
    groups = {each.name: each.metadata["group"] for each in painting.options()}
    return _plain(painting.Recipe()), groups


def _plain(recipe: painting.Recipe) -> dict[str, Any]:
    return {each.name: _written(each.name, getattr(recipe, each.name)) for each in fields(recipe)}


def _written(name: str, value: Any) -> Any:
    """Return a recipe's value as it is typed."""
    if name == "size" and value is None:
        return "content"
    if name == "stages" and value is None:
        return "none"
    if isinstance(value, tuple):
        return ",".join(":".join(map(str, v)) if isinstance(v, tuple) else f"{v}" for v in value)
    return value


def _presets(name: str) -> Iterator[Preset]:
    if name == "stylize":
        usual = _plain(painting.Recipe())
        for called, preset in painting.PRESETS.items():
            values = {k: v for k, v in _plain(preset.recipe).items() if v != usual[k]}
            yield Preset(name=called, text=preset.text, values=values)
    elif name == "excite":
        for called, each in EXCITING.items():
            yield Preset(name=called, text=each.text, values={})
    elif name in ("train", "find-lr"):
        for called, chosen in RECIPES.items():
            values: dict[str, Any] = {key: getattr(chosen, key) for key in _TOLD}
            values["lr"] = chosen.optimiser.lr
            values = {k: str(v) if k == "views" else v for k, v in values.items() if v is not None}
            yield Preset(name=called, text=chosen.text, values=values)


_TOLD = (
    "data", "net", "start", "size", "epochs", "batch", "micro", "clip", "label_smoothing", "class_weights",
    "validation", "keep", "patience", "views", "precision",
)  # fmt: skip
