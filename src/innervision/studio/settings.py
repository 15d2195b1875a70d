"""What the studio is started with, and what its parts share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from innervision.record import RUNS

STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A network that the studio can open: by name, a trained network's folder, or FILE.py:FUNCTION.

    options: what `network.load` takes besides the name: weights_file, mean, std, range, order.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    classes_file: Path | None = None
    """Where their names were read, for its jobs."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the studio is to serve, and from where."""

    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = None
    networks: tuple[Opening, ...] = ()
    """Those offered; without any the usual ones."""
    runs: Path = RUNS
    """The folder of runs; uploads lie in its `.studio`."""
    static: Path = STATIC
    """The built front end."""
    device: str = "auto"
    threads: int | None = None
    warm: bool = False
    """Whether to open the first network as soon as the server runs, before anyone asks for it."""
    cache: int = 384 * 2**20
    """Bytes of layers' answers to keep; the latest look is kept whatever it takes …"""
    most: int = 2**30
    """… up to so many bytes: a larger one is refused."""

    @property
    def own(self) -> Path:
        """The folder of what the studio keeps for itself."""
        return self.runs / ".studio"
