"""Write docs/commands.md from the command line itself: python docs/generate_commands.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath

import click

from innervision.cli import cli
from innervision.paint.recipes import options

PAGE = Path(__file__).with_name("commands.md")
GROUPS = {each.name: str(each.metadata["group"]) for each in options()}  # of a recipe's options
HEAD = """# Commands

Generated from the code by `python docs/generate_commands.py`; a test keeps it up to date.
`innervision COMMAND --help` says the same. `python -m innervision` is the same command.

An error is one line on standard error, with exit code 2; for words that are no command or option, the usage
comes before it. A run stopped by Ctrl-C ends with exit code 130.
"""


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield a command and all below it, each with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from walk(child, (*path, name))


def page() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *(_section(path, command) for path, command in walk(cli, ("innervision",)))])


def _section(path: tuple[str, ...], command: click.Command) -> str:
    title = " ".join(path)
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    words = [title, "[OPTIONS]", *(_argument(p) for p in arguments)]
    if isinstance(command, click.Group):
        words.append("COMMAND")
    parts = [f"## {title}\n", f"```text\n{' '.join(words)}\n```\n", _text(command.help)]
    rows: dict[str, list[click.Option]] = {}
    for param in command.params:
        if isinstance(param, click.Option) and not param.hidden:
            group = GROUPS.get(param.name or "", "Command") if path[-1] == "stylize" else ""
            rows.setdefault(group, []).append(param)
    for group, chosen in rows.items():
        if group:
            parts.append(f"### {group}\n")
        parts += ["| option | meaning |", "|---|---|", *(_row(option) for option in chosen), ""]
    return "\n".join(parts)


def _argument(param: click.Argument) -> str:
    name = param.metavar or (param.name or "").upper()
    return name if param.required or param.metavar else f"[{name}]"


def _text(help: str | None) -> str:
    paragraphs = (help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs) + "\n"


def _row(option: click.Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        value = _value(option)
        flags += f" {value}"
    text = " ".join((option.help or "").split())
    if option.show_default:
        text += f" [default: {_default(option)}]"
    return f"| {flags} | {_escape(text)} |"


def _default(option: click.Option) -> object:
    if option.secondary_opts:  # of --this / --not-this the one that holds, as --help says it
        return (option.opts if option.default else option.secondary_opts)[0].lstrip("-")
    return option.default.as_posix() if isinstance(option.default, PurePath) else option.default


def _value(option: click.Option) -> str:
    if isinstance(option.type, click.Choice):
        return " · ".join(f"`{choice}`" for choice in option.type.choices)
    return f"*{option.metavar or option.type.name.upper()}*"


def _escape(text: str) -> str:
    for sign in "|<*_":
        text = text.replace(sign, "\\" + sign)
    return text


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
