"""Trained networks in folders: what such a folder holds, how it is read, and which come with innervision.

A folder holds `model.safetensors` and `model.json`, the card: which net it is, how it is built, what input it
wants, its classes' names, and facts about its training. The run folders of training are such folders, and so
is each folder in this package and in `$INNERVISION_HOME/models`: those are opened by name, and putting one
there is all that is needed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from torch import nn

from innervision import nets, weights
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit
from innervision.files import atomic
from innervision.store import home
from innervision.weights import Preprocessing

CARD, WEIGHTS = "model.json", "model.safetensors"
FORMAT = 1  # of the card; raised when an older reader would misunderstand a newer card


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What model.json says: the net, how it is built, its input, its classes, and facts for a person.

    `net` is a name of `nets.NETS`, built by `nets.build(net, **options)`; or "FILE.py:FUNCTION" for a user's
    module; or "" for a module that only its owner can build. `facts` may hold anything that JSON can; those
    this package reads are "temperature" (see learn.calibrate), "accuracy", "seeds" and "text".
    """

    name: str
    net: str
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    input_size: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def shipped() -> Mapping[str, Path]:
    """Return name -> folder of the trained networks that are opened by name, in the order of names."""
    places = (home() / "models", Path(__file__).parent)  # what comes with innervision hides a namesake
    found: dict[str, Path] = {}
    for place in places:
        with suppress(PermissionError):  # a folder that may not be looked into
            found |= {card.parent.name: card.parent for card in place.glob(f"*/{CARD}")}
    return MappingProxyType(dict(sorted(found.items())))


def find(name: str) -> Path | None:
    """Return the folder that a name means: a shipped network's, or a path's; None where it may be another's.

    Raises Invalid for a path to no folder.
    """
    if name in (known := shipped()):
        return known[name]
    path = Path(name)
    if path.name == CARD and path.is_file():
        return path.parent
    if path.is_dir():
        return path
    guest = name.rpartition(":")[2].isidentifier() and ":" in name
    if not guest and any(mark in name for mark in {"/", os.sep}):
        raise Invalid(f"no folder '{name}' with a trained network: see innervision runs and innervision nets")
    return None


def read_card(folder: Path | str) -> ModelCard:
    """Read a folder's card; WeightsMissing where there is none, WeightsUnfit where it makes no sense."""
    path = Path(folder) / CARD
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsMissing(
            f"'{folder}' holds no trained network (no {CARD}): training writes it with its first measurement"
        ) from None
    except (OSError, ValueError) as error:
        raise WeightsUnfit(f"'{path}' cannot be read: damaged or cut off? ({error})") from error
    found = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if found.get("format") != FORMAT:
        given = found.get("format", "none")
        raise WeightsUnfit(
            f"'{path}' has format {given}; this innervision reads {FORMAT}: update innervision"
        )
    try:
        pre = found["preprocessing"]
        return ModelCard(
            name=str(found["name"]),
            net=str(found["net"]),
            preprocessing=Preprocessing(tuple(pre["mean"]), tuple(pre["std"]), pre["range"], pre["order"]),
            classes=tuple(map(str, found["classes"])),
            input_size=None if found["input_size"] is None else int(found["input_size"]),
            options=dict(found["options"]),
            facts=dict(found["facts"]),
        )
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsUnfit(f"'{path}' is no model card: {type(error).__name__}: {error}") from error


def write_card(card: ModelCard, folder: Path | str) -> Path:
    """Write a folder's card, whole or not at all; Invalid for options or facts that JSON cannot hold."""
    data = {"format": FORMAT, **asdict(card)}
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise Invalid(f"a model card holds what JSON can, without NaN: {error}") from error
    with atomic(Path(folder) / CARD) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    return Path(folder) / CARD


def build(card: ModelCard, *, device: str = "cpu") -> nn.Module:
    """Build a card's net, one of our own, with weights yet to come; torch's own generator stays as it was.

    Raises WeightsUnfit for a net or an option that this version does not have.
    """
    try:
        return nets.build(card.net, **card.options, device=device, drawn=False)
    except (Invalid, TypeError) as error:
        what = f"{card.net!r} with {dict(card.options)}"
        raise WeightsUnfit(f"{card.name} cannot be built: {what}: {error}") from error


def own_module(card: ModelCard, folder: Path) -> str:
    """Return FILE.py:FUNCTION of a user's module: where it was, or where it lies beside the weights now."""
    file, _, function = card.net.rpartition(":")
    for place in (Path(file), folder / Path(file).name):
        if file and place.is_file():
            return f"{place}:{function}"
    gone = f"its module was built by {card.net}, and '{file}' is gone: put it back, or into '{folder}'"
    alone = "no file is recorded that builds its module: saved.open_saved(folder, module=…) takes it"
    raise WeightsMissing(f"{card.name} cannot be built: {gone if file else alone}")


def fill(module: nn.Module, file: Path) -> None:
    """Copy a folder's weights into its module, each into its place and none left over.

    Raises WeightsMissing where there is no such file, WeightsUnfit where it is damaged or another's.
    """
    if not file.is_file():
        raise WeightsMissing(f"'{file.parent}' lacks {file.name}: copy it too, or train again")
    try:
        weights.load(module, file, strict=True)
    except WeightsUnfit as error:
        why = str(error).removesuffix(" Fetch it again")
        raise WeightsUnfit(f"{why}; copy the folder again, or train again") from error
