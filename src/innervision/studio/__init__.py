"""The studio: a local web application to look into networks, train them and paint with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innervision.studio.settings import Opening, Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["Opening", "Settings", "create_app"]


def create_app(settings: Settings) -> FastAPI:
    """Return the studio as an ASGI application. Needs the extra: pip install 'innervision[studio]'."""
    from innervision.studio import app  # FastAPI is an extra: only where it is wanted

    return app.create_app(settings)
