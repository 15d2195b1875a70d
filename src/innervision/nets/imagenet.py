"""The thousand classes of ImageNet: their WordNet numbers and names, in the order of the outputs.

The order is that of the WordNet numbers, as Caffe, torchvision, Keras and TensorFlow have it since the Large
Scale Visual Recognition Challenge of 2012. Where the names come from, and their licence: SOURCES.md beside
this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType


@cache
def _lines() -> tuple[tuple[str, tuple[str, ...]], ...]:
    text = resources.files("innervision.nets").joinpath("imagenet.txt").read_text(encoding="utf-8")
    rows = (line.partition(" ") for line in text.splitlines())
    return tuple((number, tuple(names.split(", "))) for number, _, names in rows)


@cache
def classes() -> tuple[str, ...]:
    """Return each class's name, no two the same: "tench", "goldfish" … "toilet tissue"."""
    return tuple(names[0] for _, names in _lines())


@cache
def numbers() -> Mapping[str, int]:
    """Return each class's place by its WordNet number: "n01440764" -> 0."""
    return MappingProxyType({wordnet: place for place, (wordnet, _) in enumerate(_lines())})


@cache
def synonyms() -> Mapping[str, tuple[int, ...]]:
    """Return the places of the classes that a name may mean, in lower case: "tabby cat" -> (281,)."""
    found: dict[str, tuple[int, ...]] = {}
    for place, (_, names) in enumerate(_lines()):
        for name in dict.fromkeys(name.lower() for name in names):
            found[name] = (*found.get(name, ()), place)
    return MappingProxyType(found)
