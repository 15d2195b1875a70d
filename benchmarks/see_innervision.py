"""innervision as one contestant of see.py: its functions, timed without start and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import innervision
from innervision.core import Adam, Fourier, Stage, descend, jitter, pad, rotate, scale
from innervision.core import excite as excitement
from innervision.core.views import View
from innervision.see.occlusion import occlude
from innervision.see.survey import layer_sheet, png, survey
from innervision.see.target import Target
from see_worker import Work, module, picture, serve

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def layers(size: int) -> Work:
    """All 16 ReLU layers of VGG19, all channels, as one sheet a layer in PNG."""
    own, image = innervision.wrap(module("vgg19", "relu5_4"), name="vgg19").frozen(), picture(size)

    def work() -> dict[str, Any]:
        found = survey(own, image)
        packed = [png(layer_sheet(layer, channels=None)) for layer in found]
        return {"channels": sum(len(layer.maps) for layer in found), "bytes": sum(map(len, packed))}

    work()
    return work


def excite(layer: str, size: int, units: int, steps: int, precision: str, padding: int) -> Work:
    """Steps of so many units in one batch, by Lucid's views; padding: so many pixels around."""
    own = innervision.wrap(module("vgg19", layer), mean=MEAN, std=STD).frozen(getattr(torch, precision))
    seen: list[int] = []

    def count(image: torch.Tensor, _: torch.Generator | None) -> torch.Tensor:
        seen.append(image.shape[2] * image.shape[3])
        return image

    view = pad(padding) | jitter(8) | scale(0.9, 1.1) | rotate(10) | jitter(4) | View(count)

    def run(count: int) -> dict[str, Any]:
        seen.clear()
        spectrum = Fourier((size, size)).parameter.detach().repeat(units, 1, 1, 1, 1)
        goal = excitement(layer, list(range(units)))
        stage = Stage(goal, count, optimiser=Adam(0.05), view=view)
        for _ in descend(own, Fourier((size, size), spectrum=spectrum), [stage]):
            pass
        return {"pixels": sum(seen) / len(seen)}

    run(1)
    return lambda: run(steps)


def occlusion(
    net: str, layer: str | None, channel: int, size: int, patch: int, stride: int, file: str
) -> Work:
    """The map of a class, or of a layer's channel, as innervision gives it by itself."""
    own, image = innervision.wrap(module(net, layer)).frozen(), picture(size)
    target = Target(layer, channel)
    occlude(own, image, target, patch=size, stride=size)  # the library's own start

    def work() -> dict[str, Any]:
        found = occlude(own, image, target, patch=patch, stride=stride)
        torch.save(found.map, file)
        return {"windows": len(found.windows)}

    return work


def alike(file: str, other: str) -> Work:
    """The greatest difference of two maps, over the greatest value."""

    def work() -> dict[str, Any]:
        one, two = (torch.load(name, weights_only=True).double() for name in (file, other))
        return {"difference": float((one - two).abs().max() / two.abs().max())}

    return work


def pictures(file: str, count: int, mosaics: list[str]) -> Work:
    """Write pictures of 32 px as an array: cut from mosaics, else drawn at random."""

    def work() -> dict[str, Any]:
        from PIL import Image

        tiles = [np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)]
        if mosaics:
            grids = [np.asarray(Image.open(name).convert("RGB")) for name in mosaics]
            cut = [
                grid.reshape(grid.shape[0] // 32, 32, -1, 32, 3).transpose(0, 2, 1, 3, 4) for grid in grids
            ]
            tiles = [each.reshape(-1, 32, 32, 3) for each in cut]
        array = np.concatenate(tiles)[:count]
        np.save(Path(file), np.ascontiguousarray(array))
        return {"pictures": len(array)}

    return work


if __name__ == "__main__":
    serve({"layers": layers, "excite": excite, "occlusion": occlusion, "alike": alike, "pictures": pictures})
