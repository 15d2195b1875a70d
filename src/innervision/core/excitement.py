"""What excites a unit: a layer, a channel, one place of its map, or a direction; one for each picture."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from innervision.core.measures import gram, same
from innervision.core.objective import Objective, Term
from innervision.errors import Invalid
from innervision.shapes import Float


@dataclass(frozen=True, eq=False)
class Excite:
    """Minus what a layer, or a part of it, answers to each picture, summed over the pictures."""

    layer: str
    channels: tuple[int, ...] | None  # one for all pictures, or one each
    place: tuple[float, float] | None
    direction: Float[Tensor, "n c"] | None  # one for all pictures, or one each
    power: float

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        return -self.each(activations, image).sum()

    def each(self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Return what each picture of the batch excites: a mean over places, and over several views."""
        a = self._at(activations[self.layer])
        views = len(a) // len(image)
        if self.channels is not None:
            wanted = torch.tensor(self._per_picture(self.channels, len(image)), device=a.device)
            for channel in self.channels:
                if not 0 <= channel < a.shape[1]:
                    raise Invalid(f"no channel {channel} in {self.layer}, which has 0 … {a.shape[1] - 1}")
            a = a[torch.arange(len(a), device=a.device), wanted.repeat(views)]
        elif self.direction is not None:
            a = self._along(same(a), views, len(image))
        return same(a).reshape(len(a), -1).mean(1).view(views, len(image)).mean(0)

    def _at(self, a: Tensor) -> Tensor:
        """Return the answers at the place meant, (n, c), or all of them, (n, c, ...)."""
        if self.place is None or a.ndim != 4:
            return a
        row, column = (min(n - 1, int(part * n)) for part, n in zip(self.place, a.shape[2:], strict=True))
        return a[:, :, row, column]

    def _along(self, a: Tensor, views: int, pictures: int) -> Tensor:
        """Return each place's product with the direction, times its cosine (0.1 at least) to the power."""
        assert self.direction is not None
        if self.direction.shape[1] != a.shape[1]:
            raise Invalid(
                f"a direction of {self.direction.shape[1]} numbers in {self.layer}, which has {a.shape[1]} "
                "channels"
            )
        v = self.direction.to(a)[self._per_picture(range(len(self.direction)), pictures)].repeat(views, 1)
        v = v.view(*v.shape, *[1] * (a.ndim - 2))
        product = (a * v).sum(1, keepdim=True)
        if not self.power:
            return product
        length, own = (cast(Tensor, torch.linalg.vector_norm(x, dim=1, keepdim=True)) for x in (v, a))
        norms = (own + 1e-4) * (length + 1e-4)
        return product * (product / norms).clamp(min=0.1) ** self.power

    def _per_picture(self, one_each: Sequence[int], pictures: int) -> list[int]:
        if len(one_each) not in (1, pictures):
            raise Invalid(f"{len(one_each)} units for {pictures} pictures: give one, or one a picture")
        return list(one_each) * (pictures if len(one_each) == 1 else 1)


def excite(
    layer: str,
    channel: int | Sequence[int] | None = None,
    *,
    place: tuple[float, float] | None = None,
    direction: Float[Tensor, " c"] | Float[Tensor, "n c"] | None = None,
    power: float = 0.0,
) -> Objective:
    """Ask a layer, or a part of it, to answer as strongly as it can (mean activation, negated).

    channel: an index into the activation's second dimension, or one for each picture of a batch. place: the
    one unit of a map (n, c, h, w) that is meant, in shares of its height and width: (0.5, 0.5) is the centre.
    direction: in place of a channel, a weight a channel (c,), or (n, c), one for each picture; power: of the
    cosine to the direction, held at 0.1 or more, by which the product is multiplied (Lucid's `direction`).
    The pictures' answers are summed, so that none changes another's gradient. A unit that ReLU holds at 0
    gives no gradient: take the layer before it.
    """
    if channel is not None and direction is not None:
        raise Invalid("excite() takes a channel or a direction, not both")
    channels = (channel,) if isinstance(channel, int) else None if channel is None else tuple(channel)
    if channels == ():
        raise Invalid("excite() takes at least one channel: leave it out to mean the whole layer")
    if place is not None and not all(0 <= part <= 1 for part in place):
        raise Invalid(f"the place is {place}; give shares of the map's height and width, 0..1")
    vector = direction if direction is None or direction.ndim == 2 else direction[None]
    where = layer
    if channels is not None:
        where += f":{channels[0]}" if len(set(channels)) == 1 else f":{channels[0]}…{channels[-1]}"
    measure = Excite(layer, channels, place, vector, power)
    return Objective((Term(f"excite {where}", measure, (layer,)),))


@dataclass(frozen=True, eq=False)
class Alike:
    """How alike the pictures of each group are to a layer, summed over the groups."""

    layer: str
    pictures: int
    against: Excite | None

    def __call__(
        self, activations: Mapping[str, Tensor], image: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        a = same(activations[self.layer])
        if a.ndim != 4 or len(image) % self.pictures:
            raise Invalid(
                f"diversity is of groups of {self.pictures} pictures in a layer (n, c, h, w), not of "
                f"{len(image)} pictures and {tuple(a.shape)}"
            )
        grams = torch.nn.functional.normalize(gram(a, "none").flatten(1), eps=1e-10)
        grams = grams.view(-1, self.pictures, grams.shape[1])  # (views · groups, pictures, c²)
        # Σ over i ≠ j of Gi·Gj = |Σ Gi|² − Σ |Gi|²
        products = grams.sum(1).square().sum(1) - grams.square().sum((1, 2))
        alike = products.view(-1, len(image) // self.pictures).mean(0) / self.pictures
        if self.against is not None:
            excited = self.against.each(activations, image).detach().view(-1, self.pictures)
            alike = alike * excited.mean(1).abs()
        return alike.sum()


def diversity(layer: str, pictures: int, *, against: Objective | None = None) -> Objective:
    """Ask the pictures of each group to differ in what goes together: their Gram matrices' correlation.

    Each `pictures` that follow one another are a group; Σ over pairs i ≠ j of ⟨Gᵢ, Gⱼ⟩ / pictures, G of
    length 1 (Lucid's `diversity`, Olah et al. 2017; 0 where they have nothing in common). against: what
    `excite` gave; each group's term is then measured in what it excites at the moment, so that a weight
    means the same in any layer (Lucid leaves the weight to be found: 100 in mixed4a of InceptionV1).
    """
    if pictures < 2:
        raise Invalid(f"diversity among {pictures} pictures: give at least 2")
    measures = [] if against is None else [term.measure for term in against.terms]
    scale = next((measure for measure in measures if isinstance(measure, Excite)), None)
    return Objective((Term(f"alike {layer}", Alike(layer, pictures, scale), (layer,)),))
