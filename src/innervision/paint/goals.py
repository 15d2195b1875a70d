"""What a painting is asked for: the objective that its pictures make for a network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from innervision.core import Adam, Lbfgs, Objective, Stage, clamp, gamut, gram, match, smooth
from innervision.core.measures import Match, Statistic, same
from innervision.errors import InnervisionError, Invalid
from innervision.images import Size
from innervision.network import Network
from innervision.paint.recipes import Recipe
from innervision.paint.sitting import Pictures, Sitting
from innervision.paint.work import look
from innervision.shapes import Float
from innervision.weights.cards import IMAGENET

LAYERS: tuple[tuple[str, str, str], ...] = (  # where a recipe names none: net, content layer, style layers
    ("vgg", "relu4_2", "relu1_1 relu2_1 relu3_1 relu4_1 relu5_1"),
    ("squeezenet", "fire2", "relu1 fire3 fire4 fire5"),
    ("alexnet", "relu3", "relu1 relu2 relu3 relu4 relu5"),
)


@dataclass(frozen=True)
class Scaled:
    """A statistic in the units that a recipe's weights are meant for."""

    statistic: Statistic
    factor: float

    def __call__(self, activation: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        return self.statistic(activation) * self.factor


class Goals(Pictures):
    """The pictures of a sitting at any size, and the objective they make for a network."""

    def __init__(self, network: Network, sitting: Sitting, recipe: Recipe) -> None:
        super().__init__(sitting, recipe, network.device)
        self.network = network
        self.content_layers, self.style_layers = layers_of(network, recipe)
        for name, layers in (("content", self.content_layers), ("style", self.style_layers)):
            weights = getattr(recipe, f"{name}_layer_weights")
            if weights is not None and len(weights) != len(layers):
                raise Invalid(
                    f"{len(weights)} {name} layer weights for {len(layers)} layers ({', '.join(layers)}): "
                    "give one a layer"
                )

    def normal(self) -> tuple[Float[Tensor, " 3"], Float[Tensor, " 3"]]:
        """Return the mean and deviation, RGB in 0..1, by which the network's input is normalised.

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

    def unit(self) -> Float[Tensor, " 3"]:
        """Return what 1.0 of an image is in the recipe's units, a channel of RGB."""
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

    def objective(self, size: Size) -> Objective:
        """Return what a painting of size (h, w) is asked for: content, style, smooth and gamut, as weighed.

        The targets are seen here: a pass through the network over the content, and one over each style.
        Raises Invalid for a power of the total variation below 1.
        """
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
            style = match(
                self.network,
                list(zip(self.styles(size), shares, strict=True)),
                self.style_layers,
                by=Scaled(Gram(recipe.gram_norm), scale**2),
                weights=recipe.style_layer_weights,
                distance=recipe.style_distance,
                name="style",
            )
            goal += recipe.style_weight * (style if recipe.style_layer_weights else _by_channels(style))
        if recipe.tv_weight:
            goal += recipe.tv_weight * smooth(recipe.tv_power, form=recipe.tv_form, scale=self.unit())
        if recipe.gamut_weight:
            goal += recipe.gamut_weight * gamut()
        return goal

    def check_size(self) -> None:
        """Raise Invalid where a picture does not get through the network, before any work.

        Of our own nets the narrowest stage decides; a guest may refuse any.
        """
        stages = [size for size, _ in self.sitting.stages]
        for size in stages if ":" in self.network.name else [min(stages, key=min)]:
            self._check_look("a picture", size, (*self.content_layers, *self.style_layers))
            for picture in self.sitting.styles:
                if picture is not None:
                    self._check_look(picture.name, self.style_size(picture, size), self.style_layers)

    def _check_look(self, what: str, size: Size, layers: tuple[str, ...]) -> None:
        own = self.network
        try:
            look(own, size, layers)
        except InnervisionError:
            raise
        except Exception as error:  # a guest may refuse in any way
            where = f"{what} of {size[1]}x{size[0]} px"
            if "too small" not in str(error) and "Kernel size" not in str(error):
                said = str(error).partition("\n")[0] or type(error).__name__
                raise Invalid(f"{own.name} fails at {where}: {said}") from error
            raise Invalid(
                f"{where} is too narrow for {max(layers, key=own.layers.index)}: "
                "choose a larger size, a wider picture, or shallower layers"
            ) from error


@dataclass(frozen=True)
class Gram:
    """`gram` with its norm chosen."""

    norm: str

    def __call__(self, activation: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c c"]:
        return gram(activation, self.norm)


def stages_of(goal: Objective, goals: Goals, size: Size, steps: int, late_steps: int) -> list[Stage]:
    """Return one size's stages: one, or two where Adam slows down at the end."""
    recipe = goals.recipe
    if recipe.optimiser == "lbfgs":
        return [Stage(goal, steps, size, Lbfgs(recipe.history))]
    edits = ()
    if recipe.clamp is not None:
        mean, std = goals.normal()
        edits = (clamp(mean - recipe.clamp * std, mean + recipe.clamp * std),)
    stages = [Stage(goal, steps - late_steps, size, Adam(recipe.learning_rate), edits=edits)]
    if late_steps:
        stages.append(Stage(goal, late_steps, size, Adam(recipe.late_learning_rate)))
    return stages


def _by_channels(style: Objective) -> Objective:
    """Weigh each layer by 1/C²: Gatys's own weights, which make Gram matrices of any width count alike."""
    channels = [cast(Match, term.measure).target.shape[1] for term in style.terms]
    return Objective(tuple(replace(t, weight=1 / c**2) for t, c in zip(style.terms, channels, strict=True)))


def layers_of(network: Network, recipe: Recipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the layers that hold content and style: the recipe's, else what is usual for the network.

    Raises Invalid for an unknown layer, and where nothing is usual.
    """
    content, style = recipe.content_layers, recipe.style_layers
    if content is not None and style is not None:
        return network.check(content), network.check(style)
    own = ":" in network.name  # FILE.py:FUNCTION, whatever the file is called
    usual = next((row for row in LAYERS if network.name.startswith(row[0]) and not own), None)
    if usual is None:
        raise Invalid(
            f"no usual layers are known for {network.name}: "
            "name them with --content-layers and --style-layers "
            f"(content_layers=, style_layers=); it has {', '.join(network.layers[:12])} …"
        )
    return network.check(content or (usual[1],)), network.check(style or usual[2].split())
