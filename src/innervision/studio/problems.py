"""What a client is told when its request cannot be met: one sentence, and a status that begins with 4."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from innervision.errors import (
    ImageTooLarge,
    InnervisionError,
    NotAnImage,
    OutOfMemory,
    WeightsMissing,
    out_of_memory,
)

_STATUS: tuple[tuple[type[InnervisionError], int], ...] = (
    (NotAnImage, 415),
    (ImageTooLarge, 413),
    (OutOfMemory, 413),
    (WeightsMissing, 409),
)  # every other InnervisionError: 400


class Problem(BaseModel):
    """Why a request was not met."""

    detail: str


class Refused(Exception):
    """A request that is not met: its status and its sentence."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def missing(what: str, name: object) -> Refused:
    """Return the answer to an id that is not known."""
    shown = f"{name}"
    return Refused(404, f"no {what} {shown[:80]!r} here: it was removed, or its id is mistyped")


def told(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return how OpenAPI describes problems with these statuses; those of `ALWAYS` go without saying."""
    return {code: {"model": Problem, "description": _MEANING[code]} for code in codes}


_MEANING = {
    400: "a value that is not allowed",
    401: "the token is missing or wrong",
    403: "the request comes from another page, or under another name",
    404: "no such network, layer, picture or answer",
    405: "another method is wanted",
    409: "it cannot be done as things stand",
    411: "the length of what is sent must be known",
    413: "too many bytes or pixels",
    415: "not a picture that can be read",
    422: "a value that is missing or cannot be read",
    429: "too much is waiting already",
}
ALWAYS = told(401, 403, 422)


def install(app: FastAPI) -> None:
    """Answer errors in one sentence."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return said(error.status, error.detail)

    @app.exception_handler(InnervisionError)
    async def ours(_: Request, error: InnervisionError) -> JSONResponse:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
        return said(status, " ".join(str(error).split()))

    @app.exception_handler(RequestValidationError)
    async def unread(_: Request, error: RequestValidationError) -> JSONResponse:
        return said(422, _sentence(error))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        detail = str(error.detail)
        if error.status_code == 404 and detail == "Not Found":
            detail = "nothing is at this address: /api/openapi.json lists what is"
        elif error.status_code == 405:
            detail = f"{request.method} does not go with this address"
        answer = said(error.status_code, detail)
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(MemoryError)
    async def full(_: Request, error: MemoryError) -> JSONResponse:
        return said(413, "out of memory: choose a smaller size, or free some")


def said(status: int, detail: str) -> JSONResponse:
    """Return a problem as it goes to the client."""
    return JSONResponse({"detail": detail}, status)


def _sentence(error: RequestValidationError) -> str:
    """Say what is wrong with the first value that is."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()) if part not in ("body", "query", "path"))
    text = str(first.get("msg", "it cannot be read"))
    return f"{where}: {text}" if where else text


def as_refused(error: BaseException, what: str) -> Exception:
    """Return a guest's failure as something that can be told; out of memory as that."""
    if isinstance(error, InnervisionError | Refused):
        return error
    if out_of_memory(error):
        return OutOfMemory("out of memory: choose a smaller size, or free some")
    return Refused(400, f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
