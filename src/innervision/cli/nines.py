"""The pictures that excite a unit most, beside what else is shown of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from PIL import Image

    from innervision.network import Network
    from innervision.see.pictures import Pictures
    from innervision.see.units import TopImages

_ROW, _GAP = 3, 4  # of patches in a square: in a row, and pixels between


@dataclass(frozen=True, eq=False)
class TopPictures:
    """Pictures of which a unit's strongest are shown, and perhaps an index of them that is there already."""

    pictures: Pictures
    index: Path | None = None
    found: TopImages | None = None

    @classmethod
    def open(cls, path: Path, network: Network) -> TopPictures:
        """Open a folder or data set, or what `innervision units` wrote: its folder, or the index in it."""
        from innervision.errors import RunUnusable
        from innervision.see.pictures import open_pictures
        from innervision.see.units import TopImages

        index = path if path.suffix == ".safetensors" else path / "index.safetensors"
        if not index.is_file():
            side = None if network.input_size in (None, 224) else network.input_size
            return cls(open_pictures((path,), size=side))
        found = TopImages.load(index)
        try:
            card = json.loads((index.parent / "run.json").read_text(encoding="utf-8"))
            (source,) = (Path(one["source"]) for one in card["inputs"] if one["role"] == "data")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunUnusable(
                f"'{index}' has no run.json beside it that says of which pictures it is: "
                "name their folder instead"
            ) from error
        return cls(open_pictures((source,), size=found.key["size"][0]), index, found)

    def rank(self, network: Network, layers: Sequence[str], told: Telling) -> TopImages:
        """Return the layers' strongest pictures: of the index, gone on with if need be, or of one pass."""
        import torch

        from innervision.machine import choose_precision
        from innervision.see.units import top_images

        key = {} if self.found is None else dict(self.found.key)
        kind = key.get("precision")
        dtype = getattr(torch, kind) if kind else choose_precision("auto", network.device)
        looks = top_images(
            network if dtype == network.dtype else network.frozen(dtype),
            self.pictures,
            key.get("layers", layers),
            k=key.get("k", _ROW**2),
            batch_size=key.get("batch_size"),
            index=self.index,
        )
        ranked: TopImages | None = None
        for ranked in looks:
            told.step(ranked.done, ranked.of, "pictures for the strongest units")
        assert ranked is not None  # a pass over no pictures is refused
        return ranked


def square(patches: Sequence[Image.Image], tile: int) -> Image.Image:
    """Set up to nine patches in a square, each within its ninth; few pixels stay squares."""
    from PIL import Image

    from innervision.images import fit
    from innervision.sheets import PAPER

    side = (tile - (_ROW - 1) * _GAP) // _ROW
    page = Image.new("RGB", (tile, tile), PAPER)
    for number, patch in enumerate(patches[: _ROW**2]):
        height, width = fit(patch.height, patch.width, longest=side)
        how = Image.Resampling.NEAREST if width >= 4 * patch.width else Image.Resampling.BICUBIC
        left, top = (place * (side + _GAP) for place in (number % _ROW, number // _ROW))
        at = left + (side - width) // 2, top + (side - height) // 2
        page.paste(patch.resize((width, height), how), at)
    return page
