"""What a network takes pictures for: its first few classes, with probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from innervision import images
from innervision.errors import InnervisionError, Invalid
from innervision.images import Source
from innervision.learn.evaluate import ready, viewed
from innervision.learn.raw import is_grey, squared
from innervision.network import Network

USUAL = 224  # the side for a network that does not say what it was trained at


@dataclass(frozen=True, eq=False)
class _Square:
    """A picture as the network sees it, or why there is none."""

    name: str
    pixels: Tensor | None = None  # UInt8[Tensor, "c h w"]
    note: str = ""
    error: str = ""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a picture was taken for, the most probable class first; or why it was not."""

    name: str  # of the picture
    classes: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()  # of the classes, in the network's order
    probabilities: tuple[float, ...] = ()
    logits: Tensor | None = None  # Float[Tensor, "classes"], of all classes
    note: str = ""  # what was done to the picture that its owner may not expect
    error: str = ""  # for a picture that cannot be read

    def record(self) -> dict[str, Any]:
        """Return the prediction as JSON holds it."""
        if self.error:
            return {"picture": self.name, "error": self.error}
        rows = zip(self.classes, self.numbers, self.probabilities, strict=True)
        found = [{"name": name, "number": number, "probability": p} for name, number, p in rows]
        return {"picture": self.name, "classes": found} | ({"note": self.note} if self.note else {})


def predict(
    network: Network,
    pictures: Iterable[Source],
    *,
    top: int = 5,
    size: int | None = None,
    temperature: float = 1.0,
    views: int = 1,
    batch: int = 64,
    bad: Literal["refuse", "skip"] = "refuse",
) -> Iterator[Prediction]:
    """Yield what a network takes each picture for, in their order.

    Pictures become what they are when a data set is read: squares of `size` pixels (by default the network's
    own), the shorter side resized and the middle cut out, rounded to bytes; so the logits are those of
    `evaluate.logits` for the same picture in a batch of the same length. top: how many classes. temperature:
    found by calibration; it changes probabilities, not their order. views: see `evaluate.viewed`. bad: a
    picture that cannot be read is an error, or yielded with its `error`.
    Raises Invalid for values that are not allowed; what `images.read` raises, with bad "refuse".
    """
    if top < 1 or batch < 1 or temperature <= 0:
        raise Invalid(f"top is {top}, batch {batch}, temperature {temperature}; they must be above 0")
    side = size or network.input_size or USUAL
    channels = len(network.preprocessing.mean)
    waiting: list[_Square] = []
    for source in pictures:
        waiting.append(_square(source, side, channels, bad))
        if len(waiting) == batch:
            yield from _predicted(network, waiting, top, temperature, views)
            waiting = []
    if waiting:
        yield from _predicted(network, waiting, top, temperature, views)


def _square(source: Source, side: int, channels: int, bad: str) -> _Square:
    try:
        picture = images.read(source)
    except InnervisionError as error:
        if bad == "refuse":
            raise
        return _Square(str(source), error=str(error))
    name = source if isinstance(source, str) else picture.name.strip("'")
    note = "its colours were made grey" if channels == 1 and not is_grey(picture) else ""
    return _Square(name, torch.from_numpy(np.ascontiguousarray(squared(picture, side, channels))), note)


def _predicted(
    network: Network, waiting: list[_Square], top: int, temperature: float, views: int
) -> Iterator[Prediction]:
    pixels = [one.pixels for one in waiting if one.pixels is not None]
    rows: Iterator[Tensor] = iter(())
    if pixels:
        with torch.no_grad():
            logits = viewed(network, ready(network, torch.stack(pixels)), views).float().cpu()
        if network.classes and len(network.classes) != logits.shape[1]:
            names = f"has names for {len(network.classes)} classes"
            raise Invalid(f"{network.name} {names}, and answers {logits.shape[1]} scores")
        rows = iter(logits)
    for one in waiting:
        if one.pixels is None:
            yield Prediction(one.name, error=one.error)
        else:
            yield _first(network, one, next(rows), top, temperature)


def _first(network: Network, square: _Square, logits: Tensor, top: int, temperature: float) -> Prediction:
    shares = (logits.double() / temperature).softmax(0)
    order = logits.argsort(descending=True, stable=True)[:top].tolist()
    names = network.classes or tuple(f"class {n}" for n in range(len(logits)))
    return Prediction(
        square.name,
        classes=tuple(names[n] for n in order),
        numbers=tuple(order),
        probabilities=tuple(float(shares[n]) for n in order),
        logits=logits,
        note=square.note,
    )
