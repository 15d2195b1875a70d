"""The routes of all but jobs; those of the studio as a whole and of its networks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import torch
from fastapi import APIRouter, FastAPI

from innervision import __version__, machine
from innervision.studio import answers, api_looks, api_pictures, api_units, looking
from innervision.studio.desk import Desk
from innervision.studio.networks import Opened, brief
from innervision.studio.problems import told
from innervision.studio.replies import Text


def router(desk: Desk) -> APIRouter:
    """Return the routes."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        if desk.settings.threads is not None:
            torch.set_num_threads(desk.settings.threads)  # once, before any thread computes
        async with anyio.create_task_group() as group:
            if desk.settings.warm:
                group.start_soon(desk.warm)
            yield
            group.cancel_scope.cancel()

    routes = APIRouter(lifespan=life)
    _networks(routes, desk)
    for part in (api_pictures, api_looks, api_units):
        part.add(routes, desk)
    return routes


def _networks(routes: APIRouter, desk: Desk) -> None:
    @routes.get("/state", tags=["studio"])
    def state() -> answers.State:
        """Tell what there is: networks, pictures, samples, and what is computed on."""
        return answers.State(
            version=__version__,
            networks=[answers.NetworkBrief(**brief(place)) for place in desk.opened],
            pictures=[answers.PictureAnswer(**vars(entry)) for entry in desk.shelf.sent()],
            samples=[answers.PictureAnswer(**vars(entry)) for entry in desk.shelf.samples()],
            device=str(machine.choose_device(desk.settings.device)),
            threads=torch.get_num_threads(),
        )

    @routes.get("/networks/{net}", tags=["networks"], responses=told(400, 404, 409, 413, 429))
    async def network(net: Text) -> answers.NetworkAnswer:
        """Tell of a network and its layers, the first to answer first; it is opened if need be."""
        opened = await desk.opened.opened(net)
        return described(opened, desk.settings.most)


def described(opened: Opened, room: int) -> answers.NetworkAnswer:
    """Return what is told of a network that is open."""
    graph, own = opened.graph, opened.network
    largest = graph.side
    if graph.fits != "fixed":
        largest = int(graph.side * (room / max(1, 4 * graph.values)) ** 0.5)
        largest = max(looking.SIZES[0], min(looking.SIZES[1], largest))
    return answers.NetworkAnswer(
        id=opened.id,
        name=own.name,
        input_size=own.input_size,
        side=graph.side,
        fits=graph.fits,
        least=graph.least,
        largest=largest,
        parameters=sum(p.numel() for p in own.module.parameters()),
        output=graph.output,
        classes=list(own.classes),
        layers=[
            answers.LayerAnswer(
                name=node.name,
                kind=node.kind,
                shape=list(node.shape),
                parameters=node.parameters,
                field=None if node.field is None else max(node.field.size),
                stride=None if node.field is None else max(node.field.stride),
                window=None if node.field is None else answers.Window(**vars(node.field)),
                through=node.through,
                inputs=list(node.inputs),
                maps=node.maps,
            )
            for node in graph.nodes
        ],
    )
