"""What excites a unit, made while someone watches: a frame a step, and the picture in the end."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import torch
from PIL import Image
from torch import Tensor

from innervision import images
from innervision.see.excite import Excitation, Step, excite
from innervision.see.target import Target
from innervision.studio.cache import Cache
from innervision.studio.graph import Graph
from innervision.studio.networks import Networks, Opened
from innervision.studio.units import png

SIZES, STEPS = (16, 384), (1, 1024)
USUAL_SIDE, USUAL_STEPS = 112, 96
_AT_WORK = 2  # at once; others wait, and are told so
_APART = 0.1  # seconds between frames, at least


@dataclass(frozen=True)
class Wish:
    """What is to be made."""

    net: str
    stamp: str
    layer: str
    channel: int
    preset: str
    size: int
    steps: int
    seed: int


def side_for(graph: Graph, size: int | None) -> int:
    """Return the side at which a unit is excited: what is asked for, or what its network takes."""
    if graph.fits == "fixed":
        return graph.side
    return size or min(USUAL_SIDE, graph.side)


class Exciting:
    """Excites units, step by step, in turn with whoever else looks through the network."""

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._made: Cache[Wish, bytes] = Cache(32 * 2**20)
        self._closing = False
        self._at_work = anyio.Semaphore(_AT_WORK)

    def hang_up(self) -> None:
        """End the streams: the server stops."""
        self._closing = True

    def made(self, wish: Wish) -> bytes | None:
        """Return the picture, as PNG, where it has been made."""
        return self._made.get(wish)

    async def events(self, opened: Opened, wish: Wish, url: str) -> AsyncIterator[bytes]:
        """Yield server-sent events: `frame` {step, of, image}, and `done` {url} or `failed` {detail}."""
        if self.made(wish) is None:
            yield b": one moment\n\n"
            while not self._begun():
                if self._closing:
                    return
                yield b": others are at work\n\n"
                await anyio.sleep(0.5)
            try:
                async for event in self._work(opened, wish):
                    yield event
            except Exception as error:
                yield _event("failed", {"detail": " ".join(str(error).split())})
                return
            finally:
                self._at_work.release()
        if self.made(wish) is not None:
            yield _event("done", {"url": url})

    def _begun(self) -> bool:
        try:
            self._at_work.acquire_nowait()
        except anyio.WouldBlock:
            return False
        return True

    async def _work(self, opened: Opened, wish: Wish) -> AsyncIterator[bytes]:
        place = self.networks[wish.net]
        last = 0.0

        def begin() -> Excitation:
            target = Target(wish.layer, wish.channel)
            return excite(
                opened.network, target, preset=wish.preset, size=wish.size, steps=wish.steps, seed=wish.seed
            )

        work = await self.networks.turn(place, begin)
        step: Step | None = None
        while True:
            now = await self.networks.turn(place, lambda: next(work, None))
            if self._closing:
                return
            if now is None:
                break
            step = now
            if time.monotonic() - last >= _APART or step.count in (1, step.steps):
                last = time.monotonic()
                yield _event("frame", await self.networks.run(partial(_shown, step)))
        if step is not None:
            picture = await self.networks.turn(place, lambda: png(drawn(work.so_far()[0].images)))
            self._made.put(wish, picture, len(picture))


def drawn(image: Tensor) -> Image.Image:
    """Return the first of some images as a picture."""
    return Image.fromarray(images.to_bytes(image[:1].detach().float().clamp(0, 1)))


def _shown(step: Step) -> dict[str, Any]:
    buffer = io.BytesIO()
    with torch.no_grad():
        drawn(step.frame.image).save(buffer, "JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return {"step": step.count, "of": step.steps, "image": f"data:image/jpeg;base64,{data}"}


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, allow_nan=False)}\n\n".encode()
