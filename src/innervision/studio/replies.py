"""What routes take and give, and how OpenAPI describes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import Header, Path, Query, Response
from pydantic import AfterValidator

Text = Annotated[str, Path(max_length=200)]
Layer = Annotated[
    str,
    Path(max_length=400, description="a layer's name, its / written as %2F and its % as %25"),
    AfterValidator(unquote),
]
"""Escaped once more than an address escapes it: servers read %2F as /, by which an address is divided."""
Channel = Annotated[int, Path(ge=0, le=1_000_000)]
Asked = Annotated[str | None, Query(alias="key", max_length=200, description="of a look")]
Known = Annotated[str, Header(alias="If-None-Match", max_length=1000)]
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


def numbers(data: bytes, shape: tuple[int, int, int], etag: str) -> Response:
    headers = {**kept(etag), "X-Shape": ",".join(map(str, shape))}
    return Response(data, media_type="application/octet-stream", headers=headers)


def kept(etag: str) -> Mapping[str, str]:
    """Return the headers of what a browser may keep, if it asks each time whether it is still so."""
    return {"ETag": etag, "Cache-Control": "private, no-cache"}


def unchanged(etag: str) -> Response:
    return Response(status_code=304, headers=kept(etag))
