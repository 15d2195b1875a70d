"""The data sets that a page can name: the published ones, and a user's own folders beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from innervision import store
from innervision.learn.sets import SETS, at_hand

_NAME = re.compile(r"[\w][\w .-]{0,79}")


@dataclass(frozen=True)
class Place:
    """A data set: what learning calls it, its folder, where it is on this machine, else what is fetched."""

    source: str
    folder: Path | None
    fetched: int = 0  # bytes


def known() -> dict[str, Place]:
    """Return name -> place: the published sets, then the folders and archives put into HOME/data.

    HOME is `$INNERVISION_HOME`, else the cache folder; paths come from there and never from a page.
    """
    found = {
        name: Place(name, card.folder)
        if at_hand(card)
        else Place(name, None, sum(file.size for file in card.files))
        for name, card in SETS.items()
    }
    home = store.home() / "data"
    if home.is_dir():
        for path in sorted(home.iterdir()):
            if path.name not in found and _NAME.fullmatch(path.name) and path.is_dir():
                found[path.name] = Place(str(path), path)
    return found
