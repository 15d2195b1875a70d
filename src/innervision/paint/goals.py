"""What a painting is asked for: the pictures at any size, and the objective they make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision import colour, images
from innervision.core import Objective, gamut, gram, match, smooth
from innervision.core.measures import Statistic, same
from innervision.errors import Invalid
from innervision.images import Picture, Size
from innervision.network import Network
from innervision.paint.recipes import Recipe

BLANK = "blank"
GREY = 0.5  # of a blank picture
IMAGENET_STD = (0.229, 0.224, 0.225)
LAYERS: tuple[tuple[str, str, str], ...] = (  # where a recipe names none: net, content layer, style layers
    ("vgg", "relu4_2", "relu1_1 relu2_1 relu3_1 relu4_1 relu5_1"),
    ("squeezenet", "fire2", "relu1 fire3 fire4 fire5"),
    ("alexnet", "relu3", "relu1 relu2 relu3 relu4 relu5"),
)


@dataclass(frozen=True)
class Sitting:
    """The pictures as read (None: blank) and the sizes of every stage, coarse to fine."""

    content: Picture | None
    styles: tuple[Picture | None, ...]
    size: Size
    stages: tuple[tuple[Size, int], ...]  # size, evaluations

    @property
    def evaluations(self) -> int:
        return sum(steps for _, steps in self.stages)


def sit(content: images.Source, styles: Sequence[images.Source], recipe: Recipe) -> Sitting:
    """Read the pictures and decide every size; raises before anything costly begins."""
    if not styles:
        raise Invalid("stylize needs at least one style picture")
    if recipe.style_weights is not None and len(recipe.style_weights) != len(styles):
        raise Invalid(
            f"{len(recipe.style_weights)} style weights for {len(styles)} style pictures: give one each"
        )
    read = [None if _blank(source) else images.read(source) for source in (content, *styles)]
    shown = next((picture for picture in read if picture is not None), None)
    if shown is None:
        raise Invalid("content and style cannot both be blank: there would be nothing to paint")
    longest = recipe.size if recipe.pixels is None else None
    size = images.fit(shown.height, shown.width, longest=longest, pixels=recipe.pixels)
    return Sitting(read[0], tuple(read[1:]), size, tuple(_stages(size, recipe)))


def _blank(source: images.Source) -> bool:
    return isinstance(source, str) and source == BLANK


def _stages(size: Size, recipe: Recipe) -> Iterator[tuple[Size, int]]:
    if isinstance(recipe.stages, tuple):
        for longest, steps in recipe.stages:
            yield images.fit(*size, longest=longest), steps
        return
    if recipe.stages == "auto":
        halved = [(size[0] >> n, size[1] >> n) for n in range(5, 0, -1)]
        yield from ((part, recipe.coarse_steps) for part in halved if min(part) >= 64)
    yield size, recipe.steps


@dataclass(frozen=True)
class Scaled:
    """A statistic in the units that a recipe's weights are meant for."""

    statistic: Statistic
    factor: float

    def __call__(self, activation: Tensor) -> Tensor:
        return self.statistic(activation) * self.factor


class Goals:
    """The pictures of a sitting at any size, and the objective they make for a network."""

    def __init__(self, network: Network, sitting: Sitting, recipe: Recipe) -> None:
        self.network = network
        self.sitting = sitting
        self.recipe = recipe
        content, style = _layers(network, recipe)
        self.content_layers = network.check(content)
        self.style_layers = network.check(style)
        for name, layers in (("content", self.content_layers), ("style", self.style_layers)):
            weights = getattr(recipe, f"{name}_layer_weights")
            if weights is not None and len(weights) != len(layers):
                raise Invalid(
                    f"{len(weights)} {name} layer weights for {len(layers)} layers ({', '.join(layers)}): "
                    "give one a layer"
                )

    def unit(self) -> Tensor:
        """Return what 1.0 of an image is in the recipe's units, a channel (3,)."""
        pre = self.network.preprocessing
        if self.recipe.units == "byte":
            return torch.tensor([255.0] * 3)
        normalised = pre.range == 1 and len(pre.std) == 3 and max(pre.std) < 1
        return 1 / torch.tensor(pre.std if normalised else IMAGENET_STD)

    def activation_scale(self) -> float:
        """Return the factor that brings the network's activations to the recipe's units.

        A ReLU network scales with its input, so that weights tuned on a network fed 0..255 (Caffe's)
        mean the same on one fed (x-mean)/std.
        """
        pre = self.network.preprocessing
        own = torch.tensor([pre.range / std for std in pre.std])
        scale = float(self.unit().mean() / own.mean())
        return 1.0 if abs(scale - 1) < 1e-6 else scale

    def content(self, size: Size) -> Tensor:
        """Return the content picture at a size; plain grey where it is blank."""
        picture = self.sitting.content
        image = torch.full((1, 3, *size), GREY) if picture is None else picture.tensor(size)
        return image.to(self.network.device)

    def styles(self, size: Size) -> list[Tensor]:
        """Return the style pictures for a painting of this size, in the same proportion at every stage."""
        full, recipe = self.sitting.size, self.recipe
        share = (size[0] * size[1]) / (full[0] * full[1])
        shown: list[Tensor] = []
        for picture in self.sitting.styles:
            if picture is None:
                shown.append(torch.full((1, 3, *size), GREY).to(self.network.device))
                continue
            if recipe.style_size is None:
                own = images.fit(picture.height, picture.width, pixels=size[0] * size[1])
            else:
                longest = max(1, round(recipe.style_size * share**0.5))
                own = images.fit(picture.height, picture.width, longest=longest)
            image = picture.tensor(own).to(self.network.device)
            if recipe.color == "match":
                image = match_colour(image, self.content(size), recipe)
            shown.append(image)
        return shown

    def objective(self, size: Size) -> Objective:
        """Return what a painting of this size is asked for."""
        recipe, scale = self.recipe, self.activation_scale()
        goal = Objective()
        if recipe.content_weight:
            goal += recipe.content_weight * match(
                self.network,
                self.content(size),
                self.content_layers,
                by=same if scale == 1 else Scaled(same, scale),
                weights=recipe.content_layer_weights,
                distance=recipe.content_distance,
                name="content",
            )
        if recipe.style_weight:
            shares = recipe.style_weights or (1.0,) * len(self.sitting.styles)
            goal += recipe.style_weight * match(
                self.network,
                list(zip(self.styles(size), shares, strict=True)),
                self.style_layers,
                by=Scaled(Gram(recipe.gram_norm), scale**2),
                weights=recipe.style_layer_weights or self._by_channels(),
                distance=recipe.style_distance,
                name="style",
            )
        if recipe.tv_weight:
            goal += recipe.tv_weight * smooth(recipe.tv_power, form=recipe.tv_form, scale=self.unit())
        if recipe.gamut_weight:
            goal += recipe.gamut_weight * gamut()
        if not goal.terms:
            raise Invalid("content, style, tv and gamut weights are all 0: there is nothing to paint for")
        return goal

    def _by_channels(self) -> list[float]:
        """Return 1/C² a style layer: Gatys's own weights, which make layers of any width count alike."""
        with torch.no_grad():
            probe = torch.zeros(1, 3, 64, 64, device=self.network.device)
            found = self.network.features(probe, self.style_layers)
        return [1 / found[layer].shape[1] ** 2 for layer in self.style_layers]


@dataclass(frozen=True)
class Gram:
    """`gram` with its norm chosen."""

    norm: str

    def __call__(self, activation: Tensor) -> Tensor:
        return gram(activation, self.norm)


def match_colour(image: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """Give an image the colours of another by the recipe's way of matching, clamped to 0..1."""
    way = colour.match_covariance if recipe.color_match == "covariance" else colour.match_histogram
    return way(image, target).clamp(0, 1)


def _layers(network: Network, recipe: Recipe) -> tuple[Sequence[str], Sequence[str]]:
    content, style = recipe.content_layers, recipe.style_layers
    usual = next((row for row in LAYERS if network.name.startswith(row[0])), None)
    if usual is None and (content is None or style is None):
        raise Invalid(
            f"no usual layers are known for {network.name}: "
            "name them with --content-layers and --style-layers "
            f"(content_layers=, style_layers=); it has {', '.join(network.layers[:12])} …"
        )
    return content or (usual[1],) if usual else (), style or usual[2].split() if usual else ()
