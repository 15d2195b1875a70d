"""The routes of units: what one answers, is like and looks for, in words and pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse

from innervision.studio import answers, exciting, units
from innervision.studio.desk import Desk
from innervision.studio.exciting import Wish
from innervision.studio.looking import Key, tag
from innervision.studio.networks import Opened
from innervision.studio.problems import Refused, missing, told
from innervision.studio.replies import Asked, Channel, Known, Layer, Text, given, kept, unchanged

Preset = Literal["lucid", "lucid512", "maco", "maco256", "yosinski1", "yosinski2", "yosinski3", "yosinski4"]
What = Literal["deconvnet", "cam", "map", "top", "top-deconvnet"]


def add(routes: APIRouter, desk: Desk) -> None:
    """Add them."""
    problems = told(400, 404, 409, 413, 429)
    unit_path = "/unit/{net}/{layer}/{channel}"

    @routes.get(unit_path, tags=["units"], responses=problems)
    async def unit(net: Text, layer: Layer, channel: Channel, key: Asked = None) -> answers.UnitAnswer:
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

    async def wished(
        net: Text,
        layer: Layer,
        channel: Channel,
        size: Annotated[int | None, Query(ge=exciting.SIZES[0], le=exciting.SIZES[1])] = None,
        steps: Annotated[int, Query(ge=exciting.STEPS[0], le=exciting.STEPS[1])] = exciting.USUAL_STEPS,
        preset: Annotated[Preset, Query()] = "lucid",
        seed: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> tuple[Opened, Wish]:
        """Return the network, and the picture that is asked of its unit."""
        opened = await desk.opened.opened(net)
        units.node_of(opened.graph, layer, channel)
        side = exciting.side_for(opened.graph, size)
        return opened, Wish(opened.id, opened.stamp, layer, channel, preset, side, steps, seed)

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
    async def excite(asked: tuple[Opened, Wish] = Depends(wished)) -> Response:
        """Make a picture that excites a unit, frame by frame; what was made before comes at once."""
        opened, wish = asked
        url = f"excited?size={wish.size}&steps={wish.steps}&preset={wish.preset}&seed={wish.seed}"
        events = desk.exciting.events(opened, wish, url)
        return StreamingResponse(events, media_type="text/event-stream")

    @routes.get(
        f"{unit_path}/excited",
        tags=["units"],
        response_class=Response,
        responses={**given("image/png", "the picture"), **problems},
    )
    async def excited(asked: tuple[Opened, Wish] = Depends(wished)) -> Response:
        """Give a picture that `excite` has made."""
        opened, wish = asked
        made = desk.exciting.made(wish)
        if made is None:
            raise missing("picture made for this unit", f"{wish.layer}:{wish.channel}")
        etag = tag(opened.stamp, wish.layer, wish.channel, wish.size, wish.steps)
        return Response(made, media_type="image/png", headers=kept(etag))

    @routes.get(
        f"{unit_path}/{{what}}",
        tags=["units"],
        response_class=Response,
        responses={**given("image/png", "the picture"), **problems},
    )
    async def drawing(
        net: Text,
        layer: Layer,
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
