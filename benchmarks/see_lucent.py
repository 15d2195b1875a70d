"""lucent's Fourier maximisation as one contestant of see.py, in an environment of its own.

The loop is that of lucent.optvis.render.render_vis around its own canvas, views, objective and hook, without
its enlargement of small pictures to 224 px. Of torchvision, which it imports and which comes with no build of
torch for processors alone, it uses one function, Normalize: that is restated here.
"""

from __future__ import annotations

import sys
import types
import warnings
from typing import Any

import torch

from see_worker import Work, module, serve


class Normalize:
    """torchvision.transforms.Normalize of one picture."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (mean, std))

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image - self.mean) / self.std


def lucent() -> tuple[Any, Any, Any, Any]:
    """Import lucent, with what it needs of others' newer and older releases."""
    stand_in = types.ModuleType("torchvision")
    stand_in.transforms = types.ModuleType("torchvision.transforms")  # type: ignore[attr-defined]
    stand_in.transforms.Normalize = Normalize  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision", stand_in)
    sys.modules.setdefault("torchvision.transforms", stand_in.transforms)
    import kornia
    import kornia.geometry.transform as moves

    for name in ("get_rotation_matrix2d", "warp_affine"):  # where lucent looks for them
        if not hasattr(kornia, name):
            setattr(kornia, name, getattr(moves, name))
    from lucent.optvis import objectives, param, transform
    from lucent.optvis.render import hook_model

    return objectives, param, transform, hook_model


def excite(layer: str, size: int, units: int, steps: int, frozen: bool) -> Work:
    """Steps of so many units in one batch, by lucent's own views.

    frozen: the weights ask for no gradients; as a network is loaded, they do, and lucent lets them.
    """
    objectives, param, transform, hook_model = lucent()
    warnings.simplefilter("ignore")
    own = module("vgg19", layer).requires_grad_(not frozen)
    look = transform.compose([*transform.standard_transforms, transform.normalize()])

    def descend(count: int) -> int:
        parameters, render = param.image(size, batch=units)
        optimiser = torch.optim.Adam(parameters, lr=5e-2)
        hook = hook_model(own, render)
        goal = sum(objectives.channel(layer, unit, batch=unit) for unit in range(units))
        seen = 0
        for _ in range(count):
            optimiser.zero_grad()
            view = look(render())
            seen += view.shape[2] * view.shape[3]
            own(view)
            goal(hook).backward()
            optimiser.step()
        return seen

    descend(1)
    return lambda: {"pixels": descend(steps) / steps}


if __name__ == "__main__":
    serve({"excite": excite})
