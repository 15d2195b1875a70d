"""Where training starts: a recipe's network with its first weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from innervision import models, nets, network, weights
from innervision.core.fit import drawing_from
from innervision.errors import Invalid, WeightsMissing
from innervision.learn.data import DataSet
from innervision.learn.recipe import Recipe
from innervision.nets.cifar import whiten
from innervision.network import Network
from innervision.weights import LoadReport


def begin(
    recipe: Recipe,
    classes: tuple[str, ...],
    images: Tensor,  # UInt8[Tensor, "n c h w"], of the training part
    seed: int,
) -> tuple[Network, LoadReport | None]:
    """Return a recipe's network for these classes with its first weights, and what became of loaded ones.

    Values are drawn from the seed alone. Raises Invalid where the network does not answer a score a class to
    these pictures, WeightsMissing and WeightsUnfit for the weights it is to start from.
    """
    module = _module(recipe.net, len(classes), seed)
    report = weights.load(module, _file(recipe.start), strict=False) if recipe.start else None
    pre = recipe.preprocessing
    if recipe.whiten:
        layer = dict(module.named_children()).get("whiten")
        if not isinstance(layer, nn.Conv2d):
            raise Invalid(f"{recipe.net} has no layer 'whiten' to set: take a recipe without whitening")
        whiten(layer, pre(images[: recipe.whiten].float() / 255))
    _freeze(module, recipe)
    if recipe.channels_last:
        module = module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    made = Network(
        module,
        name=net_name(recipe.net),
        preprocessing=pre,
        classes=classes,
        input_size=int(images.shape[-1]),
    )
    _check(made, images, classes)
    return made, report


def near(data: DataSet, device: torch.device) -> DataSet:
    """Return a data set in a GPU's memory, where it is small."""
    if device.type != "cuda" or data.images.numel() > 2**31:
        return data
    return replace(data, images=data.images.to(device), labels=data.labels.to(device))


def calm_norms(module: nn.Module, parts: int) -> None:
    """Let batch normalisation's running means, moved once a part, go as far a step as once a batch."""
    for one in module.modules():
        if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.momentum is not None:
            one.momentum = 1 - (1 - one.momentum) ** (1 / parts)


def check_data(recipe: Recipe, data: DataSet, validation: DataSet | None) -> None:
    """Raise Invalid where a recipe cannot be carried out on this data."""
    wanted = len(recipe.preprocessing.mean)
    if len(data.classes) < 2:
        raise Invalid(
            f"{data.name} has one class, {', '.join(data.classes)!r}: there is nothing to tell apart"
        )
    if wanted != data.channels:
        raise Invalid(
            f"{recipe.name} is for pictures of {wanted} channels, and {data.name} has {data.channels}: "
            f"read it with channels={wanted}"
        )
    if validation is not None and validation.classes != data.classes:
        raise Invalid("what is held out has other classes than what is learned from")
    if validation is None and (recipe.keep == "best" or recipe.patience):
        raise Invalid("keep best and patience need pictures that are held out: give some, or keep last")


def net_name(net: str) -> str:
    """Return what a recipe's net is called: a name of `nets.NETS`, or FILE.py:FUNCTION without its folder."""
    file, colon, function = net.rpartition(":")
    return f"{Path(file).name}:{function}" if colon else net


def _module(net: str, classes: int, seed: int) -> nn.Module:
    if ":" in net:
        with drawing_from(seed, torch.device("cpu")):  # a user's module draws from torch's own generator
            return network.load(net).module
    return nets.build(net, classes=classes, generator=torch.Generator().manual_seed(seed), device="cpu")


def _file(start: str) -> Path:
    """Return the file of weights that are meant: published ones, a file, or a trained network's folder."""
    if start in weights.WEIGHTS:
        return weights.locate(weights.WEIGHTS[start])
    path = Path(start)
    path = path / models.WEIGHTS if path.is_dir() else path
    if not path.is_file():
        known = ", ".join(weights.WEIGHTS)
        raise WeightsMissing(
            f"no weights {start!r} to start from: give a file, a run's folder, or of {known}"
        )
    return path


def _freeze(module: nn.Module, recipe: Recipe) -> None:
    names = [name for name, _ in module.named_parameters()]
    for start in (*recipe.frozen, *(start for start, _ in recipe.slow)):
        if not any(name.startswith(start) for name in names):
            raise Invalid(f"{recipe.net} has no layer that begins with {start!r}")
    for name, weight in module.named_parameters():
        if name.startswith(recipe.frozen):
            weight.requires_grad_(False)


def _check(made: Network, images: Tensor, classes: tuple[str, ...]) -> None:
    """Raise Invalid unless one picture is answered with a score a class."""
    size = f"{images.shape[-1]}x{images.shape[-2]}"
    try:
        with torch.no_grad():
            scores = made(images[:1].float() / 255)
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        raise Invalid(f"{made.name} cannot take pictures of {size}: {why}; another --size?") from error
    if not isinstance(scores, Tensor) or scores.shape != (1, len(classes)):  # pyright: ignore[reportUnnecessaryIsInstance]
        shape = tuple(scores.shape[1:]) if isinstance(scores, Tensor) else type(scores).__name__  # pyright: ignore[reportUnnecessaryIsInstance]
        raise Invalid(
            f"{made.name} answers {shape} to a picture, and the data has {len(classes)} classes: "
            "they must be as many"
        )
