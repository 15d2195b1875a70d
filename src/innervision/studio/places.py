"""What jobs are told of the studio's pictures and networks: names go out, paths stay here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from innervision import samples
from innervision.studio.networks import Networks
from innervision.studio.pictures import Shelf

_OPTIONS = {"weights_file": "weights", "mean": "mean", "std": "std", "range": "range", "order": "order"}


class Here:
    """The studio's own networks and pictures, as jobs choose from them."""

    def __init__(self, networks: Networks, pictures: Shelf) -> None:
        self._networks, self._pictures = networks, pictures

    def networks(self) -> Sequence[str]:
        """Return the networks' ids."""
        return [place.id for place in self._networks]

    def network(self, name: str) -> Mapping[str, str]:
        """Return the options that name a network to a command: net, weights, mean …"""
        opening = self._networks[name].opening
        more = {_OPTIONS[key]: _typed(value) for key, value in opening.options.items() if value is not None}
        if opening.classes_file is not None:
            more["classes"] = str(opening.classes_file)
        return {"net": opening.name, **more}

    def picture(self, id: str) -> Path:
        """Return a picture's file; Refused where there is none."""
        source = self._pictures.source(id)
        name = source.removeprefix("sample:")
        return samples.path(name) if name != source else Path(source)

    def called(self, id: str) -> str:
        """Return a picture's name."""
        return self._pictures[id].name


def _typed(value: Any) -> str:
    """Return an option's value as it is typed."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
