"""The routes of pictures: sent, shown, removed."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Header, Query, Request, Response

from innervision.studio.answers import PictureAnswer
from innervision.studio.desk import Desk
from innervision.studio.pictures import MOST_BYTES, MOST_SIDE, USUAL_SIDE
from innervision.studio.problems import Refused, told
from innervision.studio.replies import Known, Text, given, kept, taken, unchanged


def add(routes: APIRouter, desk: Desk) -> None:
    """Add them."""

    @routes.post(
        "/pictures",
        tags=["pictures"],
        status_code=201,
        responses=told(409, 413, 415),
        openapi_extra=taken("the file: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF, told by its content"),
    )
    async def send(
        request: Request, x_name: Annotated[str, Header(max_length=2000, description="URI-encoded")] = ""
    ) -> PictureAnswer:
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
        return PictureAnswer(**vars(entry))

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
