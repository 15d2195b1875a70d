"""The server that carries the studio: uvicorn, which lets go of who follows something before it stops."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A server that ends its streams when it is told to stop; it would wait for them, then break them off."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._app.state.jobs.hang_up()
        self._app.state.desk.exciting.hang_up()
        await super().shutdown(sockets)
