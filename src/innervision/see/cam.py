"""Class activation maps: where in the picture the evidence for a target lies, by a layer's own channels.

Each weighs a layer's channels A_k and adds them up, g = ∂y/∂A being the target's gradient there:

Grad-CAM      ReLU(Σ_k w_k A_k), w_k the mean of g over places (Selvaraju et al. 2017, eq. 1 and 2)
Grad-CAM++    w_k = Σ α ReLU(g), α = g² / (2g² + ΣA g³) (Chattopadhay et al. 2018, eq. 19)
LayerCAM      ReLU(Σ_k ReLU(g) A_k), each place by itself (Jiang et al. 2021, eq. 4 and 5)
Score-CAM     w = softmax over k of y(picture seen through A_k alone) (Wang et al. 2020, algorithm 1)

All return (n, h, w) at the picture's size, 0 or more and not normalised: the layer's map, enlarged.
A layer of tokens counts as a map of its grid; what is set apart, a class token, has no place (see `tokens`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.target import Target
from innervision.see.tokens import arranged, as_maps, maps_of

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def grad_cam(network: Network, image: Tensor, target: Target, layer: str | None = None) -> Tensor:
    """Return Grad-CAM (n, h, w) of pictures (n, 3, h, w), sRGB 0..1.

    layer: by default the deepest before the target that answers maps and does not pool; among layers of
    tokens, the deepest normalisation whose grid the target depends on.
    Raises Invalid for a layer that the target does not depend on, or that answers no maps.
    """
    a, g = _answer_and_gradient(network, image, target, layer)
    return _enlarged((g.mean((2, 3), keepdim=True) * a).sum(1).relu(), image)


def grad_cam_pp(network: Network, image: Tensor, target: Target, layer: str | None = None) -> Tensor:
    """Return Grad-CAM++ (n, h, w); the rest is as in `grad_cam`.

    A place without gradient has α = 0, where the formula is 0/0. Reckoned in float64: g² and g³ of small
    gradients leave the range of float32.
    """
    found = _answer_and_gradient(network, image, target, layer)
    a, g = (part.double() for part in found)
    below = 2 * g.square() + a.sum((2, 3), keepdim=True) * g.pow(3)
    alpha = torch.where(below == 0, 0.0, g.square() / torch.where(below == 0, 1.0, below))
    weights = (alpha * g.relu()).sum((2, 3), keepdim=True)
    return _enlarged((weights * a).sum(1).relu().to(found[0].dtype), image)


def layer_cam(network: Network, image: Tensor, target: Target, layer: str | None = None) -> Tensor:
    """Return LayerCAM (n, h, w), which is sharp at shallow layers too; the rest is as in `grad_cam`."""
    a, g = _answer_and_gradient(network, image, target, layer)
    return _enlarged((g.relu() * a).sum(1).relu(), image)


def score_cam(
    network: Network, image: Tensor, target: Target, layer: str | None = None, *, batch: int = 16
) -> Tensor:
    """Return Score-CAM (n, h, w), which needs no gradient but a look a channel; the rest is as in `grad_cam`.

    What a channel covers is dimmed to what the network takes as 0 (its mean colour), as the authors' code
    does after preprocessing. A channel that is even says nothing of places, and is left out of the softmax.
    """
    if batch < 1:
        raise Invalid(f"batch is {batch}; it must be at least 1")
    with torch.no_grad():
        name = _layer(network, image, target, layer)
        a = _maps(name, _see(network, image, target, (name,))[0][name], image)
        nothing = _nothing(network, image)
        maps = [
            _score_map(network, x[None], target, y, nothing, batch) for x, y in zip(image, a, strict=True)
        ]
    return _enlarged(torch.stack(maps), image)


def channels(network: Network, image: Tensor, target: Target, layer: str | None = None) -> int:
    """Return how many channels `score_cam` looks at a picture through, at most."""
    with torch.no_grad():
        name = _layer(network, image, target, layer)
        return _maps(name, _see(network, image, target, (name,))[0][name], image).shape[1]


def _score_map(network: Network, x: Tensor, target: Target, a: Tensor, nothing: Tensor, batch: int) -> Tensor:
    """Return the weighted sum (h', w') of a layer's channels a (c, h', w') for one picture."""
    least, most = a.amin((1, 2)), a.amax((1, 2))
    (told,) = (most > least).nonzero(as_tuple=True)
    if not len(told):
        return torch.zeros_like(a[0])
    scores: list[Tensor] = []
    for some in told.split(batch):
        masks = F.interpolate(a[some, None].to(x), x.shape[-2:], mode="bilinear", align_corners=False)
        low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
        masks = (masks - low) / (high - low).clamp(min=torch.finfo(masks.dtype).tiny)
        scores.append(target.score(target.of(network, nothing + masks * (x - nothing))))
    weights = torch.cat(scores).softmax(0)
    return (weights[:, None, None] * a[told]).sum(0).relu()


def _nothing(network: Network, image: Tensor) -> Tensor:
    """Return the colour (1, 3, 1, 1) in sRGB 0..1 that the network's preprocessing makes 0."""
    pre = network.preprocessing
    mean = torch.tensor(pre.mean, dtype=image.dtype, device=image.device) / pre.range
    return (mean.flip(0) if pre.order == "BGR" else mean).expand(image.shape[1]).view(1, -1, 1, 1)


def _answer_and_gradient(
    network: Network, image: Tensor, target: Target, layer: str | None
) -> tuple[Tensor, Tensor]:
    """Return what a layer answers (n, c, h', w') and the target's gradient there."""
    name = _layer(network, image, target, layer)
    ((a, g),) = _gradients(network, image, target, (name,))
    if g is None:
        raise Invalid(f"{target} does not depend on layer {name!r}: name one before it")
    return _maps(name, a, image), _maps(name, g, image)


def _gradients(
    network: Network, image: Tensor, target: Target, names: Sequence[str]
) -> list[tuple[Tensor, Tensor | None]]:
    """Return what layers answer and the target's gradient there, None where it does not depend on them."""
    with torch.inference_mode(False), torch.enable_grad():
        x = image.detach().clone().requires_grad_()
        seen, answer = _see(network, x, target, names)
        score = target.score(answer).sum()
        inputs = [seen[name] for name in names]
        for name, a in zip(names, inputs, strict=True):
            _maps(name, a, image)  # complains before the way back
        found = (
            torch.autograd.grad(score, inputs, allow_unused=True)
            if score.requires_grad
            else [None] * len(inputs)
        )
    return [(a.detach(), g) for a, g in zip(inputs, found, strict=True)]


def _maps(name: str, answer: Tensor, image: Tensor) -> Tensor:
    size = (image.shape[-2], image.shape[-1])
    return maps_of(name, answer, size, "a map is of a layer that answers (n, c, h, w)")


def _see(
    network: Network, x: Tensor, target: Target, names: Sequence[str]
) -> tuple[Mapping[str, Tensor], Tensor]:
    """Return what layers and the target's layer answer, in one pass."""
    if target.layer is not None:
        found = network.features(x, (*names, target.layer))
        return found, arranged(found[target.layer], (x.shape[-2], x.shape[-1]))
    with _kept(network, names) as kept:
        answer = network(x)
    for name in names:
        if name not in kept:
            raise Invalid(f"layer {name!r} is never called, or answers no tensor: name another")
    return kept, answer


@contextmanager
def _kept(network: Network, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield what takes the layers' first answers; what follows goes on with copies, in place or not."""
    kept: dict[str, Tensor] = {}

    def keeper(name: str) -> Any:
        def keep(_: nn.Module, __: Any, answer: Any) -> Any:
            if name in kept or not isinstance(answer, Tensor):
                return None
            kept[name] = answer
            return answer.clone()

        return keep

    handles = [network.module.get_submodule(name).register_forward_hook(keeper(name)) for name in names]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _layer(network: Network, image: Tensor, target: Target, layer: str | None) -> str:
    """Return the layer asked for, or the deepest before the target that answers maps and does not pool."""
    if layer is not None:
        return network.check((layer,))[0]
    met = _met(network, image, target)
    if not met:
        raise Invalid(f"no layer before {target} answers maps: a class activation map needs one")
    if met[-1][1]:
        return met[-1][0]
    return _deepest_grid(network, image, target, [name for name, channels_first in met if not channels_first])


def _met(network: Network, image: Tensor, target: Target) -> list[tuple[str, bool]]:
    """Return the innermost layers that answer maps, as they are called, and whether as (n, c, h, w)."""
    size = (image.shape[-2], image.shape[-1])
    met: list[tuple[str, bool]] = []
    handles: list[Any] = []

    def listener(name: str) -> Any:
        def hear(_: nn.Module, __: Any, answer: Any) -> None:
            maps = as_maps(answer, size) if isinstance(answer, Tensor) else None
            if maps is not None and math.prod(maps.shape[2:]) > 1:
                met.append((name, maps is answer))

        return hear

    try:
        for name, module in network.module.named_modules():
            within = target.layer is not None and f"{name}.".startswith(f"{target.layer}.")
            if name and not within and not any(module.children()) and not isinstance(module, _POOLS):
                handles.append(module.register_forward_hook(listener(name)))
        with torch.no_grad():
            target.of(network, image[:1])
    finally:
        for handle in handles:
            handle.remove()
    return met


def _deepest_grid(network: Network, image: Tensor, target: Target, names: Sequence[str]) -> str:
    """Return the deepest layer of tokens on whose grid a target depends, a normalisation if there is one.

    Where a class token alone is read at the end, the last layers' other tokens say nothing to the target. A
    normalisation holds what its block is given to read; what lies within a block (queries, keys) does not.
    """
    once = list(dict.fromkeys(names))
    norms = [n for n in once if isinstance(network.module.get_submodule(n), nn.LayerNorm)]
    for some in (norms, once):
        found = _gradients(network, image[:1], target, some) if some else []
        for name, (_, g) in reversed([*zip(some, found, strict=True)]):
            if g is not None and bool(_maps(name, g, image).any()):
                return name
    raise Invalid(f"{target} depends on no layer of tokens with places: name a layer")


def _enlarged(maps: Tensor, image: Tensor) -> Tensor:
    """Bring maps (n, h', w') to the picture's size, in float32 or better."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    return F.interpolate(maps[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
