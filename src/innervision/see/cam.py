"""Class activation maps: where in the picture the evidence for a target lies, by a layer's own channels.

Each weighs a layer's channels A_k and adds them up, g = ∂y/∂A being the target's gradient there:

Grad-CAM      ReLU(Σ_k w_k A_k), w_k the mean of g over places (Selvaraju et al. 2017, eq. 1 and 2)
Grad-CAM++    w_k = Σ α ReLU(g), α = g² / (2g² + ΣA g³) (Chattopadhay et al. 2018, eq. 19)
LayerCAM      ReLU(Σ_k ReLU(g) A_k), each place by itself (Jiang et al. 2021, eq. 4 and 5)
Score-CAM     w = softmax over k of y(picture seen through A_k alone) (Wang et al. 2020, algorithm 1)

All return (n, h, w) at the picture's size, 0 or more and not normalised: the layer's map, enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.target import Target

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


def grad_cam(network: Network, image: Tensor, target: Target, layer: str | None = None) -> Tensor:
    """Return Grad-CAM (n, h, w) of pictures (n, 3, h, w), sRGB 0..1.

    layer: by default the deepest before the target that answers maps and does not pool.
    Raises Invalid for a layer that the target does not depend on, or that answers no maps.
    """
    a, g = _answer_and_gradient(network, image, target, layer)
    return _enlarged((g.mean((2, 3), keepdim=True) * a).sum(1).relu(), image)


def grad_cam_pp(network: Network, image: Tensor, target: Target, layer: str | None = None) -> Tensor:
    """Return Grad-CAM++ (n, h, w); the rest is as in `grad_cam`.

    A place without gradient has α = 0, where the formula is 0/0.
    """
    a, g = _answer_and_gradient(network, image, target, layer)
    below = 2 * g.square() + a.sum((2, 3), keepdim=True) * g.pow(3)
    alpha = torch.where(below == 0, 0.0, g.square() / torch.where(below == 0, 1.0, below))
    weights = (alpha * g.relu()).sum((2, 3), keepdim=True)
    return _enlarged((weights * a).sum(1).relu(), image)


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
        a, _ = _see(network, image, target, _layer(network, image, target, layer))
        nothing = _nothing(network, image)
        maps = [
            _score_map(network, x[None], target, y, nothing, batch) for x, y in zip(image, a, strict=True)
        ]
    return _enlarged(torch.stack(maps), image)


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
    with torch.inference_mode(False), torch.enable_grad():
        x = image.detach().clone().requires_grad_()
        a, answer = _see(network, x, target, name)
        score = target.score(answer).sum()
        found = torch.autograd.grad(score, a, allow_unused=True)[0] if score.requires_grad else None
    if found is None:
        raise Invalid(f"{target} does not depend on layer {name!r}: name one before it")
    return a.detach(), found


def _see(network: Network, x: Tensor, target: Target, name: str) -> tuple[Tensor, Tensor]:
    """Return what a layer and the target's layer answer, in one pass."""
    if target.layer is not None:
        found = network.features(x, (name, target.layer))
        a, answer = found[name], found[target.layer]
    else:
        with _kept(network, name) as kept:
            answer = network(x)
        if not kept:
            raise Invalid(f"layer {name!r} is never called: name another")
        a = kept[0]
    if a.ndim != 4:
        raise Invalid(
            f"layer {name!r} answers {tuple(a.shape)}: a map is of a layer that answers (n, c, h, w)"
        )
    return a, answer


@contextmanager
def _kept(network: Network, name: str) -> Iterator[list[Tensor]]:
    """Yield a list that takes the layer's first answer; what follows goes on with a copy, in place or not."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: Any, answer: Any) -> Any:
        if kept or not isinstance(answer, Tensor):
            return None
        kept.append(answer)
        return answer.clone()

    handle = network.module.get_submodule(name).register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()


def _layer(network: Network, image: Tensor, target: Target, layer: str | None) -> str:
    """Return the layer asked for, or the deepest before the target that answers maps and does not pool."""
    if layer is not None:
        return network.check((layer,))[0]
    met: list[str] = []
    handles: list[Any] = []

    def listener(name: str) -> Any:
        def hear(_: nn.Module, __: Any, answer: Any) -> None:
            if isinstance(answer, Tensor) and answer.ndim == 4 and answer.shape[2] * answer.shape[3] > 1:
                met.append(name)

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
    if not met:
        raise Invalid(f"no layer before {target} answers maps: a class activation map needs one")
    return met[-1]


def _enlarged(maps: Tensor, image: Tensor) -> Tensor:
    """Bring maps (n, h', w') to the picture's size, in float32 or better."""
    maps = maps.float() if maps.dtype in (torch.float16, torch.bfloat16) else maps
    return F.interpolate(maps[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
