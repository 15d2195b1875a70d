"""What is asked of a network: a class, a layer, one of its channels, or one unit at one place."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision.errors import Invalid, unknown
from innervision.nets import imagenet
from innervision.network import Network
from innervision.see.activations import rectified
from innervision.see.tokens import arranged

_FORM = re.compile(r"(?P<layer>[^:@]+)(:(?P<channel>\d+))?(@(?P<y>\d+),(?P<x>\d+))?")


@dataclass(frozen=True)
class Target:
    """A layer's answer, or a part of it. layer None: the network's own output, whose channels are classes."""

    layer: str | None
    channel: int | None = None
    place: tuple[int, int] | None = None  # row and column in the layer's map

    def __str__(self) -> str:
        layer = "class" if self.layer is None else self.layer
        channel = "" if self.channel is None else f":{self.channel}"
        return layer + channel + ("" if self.place is None else "@{},{}".format(*self.place))

    def of(self, network: Network, image: Tensor) -> Tensor:
        """Return what the layer answers to an image (n, 3, h, w): (n, c), (n, c, h', w') or (n, t, c).

        Tokens on a grid of the picture, and channels last, are arranged as (n, c, h', w') (see `tokens`).
        """
        if self.layer is None:
            return network(image)
        answer = network.features(image, (self.layer,))[self.layer]
        return arranged(answer, (image.shape[-2], image.shape[-1]))

    def pick(self, answer: Tensor) -> Tensor:
        """Return the part of a layer's answer (n, c, ...) that is asked for: (n, ...), (n, h', w') or (n,).

        Raises Invalid for a channel or place that the answer does not have.
        """
        name = "class" if self.layer is None else self.layer
        if self.channel is not None:
            if self.channel >= answer.shape[1]:
                raise Invalid(f"no channel {self.channel} in {name}, which has 0 … {answer.shape[1] - 1}")
            answer = answer[:, self.channel]
        if self.place is not None:
            y, x = self.place
            h, w = answer.shape[-2:] if answer.ndim >= 3 else (0, 0)
            if y >= h or x >= w:
                raise Invalid(f"no place {y},{x} in {name}, whose map is {h} high and {w} wide")
            answer = answer[..., y, x]
        return answer

    def score(self, answer: Tensor) -> Tensor:
        """Return one number a picture (n,): what is asked for, summed."""
        part = self.pick(answer)
        return part.flatten(1).sum(1) if part.ndim > 1 else part


def target(text: str, network: Network) -> Target:
    """Read a target: "class:207", "class:tabby", "relu5_3", "relu5_3:17" or "relu5_3:17@4,6" (row, column).

    Raises Invalid for another form, for a layer or class that the network does not have, with near names, and
    for a class of a network that ends in features.
    """
    text = text.strip()
    if text.startswith("class:") and re.search("[^0-9@,]", text.removeprefix("class:")):
        return Target(None, class_named(text.removeprefix("class:"), network))
    found = _FORM.fullmatch(text)
    if found is None:
        raise Invalid(
            f"{text!r} is no target: give class:N, class:NAME, LAYER, LAYER:CHANNEL or "
            "LAYER:CHANNEL@ROW,COLUMN"
        )
    channel = None if found["channel"] is None else int(found["channel"])
    place = None if found["y"] is None else (int(found["y"]), int(found["x"]))
    if found["layer"] == "class":
        if channel is None or place is not None:
            raise Invalid(f"{text!r} is no class: give class:N, N from 0")
        check_classes(network)
        return Target(None, channel)
    network.check((found["layer"],))
    return Target(found["layer"], channel, place)


def check_classes(network: Network, *, otherwise: str = "give LAYER:CHANNEL, or ") -> None:
    """Raise Invalid where a network ends in features, whose channels would pass for classes.

    What names no classes is shown a grey picture: one score a class, (n, classes), is a classifier's answer.
    otherwise: what else can be asked of the network.
    """
    if network.classes:
        return
    side = network.input_size or 224
    try:
        with torch.no_grad():
            answer: object = network(torch.full((1, 3, side, side), 0.5, device=network.device))
    except Exception:  # a guest may want another size, and raise anything: it is told when it looks
        return
    if isinstance(answer, Tensor) and answer.ndim > 2:
        raise Invalid(
            f"{network.name} ends in features and has no classes: {otherwise}name a network with a "
            "classifier, such as --net efficientnet_lite0 or --net cifar10-fast"
        )


def class_named(name: str, network: Network) -> int:
    """Return the number of the class of this name: as it is written, else in any case, else by a synonym.

    Synonyms are known of ImageNet's classes: "tabby cat", "husky". Raises Invalid, with near names, where
    there is no such class, or more than one; and where the network's classes have no names.
    """
    wanted, names = name.strip(), network.classes
    if not names:
        check_classes(network)
        raise Invalid(f"{network.name} knows no names of classes: give class:N, N from 0")
    if wanted in names:
        return names.index(wanted)
    found = [number for number, each in enumerate(names) if each.lower() == wanted.lower()]
    if not found and names == imagenet.classes():
        found = [*imagenet.synonyms().get(wanted.lower(), ())]
    if not found:
        raise unknown("class", wanted, names, of=network.name)
    if len(found) > 1:
        several = " or ".join(f"{names[number]!r} ({number})" for number in found)
        raise Invalid(f"{wanted!r} may be {several}: give one of these, or its number as in class:{found[0]}")
    return found[0]


def named(target: Target, network: Network) -> str:
    """Return how a target is called for a person: "tabby (class 281)", "class 8", else as it is written."""
    number = target.channel
    if target.layer is None and number is not None and number < len(network.classes):
        name = network.classes[number]
        return f"class {name}" if name == str(number) else f"{name} (class {number})"
    return str(target)


def strongest(network: Network, image: Tensor) -> Target:
    """Return the class predicted, or the channel of highest mean in the deepest ReLU, else last, layer.

    image: (1, 3, h, w), sRGB 0..1. Raises Invalid for a network that ends in neither classes nor maps.
    """
    with torch.no_grad():
        answer = network(image)
        if answer.ndim == 2:
            return Target(None, int(answer[0].argmax()))
        layer = (rectified(network) or network.layers)[-1]
        answer = network.features(image, (layer,))[layer]
    if answer.ndim != 4:
        raise Invalid(f"{network.name} has no ReLU modules and ends in no maps: name a --target")
    return Target(layer, int(answer[0].mean((1, 2)).argmax()))
