"""The routes of looking: what all layers answer to a picture, a layer, a channel, a camera's frame."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from innervision.studio import answers, live, looking
from innervision.studio.desk import Desk
from innervision.studio.looking import tag
from innervision.studio.networks import Opened
from innervision.studio.packed import packed
from innervision.studio.problems import Refused, missing, told
from innervision.studio.replies import Channel, Known, Layer, Text, given, numbers, taken, unchanged

PACKED = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def add(routes: APIRouter, desk: Desk) -> None:
    """Add them."""
    looked: dict[int | str, dict[str, Any]] = {200: {"model": answers.LookAnswer}}
    problems = told(400, 404, 409, 413, 429)

    @routes.post(
        "/look",
        tags=["looking"],
        response_class=Response,
        responses={200: {**looked[200], "content": PACKED}, **problems},
    )
    async def look(asked: answers.LookRequest) -> Response:
        """Look at a picture through a network: one pass, of which every layer can then be asked for.

        With `sprites` the answer is bytes: a header's length (4, little-endian); the header, which is the
        JSON without `lo`, `hi` and `mean`; these, float32, layer by layer; the sprites in the layers' order,
        of those that say [height, width] as `sprite`.
        """
        key = await desk.key(asked.net, asked.picture, asked.size)
        if asked.sprites is not None:
            opened = await desk.opened.opened(asked.net)
            names, cell = asked.sprites, asked.cell
            for name in names:
                shown(opened, name)
            found = await desk.look(key)
            data = await desk.opened.run(lambda: packed(found, names, cell))
            return Response(data, media_type="application/octet-stream")
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
        key: Text, layer: Layer, cell: Annotated[int, Query(ge=1, le=512)] = 64, known: Known = ""
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
    async def plane(key: Text, layer: Layer, channel: Channel, known: Known = "") -> Response:
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


def shown(opened: Opened, layer: str) -> None:
    """Raise Refused for a layer that a look does not hold."""
    if layer not in opened.graph:
        raise missing("layer", layer)
    if not opened.graph[layer].maps:
        raise Refused(409, f"{layer} answers {opened.graph[layer].shape}, which are no maps")
