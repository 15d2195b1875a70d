"""The curves of `innervision attribute --curves`: how well each map foretells what the network looks at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from innervision.see.curves import Curves


def beside(place: str) -> tuple[Path, Path]:
    """Return where the chart and the numbers go: beside the picture of the maps."""
    path = Path(place)
    return path.with_name(f"{path.stem}-curves.png"), path.with_name(f"{path.stem}-curves.json")


def write(place: str, found: Mapping[str, Curves], chance: Curves, *, title: str) -> list[str]:
    """Write chart and numbers of methods' curves; return their paths."""
    from innervision import images
    from innervision.files import atomic
    from innervision.see.curves import chart

    picture, numbers = beside(place)
    images.write(chart(found, title=title, by_chance=chance), picture)
    told = {name: each.numbers() for name, each in (*found.items(), ("chance", chance))}
    with atomic(numbers) as draft:
        draft.write_text(json.dumps({"target": title, "curves": told}, indent=2) + "\n", encoding="utf-8")
    return [str(picture), str(numbers)]


def said(mine: Curves, chance: Curves) -> str:
    """Return what a person wants to know of a method's curves."""
    return (
        f"insertion {mine.insertion.area:.3f} (chance {chance.insertion.area:.3f}, more is better), "
        f"deletion {mine.deletion.area:.3f} (chance {chance.deletion.area:.3f}, less is better)"
    )
