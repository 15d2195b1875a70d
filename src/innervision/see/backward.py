"""Backward to the picture: what of a picture a class, a channel or a unit answers to.

Every method takes a picture (1, 3, h, w), sRGB in 0..1, and a Target, and returns an Attribution whose map
has the picture's shape and dtype. All differentiate by the picture as it is given, before the network's
preprocessing. Nothing of the network is changed, and its weights gather no gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from innervision.core.edits import blur
from innervision.errors import Diverged, Invalid, unknown
from innervision.images import to_bytes
from innervision.network import Network
from innervision.see.rules import bend, watched
from innervision.see.target import Target
from innervision.sheets import heat

STARTS = ("activation", "one")
SHOWN = ("raw", "grey", "norm", "blurred")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What a method says that a target owes to each value of a picture."""

    map: Tensor  # (1, 3, h, w)
    target: Target
    method: str
    score: float  # what the target answers to the picture, summed
    change: float | None = None  # integrated gradients: the score less that of the baseline …
    gap: float | None = None  # … and by how much the map's sum misses it


def gradient(network: Network, image: Tensor, target: Target) -> Attribution:
    """Return dy/dx, y what the target answers, summed (Simonyan et al. 2013, section 3)."""
    return _attribution("gradient", target, *_back(network, image, target))


def deconvnet(network: Network, image: Tensor, target: Target, *, start: str = "activation") -> Attribution:
    """Return a unit's projection down to pixels (Zeiler & Fergus 2013, section 2.1).

    The activation asked for is kept and the rest of its layer set to zero; on the way down max poolings are
    undone by their switches, a ReLU lets through max(R, 0) whatever it answered on the way up, and filters
    are transposed. start: "activation", the kept activation as it is, or "one", ones in its place.
    Departures: a class starts from one, for a logit is no activation and its sign would turn the picture;
    batch normalisation and other layers that the paper's network does not have take their gradient; contrast
    normalisation has none here. Raises Invalid for a network with other activations than ReLU.
    """
    if start not in STARTS:
        raise unknown("start", start, STARTS)
    return _attribution("deconvnet", target, *_back(network, image, target, rule="deconvnet", start=start))


def guided(network: Network, image: Tensor, target: Target) -> Attribution:
    """Return the gradient with what is negative set to 0 at every ReLU (Springenberg et al. 2014).

    A ReLU lets through max(g, 0)·[x > 0]. Sharp, but hardly an explanation: see `trust`.
    Raises Invalid for a network with other activations than ReLU.
    """
    return _attribution("guided", target, *_back(network, image, target, rule="guided"))


def gradient_x_input(network: Network, image: Tensor, target: Target) -> Attribution:
    """Return x·dy/dx (Shrikumar et al. 2016), x in 0..1: what is black is given nothing."""
    map, score = _back(network, image, target)
    return _attribution("gradient-x-input", target, map * image, score)


def smoothgrad(
    network: Network,
    image: Tensor,
    target: Target,
    *,
    samples: int = 25,
    sigma: float = 0.15,
    generator: torch.Generator | None = None,
    batch: int = 4,
) -> Attribution:
    """Return the mean gradient over noisy copies of the picture (Smilkov et al. 2017, equation in section 2).

    sigma: of the Gaussian noise, as a share of the picture's own range (the paper: 10 to 20 %). samples:
    25 by default, where the paper takes 50 and sees little gain above. batch: pictures at once, which
    changes no draw. Where generator is None, torch's own is drawn from.
    """
    if samples < 1 or sigma < 0 or batch < 1:
        raise Invalid(f"samples is {samples}, sigma {sigma:g} and batch {batch}; give at least 1, 0 and 1")
    _check(image)
    spread = sigma * float(image.max() - image.min())
    total, score = torch.zeros_like(image), _score(network, image, target)
    device = image.device if generator is None else generator.device
    for first in range(0, samples, batch):
        noise = [  # a copy at a time: so that no draw depends on the batch
            torch.randn(image.shape, generator=generator, device=device, dtype=torch.float32)
            for _ in range(min(batch, samples - first))
        ]
        noisy = image + spread * torch.cat(noise).to(image)
        total += _back(network, noisy, target, several=True)[0].sum(0, keepdim=True)
    return _attribution("smoothgrad", target, total / samples, score)


def integrated(
    network: Network,
    image: Tensor,
    target: Target,
    *,
    points: int = 50,
    baseline: Tensor | float = 0.0,
    batch: int = 4,
) -> Attribution:
    """Return (x - x')·∫ dy/dx along the straight line from a baseline x' (Sundararajan et al. 2017, eq. 1).

    points: of the Gauss–Legendre rule, which needs fewer of them than the paper's Riemann sum. baseline: a
    picture (1, 3, h, w), or one value for all of it; 0 is black, which has nothing to be owed to. The map
    should sum to the change of the score from the baseline; `gap` says by how much it does not.
    """
    if points < 1 or batch < 1:
        raise Invalid(f"points is {points} and batch {batch}; they must be at least 1")
    _check(image)
    before = baseline.to(image) if isinstance(baseline, Tensor) else torch.full_like(image, baseline)
    if before.shape != image.shape:
        raise Invalid(
            f"the baseline is {tuple(before.shape)}, the picture {tuple(image.shape)}: give one size"
        )
    nodes, weights = np.polynomial.legendre.leggauss(points)  # of -1..1
    places = torch.from_numpy((nodes + 1) / 2).to(image)
    shares = torch.from_numpy(weights / 2).to(image)
    total = torch.zeros_like(image)
    for first in range(0, points, batch):
        t, w = (each[first : first + batch].view(-1, 1, 1, 1) for each in (places, shares))
        slopes, _ = _back(network, before + t * (image - before), target, several=True)
        total += (w * slopes).sum(0, keepdim=True)
    map = (image - before) * total
    score, least = _score(network, image, target), _score(network, before, target)
    gap = _sum(map) - (score - least)
    return _attribution("integrated", target, map, score, change=score - least, gap=gap)


METHODS: Mapping[str, Callable[[Network, Tensor, Target], Attribution]] = MappingProxyType(
    {
        "gradient": gradient,
        "deconvnet": deconvnet,
        "guided": guided,
        "smoothgrad": smoothgrad,
        "integrated": integrated,
        "gradient-x-input": gradient_x_input,
    }
)


def attribute(
    network: Network,
    image: Tensor,
    target: Target,
    method: str = "gradient",
    *,
    start: str = "activation",
    samples: int = 25,
    sigma: float = 0.15,
    generator: torch.Generator | None = None,
    points: int = 50,
    baseline: Tensor | float = 0.0,
) -> Attribution:
    """Return a target's attribution by a method's name; options that a method has not are let be.

    method: one of METHODS; the functions of those names say what each does and what its options are.
    Raises Invalid for another name, and what they raise.
    """
    match method:
        case "deconvnet":
            return deconvnet(network, image, target, start=start)
        case "smoothgrad":
            return smoothgrad(network, image, target, samples=samples, sigma=sigma, generator=generator)
        case "integrated":
            return integrated(network, image, target, points=points, baseline=baseline)
        case _:
            if method not in METHODS:
                raise unknown("method", method, METHODS)
            return METHODS[method](network, image, target)


def show(map: Tensor, how: str = "raw", *, beyond: float = 0.0, radius: float = 4.0) -> Tensor:
    """Return a map (1, 3, h, w) as a picture of its shape in 0..1, as the Deep Visualization Toolbox does.

    how: "raw", its three channels, 0 as mid-grey; "grey", their mean, 0 as mid-grey; "norm", the length of
    the three, 0 as black; "blurred", that norm under a Gaussian of `radius` px (the toolbox's 4).
    The greatest value fills the range; `beyond`: the share of values that may lie outside it and are cut
    off, for one bright point would leave the others grey. Departure: the toolbox takes a norm's least value
    as black; 0 stays black here.
    """
    if how not in SHOWN:
        raise unknown("way to show a map", how, SHOWN)
    if not 0 <= beyond < 1:
        raise Invalid(f"beyond is {beyond:g}; it must be a share from 0 to less than 1")
    match how:
        case "raw":
            values = map
        case "grey":
            values = map.mean(1, keepdim=True)
        case _:
            values = map.square().sum(1, keepdim=True).sqrt()
    if how == "blurred":
        values = blur(radius)(values, 1)
    sizes = values.abs().flatten()
    extent = sizes.kthvalue(max(1, round((1 - beyond) * len(sizes)))).values
    scaled = values / (extent if extent > 0 else sizes.max().clamp(min=torch.finfo(sizes.dtype).tiny))
    centred = how in ("raw", "grey")
    return (0.5 + scaled / 2 if centred else scaled).clamp(0, 1).expand_as(map)


def overlay(image: Tensor, map: Tensor) -> Image.Image:
    """Draw a map (1, h, w) as heat over its picture, which shows where the map is faint or below 0."""
    strong = map.detach().cpu().float().clamp(min=0)
    strong /= strong.max().clamp(min=torch.finfo(torch.float32).tiny)
    hot = torch.from_numpy(np.array(heat(strong[0], low=0, high=1))).permute(2, 0, 1)[None] / 255
    grey = image.detach().cpu().float().mean(1, keepdim=True)
    share = 0.75 * strong.sqrt()[None]
    return Image.fromarray(to_bytes((1 - share) * (0.25 * image.cpu() + 0.5 * grey) + share * hot))


def _back(
    network: Network,
    image: Tensor,
    target: Target,
    *,
    rule: str | None = None,
    start: str = "one",
    several: bool = False,
) -> tuple[Tensor, float]:
    """Return the way back from a target to pictures (n, 3, h, w), and what it answers to them, summed."""
    if not several:
        _check(image)
    with torch.inference_mode(False), torch.enable_grad():
        x = image.detach().clone().requires_grad_()
        with contextlib.nullcontext() if rule is None else watched(network, x) as watch:
            part = target.pick(target.of(network, x))
        if not part.requires_grad:
            raise _cut(network, target)
        if rule is not None and watch is not None:
            bend(part, rule, x, watch)
        kept = start == "activation" and target.layer is not None
        first = part.detach() if kept else torch.ones_like(part)
        (map,) = torch.autograd.grad(part, x, first, allow_unused=True)
    if map is None:
        raise _cut(network, target)
    return map, _sum(part.detach())


def _score(network: Network, image: Tensor, target: Target) -> float:
    with torch.no_grad():
        return _sum(target.score(target.of(network, image)))


def _sum(values: Tensor) -> float:
    return float(values.cpu().double().sum())  # not every device has float64


def _attribution(
    method: str,
    target: Target,
    map: Tensor,
    score: float,
    *,
    change: float | None = None,
    gap: float | None = None,
) -> Attribution:
    if not bool(torch.isfinite(map).all()):
        raise Diverged(f"the {method} map of {target} is not finite: check the weights, or use float32")
    return Attribution(map, target, method, score, change, gap)


def _check(image: Tensor) -> None:
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise Invalid(f"one picture is explained at a time: (1, 3, h, w), not {tuple(image.shape)}")
    if not image.is_floating_point():
        raise Invalid(f"an image here holds sRGB in 0..1, not {image.dtype}: divide by 255 first")


def _cut(network: Network, target: Target) -> Invalid:
    return Invalid(
        f"no gradient leads from {target} back to the picture: {network.name} cuts it off on the way "
        "(detach() or no_grad()), or does not look at the picture there"
    )
