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
from innervision.weights.cards import IMAGENET

BLANK = "blank"
GREY = 0.5  # of a blank picture
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
    stages = tuple(_stages(shown, recipe))
    return Sitting(read[0], tuple(read[1:]), stages[-1][0], stages)


def _blank(source: images.Source) -> bool:
    return isinstance(source, str) and source == BLANK


def _stages(shown: Picture, recipe: Recipe) -> Iterator[tuple[Size, int]]:
    if isinstance(recipe.stages, tuple):
        for longest, steps in recipe.stages:
            yield images.fit(shown.height, shown.width, longest=longest), steps
        return
    longest = recipe.size if recipe.pixels is None else None
    size = images.fit(shown.height, shown.width, longest=longest, pixels=recipe.pixels)
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
        self._content: dict[Size, Tensor] = {}  # of the latest size alone: colours are kept a frame
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

    def normal(self) -> tuple[Tensor, Tensor]:
        """Return the mean and deviation, RGB (3,) in 0..1, by which the network's input is normalised.

        ImageNet's where it states none: a mean of 0, or a deviation of 1 as Caffe's networks have.
        """
        pre = self.network.preprocessing
        mean, std = (torch.tensor(values).expand(3) / pre.range for values in (pre.mean, pre.std))
        if pre.order == "BGR":
            mean, std = mean.flip(0), std.flip(0)
        return (
            mean if any(pre.mean) else torch.tensor(IMAGENET.mean),
            std if any(s != 1 for s in pre.std) else torch.tensor(IMAGENET.std),
        )

    def unit(self) -> Tensor:
        """Return what 1.0 of an image is in the recipe's units, a channel of RGB (3,)."""
        return torch.full((3,), 255.0) if self.recipe.units == "byte" else 1 / self.normal()[1]

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
        if size not in self._content:
            picture = self.sitting.content
            image = torch.full((1, 3, *size), GREY) if picture is None else picture.tensor(size)
            self._content = {size: image.to(self.network.device)}
        return self._content[size]

    def styles(self, size: Size) -> list[Tensor]:
        """Return the style pictures for a painting of this size, in the same proportion at every stage."""
        shown: list[Tensor] = []
        for picture in self.sitting.styles:
            if picture is None:
                shown.append(torch.full((1, 3, *size), GREY).to(self.network.device))
                continue
            image = picture.tensor(self.style_size(picture, size)).to(self.network.device)
            if self.recipe.color == "match" and self.sitting.content is not None:
                image = match_colour(image, self.content(size), self.recipe)
            shown.append(image)
        return shown

    def style_size(self, picture: Picture, size: Size) -> Size:
        """Return the size at which a style picture is looked at for a painting of this size."""
        if self.recipe.style_size is None:
            return images.fit(picture.height, picture.width, pixels=size[0] * size[1])
        full = self.sitting.size
        share = (size[0] * size[1]) / (full[0] * full[1])
        longest = max(1, round(self.recipe.style_size * share**0.5))
        return images.fit(picture.height, picture.width, longest=longest)

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
                weights=recipe.style_layer_weights or self._by_channels(size),
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

    def probe(self, size: Size) -> Tensor:
        """Return a black picture that gets as far through the network as one of this size would, and sooner.

        Our own nets are chains of convolutions, where the narrower side decides and 64 px reach every
        layer; a guest may have layers that want one size alone.
        """
        side = size if ":" in self.network.name else (min(*size, 64),) * 2
        return torch.zeros(1, 3, *side, device=self.network.device)

    def _by_channels(self, size: Size) -> list[float]:
        """Return 1/C² a style layer: Gatys's own weights, which make layers of any width count alike."""
        with torch.no_grad():
            found = self.network.features(self.probe(size), self.style_layers)
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
    if content is not None and style is not None:
        return content, style
    own = ":" in network.name  # FILE.py:FUNCTION, whatever the file is called
    usual = next((row for row in LAYERS if network.name.startswith(row[0]) and not own), None)
    if usual is None:
        raise Invalid(
            f"no usual layers are known for {network.name}: "
            "name them with --content-layers and --style-layers "
            f"(content_layers=, style_layers=); it has {', '.join(network.layers[:12])} …"
        )
    return content or (usual[1],), style or usual[2].split()
