"""What a layer keeps of a picture: look for another picture that it answers to alike, and compare the two."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from innervision.core import Detail, Frame, Lbfgs, Objective, Stage, Term, descend, match
from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.activations import nonlinearities
from innervision.see.similarity import psnr, ssim
from innervision.sheets import FAINT, INK, PAPER, tick

UNIT = 0.226  # sRGB 0..1: the mean deviation of ImageNet's three channels
_NOISE = 0.01  # sRGB: what the search starts from besides grey


@dataclass(frozen=True, eq=False)
class Inversion:
    """A picture that a layer answers to as it does to the original, and how near the two are."""

    layer: str
    image: Tensor = field(repr=False)  # (1, 3, h, w), sRGB 0..1
    error: float  # ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² of the layer's answers
    ssim: float  # of the pictures
    psnr: float  # of the pictures, dB; infinite for equal ones

    def numbers(self) -> dict[str, float | str | None]:
        """Return all but the picture, as JSON takes it: an infinite PSNR is None."""
        near = self.psnr if math.isfinite(self.psnr) else None
        return {"layer": self.layer, "error": self.error, "ssim": self.ssim, "psnr": near}


def invert(
    network: Network,
    image: Tensor,
    layers: Iterable[str] | None = None,
    *,
    steps: int = 80,
    norm: float = 1e-8,
    variation: float = 2e-6,
    seed: int = 0,
) -> Generator[Inversion]:
    """Look for what each layer keeps of a picture (1, 3, h, w), sRGB 0..1; yield an Inversion a layer.

    layers: by default every ReLU before the classifier, or what stands for it (see
    `activations.nonlinearities`). The rest is as in `inverting`.
    Every layer begins from the same grey noise: nothing is known of the picture but the layer's answer, so
    that layers can be compared. Raises Invalid, at once, for a picture or layer that cannot be inverted.
    """
    names = wanted(network, layers)
    _check(image)
    for name in names:
        goal(network, image, name, norm=norm, variation=variation)

    def each() -> Generator[Inversion]:
        for name in names:
            found = image
            search = inverting(network, image, name, steps=steps, norm=norm, variation=variation, seed=seed)
            for frame in search:
                found = frame.image
            yield judged(network, image, name, found)

    return each()


def wanted(network: Network, layers: Iterable[str] | None) -> tuple[str, ...]:
    """Return the names of the layers to invert, each once; Invalid if one is unknown or there are none."""
    names = nonlinearities(network) if layers is None else tuple(dict.fromkeys(network.check(layers)))
    if not names:
        raise Invalid(
            f"{network.name} has neither nonlinearities nor Conv2d modules to invert by default: "
            "name some of its layers"
        )
    return names


def every_layer(network: Network) -> tuple[str, ...]:
    """Return the names of all modules that hold no others and do something when looked through."""
    idle = (nn.Dropout, nn.Identity)
    named = network.module.named_modules()
    return tuple(
        name for name, part in named if name and not [*part.children()] and not isinstance(part, idle)
    )


def inverting(
    network: Network,
    image: Tensor,
    layer: str,
    *,
    steps: int = 80,
    norm: float = 1e-8,
    variation: float = 2e-6,
    seed: int = 0,
    power: float = 6.0,
) -> Generator[Frame]:
    """Descend from grey noise to a picture that a layer answers to as it does to `image`, a Frame a step.

    Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, eq. 2–4:

        ‖Φ(x) − Φ₀‖² / ‖Φ₀‖² + norm · Σ|z|^power + variation · Σ(Δz)²,   z = (x − ½) / 0.226

    with the sums as they would be at 224 x 224 px (`Prior`). Departures: z has one unit for every network;
    one pair of weights for all layers, where the paper smooths deeper ones more, so that layers can be
    compared; L-BFGS instead of gradient descent with momentum, on a canvas whose large forms move as readily
    as fine ones (`Detail` on even grey); no jitter. Common restatements weigh by 1e-7 and 1e-8 instead: the
    one then outweighs the error of shallow layers, the other leaves noise in deep ones. The variation's
    2e-6 is a compromise: it is what limits shallow layers (relu1_1 of VGG19 at 160 px ends at an error of
    6e-3, with 3e-7 at 3e-4).
    """
    _check(image)
    if any(p.requires_grad for p in network.module.parameters()):
        network = network.frozen(network.dtype)  # the guest's own weights shall gather no gradients
    target = goal(network, image, layer, norm=norm, variation=variation, power=power)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    start = Detail((0.5 + _NOISE * noise).to(image.device))
    return descend(network, start, [Stage(target, steps, optimiser=Lbfgs())])


def goal(
    network: Network,
    image: Tensor,
    layer: str,
    *,
    norm: float = 1e-8,
    variation: float = 2e-6,
    power: float = 6.0,
) -> Objective:
    """Return the objective: the layer's relative error, 0 at the picture, and the two priors on pictures."""
    (term,) = match(network, image, (layer,), distance="sum", name="error").terms
    size = float(_answer(network, image, layer).square().sum())
    if not size > 0 or not math.isfinite(size):
        raise Invalid(
            f"{layer} of {network.name} answers nothing to this picture (its square is {size:g}): "
            "it cannot be inverted"
        )
    priors: list[Term] = []
    if norm:
        priors.append(Term("norm", Prior(power, between=False), (), norm))
    if variation:
        priors.append(Term("variation", Prior(2.0, between=True), (), variation))
    return (1 / size) * Objective((term,)) + Objective(tuple(priors))


@dataclass(frozen=True)
class Prior:
    """Σ|z|^power over pixels, or over differences of neighbours, as at 224 x 224 px.

    The mean over the picture's numbers, times 3 · 224²: a size keeps its meaning.
    """

    power: float
    between: bool

    def __call__(self, activations: Mapping[str, Tensor], image: Tensor) -> Tensor:
        z = (image - 0.5) / UNIT
        parts = (z.diff(dim=-1), z.diff(dim=-2)) if self.between else (z,)
        total = sum((part.abs().pow(self.power).sum() for part in parts), torch.zeros((), dtype=z.dtype))
        return total * (3 * 224**2 / z.numel())


def judged(network: Network, image: Tensor, layer: str, found: Tensor) -> Inversion:
    """Measure a picture that was found, as it will be seen: within 0..1."""
    seen = found.clamp(0, 1)
    want, have = _answer(network, image, layer), _answer(network, seen, layer)
    error = float((have - want).square().sum() / want.square().sum())
    return Inversion(layer, seen, error, ssim(seen, image), psnr(seen, image))


def curve(found: Iterable[Mapping[str, float | str | None]], *, title: str = "") -> Image.Image:
    """Draw error (logarithmic) and SSIM of inversions' `numbers` over the layers, in the order given."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # not pyplot, which keeps global state
    from matplotlib.figure import Figure

    rows = list(found)
    if not rows:
        raise Invalid("a curve needs at least one inversion")
    paper, ink, faint = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (PAPER, INK, FAINT))
    figure = Figure((8, 4.4), dpi=160, layout="constrained", facecolor=paper)
    canvas = FigureCanvasAgg(figure)
    left = figure.add_subplot(facecolor=paper)
    right = left.twinx()
    places = range(len(rows))
    for axes, name, label, colour in (
        (left, "ssim", "SSIM of the pictures (1: the same)", "#8dd3c7"),
        (right, "error", "error of the layer's answer (0: the same)", "#fdb462"),
    ):
        values = [float(value) if (value := row[name]) is not None else math.nan for row in rows]
        axes.plot(places, values, "o-", color=colour, linewidth=1.8, markersize=4)
        axes.set_ylabel(label, color=colour)
        axes.tick_params(which="both", colors=faint, labelcolor=colour)
        axes.spines[:].set_color(faint)
        axes.spines["top"].set_visible(False)
    if any(float(row["error"] or 0) > 0 for row in rows):
        right.set_yscale("log")
    left.set_ylim(min(0.0, *(float(row["ssim"] or 0) for row in rows)), 1.02)
    left.set_xticks(
        list(places), [tick(str(row["layer"])) for row in rows], rotation=60, ha="right", fontsize=8
    )
    left.tick_params(axis="x", labelcolor=ink)
    left.set_xlabel("layer, from the picture inwards", color=ink)
    if title:
        left.set_title(title, color=ink, fontsize=11)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


@torch.no_grad()
def _answer(network: Network, image: Tensor, layer: str) -> Tensor:
    return network.features(image, (layer,))[layer].double()


def _check(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[0] != 1 or not image.is_floating_point() or min(image.shape[-2:]) < 11:
        raise Invalid(
            f"one picture is inverted at a time: (1, 3, h, w), sRGB 0..1, of at least 11 px each way, "
            f"not {image.dtype} {tuple(image.shape)}"
        )
