"""The server that carries the studio: uvicorn, which lets go of who follows something before it stops."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """A server that ends its streams when it is told to stop; it would wait for them, then break them off.

    say: takes a line for who sits before it.
    """

    def __init__(
        self, app: FastAPI, config: uvicorn.Config, *, say: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(config)
        self._app, self._say = app, say or (lambda text: None)
        self._hurried = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a first Ctrl-C; at a second end by force the job that is waited for.

        uvicorn would then leave all as it is: with a trace, and a job at work that nobody follows.
        """
        jobs = getattr(self._app.state, "jobs", None)
        if not self.should_exit:
            super().handle_exit(sig, frame)
            if jobs is not None and jobs.busy:
                more = "; Ctrl-C again ends it at once" if sig == signal.SIGINT else ""
                self._say(f"stopping; the job at work keeps what it has{more}")
        elif not self._hurried:
            self._hurried = True
            self._say("stopping at once; jobs are offered again at the next start")
            if jobs is not None:
                # in a thread of its own, for what this interrupts may hold the lock that is wanted
                threading.Thread(target=jobs.hurry, daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        self._app.state.jobs.hang_up()
        self._app.state.desk.exciting.hang_up()
        await super().shutdown(sockets)
