"""What sits for a painting: the pictures as read, every size decided, and their look at any of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from innervision import colour, images
from innervision.errors import Invalid
from innervision.images import Picture, Size
from innervision.paint.recipes import Recipe, start_file
from innervision.shapes import Float

BLANK = "blank"
GREY = 0.5  # of a blank picture


@dataclass(frozen=True)
class Sitting:
    """The pictures as read (None: blank) and the sizes of every stage, coarse to fine."""

    content: Picture | None
    styles: tuple[Picture | None, ...]
    size: Size
    stages: tuple[tuple[Size, int], ...]  # size, evaluations
    start: Picture | None = None
    """What is painted over, where the recipe names a picture file."""

    @property
    def evaluations(self) -> int:
        return sum(steps for _, steps in self.stages)


def sit(
    content: images.Source, styles: Sequence[images.Source], recipe: Recipe, start: Picture | None = None
) -> Sitting:
    """Read the pictures and decide every size; raises before anything costly begins.

    start: the picture that the recipe's start names, where it has been read before.
    """
    if not styles:
        raise Invalid("stylize needs at least one style picture")
    if recipe.style_weights is not None and len(recipe.style_weights) != len(styles):
        raise Invalid(
            f"{len(recipe.style_weights)} style weights for {len(styles)} style pictures: give one each"
        )
    file = start_file(recipe.start)
    if start is None and file is not None:
        start = images.read(file)
    read = [None if _blank(source) else images.read(source) for source in (content, *styles)]
    shown = next((picture for picture in read if picture is not None), None)
    if shown is None:
        raise Invalid("content and style cannot both be blank: there would be nothing to paint")
    if recipe.start == "style" and not any(read[1:]):
        raise Invalid("start 'style' needs a style picture that is not blank")
    stages = tuple(_stages(shown, recipe))
    return Sitting(read[0], tuple(read[1:]), stages[-1][0], stages, start)


def _blank(source: images.Source) -> bool:
    return isinstance(source, str) and source == BLANK


def _stages(shown: Picture, recipe: Recipe) -> Iterator[tuple[Size, int]]:
    if isinstance(recipe.stages, tuple):
        for longest, steps in recipe.stages:
            yield images.fit(shown.height, shown.width, longest=longest), steps
        return
    longest = recipe.size if recipe.pixels is None else None
    size = images.fit(shown.height, shown.width, longest=longest, pixels=recipe.pixels)
    if recipe.stages == "auto":
        halved = [(size[0] >> n, size[1] >> n) for n in range(5, 0, -1)]
        yield from ((part, recipe.coarse_steps) for part in halved if min(part) >= 64)
    yield size, recipe.steps


class Pictures:
    """The pictures of a sitting at any size, on a device."""

    def __init__(self, sitting: Sitting, recipe: Recipe, device: torch.device) -> None:
        self.sitting = sitting
        self.recipe = recipe
        self.device = device
        self._content: dict[Size, Tensor] = {}  # of the latest size alone: colours are kept a frame

    def content(self, size: Size) -> Float[Tensor, "1 3 h w"]:
        """Return the content picture at a size (h, w), plain grey where it is blank.

        sRGB 0..1, on the device; kept until another size is asked for, so not to be written
        into. Raises Invalid for a side below 1.
        """
        if size not in self._content:
            picture = self.sitting.content
            image = torch.full((1, 3, *size), GREY) if picture is None else picture.tensor(size)
            self._content = {size: image.to(self.device)}
        return self._content[size]

    def styles(self, size: Size) -> list[Float[Tensor, "1 3 y x"]]:
        """Return the style pictures for a painting of size (h, w), in the same proportion at every stage.

        Each of its own `style_size`, sRGB 0..1, on the device; in the content's colours
        where the recipe matches them. A blank one is plain grey of the painting's size.
        """
        shown: list[Tensor] = []
        for picture in self.sitting.styles:
            if picture is None:
                shown.append(torch.full((1, 3, *size), GREY).to(self.device))
                continue
            image = picture.tensor(self.style_size(picture, size)).to(self.device)
            if self.recipe.color == "match" and self.sitting.content is not None:
                image = match_colour(image, self.content(size), self.recipe)
            shown.append(image)
        return shown

    def style_size(self, picture: Picture, size: Size) -> Size:
        """Return the size (h', w') at which a style picture is looked at for a painting of size (h, w).

        In the picture's own proportions, each side 1 or more: as many pixels as the painting has, or the
        recipe's style_size as its longest side, smaller as the stage is smaller than the full size.
        """
        longest = self.style_side(size)
        if longest is not None:
            return images.fit(picture.height, picture.width, longest=longest)
        if images.fit(picture.height, picture.width, longest=max(size)) == size:
            return size  # as another of so many pixels would not do: a picture is its own style's optimum
        return images.fit(picture.height, picture.width, pixels=size[0] * size[1])

    def style_side(self, size: Size) -> int | None:
        """Return the recipe's style_size for a painting of size (h, w); None where it has none."""
        if self.recipe.style_size is None:
            return None
        full = self.sitting.size
        share = (size[0] * size[1]) / (full[0] * full[1])
        return max(1, round(self.recipe.style_size * share**0.5))


def match_colour(
    image: Float[Tensor, "1 3 h w"], target: Float[Tensor, "1 3 y x"], recipe: Recipe
) -> Float[Tensor, "1 3 h w"]:
    """Give an image the colours of another by the recipe's way of matching, clamped to 0..1."""
    way = colour.match_covariance if recipe.color_match == "covariance" else colour.match_histogram
    return way(image, target).clamp(0, 1)
