"""Picture sheets of a classifier: its most confident mistakes, and the filters it looks through first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from innervision import sheets
from innervision.learn.data import DataSet
from innervision.learn.figures import DARK, Paper
from innervision.network import Network


def mistakes(data: DataSet, logits: Tensor, paper: Paper = DARK, *, most: int = 24) -> Image.Image | None:
    """Draw the pictures that are taken for another class with most confidence; None where there are none.

    Below each, what it was taken for and how surely, and its label: among them are the data's own errors.
    """
    sure, predicted = logits.double().softmax(1).max(1)
    wrong = (predicted != data.labels.cpu()).nonzero()[:, 0]
    order = wrong[sure[wrong].argsort(descending=True, stable=True)][:most].tolist()
    if not order:
        return None
    names = data.classes
    texts = [
        f"{names[int(predicted[n])]}, {percent(float(sure[n]))}\nlabelled {names[int(data.labels[n])]}"
        for n in order
    ]
    pictures = [_picture(data.images[n]) for n in order]
    side = max(pictures[0].size)
    tile = side * max(1, round(128 / side)) if side <= 128 else 160
    columns = 8 if len(pictures) > 8 else None
    return sheets.sheet(pictures, labels=texts, columns=columns, tile=tile, background=paper.ground)


def percent(share: float) -> str:
    """Write a probability: 99.9 % is not yet 100 %, and 0.1 % not 0 %."""
    if share < 0.005:
        digits = 1 if share >= 0.0005 else 2
        return f"{100 * share:.{digits}f} %" if share >= 0.00005 else "< 0.01 %"
    for digits in (0, 1, 2):
        if share < 1 - 0.5 * 10 ** -(digits + 2):
            return f"{100 * share:.{digits}f} %"
    return "> 99.99 %"


def _picture(pixels: Tensor) -> Image.Image:
    array: NDArray[np.uint8] = pixels.cpu().numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def filters(network: Network, paper: Paper = DARK, *, most: int = 96) -> Image.Image | None:
    """Draw the first convolution's filters, zero as mid-grey; None for a network that begins otherwise.

    Each is on its own scale, the greatest |weight| of which is written below it: on one scale the small ones
    would all be grey.
    """
    first = next((m for m in network.module.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None or first.weight.shape[1] != len(network.preprocessing.mean):
        return None
    kernels = first.weight.detach().float().cpu()[:most]
    if network.preprocessing.order == "BGR":
        kernels = kernels.flip(1)
    peaks = kernels.abs().amax((1, 2, 3))
    shown = 0.5 + kernels / (2 * peaks.clamp(min=1e-30)[:, None, None, None])
    shown = shown.expand(-1, 3, -1, -1)
    labels = [f"±{peak:.2g}" for peak in peaks.tolist()]
    side = max(kernels.shape[-2:])
    tile = side * max(1, round(64 / side))
    across = min(len(kernels), 16 if len(kernels) > 32 else 8)
    return sheets.sheet(
        shown.split(1), labels=labels, columns=across, tile=tile, gap=6, background=paper.ground
    )
