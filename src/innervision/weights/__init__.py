"""Weights: which there are (`WEIGHTS`), where they lie (`locate`), how they get into a module (`load`)."""

from __future__ import annotations

from innervision.weights.cards import (
    WEIGHTS,
    Order,
    Preprocessing,
    WeightCard,
    default,
    download,
    identify,
    locate,
)
from innervision.weights.formats import Inspection, State, inspect, read_state, save
from innervision.weights.loading import LoadReport, load, ordered

__all__ = [
    "WEIGHTS",
    "Inspection",
    "LoadReport",
    "Order",
    "Preprocessing",
    "State",
    "WeightCard",
    "default",
    "download",
    "identify",
    "inspect",
    "load",
    "locate",
    "ordered",
    "read_state",
    "save",
]
