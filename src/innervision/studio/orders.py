"""What was filled in, as the words of a command line: checked before anything starts.

No word of a page reaches the command line but as `--name=value`, by the command's own parameters. What is a
path there comes from the server's lists: pictures, networks and data sets are named, and never located.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from innervision.errors import Invalid, unknown
from innervision.paint import recipes as painting
from innervision.studio import datasets
from innervision.studio.forms import OURS, Field, Sources, form, guests, starts
from innervision.studio.works import WORKS, command, names_a_file

_LONGEST = 1000  # characters of a text
_MOST = 64  # values of an option

Picture = Callable[[str, str], Path]
"""Returns the file of a picture by (option, id); Invalid where there is none."""


def words(name: str, given: Mapping[str, Any], sources: Sources, picture: Picture) -> list[str]:
    """Return the words for a command's options and arguments, as given by name.

    Raises Invalid, in a sentence for a person, for an option that the form does not have, a value that is not
    allowed, and one that is missing.
    """
    if name not in WORKS:
        raise unknown("command", name[:80], WORKS)
    known = {field.name: field for field in form(name, sources).options}
    for key in given:
        if key not in known:
            raise unknown("option", key[:80], known, of=name)
    flags: list[str] = []
    arguments: list[str] = []
    for field in known.values():
        value = given.get(field.name)
        if value is None or value in ("", []):
            if field.required:
                raise Invalid(f"{name} needs {field.name.replace('_', ' ')}: {_wanted(field)}")
            continue
        for each in _several(field, value):
            made = list(_worded(name, field, each, sources, picture))
            if field is not OURS.get(name):  # which says where the result goes
                (flags if field.flag else arguments).extend(made)
    if name == "compare" and given.get("pictures") and given.get("invariance"):
        raise Invalid("compare answers one question at a time: give pictures, or one for invariance")
    check(name, [*flags, *arguments])
    return [*flags, *arguments]


def check(name: str, line: list[str]) -> None:
    """Let a command itself judge its words, without carrying them out; raise Invalid for what it refuses."""
    own = command(name)
    try:
        context = own.make_context(name, list(line))
    except click.UsageError as error:
        raise Invalid(f"{name}: {' '.join(error.format_message().split())[:600]}") from None
    with contextlib.closing(context):
        if name == "stylize":  # whose choices depend on one another
            typed = {
                each.name: context.params[each.name]
                for each in painting.options()
                if context.get_parameter_source(each.name) is ParameterSource.COMMANDLINE
            }
            painting.recipe(context.params["preset"] or "gatys", **typed)  # pyright: ignore[reportArgumentType]


def _wanted(field: Field) -> str:
    if field.kind in ("picture", "pictures"):
        return "choose a picture" if field.kind == "picture" else "choose one picture or more"
    return "choose one" if field.kind == "choice" else "fill it in"


def _several(field: Field, value: Any) -> list[Any]:
    if not field.multiple:
        return [value]
    values = value if isinstance(value, list) else [value]
    if len(values) > _MOST:
        raise Invalid(f"{field.name} has {len(values)} values; it can have {_MOST}")
    return values


def _worded(name: str, field: Field, value: Any, sources: Sources, picture: Picture) -> Iterator[str]:
    """Yield the words of one value."""
    match field.kind:
        case "picture" | "pictures":
            yield _as(field, str(picture(field.name, _text(field, value))))
        case "bool":
            if not isinstance(value, bool):
                raise Invalid(f"{field.name} is {_shown(value)}; it can be true or false")
            if value:
                yield field.flag
            elif field.off:
                yield field.off
        case "int":
            yield _as(field, _whole(field, value))
        case "float":
            yield _as(field, _number(field, value))
        case "text":
            yield _as(field, _text(field, value))
        case "choice":
            yield from _chosen(name, field, value, sources, picture)


def _as(field: Field, text: str) -> str:
    return f"{field.flag}={text}" if field.flag else text


def _chosen(name: str, field: Field, value: Any, sources: Sources, picture: Picture) -> Iterator[str]:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else _text(field, value)
    if text not in field.choices:
        if field.of == "picture":
            yield _as(field, str(picture(field.name, text)))
            return
        raise unknown(field.name.replace("_", " "), text[:80], field.choices)
    if field.of == "flag":
        yield f"--{text}"
    elif field.of == "network":
        yield from _network(name, field, sources.network(text))
    elif field.of in ("start", "architecture"):
        own = starts(sources) if field.of == "start" else guests(sources)
        yield _as(field, own.get(text, text))
    elif field.of == "data":
        place = datasets.known()[text]
        yield _as(field, place.source if field.flag else str(place.folder))
    else:
        yield _as(field, text)


def _network(name: str, field: Field, options: Mapping[str, str]) -> Iterator[str]:
    """Yield the words that name a network, if the command can be told all that it needs.

    Its classes' names go to a command that calls classes by name; others do without.
    """
    flags = {flag for parameter in command(name).params for flag in parameter.opts}
    suffix = "2" if field.name == "net2" else ""
    known = {key for key in options if f"--{key}{suffix}" in flags}
    more = {key: value for key, value in options.items() if key != "net"}
    if "classes" not in known:
        more.pop("classes", None)
    missing = [key for key in more if key not in known]
    if missing:
        raise Invalid(f"{name} cannot take this network: it has no option for its {', '.join(missing)}")
    yield _as(field, options["net"])
    for key, value in more.items():
        yield f"--{key}{suffix}={value}"


def _whole(field: Field, value: Any) -> str:
    if isinstance(value, str) and value in field.choices:
        return value
    number = value
    if (
        isinstance(value, str) and len(value) < 20 and value.lstrip("+-").isdecimal() and value.isascii()
    ) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool):
        words = f", or {' or '.join(field.choices)}" if field.choices else ""
        raise Invalid(f"{field.name} is {_shown(value)}; it must be a whole number{words}")
    return str(_within(field, number, max(2**63 - 1, field.max or 0)))


def _number(field: Field, value: Any) -> str:
    try:
        number = float(value) if isinstance(value, int | float | str) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise Invalid(f"{field.name} is {_shown(value)}; it must be a number")
    return repr(_within(field, number, math.inf))


def _within(field: Field, number: Any, most: float) -> Any:
    low, high = (-most if field.min is None else field.min), (most if field.max is None else field.max)
    if not low <= number <= high:
        bounds = f"{low:g} to {high:g}" if math.isfinite(high) and abs(low) < 2**62 else f"{low:g} or more"
        bounds = f"at most {high:g}" if abs(low) >= 2**62 else bounds
        raise Invalid(f"{field.name} is {_shown(number)}; it can be {bounds}")
    return number


def _text(field: Field, value: Any) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{field.name} is {_shown(value)}; it must be a text")
    if len(value) > _LONGEST:
        raise Invalid(f"{field.name} has {len(value)} characters; it can have {_LONGEST}")
    if not value.isprintable():
        raise Invalid(f"{field.name} has characters that cannot be printed: write it anew")
    if names_a_file(value):
        raise Invalid(f"{field.name} names a file, and a page cannot name the server's files: leave it out")
    return value


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:59] + "…"
