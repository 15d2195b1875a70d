"""The studio as an ASGI application: its parts put together."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response

from innervision import __version__
from innervision.studio import api, jobs, problems, security
from innervision.studio.desk import Desk
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


def create_app(settings: Settings) -> FastAPI:
    """Return the application; nothing is opened or computed before it is asked for."""
    security.check(settings)
    app = FastAPI(
        title="innervision studio",
        description=ABOUT,
        version=__version__,
        openapi_url="/api/openapi.json",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        responses=problems.ALWAYS,
    )
    problems.install(app)
    app.state.desk = desk = Desk(settings)
    app.include_router(api.router(desk), prefix="/api")
    app.include_router(jobs.router(settings, desk.opened, desk.shelf), prefix="/api")
    _pages(app, settings.static)
    app.add_middleware(security.Guard, settings=settings)
    return app


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
