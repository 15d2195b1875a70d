"""Command options made from a recipe's fields: one source for names, defaults, choices and help."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import Field
from typing import Any, get_args, get_type_hints

import click
from click.core import ParameterSource

from innervision.paint.recipes import Options, Recipe, options


class Size(click.ParamType):
    """Pixels, or "content" for the content's own size."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or str(value).lower() == "content":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(
                f"{value!r} is no size: give pixels, or 'content' for the content's own size", param, ctx
            )


class Stages(click.ParamType):
    """auto, none, or SIZE:STEPS,SIZE:STEPS,…"""

    name = "stages"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str) or value == "auto":
            return value
        if value == "none":
            return None
        try:
            pairs = [part.split(":") for part in value.split(",")]
            return tuple((int(size), int(steps)) for size, steps in pairs)
        except ValueError:
            self.fail(
                f"{value!r} is none of auto, none, SIZE:STEPS,SIZE:STEPS,…: e.g. 128:60,512:90", param, ctx
            )


class Percent(click.ParamType):
    """A percentage, with its sign or without."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(str(value).removesuffix("%"))
        except ValueError:
            self.fail(f"{value!r} is no percentage: e.g. 0.5%", param, ctx)


class Several(click.ParamType):
    """Values with commas between."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.name = "number,…" if kind is float else "name,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        try:
            return (
                tuple(self.kind(part.strip()) for part in value.split(","))
                if isinstance(value, str)
                else value
            )
        except ValueError:
            self.fail(f"{value!r} is no list of numbers with commas between: e.g. 1,0.5", param, ctx)


_SPECIAL = {"size": Size(), "stages": Stages(), "until": Percent()}


def flag(name: str) -> str:
    """Return a field's flag: style_layers is --style-layers."""
    return "--" + name.replace("_", "-")


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command an option for every field of Recipe."""
    hints = get_type_hints(Recipe)
    for each in reversed(options()):
        command = _option(each, hints[each.name])(command)
    return command


def _option(each: Field[Any], hint: Any) -> Callable[..., Any]:
    text = each.metadata["help"]
    if each.default is not None and not isinstance(each.default, tuple):
        shown = f"{each.default:g}" if isinstance(each.default, float) else each.default
        text += f" [default: {shown}]"
    return click.option(flag(each.name), each.name, type=_type(each, hint), default=None, help=text)


def _type(each: Field[Any], hint: Any) -> Any:
    if each.name in _SPECIAL:
        return _SPECIAL[each.name]
    if each.metadata["choices"]:
        return click.Choice(each.metadata["choices"])
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    if get_args(kinds[0]):  # tuple[float, ...]
        return Several(get_args(kinds[0])[0])
    return kinds[0]


def given(ctx: click.Context) -> Options:
    """Return the recipe's options that were typed, for those alone go over a preset's."""
    names = [each.name for each in options()]
    typed = {n: ctx.params[n] for n in names if ctx.get_parameter_source(n) is ParameterSource.COMMANDLINE}
    return Options(**typed)


class Grouped(click.Command):
    """A command whose help sets a recipe's options under their groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = {each.name: each.metadata["group"] for each in options()}
        rows: dict[str, list[tuple[str, str]]] = {"Command": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                rows.setdefault(groups.get(param.name or "", "Command"), []).append(record)
        for group, records in rows.items():
            with formatter.section(group):
                formatter.write_dl(records)
