"""A studio that runs, and a real Chromium to look at it; both where they are at hand."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import socket
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from PIL import Image, ImageDraw

from innervision.studio import Opening, Settings, create_app

ROOT = Path(__file__).parents[2]
STATIC = ROOT / "src/innervision/studio/static/index.html"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")
SOON = 30_000  # ms that a page may take for anything, on a machine that is swamped
LATE = 60  # s that a server may take
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")

GUEST = '''
"""A small network of two branches and a shortcut; its weights are drawn from a seed."""
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 5, padding=2)
        self.bend = nn.ReLU()
    def forward(self, x):
        return self.bend(self.left(x) + self.right(x) + x)

class Guest(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.act, self.pool = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.block, self.mean, self.fc = Block(), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 4)
    def forward(self, x):
        x = self.block(self.pool(self.act(self.stem(x))))
        return self.fc(self.mean(x).flatten(1))

def build():
    torch.manual_seed(0)
    return Guest()
'''


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network of one's own, as --net takes it."""
    file = tmp_path_factory.mktemp("guest") / "guest.py"
    file.write_text(textwrap.dedent(GUEST))
    return f"{file}:build"


Serve = Callable[[Settings], contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="session")
def serve() -> Serve:
    """Serves a studio in a thread, by uvicorn; yields a client of it, whose `app` is the application."""

    @contextlib.contextmanager
    def serving(settings: Settings) -> Iterator[Any]:
        listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the command has it
        port = listening.getsockname()[1]
        app = create_app(dataclasses.replace(settings, port=port))
        config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server ended before it began"
                time.sleep(0.01)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LATE) as client:
                client.app = app  # pyright: ignore[reportAttributeAccessIssue]
                yield client
        finally:
            server.should_exit = True
            thread.join(LATE)
            listening.close()
            assert not thread.is_alive()

    return serving


@pytest.fixture(scope="module")
def address(guest: str, serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a studio of the guest alone, with a small set of squares and discs to learn from."""
    if not STATIC.is_file():
        pytest.skip("the studio's pages are not built: make studio")
    home = tmp_path_factory.mktemp("home")
    for number in range(40):
        for kind in ("disc", "square"):
            picture = Image.new("L", (28, 28))
            side = 8 + number % 12
            box = (14 - side // 2, 14 - side // 2, 14 + side // 2, 14 + side // 2)
            pen = ImageDraw.Draw(picture)
            (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=255)
            folder = home / "data" / "shapes" / kind
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{number:02}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INNERVISION_HOME", str(home))
        patch.setenv("OMP_NUM_THREADS", "1")  # of its jobs
        with serve(Settings(runs=home / "runs", networks=(Opening(name=guest),), threads=1)) as client:
            yield str(client.base_url).rstrip("/") + "/"


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium with a camera that shows a test picture."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        sync_api.expect.set_options(timeout=SOON)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *CAMERA])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """A fresh page; whatever it says to the console as an error fails the test."""
    context = chromium.new_context(
        viewport={"width": 1440, "height": 900}, locale="en-GB", reduced_motion="reduce"
    )
    context.set_default_timeout(SOON)
    page = context.new_page()
    if slower := os.environ.get("INNERVISION_TEST_SLOWER"):  # so many times, to find what does not wait
        context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": float(slower)})
    said: list[str] = []

    def hear(message: Any) -> None:
        refused = "Failed to load resource" in message.text and "/api/" in message.location["url"]
        if message.type == "error" and not refused:  # what the server refuses, the page itself tells
            said.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(str(error)))
    yield page
    context.close()
    assert not said, said
