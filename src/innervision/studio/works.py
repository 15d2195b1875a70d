"""Which commands a page can start, where their work goes, and which of their options it shows."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import click


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a command is carried out as a job."""

    first: tuple[str, ...]
    """The options shown first, in this order."""
    output: str | None = ""
    """What it writes, in the run's folder; "" is the folder itself, None that it writes nothing."""
    flag: str = "output"
    """The option that takes it."""
    folder: str = ""
    """The option that takes the run's folder, where that is another."""
    pictures: Mapping[str, bool] = field(default_factory=dict)
    """Parameters that are pictures -> whether there may be several."""
    always: tuple[str, ...] = ()
    """What every such job is given."""
    goes_on: Literal["resume", "same", ""] = ""
    """How it is gone on with where it was: by --resume, by the same words, or not at all."""
    keeps_events: bool = False
    """Whether it writes events.jsonl itself."""
    fine: frozenset[int] = frozenset((0,))
    """Exit codes of what is done."""


WORKS: Mapping[str, Work] = MappingProxyType(
    {
        "stylize": Work(
            first=(
                "content", "styles", "preset", "size", "steps", "style_weight", "content_weight", "color",
                "start", "seed",
            ),
            output="painting.png",
            folder="run",
            pictures={"content": False, "styles": True, "start": False},
            always=("--checkpoints",),  # so that a crash, too, can be gone on from
            goes_on="resume",
            keeps_events=True,
        ),
        "dream": Work(
            first=("source", "layers", "octaves", "steps", "rate", "size", "guide", "pictures", "seed"),
            output="dream.png",
            folder="run",
            pictures={"source": False, "guide": False},
        ),
        "invert": Work(
            first=("source", "layers", "steps", "size", "seed"),
            folder="run",
            pictures={"source": False},
            goes_on="same",
        ),
        "excite": Work(
            first=("target", "targets", "preset", "size", "steps", "pictures", "diverse", "seed"),
            output="excite.png",
            folder="run",
        ),
        "train": Work(
            first=("recipe", "data", "net", "epochs", "batch", "lr", "validation", "seed"),
            flag="run",
            goes_on="resume",
            keeps_events=True,
        ),
        "find-lr": Work(first=("recipe", "data", "net", "from", "to", "steps"), output="find-lr.png"),
        "evaluate": Work(first=("net", "data", "part", "views")),
        "predict": Work(
            first=("pictures", "net", "top", "views"),
            output=None,
            pictures={"pictures": True},
            fine=frozenset((0, 1)),  # 1: a picture was skipped
        ),
        "export": Work(first=("net", "to", "input", "size"), output="network"),
        "units": Work(first=("data", "layers", "sheet", "deconv", "top", "size"), goes_on="same"),
        "attribute": Work(
            first=("source", "target", "method", "show", "trust", "size"),
            output="map.png",
            pictures={"source": False},
        ),
        "activations": Work(
            first=("image", "layers", "scale", "channels", "size"), pictures={"image": False}
        ),
        "look": Work(
            first=("source", "target", "quick", "steps", "size", "seed"),
            output="page.html",
            pictures={"source": False},
        ),
        "compare": Work(
            first=("pictures", "net2", "layers", "layers2", "invariance", "part", "limit", "size"),
            output="compare.png",
            pictures={"pictures": True, "invariance": False},
        ),
    }
)  # fmt: skip

LEFT_OUT = frozenset(
    [
        "output",
        "run",
        "no_run",
        "resume",
        "checkpoints",
        "checkpoint_every",
        "dry_run",
        "max_pixels",
        "quiet",
        "json",
        "no_report",
        "tensorboard",
        "weights",
        "weights2",
        "mean",
        "std",
        "range",
        "order",
        "classes",
    ]
)
"""Options that make no sense in a page; a network's weights and input come with its name."""

TEXTS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("layers", "layers2", "content_layers", "style_layers", "sheet"), "layers"),
        **dict.fromkeys(("target", "targets"), "target"),
        **dict.fromkeys(("content_layer_weights", "style_layer_weights", "style_weights"), "numbers"),
        "stages": "stages",
        "channels": "number or all",
        "part": "box",
    }
)
"""Options of free text, and what it is: of any other an option may name a file, and is not taken."""

_TARGET = re.compile(r"\.np[yz]", re.IGNORECASE)


def names_a_file(text: str) -> bool:
    """Whether a text would have a command read a file: the direction "relu4_1:vector.npy"."""
    return _TARGET.search(text) is not None


LIMITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "size": (0, 8192),
        "style_size": (1, 8192),
        "pixels": (1, 2**26),
        "steps": (1, 1_000_000),
        "coarse_steps": (1, 100_000),
        "octaves": (1, 20),
        "jitter": (0, 1024),
        "tile": (16, 8192),
        "pictures": (1, 10_000),
        "samples": (1, 10_000),
        "points": (1, 10_000),
        "top": (1, 1000),
        "limit": (1, 1_000_000),
        "batch": (1, 65_536),
        "fps": (1, 120),
        "history": (1, 1000),
        "every": (1, 1_000_000),
        "seed": (0, 2**63 - 1),
    }
)
"""Bounds of whole numbers, beyond those of the commands: what a slip of the finger may ask for."""


def output_of(name: str, options: Mapping[str, object]) -> str | None:
    """Return what a command writes in its run's folder, by its options; "" is the folder itself."""
    if name == "dream" and options.get("pictures") not in (None, ""):
        return "film.mp4" if options.get("mp4") is True else "film"  # a folder
    if name == "export":
        return {"torchscript": "network.pt", "safetensors": "network.safetensors"}.get(
            str(options.get("to")), "network.onnx"
        )
    return WORKS[name].output


def command(name: str) -> click.Command:
    """Return a command as the command line has it, whose name is among WORKS."""
    # by name, and late: the command line imports the studio
    group: click.Group = importlib.import_module("innervision.cli").cli
    found = group.get_command(click.Context(group), name)
    assert found is not None, name
    return found
