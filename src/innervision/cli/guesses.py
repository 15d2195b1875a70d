"""What a classifier holds a picture for, and in which network a target is explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from innervision.images import Picture
    from innervision.network import Network
    from innervision.see.target import Target

NET = "efficientnet_lite0"  # predicts where the network looked into has no classifier
INSTALL = "pip install 'innervision[imagenet]'"
_MOST = 5  # guesses
_ELONGATED = 2  # times as long as broad: a picture up to there is seen whole at the classifier's own size


@dataclass(frozen=True)
class Guess:
    """A class, and how likely it is to a classifier, 0..1."""

    number: int
    name: str
    chance: float

    def numbers(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {"class": self.number, "name": self.name, "chance": round(self.chance, 4)}


@dataclass(frozen=True, eq=False)
class Predictor:
    """A classifier, the picture as it sees it, and what it holds it for."""

    network: Network
    image: Tensor
    best: tuple[Guess, ...]  # the likeliest first

    @classmethod
    def of(cls, network: Network, image: Tensor, temperature: float = 1.0) -> Predictor | None:
        """Return what a network holds a picture (1, 3, h, w) for, or None where it ends in no classes.

        temperature: by which its probabilities were calibrated (see `learn.calibrate`).
        """
        import torch

        from innervision.see.target import Target, named

        with torch.no_grad():
            answer = network(image)
        if answer.ndim != 2:
            return None
        shares = (answer.double() / temperature).softmax(1)[0]  # as learn.predict
        chances, numbers = (t.tolist() for t in shares.topk(min(_MOST, answer.shape[1])))
        pairs = zip(numbers, chances, strict=True)
        return cls(network, image, tuple(Guess(n, named(Target(None, n), network), c) for n, c in pairs))


def goal_of(
    asked: str | None, network: Network, image: Tensor, predictor: Predictor | None
) -> tuple[Target, Network, Tensor]:
    """Return what is explained, in which network, and the picture as that sees it.

    A class is the predictor's; a layer is the network's. By default the class predicted, else the strongest
    channel of the deepest layer. Raises Invalid for what is not there, before any work.
    """
    import torch

    from innervision.see.target import strongest, target

    of_class = predictor is not None and (asked is None or asked.strip().startswith("class:"))
    subject, seen = (predictor.network, predictor.image) if predictor and of_class else (network, image)
    if asked is None:
        return strongest(subject, seen), subject, seen
    goal = target(asked, subject)
    with torch.no_grad():
        goal.pick(goal.of(subject, seen))
    return goal, subject, seen


def installed(picture: Picture, device: torch.device) -> Predictor | None:
    """Return the classifier that a package brings, looking at a picture; None where it is not installed."""
    from innervision import network as networks
    from innervision.errors import WeightsMissing

    try:
        found = networks.load(NET)
    except WeightsMissing:
        return None
    return Predictor.of(found.to(device).frozen(), _whole(picture, 224).to(device))


def _whole(picture: Picture, side: int) -> Tensor:
    """Return the whole picture, its shorter side as the predictor was trained, unless it is very long."""
    h, w = picture.height, picture.width
    scale = min(side / min(h, w), _ELONGATED * side / max(h, w))
    return picture.tensor((max(1, round(h * scale)), max(1, round(w * scale))))
