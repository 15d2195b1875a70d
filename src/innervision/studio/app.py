"""The studio as an ASGI application: its parts put together."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response

from innervision import __version__
from innervision.studio import problems, security
from innervision.studio.settings import Settings

ABOUT = """\
What `innervision studio` asks its own server: networks and pictures, what layers answer, units, jobs.

Ids are made by the server; a request that changes something needs the header `X-Innervision: 1`.
"""

UNBUILT = """\
<!doctype html><html lang="en"><meta charset="utf-8"><title>innervision studio</title>
<h1>The pages are not built yet</h1>
<p>The server works: its API is described at <a href="/api/openapi.json">/api/openapi.json</a>.</p>
<p>In a clone, <code>make studio</code> builds the pages and starts it again; that needs Node 20 or later
with npm. A wheel has them built in.</p></html>
"""


class Lifespan(TypedDict):
    """Nothing is kept here; the parts hold their own."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; nothing is opened or computed before it is asked for."""
    security.check(settings)
    closing = contextlib.AsyncExitStack()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with closing:
            yield

    app = FastAPI(
        title="innervision studio",
        description=ABOUT,
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        responses=problems.ALWAYS,
        lifespan=lifespan,
    )
    problems.install(app)
    app.state.settings = settings
    for router in _routers(settings):
        app.include_router(router, prefix="/api")
    _pages(app, settings.static)
    app.add_middleware(security.Guard, settings=settings)
    return app


def _routers(settings: Settings) -> list[APIRouter]:
    found: list[APIRouter] = []
    if importlib.util.find_spec("innervision.studio.jobs") is not None:
        jobs = importlib.import_module("innervision.studio.jobs")
        found.append(jobs.router(settings))
    return found


def _pages(app: FastAPI, static: Path) -> None:
    """Give the built front end: its page at /, and its files, whose names change with what they hold."""

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        index = static / "index.html"
        if not index.is_file():
            return HTMLResponse(UNBUILT)
        return FileResponse(index, headers={"Cache-Control": "no-cache"})

    @app.get("/{file:path}", include_in_schema=False)
    async def given(file: str) -> Response:
        found = _within(static, file)
        if found is None:
            raise problems.Refused(404, "nothing is at this address: the studio's page is at /")
        lasting = file.startswith("assets/")
        kept = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return FileResponse(found, headers={"Cache-Control": kept})


def _within(folder: Path, name: str) -> Path | None:
    """Return the file of this name if it lies in the folder, however the name is written."""
    try:
        path = (folder / name).resolve(strict=True)
    except (OSError, ValueError):
        return None
    return path if path.is_file() and path.is_relative_to(folder.resolve()) else None
