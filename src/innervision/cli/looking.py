"""What is looked at by `innervision look`, and the first parts of its page: the picture, layers' answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from innervision.cli.guesses import INSTALL, Predictor
from innervision.cli.nines import TopPictures
from innervision.cli.pages import Figure, Section, figure, uri
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from torch import Tensor

    from innervision.images import Picture
    from innervision.network import Network
    from innervision.see.target import Target

USUAL = 224  # px: the longest side of a picture for a network of which no smaller one is known


@dataclass(frozen=True, eq=False)
class Look:
    """What is looked at, through what, and for what."""

    network: Network
    image: Tensor
    predictor: Predictor | None
    goal: Target
    subject: Network  # in which the goal is explained
    seen: Tensor  # the picture as the subject sees it
    top: TopPictures | None
    seed: int
    steps: int
    quick: bool
    original: Picture | None = None  # before it was made what the network is given

    @cached_property
    def fast(self) -> Network:
        """The network as searches may use it: in bfloat16 where the processor computes in it."""
        from innervision.machine import choose_precision

        dtype = choose_precision("auto", self.network.device)
        return self.network if dtype == self.network.dtype else self.network.frozen(dtype)

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """The layers that the page is about, from the shallowest."""
        from innervision.see.activations import shown_by_default

        return shown_by_default(self.network, self.image)

    def said(self) -> str:
        """Return what the picture is held for, in a line, or how to find out."""
        if self.predictor is None:
            return (
                f"no prediction, for {self.network.name} has no classifier here: {INSTALL} brings a small one"
            )
        guesses = ", ".join(f"{one.name} {100 * one.chance:.1f} %" for one in self.predictor.best[:3])
        return f"{self.predictor.network.name}: {guesses}"


class Within(Telling):
    """Tells of a part as a share of the whole, in hundredths."""

    def __init__(self, whole: Telling, start: float, end: float, name: str) -> None:
        self._whole, self._start, self._end, self._name = whole, start, end, name

    def step(self, done: int, of: int, text: str = "", **values: Any) -> None:
        """Tell that `done` of the part's `of` steps are done."""
        share = self._start + (self._end - self._start) * (done / of if of else 0.0)
        if isinstance(self._whole, Within):
            self._whole.step(round(1000 * share), 1000, text or self._name)
        else:
            self._whole.step(round(100 * share), 100, text or self._name, **values)

    def say(self, text: str) -> None:
        """Tell a line that a person reads."""
        self._whole.say(text)


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """Return so many of the names, evenly, with the first and the last; all where they are no more."""
    if len(names) <= count:
        return tuple(names)
    return tuple(names[(len(names) - 1) * n // (count - 1)] for n in range(count))


def given_to(
    network: Network, picture: Picture, size: int | None, temperature: float
) -> tuple[Tensor, Predictor | None]:
    """Return a picture (1, 3, h, w) as a network is given it, and what the network holds it for, if anything.

    A classifier that was trained at a size is given what `innervision predict` gives it: the middle square,
    of that size or `size`. To any other network the picture is whole, its longest side at most `size`: by
    default 224, or fewer where the network was trained at fewer. One that refuses that shape, as one of fixed
    size does, is given the middle square. Raises Invalid, with the network's own words, if it refuses both.
    """
    from innervision.errors import InnervisionError, Invalid

    channels, trained = len(network.preprocessing.mean), bool(network.input_size and network.classes)
    side = size or min(USUAL, network.input_size or USUAL)
    cut = size or network.input_size or side
    ways: list[Callable[[], Tensor]] = [
        lambda: whole(picture, side, channels),
        lambda: square(picture, cut, channels),
    ]
    why = ""
    for way in reversed(ways) if trained else ways:
        try:
            image = way().to(network.device)
            predictor = Predictor.of(network, image, temperature)
            if predictor is not None or way is ways[0] or not trained:
                return image, predictor
            # names of classes, but an answer of maps: nothing that learned from squares
        except InnervisionError:
            raise
        except Exception as error:  # a guest may refuse in any way
            why = why or (str(error).splitlines() or [type(error).__name__])[0]
    h, w = whole(picture, side, channels).shape[-2:]
    raise Invalid(
        f"{network.name} cannot look at {w}x{h} px, nor at {cut}x{cut} "
        f"({why}): give the side it was made for as --size"
    )


def square(picture: Picture, side: int, channels: int) -> Tensor:
    """Return a picture's middle square (1, 3, side, side) as training and prediction make it.

    channels: of the network; to one of greys colours are grey.
    """
    import torch

    from innervision.learn.raw import squared

    bytes_ = torch.from_numpy(squared(picture, side, channels).copy())
    return bytes_[None].float().div_(255).expand(1, 3, side, side).contiguous()


def picture(look: Look, told: Telling) -> Section:
    """Show the picture, and what a classifier holds it for."""
    found = Section("The picture", as_given(look))
    found.figures.append(figure(look.image, "As the network is given it." if changed(look) else ""))
    if look.original is not None and changed(look):
        found.figures.append(figure(whole(look.original, USUAL), "As it is."))
    if look.predictor is None:
        found.text += (
            f" {look.network.name} has no classifier here, so there is no prediction: its layers are what"
            f" it has to say. What is explained below is {look.goal}, the strongest of the deepest layer."
        )
        found.note = f"{INSTALL} brings a small classifier of a thousand classes; then run look again."
        return found
    if look.predictor.network is not look.network:
        h, w = look.predictor.image.shape[-2:]
        found.text += (
            f" {look.network.name} has no classifier here; {look.predictor.network.name}, which sees {w}"
            f" by {h} pixels, holds it for:"
        )
    else:
        found.text += " The network holds it for:"
    found.table += [(one.name, f"{100 * one.chance:.1f} %") for one in look.predictor.best]
    return found


def changed(look: Look) -> str:
    """Say what the network is given where it is not the whole picture in its colours; else nothing."""
    if look.original is None:
        return ""
    from innervision.learn.raw import is_grey

    (h, w), given = look.image.shape[-2:], look.original
    cut = h == w and given.height != given.width
    grey = len(look.network.preprocessing.mean) == 1 and not is_grey(given)
    return f"the {'middle square' if cut else 'picture'}{' in grey' * grey}" if cut or grey else ""


def as_given(look: Look) -> str:
    """Say how the network is given the picture."""
    h, w = look.image.shape[-2:]
    what = changed(look)
    if not what:
        return f"As the network is given it, {w} by {h} pixels."
    trained = look.network.classes and look.network.input_size
    why = ": as it was trained, and as innervision predict shows pictures to it" if trained else ""
    return f"The network is given {what}, {w} by {h} pixels{why}."


def whole(picture: Picture, side: int, channels: int = 3) -> Tensor:
    """Return a picture (1, 3, h, w), its longest side at most so many pixels; grey for one channel."""
    from innervision.colour import to_ycc
    from innervision.images import fit

    longest = max(picture.height, picture.width)
    image = picture.tensor(fit(picture.height, picture.width, longest=min(side, longest)))
    return to_ycc(image)[:, :1].expand_as(image).contiguous() if channels == 1 else image


def layers(look: Look, told: Telling) -> Section:
    """Show every layer's strongest channels."""
    from innervision.see import activations

    text = (
        "Each row is a layer, with the channels of the highest mean from left to right, by number. Pale "
        "is strong. Layers near the picture answer to edges and colours where they are; deep ones to few "
        "things, roughly where they are."
    )
    drawn = activations.sheet(look.network, look.image)
    return Section("What the layers answer", text, [Figure(uri(drawn), wide=True)])
