"""Neural style transfer by optimisation, after Gatys, Ecker and Bethge 2016."""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, BinaryIO, Unpack

import torch
from PIL import Image
from torch import Tensor

from innervision import colour, images, network
from innervision.core import Canvas, Detail, Frame, Pixels, Stage, descend
from innervision.errors import Invalid
from innervision.images import Picture, Size
from innervision.machine import choose_device, choose_precision, threads
from innervision.network import Network
from innervision.paint.estimate import check_memory
from innervision.paint.goals import Goals, layers_of, stages_of
from innervision.paint.recipes import Options, Recipe
from innervision.paint.recipes import recipe as recipe_of
from innervision.paint.sitting import GREY, Pictures, match_colour, sit
from innervision.shapes import Float


def stylize(
    content: images.Source,
    style: images.Source | Sequence[images.Source],
    *,
    preset: str = "gatys",
    recipe: Recipe | None = None,
    resume: dict[str, Any] | None = None,
    **options: Unpack[Options],
) -> Painting:
    """Paint a picture in the style of others: iterate for frames, or ask for `.picture()`.

    content, style: paths, "sample:NAME", bytes, open files, PIL images, or "blank". options: fields of
    Recipe, over those of the preset or of `recipe`. resume: a `Painting.checkpoint()` made with the
    same pictures and options. Raises Invalid for a choice that is not allowed, NotAnImage, ImageTooLarge,
    WeightsMissing and WeightsUnfit; at the first frame OutOfMemory, and while iterating Diverged.

    >>> innervision.stylize("photo.jpg", "starry_night.jpg", size=384).picture().save("painted.png")
    """
    chosen = recipe_of(preset, recipe, **options)
    several = isinstance(style, Sequence) and not isinstance(style, (str, bytes))
    return Painting(content, style if several else [style], chosen, resume=resume)  # pyright: ignore[reportArgumentType]


class Painting(Iterator[Frame]):
    """A painting at work: an iterator of Frames that can be stopped, saved and gone on with.

    Frames show the picture as it would be saved: in the content's colours where the recipe keeps them.
    """

    def __init__(
        self,
        content: images.Source,
        styles: Sequence[images.Source],
        recipe: Recipe,
        *,
        start: Picture | None = None,
        resume: dict[str, Any] | None = None,
    ) -> None:
        self.recipe = recipe
        self.sitting = sit(content, styles, recipe, start)
        if recipe.color != "transfer-only":
            self.goals.check_size()
        self.best: Frame | None = None
        """The frame of the lowest total of the latest stage."""
        self.latest: Frame | None = None
        self.changes: list[tuple[int, float]] = []
        """(count, percentage of the full range by which the picture changed) from snapshot to snapshot."""
        self.settled = False
        """Whether the picture has stopped changing, by the recipe's `until`."""
        self._compared: Tensor | None = None
        self._affordable = False
        if resume is not None:
            self._restore(resume)
        self._frames = self._paint(resume)

    def __repr__(self) -> str:
        (h, w), recipe = self.sitting.size, self.recipe
        if recipe.color == "transfer-only":
            return f"Painting({w}x{h}, colours alone)"
        sizes = ", ".join(f"{w}x{h} x {steps}" for (h, w), steps in self.sitting.stages)
        done = 0 if self.latest is None else self.latest.count
        return f"Painting({sizes}; {done} of {self.sitting.evaluations} steps done, {recipe.net})"

    @cached_property
    def network(self) -> Network:
        """The recipe's network; where colours alone are transferred, not loaded until asked for."""
        return open_network(self.recipe)

    @cached_property
    def goals(self) -> Goals:
        """What is asked of the picture, at any size."""
        return Goals(self.network, self.sitting, self.recipe)

    def check_memory(self) -> None:
        """Raise OutOfMemory, which names a size, where this would not fit: once, before the first frame."""
        if not self._affordable:
            check_memory(self)
            self._affordable = True

    def __iter__(self) -> Painting:
        return self

    def __next__(self) -> Frame:
        if self.settled:
            raise StopIteration
        with threads(self.recipe.threads):
            frame = next(self._frames)
        frame = replace(frame, image=self._finish(frame.image))
        if self.best is None or frame.stage != self.best.stage or frame.total <= self.best.total:
            self.best = frame
        self.latest = frame
        if self.snapshot_due(frame):
            self._compare(frame)
        return frame

    def snapshot_due(self, frame: Frame) -> bool:
        """Tell whether this frame is one to keep: each `every` steps, and at the end of a stage."""
        return frame.step % self.recipe.every == 0 or frame.last

    def picture(self) -> Image.Image:
        """Run to the end and return the best picture, with the content's alpha if it had one.

        Raises OutOfMemory before the first step, Diverged, and Invalid where nothing could be painted.
        """
        for _ in self:
            pass
        return self.show(self._so_far())

    def show(self, frame: Frame) -> Image.Image:
        """Return a frame as a picture of 8 bits, with the content's alpha if it had one.

        Raises Invalid for an image that holds no numbers (NaN).
        """
        content = self.sitting.content
        alpha = None if content is None else content.alpha
        return Image.open(io.BytesIO(images.encode(frame.image.cpu(), "png", alpha=alpha)))

    def save(self, target: str | os.PathLike[str] | BinaryIO) -> None:
        """Write the best picture so far, with the content's resolution and alpha, whole or not at all.

        Raises Invalid before the first frame and for a format that cannot be written, InnervisionError where
        the system does not let it be written.
        """
        images.write(self._so_far().image.cpu(), target, like=self.sitting.content)

    def checkpoint(self) -> dict[str, Any]:
        """Return all that `stylize(..., resume=)` needs to go on after the latest frame, bit for bit."""
        if self.latest is None:
            raise Invalid("nothing has been painted yet")
        best, latest = (
            {f.name: getattr(frame, f.name) for f in fields(Frame) if f.name != "checkpoint"}
            for frame in (self._so_far(), self.latest)
        )
        own = {"best": best, "latest": latest, "settled": self.settled}
        own |= {"compared": self._compared, "changes": list(self.changes)}
        return {**self.latest.checkpoint(), "painting": own}

    def _restore(self, saved: dict[str, Any]) -> None:
        """Take from a checkpoint what is the painting's own; the descent takes the rest when it goes on."""
        own = saved.get("painting", {})
        missing = {"best", "latest", "settled", "compared", "changes"} - own.keys()
        if missing:
            raise Invalid(
                f"resume takes a Painting's checkpoint(); this one lacks {', '.join(sorted(missing))}"
            )
        descent = {name: value for name, value in saved.items() if name != "painting"}
        self.best = Frame(**own["best"], checkpoint=dict)
        self.latest = Frame(**own["latest"], checkpoint=lambda: descent)
        self.settled, self._compared, self.changes = own["settled"], own["compared"], list(own["changes"])

    def _ipython_display_(self) -> None:
        """Paint in a notebook's cell, each snapshot in the place of the one before.

        The stop button keeps the best so far. A painting that has come to its end is shown alone.
        """
        from IPython.display import DisplayHandle

        height, width = self.sitting.size
        place = DisplayHandle()
        put = place.display
        try:
            for frame in self:
                if put == place.display or self.snapshot_due(frame):
                    put(self.show(frame).resize((width, height)))  # coarse ones too, so that nothing jumps
                    put = place.update
        except KeyboardInterrupt:
            self._frames.close()
        if self.best is not None:
            put(self.show(self.best))

    def _so_far(self) -> Frame:
        if self.best is None:
            raise Invalid("nothing has been painted yet")
        return self.best

    def _paint(self, resume: dict[str, Any] | None) -> Generator[Frame]:
        """Do the work; what is heavy happens at the first frame, not when a Painting is made."""
        self.check_memory()
        if self.recipe.color == "transfer-only":
            yield self._recoloured()
            return
        yield from self._descent(resume)

    def _descent(self, resume: dict[str, Any] | None) -> Generator[Frame]:
        goals, recipe, sitting = self.goals, self.recipe, self.sitting
        stages: list[Stage] = []
        for number, (size, steps) in enumerate(sitting.stages, 1):
            late = recipe.late_steps if number == len(sitting.stages) else 0
            stages += stages_of(goals.objective(size), goals, size, steps, late)
        canvas = self._canvas(self._start(sitting.stages[0][0]))
        yield from descend(self.network, canvas, stages, resume=resume)

    def _recoloured(self) -> Frame:
        pictures = Pictures(self.sitting, self.recipe, choose_device(self.recipe.device))
        content, styles = pictures.content(self.sitting.size), pictures.styles(self.sitting.size)
        shares = self.recipe.style_weights or (1.0,) * len(styles)
        parts = [
            match_colour(content, s, self.recipe) * w / sum(shares)
            for s, w in zip(styles, shares, strict=True)
        ]
        image = torch.stack(parts).sum(0)
        return Frame(0, 1, 1, 1, image, 0.0, {}, last=True, checkpoint=dict)

    def _start(self, size: Size) -> Float[Tensor, "1 3 h w"]:
        start, device = self.recipe.start, self.network.device
        if self._starts_from_content():
            return self.goals.content(size)
        if start in ("noise", "content"):  # a blank content has no gradient that tells places apart
            generator = torch.Generator().manual_seed(self.recipe.seed)
            noise = torch.randn(1, 3, *size, generator=generator, device="cpu")
            return (GREY + 0.1 * noise).clamp(0, 1).to(device)
        if start == "grey":
            return torch.full((1, 3, *size), GREY, device=device)
        picture = self.sitting.start or next(filter(None, self.sitting.styles))  # a file, or "style"
        return picture.tensor(size).to(device)

    def _starts_from_content(self) -> bool:
        return self.recipe.start == "content" and self.sitting.content is not None

    def _canvas(self, image: Tensor) -> Canvas:
        kind = self.recipe.canvas
        adam, unit = self.recipe.optimiser == "adam", 1 / self.goals.unit().to(image)
        if kind == "pixels" or (kind == "auto" and adam):
            return Pixels(image, unit)
        photos = self.goals.content if self._starts_from_content() else None
        if adam:  # whose rate is in the recipe's units: of the finest grain; large forms move faster
            return Detail(image, photos=photos, gain=float(unit.mean()))
        return Detail(image, photos=photos)

    def _finish(self, image: Tensor) -> Tensor:
        if self.recipe.color != "keep" or self.sitting.content is None:
            return image
        return colour.keep_colour(image.clamp(0, 1), self.goals.content((image.shape[-2], image.shape[-1])))

    def _compare(self, frame: Frame) -> None:
        image, before = frame.image.clamp(0, 1), self._compared
        if before is not None and before.shape == image.shape:
            change = 100 * float((image - before).abs().mean())
            self.changes.append((frame.count, change))
            full = image.shape[-2:] == self.sitting.size
            self.settled = full and self.recipe.until is not None and change < self.recipe.until
        self._compared = image


def open_network(recipe: Recipe) -> Network:
    """Return the recipe's network to its deepest layer, frozen, on its device and in its precision."""
    device = choose_device(recipe.device)
    whole = network.load(
        recipe.net,
        weights_file=recipe.weights,
        pooling=recipe.pooling,
        mean=recipe.mean,
        std=recipe.std,
        range=recipe.range,
        order=recipe.order,
    )
    content, style = layers_of(whole, recipe)
    return whole.upto((*content, *style)).to(device).frozen(choose_precision(recipe.precision, device))
