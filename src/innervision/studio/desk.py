"""What the routes share: pictures, networks, and what has been made of them lately."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor

from innervision.errors import InnervisionError
from innervision.see.target import Target
from innervision.studio import looking, units
from innervision.studio.cache import Cache
from innervision.studio.exciting import Exciting
from innervision.studio.looking import Key, Look
from innervision.studio.networks import Networks, Opened
from innervision.studio.pictures import Shelf
from innervision.studio.problems import Refused
from innervision.studio.settings import Settings

_MOST_LOOKS = 64  # kept: small ones count as if they were larger, so that memory is level soon


class Desk:
    """One studio's things."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.shelf = Shelf(settings.own / "pictures")
        self.opened = Networks(settings)
        self.exciting = Exciting(self.opened)
        self._looks: Cache[str, Look] = Cache(settings.cache)
        self._rows: Cache[tuple[str, str], Tensor] = Cache(32 * 2**20)
        self._drawn: Cache[tuple[object, ...], bytes] = Cache(32 * 2**20)
        self._indices: Cache[tuple[object, ...], tuple[units.Index | None]] = Cache(8)

    async def warm(self) -> None:
        """Open the first network; what is wrong with it is told to who asks for it."""
        with contextlib.suppress(Refused, InnervisionError):
            for place in self.opened:
                await self.opened.opened(place.id)
                break

    @property
    def kept(self) -> int:
        """Bytes of layers' answers that are kept."""
        return self._looks.size

    # What is looked at

    def forget(self, picture: str) -> None:
        """Let go of what was made of a picture that is no more."""
        self._looks.drop(lambda key: Key.read(key).picture == picture)

    async def key(self, net: str, picture: str, size: int | None) -> Key:
        """Return the key of a look. Raises Refused for a network or picture that is not here."""
        opened = await self.opened.opened(net)
        return Key(net, self.shelf[picture].id, looking.size_for(opened.graph, size))

    async def asked(self, text: str) -> tuple[Key, Opened]:
        """Return what a key means. Raises Refused where its network or picture is not here."""
        key = Key.read(text)
        self.shelf[key.picture]
        opened = await self.opened.opened(key.net)
        if looking.size_for(opened.graph, key.size) != key.size:
            raise Refused(404, f"no such answer here: {key.net} looks at {opened.graph.side} px only")
        return key, opened

    async def look(self, key: Key) -> Look:
        """Return what all layers answer: as it was kept, or of a pass made now."""
        opened = await self.opened.opened(key.net)
        found = self._kept(key, opened)
        if found is not None:
            return found
        picture = await self.opened.run(lambda: self.shelf.read(key.picture))
        place = self.opened[key.net]

        def work() -> Look:
            now = place.opened or opened
            size = looking.seen_at(now.graph, picture.height, picture.width, key.size)
            found = self._kept(key, now)  # another may have asked for the same
            if found is None:
                self._looks.make_room(looking.bytes_for(now.graph, size))
                found = looking.look(now, key, picture, self.settings.most)
                self._looks.put(str(key), found, max(found.size, self._looks.room // _MOST_LOOKS))
            return found

        return await self.opened.turn(place, work)

    def _kept(self, key: Key, opened: Opened) -> Look | None:
        found = self._looks.get(str(key))
        return found if found is not None and found.stamp == opened.stamp else None

    # Units

    async def neighbours(self, opened: Opened, layer: str, channel: int) -> list[dict[str, Any]]:
        """Return the units of a layer that are most alike."""
        rows = self._rows.get((opened.stamp, layer))
        if rows is None:
            photographs = [
                await self.opened.run(lambda id=id: self.shelf.read(id)) for id in units.photographs()
            ]
            work = lambda: units.alike(opened, layer, photographs)  # noqa: E731
            rows = await self.opened.turn(self.opened[opened.id], work)
            self._rows.put((opened.stamp, layer), rows, 4 * rows.numel())
        return units.neighbours(rows, channel)

    async def index(self, opened: Opened) -> units.Index | None:
        """Return the index of top images that is of this network, if there is one."""
        files = tuple(
            (path.parent.name, path.stat().st_mtime)
            for path in sorted(self.settings.runs.glob("*/index.safetensors"))
        )
        if not files:
            return None
        kept = self._indices.get((opened.stamp, files))
        if kept is None:
            work = lambda: units.index_of(self.settings.runs, opened)  # noqa: E731
            kept = (await self.opened.turn(self.opened[opened.id], work),)
            self._indices.put((opened.stamp, files), kept, 1)
        return kept[0]

    async def drawing(
        self, opened: Opened, what: str, layer: str, channel: int, key: Key | None, epoch: str | None
    ) -> bytes:
        """Return a picture of a unit, as PNG."""
        name = (opened.stamp, what, layer, channel, str(key), epoch)
        found = self._drawn.get(name)
        if found is None:
            place = self.opened[opened.id]
            work = await self._work(opened, what, Target(layer, channel), key, epoch)
            found = await self.opened.turn(place, lambda: units.png(work()))
            self._drawn.put(name, found, len(found))
        return found

    async def _work(
        self, opened: Opened, what: str, unit: Target, key: Key | None, epoch: str | None
    ) -> Callable[[], Image.Image]:
        layer, channel = str(unit.layer), unit.channel or 0
        if what.startswith("top"):
            index = await self.index(opened)
            if index is None or layer not in index.found.layers:
                raise Refused(404, f"no index of top images of {layer} here: `innervision units` makes one")
            return lambda: index.sheet(opened.network, layer, channel, deconv=what != "top")
        if key is None:
            raise Refused(400, f"{what} is of a picture: give the key of a look (?key=…)")
        picture = await self.opened.run(lambda: self.shelf.read(key.picture))
        folder = self.opened[opened.id].folder

        def work() -> Image.Image:
            network = opened.network if epoch is None else units.at_epoch(folder, epoch)
            image, _ = units.view_of(opened, picture, key.size)
            return units.DRAWN[what](network, image, unit)

        return work
