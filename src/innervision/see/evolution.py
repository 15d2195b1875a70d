"""How one unit comes to be: its strongest picture, and the deconvolution of it, at each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from innervision import sheets
from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.contact import Unit, strongest
from innervision.see.pictures import Pictures, as_pictures
from innervision.see.target import Target
from innervision.see.units import top_images


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A unit at one checkpoint: its strongest patch and what of it the unit answers to."""

    label: str
    picture: int  # the number of the strongest picture
    place: tuple[int, int]  # of the maximum in the layer's map
    unit: Unit  # value, patch and deconvolution

    @property
    def value(self) -> float:
        return self.unit.values[0]


def evolution(
    networks: Iterable[tuple[str, Network]],
    pictures: Pictures | NDArray[Any] | Tensor,
    unit: Target,
    *,
    deconv: bool = True,
) -> Iterator[Checkpoint]:
    """Yield a unit's strongest picture at each checkpoint of a training (Zeiler & Fergus 2013, figure 4).

    networks: a label and the network as it was then; a generator loads one at a time. unit: a layer and a
    channel. Each checkpoint looks at all pictures. Raises Invalid for another kind of target.
    """
    if unit.layer is None or unit.channel is None or unit.place is not None:
        raise Invalid(f"{str(unit)!r} is no unit to follow: give LAYER:CHANNEL")
    source = as_pictures(pictures)
    return _follow(networks, source, unit.layer, unit.channel, deconv)


def _follow(
    networks: Iterable[tuple[str, Network]], source: Pictures, layer: str, channel: int, deconv: bool
) -> Iterator[Checkpoint]:
    for label, network in networks:
        *_, found = top_images(network, source, (layer,), k=1)
        (unit,) = strongest(network, found, source, layer, (channel,), deconv=deconv)
        row, column = (int(n) for n in found[layer].places[channel, 0])
        yield Checkpoint(label, int(found[layer].pictures[channel, 0]), (row, column), unit)


def draw(checkpoints: Iterable[Checkpoint], *, title: str | None = None, tile: int = 120) -> Image.Image:
    """Draw the checkpoints from left to right, the patch above its deconvolution. Raises Invalid for none."""
    every = list(checkpoints)
    if not every:
        raise Invalid("there are no checkpoints to draw")
    blank = Image.new("RGB", (8, 8), sheets.PAPER)
    upper = [one.unit.patches[0] for one in every]
    lower = [one.unit.deconvolutions[0] if one.unit.deconvolutions else blank for one in every]
    shown = [*upper, *(lower if any(one.unit.deconvolutions for one in every) else [])]
    labels = [f"{one.label}\n{one.value:.4g}" for one in every]
    return sheets.sheet(shown, labels=labels, columns=len(every), tile=tile, title=title)
