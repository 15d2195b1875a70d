"""Augmentation of whole batches: moved, mirrored, recoloured, cut and mixed pictures as tensor work.

What is to happen to each picture is drawn first (`draw`), on the CPU, and then done (`moved`, `mixed`): so a
run on a GPU, or one of several processes that each hold a part of the batch, sees the same pictures.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.learn.moving import cut, one_hot, recoloured, sent, shifted_between, shifted_whole, unit

Flip = Literal["none", "random", "alternating"]


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training picture. Each default is: nothing."""

    flip: Flip = "none"
    """Mirror left and right: "random" with probability 1/2 each time; "alternating" in every other epoch, one
    half of the pictures in even ones, the rest in odd (Jordan 2024, airbench): two epochs see both."""
    shift: int | float = 0
    """An int: up to so many pixels each way, a whole number, the edge reflected (He 2016 with reflection). A
    float: up to this part of the side each way, in fractions of a pixel by linear interpolation, with `fill`
    where the picture ends (Keras's ImageDataGenerator with fill_mode "constant", the article's)."""
    fill: tuple[float, ...] = (0.0,)
    """The colour, in 0..1, beyond a fractional shift's edge and in cutout's squares; one value or one a
    channel. What is filled with 0 after a mean was subtracted is filled with that mean here."""
    cutout: int = 0
    """The side in pixels of a square that is filled; its centre lies anywhere (DeVries & Taylor 2017)."""
    mixup: float = 0.0
    """α of mixup (Zhang 2018): batch and shuffled batch are added, λ to 1 − λ, λ ~ Beta(α, α), labels too."""
    cutmix: float = 0.0
    """α of CutMix (Yun 2019): a box of the shuffled batch is pasted in, labels by its area. Where mixup is on
    too, a coin says for each batch which it is."""
    colour: float = 0.0
    """Brightness, contrast and saturation are each multiplied by a factor in 1 ± this."""

    def __post_init__(self) -> None:
        if self.flip not in ("none", "random", "alternating"):
            raise Invalid(f"flip is {self.flip!r}; there are none, random and alternating")
        for name in ("shift", "cutout", "mixup", "cutmix", "colour"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise Invalid(f"{name} is {value}; it must be 0 (off) or more")
        if isinstance(self.shift, float) and self.shift >= 1:
            raise Invalid(
                f"shift is {self.shift}: a float is a part of the side, below 1; for pixels give an int"
            )
        if self.colour > 1:
            raise Invalid(f"colour is {self.colour}; it must be between 0 and 1")
        if len(self.fill) not in (1, 3) or not all(0 <= value <= 1 for value in self.fill):
            raise Invalid(f"fill is {self.fill}; it must be one colour in 0..1, a value or one a channel")

    @property
    def mixes(self) -> bool:
        """Whether labels become shares of several classes."""
        return self.mixup > 0 or self.cutmix > 0

    def __str__(self) -> str:
        on = [f"{f.name} {v}" for f in fields(self) if (v := getattr(self, f.name)) != f.default]
        return ", ".join(on) or "none"


@dataclass(frozen=True, eq=False)
class Mix:
    """How a whole batch is mixed with itself in another order."""

    partner: Tensor  # Int64[Tensor, "n"]: which picture is added to each
    share: float  # of the picture itself, in its label; the partner has the rest
    box: tuple[int, int, int, int] | None  # top, bottom, left, right of what CutMix pastes in


@dataclass(frozen=True, eq=False)
class Draw:
    """What was drawn for a batch: one entry a picture, None where nothing happens."""

    mirrored: Tensor | None  # Bool[Tensor, "n"]
    shift: Tensor | None  # [Tensor, "n 2"], down and across: int64 (reflect) or float32 (fill)
    holes: Tensor | None  # Int64[Tensor, "n 2"]: the centres of cutout's squares
    colour: Tensor | None  # Float[Tensor, "n 3"]: factors of brightness, contrast and saturation
    mix: Mix | None

    def take(self, which: Tensor) -> Draw:
        """Return what was drawn for some of the pictures, in this order; mixing concerns the whole batch."""

        def part(drawn: Tensor | None) -> Tensor | None:
            return None if drawn is None else drawn[which]

        return Draw(part(self.mirrored), part(self.shift), part(self.holes), part(self.colour), None)


def draw(
    count: int,
    size: tuple[int, int],
    augmentation: Augmentation,
    *,
    epoch: int,
    generator: torch.Generator,
    coins: Tensor | None = None,  # Bool[Tensor, "n"]
) -> Draw:
    """Draw what happens to `count` pictures of this (height, width) in this epoch.

    coins: for the alternating flip, which pictures are mirrored in even epochs; each picture keeps its own
    through all epochs (`Batches` draws them once). Always drawn in the same order, and on the generator's
    device. Raises Invalid for shifts as large as the picture, and for an alternating flip without coins.
    """
    height, width = size
    kind = augmentation
    device = generator.device
    mirrored = shift = holes = colour = mix = None
    if kind.flip == "random":
        mirrored = torch.rand(count, generator=generator, device=device) < 0.5
    elif kind.flip == "alternating":
        if coins is None:
            raise Invalid("an alternating flip needs coins: which pictures are mirrored in even epochs")
        mirrored = coins if epoch % 2 == 0 else ~coins
    if kind.shift and isinstance(kind.shift, int):
        if kind.shift >= min(size):
            raise Invalid(f"a shift of {kind.shift} pixels is too far for pictures of {height}x{width}")
        shift = torch.randint(-kind.shift, kind.shift + 1, (count, 2), generator=generator, device=device)
    elif kind.shift:
        part = torch.rand((count, 2), generator=generator, device=device) * 2 - 1
        shift = part * torch.tensor([height, width], device=device) * kind.shift
    if kind.colour:
        part = torch.rand((count, 3), generator=generator, device=device) * 2 - 1
        colour = 1 + part * kind.colour
    if kind.cutout:
        places = [torch.randint(side, (count,), generator=generator, device=device) for side in size]
        holes = torch.stack(places, 1)
    if kind.mixes:
        mix = _draw_mix(count, size, kind, generator)
    return Draw(mirrored, shift, holes, colour, mix)


def _draw_mix(count: int, size: tuple[int, int], kind: Augmentation, generator: torch.Generator) -> Mix:
    """Draw one mix for a batch, as both papers' own code does."""
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    own = random.Random(int(seed))  # torch draws no Beta from a generator
    partner = torch.randperm(count, generator=generator, device=generator.device)
    pasted = kind.cutmix > 0 and (kind.mixup == 0 or own.random() < 0.5)
    alpha = kind.cutmix if pasted else kind.mixup
    share = own.betavariate(alpha, alpha)
    if not pasted:
        return Mix(partner, share, None)
    height, width = size
    side = (1 - share) ** 0.5
    half_h, half_w = int(height * side) // 2, int(width * side) // 2
    down, across = own.randrange(height), own.randrange(width)
    top, bottom = max(0, down - half_h), min(height, down + half_h)
    left, right = max(0, across - half_w), min(width, across + half_w)
    area = (bottom - top) * (right - left)
    return Mix(partner, 1 - area / (height * width), (top, bottom, left, right))


def augment(
    images: Tensor,  # UInt8[Tensor, "n c h w"]
    labels: Tensor,  # Int64[Tensor, "n"]
    augmentation: Augmentation,
    *,
    epoch: int,
    generator: torch.Generator,
    classes: int | None = None,
    coins: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the batch augmented, and its targets: the labels, or shares (n, classes) where it is mixed.

    Images come back uint8 where pixels are only moved or filled, else float32 in 0..1; the batch given is
    left as it was. classes: how many there are, needed for mixing. coins: as in `draw`.
    """
    size = (images.shape[-2], images.shape[-1])
    drawn = draw(len(images), size, augmentation, epoch=epoch, generator=generator, coins=coins)
    images = moved(images, drawn, augmentation)
    if drawn.mix is None:
        return images, labels
    if classes is None:
        raise Invalid("mixing needs the number of classes (classes=)")
    partner = sent(drawn.mix.partner, images.device)
    shares = one_hot(labels, classes)
    return mixed(images, images[partner], drawn.mix), mixed_labels(shares, shares[partner], drawn.mix)


def moved(images: Tensor, drawn: Draw, augmentation: Augmentation) -> Tensor:
    """Mirror, shift, recolour and cut each picture as drawn; all that a picture undergoes by itself."""
    if len(augmentation.fill) not in (1, images.shape[1]):
        raise Invalid(f"fill is {augmentation.fill}, a value a channel, for pictures of {images.shape[1]}")
    fill = sent(torch.tensor(augmentation.fill), images.device).view(1, -1, 1, 1)
    if drawn.shift is None or not drawn.shift.is_floating_point():
        images = shifted_whole(images, drawn.mirrored, drawn.shift)
    else:
        images = shifted_between(unit(images), sent(drawn.shift, images.device), fill)
        images = shifted_whole(images, drawn.mirrored, None)
    if drawn.colour is not None:
        images = recoloured(unit(images), sent(drawn.colour, images.device))
    if drawn.holes is not None:
        images = cut(images, sent(drawn.holes, images.device), augmentation.cutout, fill)
    return images


def mixed(images: Tensor, others: Tensor, mix: Mix) -> Tensor:
    """Mix pictures with their partners: added by shares, or with the partner's box pasted in."""
    if mix.box is None:
        return torch.lerp(unit(others), unit(images), mix.share)
    top, bottom, left, right = mix.box
    images = images.clone()
    images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
    return images


def mixed_labels(shares: Tensor, others: Tensor, mix: Mix) -> Tensor:
    """Mix targets (n, classes) as `mixed` does pictures."""
    return torch.lerp(others, shares, mix.share)
