"""captum's occlusion as one contestant of see.py, in an environment of its own."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import Occlusion

from see_worker import Work, module, picture, serve


def occlusion(
    net: str, layer: str | None, channel: int, size: int, patch: int, stride: int, together: int, file: str
) -> Work:
    """captum.attr.Occlusion, its windows `together` at a time: its default is 1."""
    own, image = module(net, layer).requires_grad_(False), picture(size)

    def score(x: torch.Tensor) -> torch.Tensor:
        answer = own(x)
        return answer[:, channel].flatten(1).sum(1) if layer else answer

    with torch.no_grad():
        score(image)  # the library's own start

    def work() -> dict[str, Any]:
        found = Occlusion(score).attribute(
            image,
            sliding_window_shapes=(3, patch, patch),
            strides=(3, stride, stride),
            baselines=0.5,
            target=None if layer else channel,
            perturbations_per_eval=together,
        )
        torch.save(found[:, 0], file)
        return {}

    return work


if __name__ == "__main__":
    serve({"occlusion": occlusion})
