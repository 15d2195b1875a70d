"""Measures: what an objective asks of activations and of the image itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innervision.core.objective import Objective, Term
from innervision.errors import Invalid
from innervision.network import Network

Statistic = Callable[[Tensor], Tensor]
"""What of an activation (1, c, h, w) is compared: itself, or its Gram matrix."""

DISTANCES = ("mean", "sum", "half-root")
GRAM_NORMS = ("hw", "chw", "none")

_ROWS = 4096  # rows a partial Gram product sums in one go: bfloat16 products are rounded once a block


def same(activation: Tensor) -> Tensor:
    """Return the activation itself, in full precision."""
    return activation.float() if activation.dtype in (torch.bfloat16, torch.float16) else activation


class _Gram(torch.autograd.Function):
    """F Fᵀ over positions, summed in float32 or better block by block whatever F's own precision."""

    @staticmethod
    def forward(ctx: Any, activation: Tensor) -> Tensor:
        rows = activation.permute(0, 2, 3, 1).flatten(1, 2)  # (n, h·w, c): a view when channels last
        ctx.save_for_backward(activation)
        n, _, c = rows.shape
        precise = activation.dtype if activation.dtype == torch.float64 else torch.float32
        total = torch.zeros(n, c, c, dtype=precise, device=activation.device)
        for block in rows.split(_ROWS, dim=1):
            total += block.transpose(1, 2) @ block
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        (activation,) = ctx.saved_tensors
        n, c, h, w = activation.shape
        rows = activation.permute(0, 2, 3, 1).flatten(1, 2)
        both = (gradient + gradient.transpose(1, 2)).to(activation.dtype)
        return (rows @ both).view(n, h, w, c).permute(0, 3, 1, 2)


def gram(activation: Tensor, norm: str = "hw") -> Tensor:
    """Return the Gram matrix (n, c, c) of an activation (n, c, h, w): which channels answer together.

    norm: "hw" divides by h·w, so that a size keeps its meaning (Gatys et al. 2016, eq. 5, with the
    1/M² of eq. 6 taken inside); "chw" by c·h·w (Johnson et al. 2016, and the article); "none" is
    eq. 5 as printed. Half-precision activations are summed in float32.
    """
    _, c, h, w = activation.shape
    divisor = {"hw": h * w, "chw": c * h * w, "none": 1}.get(norm)
    if divisor is None:
        raise Invalid(f"Gram norm {norm!r}; there are {', '.join(GRAM_NORMS)}")
    # scaled before the product: so a bfloat16 gradient on the way back stays in range
    matrix: Tensor = _Gram.apply(activation)  # pyright: ignore[reportAssignmentType]
    return matrix / divisor


@dataclass(frozen=True)
class Match:
    """Squared distance of one layer's statistic from a target."""

    layer: str
    target: Tensor
    by: Statistic
    distance: str
    positions: int  # h·w of the layer, for "half-root"

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        difference = self.by(activations[self.layer]) - self.target
        square = difference.square()
        match self.distance:
            case "mean":
                return square.mean()
            case "sum":
                return square.sum()
            case _:
                channels = difference.shape[1]
                return square.sum() / (2 * channels**0.5 * self.positions**0.5)


def match(
    network: Network,
    target: Tensor | Sequence[tuple[Tensor, float]],
    layers: Iterable[str],
    *,
    by: Statistic = same,
    weights: Sequence[float] | None = None,
    distance: str = "mean",
    name: str = "match",
) -> Objective:
    """Ask for the activations, or a statistic of them, that a target picture has: 0 at the target.

    target: a picture (1, 3, h, w), or pictures with weights, whose weighted mean statistic is the
    target: Σ wᵢ‖S−Sᵢ‖² and (Σ wᵢ)‖S−Σ wᵢSᵢ/Σ wᵢ‖² differ by a constant alone, so that many styles
    cost no more than one. weights: one a layer (default 1 each).
    distance: "mean" over all entries (a size keeps its meaning), "sum", or "half-root",
    Σ/(2·√c·√(h·w)) (titu1994's content_loss_type 1).
    """
    names = network.check(layers)
    if not names:
        raise Invalid("match() needs at least one layer")
    if distance not in DISTANCES:
        raise Invalid(f"distance {distance!r}; there are {', '.join(DISTANCES)}")
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
                means[layer] = means[layer] + part if layer in means else part
                positions[layer] = activation.shape[-1] * activation.shape[-2]
    return Objective(
        tuple(
            Term(
                f"{name} {layer}",
                Match(layer, means[layer].detach(), by, distance, positions[layer]),
                (layer,),
                w,
            )
            for layer, w in zip(names, layer_weights, strict=True)
        )
    )


def excite(layer: str, channel: int | None = None) -> Objective:
    """Ask a layer, or one of its channels, to answer as strongly as it can (mean activation, negated)."""

    def measure(activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        a = activations[layer]
        if channel is not None:
            if not 0 <= channel < a.shape[1]:
                raise Invalid(f"no channel {channel} in {layer}, which has 0 … {a.shape[1] - 1}")
            a = a[:, channel]
        return -a.float().mean() if a.dtype != torch.float64 else -a.mean()

    where = layer if channel is None else f"{layer}:{channel}"
    return Objective((Term(f"excite {where}", measure, (layer,)),))


def energy(layer: str) -> Objective:
    """Ask a layer for more of whatever it sees: -½ mean a² (Deep Dream, Mordvintsev et al. 2015)."""

    def measure(activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        return -0.5 * same(activations[layer]).square().mean()

    return Objective((Term(f"energy {layer}", measure, (layer,)),))


def smooth(power: float = 2.0, *, form: str = "mean", scale: Tensor | float = 255.0) -> Objective:
    """Ask for a smooth picture: total variation, 0 for an even one.

    form: "mean" averages |Δ|^power over neighbours right and down (a size keeps its meaning);
    "sum" adds them (the article: power 2); "pairs" adds (Δx² + Δy²)^power (titu1994: power 1.25).
    scale: what 1.0 of the image is in the units measured: 255, or a network's range / std a channel.
    """

    def measure(activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        unit = torch.as_tensor(scale, dtype=image.dtype, device=image.device).view(1, -1, 1, 1)
        y = image * unit
        right, down = y.diff(dim=-1), y.diff(dim=-2)
        if form == "pairs":
            square = right[..., :-1, :].square() + down[..., :-1].square()
            # t**1.25 has no second derivative at 0, but its first is 0 there, as it should be
            return square.pow(power).sum()
        parts = [d.square() if power == 2 else d.abs().pow(power) for d in (right, down) if d.numel()]
        if not parts:
            return image.sum() * 0.0
        return (
            sum((p.mean() for p in parts), torch.zeros_like(image.sum()))
            if form == "mean"
            else sum((p.sum() for p in parts), torch.zeros_like(image.sum()))
        )

    if form not in ("mean", "sum", "pairs"):
        raise Invalid(f"total variation {form!r}; there are mean, sum, pairs")
    return Objective((Term("smooth", measure),))


def gamut() -> Objective:
    """Ask for colours that a file can hold: the mean square, in 0..255 units, of what lies outside 0..255.

    Inside an optimiser that may leave the gamut this costs nothing, and what is written is what was
    optimised: clipping a finished picture loses a third of the objective that was gained.
    """

    def measure(activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        outside = image - image.clamp(0, 1)
        return (255.0 * outside).square().mean()

    return Objective((Term("gamut", measure),))
