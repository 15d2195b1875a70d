"""How well a network classifies: its logits on a data set, and the numbers made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from innervision.errors import Invalid, out_of_memory
from innervision.learn import calibrate
from innervision.learn.data import DataSet
from innervision.network import Network

VIEWS = (1, 2, 6)
_TOP = 5


def logits(network: Network, data: DataSet, *, views: int = 1, batch: int = 500) -> Tensor:
    """Return what a network answers to every picture of a data set: (n, classes) float32, on the CPU.

    views: 1, the picture; 2, the mean over it and its mirror image; 6, Jordan's (see `viewed`). batch: how
    many pictures at once; another number may change the last bit of an answer, never more.
    Raises Invalid for another number of views, an empty set, and what the network cannot take.
    """
    return torch.cat(list(batches(network, data, views=views, batch=batch)))


def batches(network: Network, data: DataSet, *, views: int = 1, batch: int = 500) -> Iterator[Tensor]:
    """Yield the logits of a data set batch by batch, in its order: for whoever shows how far it is."""
    if views not in VIEWS:
        raise Invalid(
            f"views is {views}: 1 (the picture), 2 (and its mirror image) or 6 (and shifted by 1 px)"
        )
    if batch < 1 or not len(data.images):
        raise Invalid(f"{len(data.images)} pictures in batches of {batch}: both must be at least 1")
    if not network.classes:  # one picture first: what is no classifier may need much memory for a batch
        with torch.no_grad():
            _scores(network, ready(network, data.images[:1]))
    for start in range(0, len(data.images), batch):
        with torch.no_grad():  # not around the yield, where it would bind the caller too
            found = viewed(network, ready(network, data.images[start : start + batch]), views).float().cpu()
        yield found


def ready(network: Network, images: Tensor | NDArray[np.uint8]) -> Tensor:
    """Return stored pictures (n, 1 or 3, h, w) uint8 as a network takes them: 0..1, on its device.

    A grey picture is shown to a network of colours as three equal channels; a coloured one to a network of
    greys as its luma, which is `Preprocessing`'s business.
    """
    pictures = torch.as_tensor(images)
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3) or pictures.dtype != torch.uint8:
        raise Invalid(
            f"stored pictures are (n, 1 or 3, h, w) uint8, not {tuple(pictures.shape)} {pictures.dtype}"
        )
    pictures = pictures.to(network.device).float().div_(255)
    if pictures.shape[1] == 1 and len(network.preprocessing.mean) == 3:
        pictures = pictures.expand(-1, 3, -1, -1)
    return pictures


def viewed(network: Network, images: Tensor, views: int = 1) -> Tensor:
    """Return a network's logits (n, classes), as the mean over so many views of each picture.

    Two: the picture and its mirror image. Six, after Jordan 2024 (arXiv:2404.00498, airbench): these two, and
    both again shifted by one pixel to the upper left and to the lower right with reflected borders; the first
    two weigh half, the four others the other half.
    Raises Invalid where the network answers anything but one row of scores a picture.
    """
    found = _scores(network, images)
    if views == 1:
        return found
    found = (found + _scores(network, images.flip(-1))) / 2
    if views == 2:
        return found
    h, w = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
    shifted = (padded[:, :, :h, :w], padded[:, :, 2 : 2 + h, 2 : 2 + w])
    return found / 2 + sum(viewed(network, one, 2) for one in shifted) / 4


def _scores(network: Network, images: Tensor) -> Tensor:
    try:
        found: object = network(images)
    except RuntimeError as error:  # torch's own words, for a picture too small for the poolings, say
        if out_of_memory(error) or not any(word in str(error) for word in ("size", "shape")):
            raise
        size = f"{images.shape[-1]}x{images.shape[-2]}"
        raise Invalid(
            f"{network.name} cannot take pictures of {size}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise Invalid(f"{network.name} is no classifier: it answers {shape}, not (n, classes)")
    return found


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What logits and labels amount to. Shares are of 1; `loss` is in nats; None where nothing was there."""

    n: int
    views: int
    accuracy: float
    top5: float | None  # None for five classes or fewer
    loss: float  # mean cross-entropy
    ece: float  # expected calibration error, as given
    temperature: float
    ece_calibrated: float  # with the logits divided by the temperature
    loss_calibrated: float
    classes: tuple[str, ...]
    per_class: tuple[float | None, ...]  # accuracy within each true class
    confusion: NDArray[np.int64]  # (true, predicted), counts

    def record(self) -> dict[str, Any]:
        """Return the evaluation as JSON holds it."""
        plain = {name: value for name, value in vars(self).items() if name != "confusion"}
        lists = {"classes": list(self.classes), "per_class": list(self.per_class)}
        return {**plain, **lists, "confusion": self.confusion.tolist()}


def evaluate(
    logits: Tensor,
    labels: Tensor | NDArray[Any],
    classes: Sequence[str] = (),
    *,
    temperature: float = 1.0,
    views: int = 1,
) -> Evaluation:
    """Measure logits (n, classes) against labels (n,).

    classes: names, by default the numbers. temperature: found on other pictures (`calibrate.temperature`).
    views: how the logits were made, for the record. Of equal greatest logits the first counts as predicted.
    Raises Invalid where logits, labels and classes do not fit together, or logits are not finite.
    """
    logits, labels = check(logits, labels)
    n, count = logits.shape
    names = tuple(classes) or tuple(map(str, range(count)))
    if len(names) != count:
        raise Invalid(f"the network tells {count} classes apart, the data has {len(names)}: {_listed(names)}")
    predicted = logits.argmax(1)
    confusion = torch.bincount(labels * count + predicted, minlength=count * count).reshape(count, count)
    totals = confusion.sum(1).tolist()
    right = confusion.diagonal().tolist()
    bins = calibrate.reliability(logits, labels)
    cooled = calibrate.reliability(logits / temperature, labels)
    return Evaluation(
        n=n,
        views=views,
        accuracy=sum(right) / n,
        top5=_top(logits, labels) if count > _TOP else None,
        loss=float(F.cross_entropy(logits.double(), labels)),
        ece=bins.ece,
        temperature=float(temperature),
        ece_calibrated=cooled.ece,
        loss_calibrated=float(F.cross_entropy(logits.double() / temperature, labels)),
        classes=names,
        per_class=tuple(r / t if t else None for r, t in zip(right, totals, strict=True)),
        confusion=confusion.numpy(),
    )


def check(logits: Tensor, labels: Tensor | NDArray[Any]) -> tuple[Tensor, Tensor]:
    """Return logits (n, classes) float32 and labels (n,) int64 on the CPU, or raise Invalid."""
    logits, labels = logits.detach().float().cpu(), torch.as_tensor(labels).long().cpu()
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise Invalid(f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)}: (n, classes) and (n,)")
    if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
        wrong = int(labels.max()) if int(labels.min()) >= 0 else int(labels.min())
        raise Invalid(
            f"label {wrong} is none of the network's {logits.shape[1]} classes, 0 … {logits.shape[1] - 1}"
        )
    if not bool(torch.isfinite(logits).all()):
        raise Invalid("the logits hold NaN or infinite values: the weights are damaged, or training diverged")
    return logits, labels


def _top(logits: Tensor, labels: Tensor) -> float:
    best = logits.topk(_TOP, dim=1).indices
    return float((best == labels[:, None]).any(1).double().mean())


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" …" if len(names) > 10 else "")
