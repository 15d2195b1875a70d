"""Measures: what an objective asks of activations and of the image itself."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from innervision.core.objective import Objective, Term
from innervision.errors import Invalid, unknown
from innervision.network import Network
from innervision.shapes import Float

Statistic = Callable[[Float[Tensor, "n ..."]], Float[Tensor, "n ..."]]
"""What of an activation is compared: itself, or its Gram matrix."""

DISTANCES = ("mean", "sum", "half-root")
GRAM_NORMS = ("hw", "chw", "none")
FORMS = ("mean", "sum", "pairs")

_ROWS = 1024  # positions a partial Gram product sums: in bfloat16 it is rounded once a block


def same(activation: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Return the activation itself, in full precision."""
    return activation.float() if activation.dtype in (torch.bfloat16, torch.float16) else activation


class _Gram(torch.autograd.Function):
    """F Fᵀ over positions, summed in float32 or better block by block whatever F's own precision."""

    @staticmethod
    def forward(ctx: Any, activation: Tensor) -> Tensor:
        ctx.save_for_backward(activation)
        rows = activation.flatten(2).transpose(1, 2)  # (n, h·w, c): a view, whatever the layout
        n, positions, c = rows.shape
        whole = positions - positions % _ROWS
        blocks, rest = rows[:, :whole].reshape(-1, _ROWS, c), rows[:, whole:]
        precise = activation.dtype if activation.dtype == torch.float64 else torch.float32
        sums = (blocks.transpose(1, 2) @ blocks).view(n, -1, c, c).sum(1, dtype=precise)
        return sums + rest.transpose(1, 2) @ rest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (activation,) = ctx.saved_tensors
        rows: Tensor = activation.flatten(2).transpose(1, 2)
        both = (gradient + gradient.transpose(1, 2)).to(activation.dtype)
        return (rows @ both).transpose(1, 2).view(activation.shape)  # channels last


def gram(activation: Float[Tensor, "n c h w"], norm: str = "hw") -> Float[Tensor, "n c c"]:
    """Return the Gram matrix of an activation: which channels answer together.

    norm: "hw" divides by h·w, so that a size keeps its meaning (Gatys et al. 2016, eq. 3, with the
    1/M² of eq. 4 taken inside); "chw" by c·h·w (Johnson et al. 2016, and the article); "none" is
    eq. 3 as printed. Half-precision activations are summed in float32: bfloat16 a block of positions at a
    time, float16, whose squares would leave its range, from the start. Once differentiable.
    """
    if activation.ndim != 4:
        raise Invalid(f"a Gram matrix is of an activation (n, c, h, w), not {tuple(activation.shape)}")
    _, c, h, w = activation.shape
    divisor = {"hw": h * w, "chw": c * h * w, "none": 1}.get(norm)
    if divisor is None:
        raise unknown("Gram norm", norm, GRAM_NORMS)
    whole = activation.float() if activation.dtype == torch.float16 else activation
    matrix = cast(Tensor, _Gram.apply(whole))
    return matrix / divisor


@dataclass(frozen=True, eq=False)
class Match:
    """Squared distance of one layer's statistic from a target."""

    layer: str
    target: Float[Tensor, "n ..."]
    by: Statistic
    distance: str
    positions: int  # h·w of the layer, for "half-root"

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        statistic = self.by(activations[self.layer])
        if statistic.shape[1:] != self.target.shape[1:]:
            raise Invalid(
                f"{self.layer} gives {_by(statistic)} where the target has {_by(self.target)}: "
                "give the target at the picture's size"
            )
        square = (statistic - self.target).square()
        match self.distance:
            case "mean":
                return square.mean()
            case "sum":
                return square.sum()
            case _:
                return square.sum() / (2 * statistic.shape[1] ** 0.5 * self.positions**0.5)


def match(
    network: Network,
    target: Float[Tensor, "n c h w"] | Sequence[tuple[Float[Tensor, "n c h w"], float]],
    layers: Iterable[str],
    *,
    by: Statistic = same,
    weights: Sequence[float] | None = None,
    distance: str = "mean",
    name: str = "match",
) -> Objective:
    """Ask for the activations, or a statistic of them, that a target picture has: 0 at the target.

    target: a picture, or pictures with weights, whose weighted mean statistic is the
    target: Σ wᵢ‖S−Sᵢ‖² and (Σ wᵢ)‖S−Σ wᵢSᵢ/Σ wᵢ‖² differ by a constant alone, so that many styles
    cost no more than one. weights: one a layer (default 1 each).
    distance: "mean" over all entries (a size keeps its meaning), "sum", or "half-root",
    Σ/(2·√c·√(h·w)) (titu1994's content_loss_type 1).
    """
    names = network.check(layers)
    if not names:
        raise Invalid("match() needs at least one layer")
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    layer_weights = [1.0] * len(names) if weights is None else list(weights)
    if len(layer_weights) != len(names):
        raise Invalid(
            f"{len(layer_weights)} weights for {len(names)} layers ({', '.join(names)}): give one a layer"
        )
    pictures = [(target, 1.0)] if isinstance(target, Tensor) else list(target)
    total = sum(weight for _, weight in pictures)
    if not pictures or total <= 0:
        raise Invalid("the targets' weights must sum to more than 0")
    means: dict[str, Tensor] = {}
    positions: dict[str, int] = {}
    with torch.no_grad():
        for picture, weight in pictures:
            for layer, activation in network.features(picture, names).items():
                part = by(activation) * (weight / total)
                if layer in means and means[layer].shape != part.shape:
                    raise Invalid(
                        f"the targets differ in size: {layer} gives {_by(means[layer])} and {_by(part)}"
                    )
                means[layer] = means[layer] + part if layer in means else part
                positions[layer] = activation[0, 0].numel()
    terms = (
        Term(f"{name} {layer}", Match(layer, means[layer], by, distance, positions[layer]), (layer,), w)
        for layer, w in zip(names, layer_weights, strict=True)
    )
    return Objective(tuple(terms))


def _by(statistic: Tensor) -> str:
    return "x".join(str(n) for n in statistic.shape[1:])


@dataclass(frozen=True)
class Energy:
    """-½ of a layer's mean square."""

    layer: str

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        return -0.5 * same(activations[self.layer]).square().mean()


def energy(layer: str) -> Objective:
    """Ask a layer for more of whatever it sees: -½ mean a² (Deep Dream, Mordvintsev et al. 2015)."""
    return Objective((Term(f"energy {layer}", Energy(layer), (layer,)),))


@dataclass(frozen=True, eq=False)
class Smooth:
    """Total variation of the image."""

    power: float
    form: str
    scale: Float[Tensor, " c"] | float

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        y = image * torch.as_tensor(self.scale).to(image).view(1, -1, 1, 1)
        right, down = y.diff(dim=-1), y.diff(dim=-2)
        if self.form == "pairs":
            return (right[..., :-1, :].square() + down[..., :-1].square()).pow(self.power).sum()
        return self._sum(right) + self._sum(down)

    def _sum(self, difference: Tensor) -> Tensor:
        powers = difference.square() if self.power == 2 else difference.abs().pow(self.power)
        # a picture one pixel wide has no neighbours: 0, where mean() would be NaN
        return powers.sum() / (max(1, powers.numel()) if self.form == "mean" else 1)


def smooth(
    power: float = 2.0, *, form: str = "mean", scale: Float[Tensor, " c"] | float = 255.0
) -> Objective:
    """Ask for a smooth picture: total variation, 0 for an even one.

    form: "mean" averages |Δ|^power over neighbours right and down (a size keeps its meaning);
    "sum" adds them (the article: power 2); "pairs" adds (Δx² + Δy²)^power (titu1994: power 1.25).
    power: from 1; below it, the gradient has no bound where the picture is even.
    scale: what 1.0 of the image is in the units measured: 255, or a network's range / std a channel.
    """
    if form not in FORMS:
        raise unknown("form of total variation", form, FORMS)
    if not power >= 1:
        raise Invalid(
            f"a total variation of power {power:g} has no gradient where it is even: give 1 or more"
        )
    return Objective((Term("smooth", Smooth(power, form, scale)),))


@dataclass(frozen=True)
class Gamut:
    """The mean square, in 0..255 units, of what lies outside 0..255."""

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        return (255.0 * (image - image.clamp(0, 1))).square().mean()


def gamut() -> Objective:
    """Ask for colours that a file can hold: the mean square, in 0..255 units, of what lies outside 0..255.

    Inside an optimiser that may leave the gamut this costs nothing, and what is written is what was
    optimised: clipping a finished picture loses a third of the objective that was gained.
    """
    return Objective((Term("gamut", Gamut()),))
