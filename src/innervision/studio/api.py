"""The routes of looking: pictures, networks, what layers answer, units."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import anyio
import torch
from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from innervision import __version__, machine
from innervision.studio import answers, exciting, live, looking, units
from innervision.studio.desk import Desk
from innervision.studio.exciting import Wish
from innervision.studio.looking import Key, tag
from innervision.studio.networks import Opened, brief
from innervision.studio.pictures import MOST_BYTES, MOST_SIDE, USUAL_SIDE
from innervision.studio.problems import Refused, missing, told

Text = Annotated[str, Path(max_length=200)]
Channel = Annotated[int, Path(ge=0, le=1_000_000)]
Asked = Annotated[str | None, Query(alias="key", max_length=200, description="of a look")]
Known = Annotated[str, Header(alias="If-None-Match", max_length=1000)]
Preset = Literal["lucid", "lucid512", "maco", "maco256", "yosinski1", "yosinski2", "yosinski3", "yosinski4"]
What = Literal["deconvnet", "cam", "map", "top", "top-deconvnet"]

_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def given(kind: str, text: str) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes an answer of bytes."""
    return {200: {"description": text, "content": {kind: _BYTES}}, 304: {"description": "as it was"}}


def taken(text: str) -> dict[str, Any]:
    """Return how OpenAPI describes a body of bytes."""
    return {
        "requestBody": {
            "required": True,
            "description": text,
            "content": {"application/octet-stream": _BYTES},
        }
    }


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
    _pictures(routes, desk)
    _networks(routes, desk)
    _looks(routes, desk)
    _units(routes, desk)
    return routes


def _pictures(routes: APIRouter, desk: Desk) -> None:
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

    @routes.post(
        "/pictures",
        tags=["pictures"],
        status_code=201,
        responses=told(409, 413, 415),
        openapi_extra=taken("the file: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF, told by its content"),
    )
    async def send(
        request: Request, x_name: Annotated[str, Header(max_length=2000, description="URI-encoded")] = ""
    ) -> answers.PictureAnswer:
        """Take a picture in: at most 32 MiB and 50 million pixels. The same bytes are the same picture."""
        draft = desk.shelf.draft()
        try:
            length = 0
            with draft.open("wb") as file:
                async for part in request.stream():
                    length += len(part)
                    if length > MOST_BYTES:
                        raise Refused(413, f"a picture may have {MOST_BYTES // 2**20} MiB: this one has more")
                    file.write(part)
            entry = await desk.opened.run(lambda: desk.shelf.take(draft, unquote(x_name)))
        finally:
            draft.unlink(missing_ok=True)
        return answers.PictureAnswer(**vars(entry))

    @routes.get(
        "/pictures/{id}",
        tags=["pictures"],
        response_class=Response,
        responses={**given("image/*", "JPEG, or PNG where it is small or transparent"), **told(404)},
    )
    async def picture(
        id: Text, side: Annotated[int, Query(ge=1, le=MOST_SIDE)] = USUAL_SIDE, known: Known = ""
    ) -> Response:
        """Give a picture, its longest side at most so many pixels."""
        entry = desk.shelf[id]
        etag = f'"{entry.id}-{side}"'
        if etag in known:
            return unchanged(etag)
        data, kind = await desk.opened.run(lambda: desk.shelf.shown(id, side))
        return Response(data, media_type=kind, headers=kept(etag))

    @routes.delete("/pictures/{id}", tags=["pictures"], status_code=204, responses=told(404, 409))
    def remove(id: Text) -> None:
        """Remove a picture that was sent."""
        desk.shelf.remove(id)
        desk.forget(id)


def _networks(routes: APIRouter, desk: Desk) -> None:
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


def _looks(routes: APIRouter, desk: Desk) -> None:
    looked: dict[int | str, dict[str, Any]] = {200: {"model": answers.LookAnswer}}
    problems = told(400, 404, 409, 413, 429)

    @routes.post("/look", tags=["looking"], response_class=Response, responses={**looked, **problems})
    async def look(asked: answers.LookRequest) -> Response:
        """Look at a picture through a network: one pass, of which every layer can then be asked for."""
        key = await desk.key(asked.net, asked.picture, asked.size)
        found = await desk.look(key)
        return Response(await desk.opened.run(lambda: looking.told(found)), media_type="application/json")

    @routes.get("/look/{key}", tags=["looking"], response_class=Response, responses={**looked, **problems})
    async def again(key: Text) -> Response:
        """Tell the same of a look by its key, which lasts."""
        wanted, _ = await desk.asked(key)
        found = await desk.look(wanted)
        return Response(await desk.opened.run(lambda: looking.told(found)), media_type="application/json")

    @routes.get(
        "/look/{key}/{layer}",
        tags=["looking"],
        response_class=Response,
        responses={**given("application/octet-stream", "uint8, (c, h, w) as X-Shape says"), **problems},
    )
    async def sprite(
        key: Text, layer: Text, cell: Annotated[int, Query(ge=1, le=512)] = 64, known: Known = ""
    ) -> Response:
        """Give all channels of a layer, each from its least to its greatest value as 0..255."""
        wanted, opened = await desk.asked(key)
        shown(opened, layer)
        etag = tag(opened.stamp, wanted, layer, cell)
        if etag in known:
            return unchanged(etag)
        seen = (await desk.look(wanted))[layer]
        data, shape = await desk.opened.run(lambda: looking.sprite(seen, cell))
        return numbers(data, shape, etag)

    @routes.get(
        "/look/{key}/{layer}/{channel}",
        tags=["looking"],
        response_class=Response,
        responses={**given("application/octet-stream", "float32, little-endian, h · w"), **problems},
    )
    async def plane(key: Text, layer: Text, channel: Channel, known: Known = "") -> Response:
        """Give the values of one channel."""
        wanted, opened = await desk.asked(key)
        shown(opened, layer)
        etag = tag(opened.stamp, wanted, layer, "values", channel)
        if etag in known:
            return unchanged(etag)
        seen = (await desk.look(wanted))[layer]
        data, shape = looking.plane(seen, channel)
        return numbers(data, shape, etag)

    @routes.post(
        "/live",
        tags=["looking"],
        response_class=Response,
        responses={
            **given("application/octet-stream", "a header's length, the header in JSON, uint8 maps"),
            **problems,
        },
        openapi_extra=taken("red, green and blue of each pixel, row by row: 3 · size · size bytes"),
    )
    async def frame(
        request: Request,
        net: Annotated[str, Query(max_length=200)],
        layer: Annotated[str, Query(max_length=200)],
        size: Annotated[int, Query(ge=live.SIZES[0], le=live.SIZES[1])],
        cell: Annotated[int, Query(ge=1, le=512)] = 64,
    ) -> Response:
        """Look at one frame of a camera; nothing of it is kept."""
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > live.LIMIT:
                raise Refused(413, f"a frame has {live.LIMIT} bytes at most")
        opened = await desk.opened.opened(net)
        live.check(opened.graph, layer, size, len(data))
        work = lambda: live.frame(opened, layer, size, bytes(data), cell)  # noqa: E731
        answer = await desk.opened.turn(desk.opened[net], work)
        return Response(answer, media_type="application/octet-stream")


def _units(routes: APIRouter, desk: Desk) -> None:
    problems = told(400, 404, 409, 413, 429)
    unit_path = "/unit/{net}/{layer}/{channel}"

    @routes.get(unit_path, tags=["units"], responses=problems)
    async def unit(net: Text, layer: Text, channel: Channel, key: Asked = None) -> answers.UnitAnswer:
        """Tell what is known of a unit; with the key of a look through its network, what it answers there."""
        opened = await desk.opened.opened(net)
        node = units.node_of(opened.graph, layer, channel)
        activation = None
        if key is not None:
            wanted, _ = await of(desk, key, net)
            activation = answers.Activation(**units.activation(await desk.look(wanted), node, channel))
        names = opened.network.classes if layer == opened.graph.output else ()
        index = await desk.index(opened)
        field = node.field
        return answers.UnitAnswer(
            net=net,
            layer=layer,
            channel=channel,
            channels=node.shape[0],
            kind=node.kind,
            label=names[channel] if channel < len(names) else None,
            activation=activation,
            field=None if field is None else max(field.size),
            window=None if field is None else answers.Window(**vars(field)),
            neighbours=[answers.Neighbour(**one) for one in await desk.neighbours(opened, layer, channel)],
            index=index is not None and layer in index.found.layers,
            history=units.history(desk.opened[net].folder),
        )

    @routes.get(
        f"{unit_path}/excite",
        tags=["units"],
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "events: frame {step, of, image}, done {url}, failed {detail}",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            **problems,
        },
    )
    async def excite(
        net: Text,
        layer: Text,
        channel: Channel,
        size: Annotated[int | None, Query(ge=exciting.SIZES[0], le=exciting.SIZES[1])] = None,
        steps: Annotated[int, Query(ge=exciting.STEPS[0], le=exciting.STEPS[1])] = exciting.USUAL_STEPS,
        preset: Annotated[Preset, Query()] = "lucid",
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> Response:
        """Make a picture that excites a unit, frame by frame; what was made before comes at once."""
        opened = await desk.opened.opened(net)
        units.node_of(opened.graph, layer, channel)
        wish = wish_of(opened, layer, channel, size, steps, preset, seed)
        url = f"excited?size={wish.size}&steps={steps}&preset={preset}&seed={seed}"
        events = desk.exciting.events(opened, wish, url)
        return StreamingResponse(events, media_type="text/event-stream")

    @routes.get(
        f"{unit_path}/excited",
        tags=["units"],
        response_class=Response,
        responses={**given("image/png", "the picture"), **problems},
    )
    async def excited(
        net: Text,
        layer: Text,
        channel: Channel,
        size: Annotated[int | None, Query(ge=exciting.SIZES[0], le=exciting.SIZES[1])] = None,
        steps: Annotated[int, Query(ge=exciting.STEPS[0], le=exciting.STEPS[1])] = exciting.USUAL_STEPS,
        preset: Annotated[Preset, Query()] = "lucid",
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> Response:
        """Give a picture that `excite` has made."""
        opened = await desk.opened.opened(net)
        units.node_of(opened.graph, layer, channel)
        made = desk.exciting.made(wish_of(opened, layer, channel, size, steps, preset, seed))
        if made is None:
            raise missing("picture made for this unit", f"{layer}:{channel}")
        return Response(
            made, media_type="image/png", headers=kept(tag(opened.stamp, layer, channel, size, steps))
        )

    @routes.get(
        f"{unit_path}/{{what}}",
        tags=["units"],
        response_class=Response,
        responses={**given("image/png", "the picture"), **problems},
    )
    async def drawing(
        net: Text,
        layer: Text,
        channel: Channel,
        what: What,
        key: Asked = None,
        epoch: Annotated[str | None, Query(max_length=20, description="of the unit's history")] = None,
        known: Known = "",
    ) -> Response:
        """Draw a unit: its deconvolution, evidence or map in a look; its top images of an index."""
        opened = await desk.opened.opened(net)
        units.node_of(opened.graph, layer, channel)
        wanted = None if key is None else (await of(desk, key, net))[0]
        etag = tag(opened.stamp, what, layer, channel, wanted, epoch)
        if etag in known and not what.startswith("top"):
            return unchanged(etag)
        data = await desk.drawing(opened, what, layer, channel, wanted, epoch)
        return Response(data, media_type="image/png", headers=kept(etag))


async def of(desk: Desk, key: str, net: str) -> tuple[Key, Opened]:
    """Return what a key means, which must be of this network."""
    wanted, opened = await desk.asked(key)
    if wanted.net != net:
        raise Refused(400, f"the key is of a look through {wanted.net}, not {net}")
    return wanted, opened


def wish_of(
    opened: Opened, layer: str, channel: int, size: int | None, steps: int, preset: str, seed: int
) -> Wish:
    side = exciting.side_for(opened.graph, size)
    return Wish(opened.id, opened.stamp, layer, channel, preset, side, steps, seed)


def shown(opened: Opened, layer: str) -> None:
    """Raise Refused for a layer that a look does not hold."""
    if layer not in opened.graph:
        raise missing("layer", layer)
    if not opened.graph[layer].maps:
        raise Refused(409, f"{layer} answers {opened.graph[layer].shape}, which are no maps")


def numbers(data: bytes, shape: tuple[int, int, int], etag: str) -> Response:
    headers = {**kept(etag), "X-Shape": ",".join(map(str, shape))}
    return Response(data, media_type="application/octet-stream", headers=headers)


def kept(etag: str) -> Mapping[str, str]:
    """Return the headers of what a browser may keep, if it asks each time whether it is still so."""
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def unchanged(etag: str) -> Response:
    return Response(status_code=304, headers=kept(etag))
