"""The networks that the studio offers: opened when they are first asked for, looked through in turn."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import torch

from innervision import machine, models, nets, network, weights
from innervision.errors import InnervisionError
from innervision.network import Network
from innervision.studio.graph import Graph, graph_of
from innervision.studio.problems import Refused, as_refused, missing
from innervision.studio.settings import Opening, Settings

T = TypeVar("T")

USUAL = ("vgg19", "efficientnet_lite0", "cifar10-fast", "lenet5-mnist")
"""Offered where no other is named; those of them that are at hand."""

MOST_WAITING = 200  # requests for a network; more are told to come back
_MOST_RUNS = 4  # networks of runs held open


@dataclass(frozen=True, eq=False)
class Opened:
    """A network that is open: frozen, on its device, with its graph."""

    id: str
    network: Network
    graph: Graph
    stamp: str
    """Another each time that it is opened, for its weights may have changed."""


@dataclass(eq=False)
class Place:
    """A network's place in the list, open or not."""

    id: str
    opening: Opening
    source: str
    folder: Path | None = None  # of a run, whose weights may change
    opened: Opened | None = None
    changed: float = 0.0  # when the folder's weights were written, as far as they are open
    waiting: int = 0
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class Networks:
    """Networks by id. What computes takes a turn at its network, in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._device = settings.device
        self._threads = settings.threads or torch.get_num_threads()
        named = settings.networks or tuple(Opening(name=name) for name in USUAL if _at_hand(name))
        self._places: dict[str, Place] = {}
        self._runs: dict[str, Place] = {}
        for opening in named:
            id = _unused(_slug(opening.name), self._places)
            self._places[id] = Place(id, opening, _source(opening.name))
        self._limiter: anyio.CapacityLimiter | None = None

    def __getitem__(self, id: str) -> Place:
        found = self._places.get(id) or self._of_runs().get(id)
        if found is None:
            raise missing("network", id)
        return found

    def __iter__(self) -> Iterator[Place]:
        yield from self._places.values()
        yield from self._of_runs().values()

    async def opened(self, id: str) -> Opened:
        """Return a network, opening it first where it is not yet."""
        place = self[id]
        if _current(place) is None:
            await self.turn(place, lambda: None)
        found = place.opened
        if found is None:  # given up meanwhile, for others
            return await self.opened(id)
        return found

    async def turn(self, place: Place, work: Callable[[], T]) -> T:
        """Do work in a thread while nobody else looks through this network, which is opened first.

        What a guest's module raises is told as a problem of the request.
        """
        if place.waiting >= MOST_WAITING:
            raise Refused(
                429, f"{place.waiting} requests wait for {place.opening.name} already: try again soon"
            )
        place.waiting += 1
        try:
            async with place.lock:
                return await self.run(lambda: self._do(place, work))
        finally:
            place.waiting -= 1

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in one of the threads that compute."""
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(4)

        def working() -> T:
            # a thread that is new takes its number from whoever has set it last, a small look's 1 it may be
            with machine.threads(self._threads):
                return work()

        return await anyio.to_thread.run_sync(working, limiter=self._limiter)

    def _do(self, place: Place, work: Callable[[], T]) -> T:
        if _current(place) is None:
            place.opened = self._open(place)
            self._spare(place)
        try:
            return work()
        except (Exception, SystemExit) as error:  # whatever a guest's module raises
            raise as_refused(error, f"{place.opening.name} fails") from error

    def _open(self, place: Place) -> Opened:
        opening = place.opening
        try:
            if place.folder is not None:
                place.changed = _written(place.folder)
            found = network.load(opening.name, **opening.options)
            if opening.classes:
                found.classes = opening.classes
            found = found.to(machine.choose_device(self._device)).frozen()
            return Opened(place.id, found, graph_of(found), secrets.token_hex(4))
        except InnervisionError as error:
            raise Refused(409, f"{opening.name} cannot be opened: {error}") from error
        except (Exception, SystemExit) as error:
            raise as_refused(error, f"{opening.name} cannot be opened") from error

    def _spare(self, latest: Place) -> None:
        """Let go of the networks of runs that were opened first."""
        held = [place for place in self._runs.values() if place.opened is not None and place is not latest]
        for place in held[: max(0, len(held) - _MOST_RUNS + 1)]:
            place.opened = None

    def _of_runs(self) -> dict[str, Place]:
        """Return the places of the networks that runs have trained, as the folder has them now."""
        now: dict[str, Place] = {}
        for card in sorted(self.settings.runs.glob(f"*/{models.CARD}")):
            folder = card.parent
            id = _unused(f"run-{_slug(folder.name)}", {**self._places, **now})
            before = self._runs.get(id)
            if before is not None and before.folder == folder:
                now[id] = before
            else:
                now[id] = Place(id, Opening(name=str(folder)), f"run {folder.name}", folder)
        self._runs = now
        return now


def _current(place: Place) -> Opened | None:
    """Return a place's network where it is open, and as it lies on the disk now."""
    if place.folder is not None and place.opened is not None and _written(place.folder) != place.changed:
        place.opened = None
    return place.opened


def _written(folder: Path) -> float:
    try:
        return (folder / models.WEIGHTS).stat().st_mtime
    except OSError:
        return 0.0


def brief(place: Place) -> dict[str, Any]:
    """Return what the list of networks says of one, whether it is open or not."""
    classes, size = 0, None
    name = place.opening.name
    if place.opened is not None:
        classes, size = len(place.opened.network.classes), place.opened.network.input_size
        shape = place.opened.graph.answers
        classes = classes or (shape[0] if len(shape) == 1 else 0)
    elif name in nets.NETS:
        size = nets.NETS[name].input_size
    else:
        card = _card(name)
        if card is not None:
            classes, size = len(card.classes), card.input_size
    shown = place.folder.name if place.folder is not None else _shown(name)
    return {
        "id": place.id,
        "name": shown,
        "ready": place.opened is not None,
        "classes": classes or len(place.opening.classes),
        "input_size": size,
        "source": place.source,
    }


def _card(name: str) -> models.ModelCard | None:
    try:
        folder = models.find(name)
        return None if folder is None else models.read_card(folder)
    except InnervisionError:
        return None


def _at_hand(name: str) -> bool:
    """Tell whether a network of the house, or a trained one that comes with it, can be opened here."""
    if name not in nets.NETS:
        return name in models.shipped()
    card = weights.default(name)
    try:
        return card is not None and bool(weights.locate(card))
    except InnervisionError:
        return False


def _source(name: str) -> str:
    if name in nets.NETS or name in models.shipped():
        return "innervision"
    return "guest" if ".py:" in name else "folder"


def _shown(name: str) -> str:
    """Return a network's name without the folders before it."""
    file, colon, function = name.partition(".py:")
    return f"{Path(file).name}.py:{function}" if colon else Path(name).name


def _slug(name: str) -> str:
    shown = _shown(name).removesuffix(f"/{models.CARD}")
    return re.sub(r"[^a-z0-9_.]+", "-", shown.lower())[:60].strip("-.") or "network"


def _unused(id: str, taken: dict[str, Place]) -> str:
    number, found = 2, id
    while found in taken:
        found, number = f"{id}-{number}", number + 1
    return found
