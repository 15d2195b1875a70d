"""The parts of the page of `innervision look`, in their order, and how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from innervision.cli import depths, looking, portraits, reasons
from innervision.cli.looking import Look, Within
from innervision.cli.pages import Section
from innervision.cli.seeing import Telling

Make = Callable[[Look, Telling], Section]

PARTS: Mapping[str, Make] = MappingProxyType(
    {
        "picture": looking.picture,
        "layers": looking.layers,
        "units": portraits.units,
        "maps": reasons.maps,
        "kept": depths.kept,
        "dreams": depths.dreams,
        "compared": depths.compared,
    }
)
"""Name -> what makes it."""

LONG = ("kept", "dreams", "compared")  # left out by --quick


def sections(look: Look, seconds: Mapping[str, float], told: Telling) -> Iterator[Section]:
    """Yield the page's parts in order, telling which is at work. seconds: that parts will take, about."""
    parts = {name: make for name, make in PARTS.items() if not (look.quick and name in LONG)}
    whole = sum(seconds.values()) or 1.0
    done = 0.0
    for name, make in parts.items():
        end = done + seconds.get(name, 0.0) / whole
        within = Within(told, done, min(end, 0.99), name)
        within.step(0, 1)
        yield make(look, within)
        done = min(end, 0.99)
    told.step(100, 100, "the page")
