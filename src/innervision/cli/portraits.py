"""The part of the page of `innervision look` that is about single units: the strongest of a few layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from innervision.cli.looking import Look
from innervision.cli.nines import TopPictures, square
from innervision.cli.pages import Figure, Section, picture, uri
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from innervision.see.target import Target

EACH, DEPTHS, SIDE = 2, 4, 112  # units shown of a layer; layers they are from; what excites them, in px
_TILE, _GAP = 224, 8  # height of a unit's pictures, and what is between them, in pixels


def depths(look: Look) -> tuple[str, ...]:
    """Return the layers whose units are shown."""
    names = look.shown
    if look.top is not None and look.top.found is not None:
        names = tuple(name for name in names if name in look.top.found.layers) or names
    return tuple(names[(len(names) - 1) * (n + 1) // DEPTHS] for n in range(DEPTHS))


def units(look: Look, told: Telling) -> Section:
    """Show the strongest units of a few layers: where they answer, to what, and what excites them."""
    from innervision.see.activations import answers
    from innervision.see.target import Target

    found = answers(look.network, look.image, dict.fromkeys(depths(look)), channels=EACH)
    units = [(Target(one.layer, c), one.maps[n]) for one in found for n, c in enumerate(one.channels)]
    parts = ["where they answer", "what of the picture they answer to (deconvnet, Zeiler and Fergus 2013)"]
    excited, note = ({}, "") if look.quick else _excited(look, [unit for unit, _ in units], told)
    nine = {} if look.top is None else _nine(look, look.top, [unit for unit, _ in units], told)
    if excited:
        parts.append("a picture made to excite them (after Olah et al. 2017)")
    if look.top is not None:
        count = len(look.top.pictures)
        parts.append(f"what they see of the nine strongest of {count:,} pictures, and those deconvolved")
    text = f"The channels that answer most, in a few layers. From left to right: {'; '.join(parts)}."
    figures = [
        Figure(uri(_row(look, unit, map, excited, nine)), str(unit), wide=bool(nine)) for unit, map in units
    ]
    section = Section("The strongest units", text, figures, note=note)
    if look.top is None:
        section.note = (
            f"{note + ' ' if note else ''}--images FOLDER adds the pictures of a folder that excite each "
            "unit most, with their deconvolutions; so does the folder that innervision units FOLDER "
            "has written."
        )
    return section


def _row(
    look: Look, unit: Target, map: Any, excited: dict[str, Tensor], nine: dict[str, list[Image.Image]]
) -> Image.Image:
    """Draw one unit's row."""
    import torch

    from innervision.errors import Invalid
    from innervision.see.backward import deconvnet, gradient, overlay, show

    large = torch.nn.functional.interpolate(
        torch.from_numpy(map).clamp(min=0)[None, None],
        look.image.shape[-2:],
        mode="bilinear",
        align_corners=False,
    )
    try:
        back = deconvnet(look.network, look.image, unit).map
    except Invalid:  # no rule for this network's activations
        back = gradient(look.network, look.image, unit).map
    tiles: list[Tensor | Image.Image] = [overlay(look.image, large[0]), show(back, beyond=0.001).cpu()]
    if str(unit) in excited:
        tiles.append(excited[str(unit)])
    tiles += nine.get(str(unit), [])
    return strip(tiles, _TILE)


def strip(tiles: Sequence[Tensor | Image.Image], height: int) -> Image.Image:
    """Set pictures side by side, all of one height, without a margin: the page has its own."""
    from PIL import Image

    from innervision.sheets import PAPER

    smooth = Image.Resampling.LANCZOS
    sized = [
        one.convert("RGB").resize((max(1, round(one.width * height / one.height)), height), smooth)
        for one in map(picture, tiles)
    ]
    page = Image.new("RGB", (sum(one.width for one in sized) + _GAP * (len(sized) - 1), height), PAPER)
    left = 0
    for one in sized:
        page.paste(one, (left, 0))
        left += one.width + _GAP
    return page


def _excited(look: Look, units: list[Target], told: Telling) -> tuple[dict[str, Tensor], str]:
    """Return a picture that excites each unit, or why there is none."""
    from innervision.errors import InnervisionError
    from innervision.see.excite import excite

    if _tokens(look):
        return {}, f"The layers of {look.network.name} answer tokens, for which no pictures are made here."
    h, w = look.image.shape[-2:]
    small, why = min(SIDE, max(h, w)), ""
    for size in dict.fromkeys(((small, small), (h, w))):  # a guest may take one size alone
        try:
            work = excite(look.network, units, size=size, steps=look.steps, seed=look.seed)
            for step in work:
                told.step(step.count, step.steps)
            return {str(one.unit): one.images[:1] for one in work.results()}, ""
        except (InnervisionError, RuntimeError) as error:
            why = why or str(error).splitlines()[0]
    return {}, f"No pictures could be made to excite them: {why}."


def _tokens(look: Look) -> bool:
    """Tell whether a layer's answers have to be arranged as maps: single channels are then not excited."""
    import torch

    from innervision.see.tokens import arranged

    size = (look.image.shape[-2], look.image.shape[-1])
    with torch.no_grad():
        found = look.network.features(look.image, dict.fromkeys(depths(look)))
    return any(arranged(answer, size) is not answer for answer in found.values())


def _nine(look: Look, top: TopPictures, units: list[Target], told: Telling) -> dict[str, list[Image.Image]]:
    """Return each unit's strongest patches of the pictures named, and their deconvolutions."""
    from innervision.errors import Invalid
    from innervision.see.contact import strongest

    ranked = top.rank(look.network, list(dict.fromkeys(str(unit.layer) for unit in units)), told)
    found: dict[str, list[Image.Image]] = {}
    for unit in units:
        where = (look.network, ranked, top.pictures, str(unit.layer), (unit.channel or 0,))
        try:
            (one,) = strongest(*where, deconv=True)
        except Invalid:  # no rule for this network's activations
            (one,) = strongest(*where)
        found[str(unit)] = [square(part, _TILE) for part in (one.patches, one.deconvolutions) if part]
    return found
