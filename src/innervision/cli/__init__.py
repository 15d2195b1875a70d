"""The command line: `innervision COMMAND`. Nothing heavy is imported before a command asks for it."""

from __future__ import annotations

import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Mapping
from datetime import datetime
from gettext import gettext
from types import MappingProxyType
from typing import Any, NoReturn

import click

from innervision import __version__
from innervision.errors import InnervisionError, OutOfMemory, out_of_memory, unknown
from innervision.samples import SAMPLES

__all__ = ["COMMANDS", "STARTED", "cli", "main"]

STARTED = "innervision.started"
"""Where the context of a command keeps when it began, for the card of the run."""

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {  # name -> where it lives, and its line in the list: so that the list loads none of them
        "stylize": ("innervision.cli.stylize:stylize", "Paint a picture in the style of others."),
        "demo": ("innervision.cli.demo:demo", "Paint a sample photograph, and explain how in a page."),
        "look": ("innervision.cli.look:look", "Write one page of all that a network sees in a picture."),
        "activations": ("innervision.cli.activations:activations", "Draw the layers' answers to a picture."),
        "attribute": ("innervision.cli.attribute:attribute", "Show what of a picture a unit or class sees."),
        "excite": ("innervision.cli.excite:excite", "Make pictures that excite units of a network."),
        "units": ("innervision.cli.units:units", "Find the pictures that excite each unit most."),
        "invert": ("innervision.cli.invert:invert", "Show how much of a picture each layer keeps."),
        "dream": ("innervision.cli.dream:dream", "Draw into a picture what layers see in it."),
        "compare": ("innervision.cli.compare:compare", "Compare layers, networks and checkpoints."),
        "train": ("innervision.cli.train:train", "Train a network by a recipe."),
        "recipes": ("innervision.cli.recipes:recipes", "List the recipes for training, or explain one."),
        "find-lr": ("innervision.cli.find_lr:find_lr", "Find how great a learning rate may be."),
        "evaluate": ("innervision.cli.evaluate:evaluate", "Measure a trained network on a data set."),
        "predict": ("innervision.cli.predict:predict", "Tell what a trained network takes pictures for."),
        "export": ("innervision.cli.export:export", "Write a trained network as ONNX or TorchScript."),
        "studio": ("innervision.cli.studio:studio", "Look, learn and paint in the browser, live."),
        "data": ("innervision.cli.data:data", "List, fetch or look into data sets."),
        "nets": ("innervision.cli.tables:nets", "List the networks and where their weights are."),
        "weights": ("innervision.cli.tables:weights", "List, fetch or look into weights files."),
        "runs": ("innervision.cli.runs:runs", "List the runs in a folder."),
    }
)


class Failure(click.ClickException):
    """An InnervisionError as the commands tell it: one line, exit code 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"innervision: {self.message}", err=True)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        return getattr(importlib.import_module(module), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(str(unknown("command", args[0], COMMANDS)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(gettext("Commands")):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what innervision raises on purpose becomes a line, unless --debug."""
        try:
            return super().invoke(ctx)
        except InnervisionError as error:
            if ctx.params.get("debug"):
                raise
            raise Failure(re.sub(r"\s*\n\s*", " ", str(error).strip())) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            if out_of_memory(error):
                text = "out of memory: choose a smaller --size, or free some"
                raise Failure(str(OutOfMemory(text))) from error
            said = _of_a_network(error)
            if said is None:
                raise
            raise Failure(said) from error
        except KeyboardInterrupt:
            click.echo("innervision: interrupted", err=True)
            ctx.exit(130)


def _of_a_network(error: Exception) -> str | None:
    """Return what a user's network said as it failed; None for a failure of another kind."""
    if "torch" not in sys.modules:  # nothing has been looked through
        return None
    return importlib.import_module("innervision.cli.guest").fault(error)


_PICTURES = (
    f"Wherever a picture is asked for, sample:NAME is one that comes along: {', '.join(SAMPLES)}. "
    "Begin with: innervision look sample:chelsea"
)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_PICTURES,
)
@click.version_option(__version__, prog_name="innervision")
@click.option("--debug", is_flag=True, help="show where an error arose (or set INNERVISION_DEBUG=1)")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """Train a convolutional network, look inside it, and paint with what it sees."""
    ctx.meta[STARTED] = datetime.now().astimezone()
    ctx.params["debug"] = debug or os.environ.get("INNERVISION_DEBUG", "") not in ("", "0")


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    if sys.platform == "win32":  # by Ctrl-Break the studio stops its jobs: let it do what Ctrl-C does
        signal.signal(signal.SIGBREAK, lambda number, frame: signal.raise_signal(signal.SIGINT))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files that this locale cannot write
    cli.main(args=args, prog_name="innervision")
    raise SystemExit(0)
