"""A trained network in a folder: save() writes it, open_saved() reads it, network.load() opens it by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from innervision import models, nets, network, weights
from innervision.errors import Invalid
from innervision.models import ModelCard
from innervision.network import Network

__all__ = ["ModelCard", "card_of", "open_saved", "save"]


def save(
    trained: Network,
    folder: Path | str,
    *,
    net: str,
    options: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a network as a folder that `--net FOLDER` opens: model.safetensors, then model.json.

    net, options: what `nets.build(net, **options)` builds the module of; or net "FILE.py:FUNCTION" for a
    user's module, or "" for one that no file builds. facts: what a person, or a later command, wants to know
    of its training, as JSON holds it. dtype: of the floating-point values in the file, by default their own.
    Each file is written whole or not at all; a stop between the two leaves new weights with the card before.
    Returns the folder. Raises Invalid, before anything is written, where the module is not what `net` builds.
    """
    if ".py:" in net:
        file, _, function = net.rpartition(":")
        net = f"{Path(file).absolute()}:{function}"  # the folder may be opened from elsewhere
    card = ModelCard(
        name=trained.name,
        net=net,
        preprocessing=trained.preprocessing,
        classes=trained.classes,
        input_size=trained.input_size,
        options=dict(options or {}),
        facts=dict(facts or {}),
    )
    state = trained.module.state_dict()
    if net and ":" not in net:
        _check(card, state)
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    weights.save(state, Path(folder) / models.WEIGHTS, {"name": card.name, "net": card.net})
    models.write_card(card, folder)
    return Path(folder)


def _check(card: ModelCard, state: Mapping[str, torch.Tensor]) -> None:
    """Raise Invalid unless the net that the card names has these tensors."""
    wanted = nets.build(card.net, **card.options, device="meta").state_dict()
    shapes, found = ({n: tuple(t.shape) for n, t in one.items()} for one in (wanted, state))
    if shapes != found:
        name = next(n for n in (*shapes, *found) if shapes.get(n) != found.get(n))
        raise Invalid(
            f"{card.name} is not the net {card.net!r} with {dict(card.options)}: "
            f"{name} is {found.get(name, 'missing')} where that has {shapes.get(name, 'none')}"
        )


def open_saved(folder: Path | str, *, module: nn.Module | None = None) -> Network:
    """Open the network of a folder, on the CPU in float32, in evaluation mode.

    module: to be filled with the folder's weights, where no file was recorded that builds it.
    Raises WeightsMissing for a folder without a card, weights or the user's file, and WeightsUnfit for what
    is damaged, of a newer format, or of another network.
    """
    return network.load_folder(Path(folder), module=module)


def card_of(name: str) -> ModelCard | None:
    """Return the card of a network by name where it is a folder's; None for any other network."""
    folder = None if name in nets.NETS else models.find(name)
    return None if folder is None else models.read_card(folder)
