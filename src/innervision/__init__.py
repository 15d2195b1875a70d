"""innervision: train a convolutional network, look inside it, and paint with what it sees."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from innervision.images import read
    from innervision.network import Network, load, wrap
    from innervision.paint.gatys import Painting, stylize
    from innervision.paint.recipes import PRESETS, Recipe

__version__ = "0.1.0"

_HOMES = {  # name -> module: taken from there when asked for, so that importing innervision costs nothing
    "PRESETS": "innervision.paint.recipes",
    "Network": "innervision.network",
    "Painting": "innervision.paint.gatys",
    "Recipe": "innervision.paint.recipes",
    "load": "innervision.network",
    "read": "innervision.images",
    "stylize": "innervision.paint.gatys",
    "wrap": "innervision.network",
}

__all__ = ["PRESETS", "Network", "Painting", "Recipe", "load", "read", "stylize", "wrap"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'innervision' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]  # what is completed by a tab: no more than what is promised
