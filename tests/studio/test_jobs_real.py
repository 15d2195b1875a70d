"""Jobs of real commands, in processes of their own: a painting stopped and resumed is the same to the bit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from innervision.cli import cli
from innervision.studio import Opening, Settings

GUEST = """
import os, time
from collections import OrderedDict
import torch
from torch import nn

class Pause(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("PAUSE", "0")))  # so that there is time to break it off
        return x

def build():
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(
        pause=Pause(), conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(4, 6, 3, padding=1), relu2=nn.ReLU(),
    ))
"""

PAINTING: dict[str, Any] = {
    "size": 32, "stages": "none", "steps": 40, "every": 5, "content_layers": "relu2",
    "style_layers": "relu1,relu2", "precision": "float32", "threads": 1, "device": "cpu",
}  # fmt: skip


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    (tmp_path / "mine.py").write_text(GUEST)
    return f"{tmp_path / 'mine.py'}:build"


Studio = Callable[[], AbstractContextManager[Any]]


@pytest.fixture
def studio(serve: Any, guest: str, tmp_path: Path) -> Studio:
    """Serve a studio of the guest, and again on the same folder."""

    @contextmanager
    def one() -> Iterator[Any]:
        networks = (Opening(name=guest),)
        with serve(Settings(runs=tmp_path / "runs", networks=networks, device="cpu", threads=1)) as client:
            client.headers["X-Innervision"] = "1"
            yield client

    return one


def begin(client: Any, command: str, **options: Any) -> str:
    answer = client.post("/api/jobs", json={"command": command, "options": options})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def job(client: Any, id: str) -> dict[str, Any]:
    return client.get(f"/api/jobs/{id}").json()


def ended(client: Any, id: str) -> dict[str, Any]:
    """Follow a job to its end; return it."""
    assert "event: end" in client.get(f"/api/jobs/{id}/events").text
    return job(client, id)


def until_step(client: Any, id: str, step: int, text: str = "") -> None:
    end = time.monotonic() + 120
    while (seen := job(client, id)) and not ((seen["step"] or 0) >= step and text in seen["text"]):
        assert time.monotonic() < end and seen["state"] in ("queued", "running"), seen
        time.sleep(0.02)


def pixels(path: Path) -> Any:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
def test_a_painting_that_is_broken_off_comes_to_the_same(
    studio: Studio, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by hand, then by force, then with the server: it ends as an unbroken one does, to the bit."""
    monkeypatch.setenv("PAUSE", "0.06")
    with studio() as client:
        net = client.get("/api/commands").json()[0]
        net = next(field for field in net["options"] if field["name"] == "net")["choices"][0]
        id = begin(client, "stylize", content="sample-rocket", styles=["sample-coffee"], net=net, **PAINTING)
        until_step(client, id, 7)
        client.post(f"/api/jobs/{id}/stop")
        stopped = ended(client, id)
        assert (stopped["state"], stopped["resume"]) == ("stopped", "on") and 7 <= stopped["step"] < 40
        assert stopped["card"]["status"] == "stopped"
        client.post(f"/api/jobs/{id}/resume")
        until_step(client, id, stopped["step"] + 6)
        os.kill(client.app.state.jobs.ledger.jobs[id].pid, signal.SIGKILL)
        killed = ended(client, id)
        assert (killed["state"], killed["resume"]) == ("failed", "on") and "SIGKILL" in killed["error"]
        client.post(f"/api/jobs/{id}/resume")
        until_step(client, id, killed["step"] + 6)
    with studio() as client:
        found = job(client, id)
        assert (found["state"], found["resume"]) == ("interrupted", "on")
        client.post(f"/api/jobs/{id}/resume")
        done = ended(client, id)
        assert (done["state"], done["step"], done["error"]) == ("done", 40, "")
        files = {file["name"]: file["kind"] for file in done["files"]}
        assert files["painting.png"] == "result" and files["snapshots/0040.png"] == "preview"
        assert files["inputs/content-1/rocket.png"] == files["inputs/styles-2/coffee.png"] == "input"
        assert done["card"]["status"] == "done" and "checkpoint.pt" not in files
    monkeypatch.setenv("PAUSE", "0")
    folder = tmp_path / "runs" / id / "inputs"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in PAINTING.items()]
    whole = tmp_path / "whole.png"
    pictures = [str(folder / "content-1" / "rocket.png"), str(folder / "styles-2" / "coffee.png")]
    result = CliRunner().invoke(
        cli, ["stylize", *pictures, "-o", str(whole), "--no-run", "--quiet", "--net", guest, *words]
    )
    assert result.exit_code == 0, result.output
    assert np.array_equal(pixels(whole), pixels(tmp_path / "runs" / id / "painting.png"))


OTHERS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("dream", {"source": "sample-rocket", "layers": "relu2", "steps": 1, "octaves": 1, "size": 64,
               "pictures": 2}, "film/0001.png"),
    ("invert", {"source": "sample-rocket", "layers": "relu1,relu2", "steps": 12, "size": 48},
     "snapshots/0022.png"),
    ("excite", {"target": ["relu2:1"], "steps": 12, "size": 32}, "snapshots/0010.png"),
    ("attribute", {"source": "sample-rocket", "target": "relu2:1", "size": 64}, "map.png"),
    ("activations", {"image": "sample-rocket", "size": 64}, "overview.png"),
    ("compare", {"pictures": ["sample-rocket", "sample-coffee", "sample-chelsea", "sample-astronaut"],
                 "size": 48}, "compare.png"),
    ("units", {"data": "dots", "size": 16}, "index.safetensors"),
    ("look", {"source": "sample-rocket", "size": 64, "quick": True}, "page.html"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("command", "options", "made"),
    [
        ("dream", {"source": "sample-rocket", "layers": "relu2", "steps": 2, "octaves": 2, "size": 64},
         "dream.png"),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS),
    ],
    ids=lambda value: value if isinstance(value, str) and "." not in value else "",
)  # fmt: skip
def test_every_command_that_looks_can_be_a_job(
    studio: Studio, tmp_path: Path, command: str, options: dict[str, Any], made: str
) -> None:
    dots(tmp_path)
    with studio() as client:
        id = begin(client, command, net="mine.py-build", **options)
        done = ended(client, id)
        assert done["state"] == "done", done["error"]
        assert made in {file["name"] for file in done["files"]} and done["step"] == done["of"]
        assert done["result"]["output"] and done["card"]["command"] == command


@pytest.mark.slow
def test_a_training_and_what_comes_of_it(studio: Studio, tmp_path: Path) -> None:
    """Trained, stopped, resumed; then its network predicts, is measured and exported."""
    dots(tmp_path)
    training = {"recipe": "lenet5-modern", "data": "dots", "batch": 4, "device": "cpu", "threads": 1}
    with studio() as client:
        id = begin(client, "train", epochs=100, **training)
        until_step(client, id, 20, "epoch")  # the pictures are read before
        client.post(f"/api/jobs/{id}/stop")
        stopped = ended(client, id)
        assert (stopped["state"], stopped["resume"]) == ("stopped", "on")
        client.post(f"/api/jobs/{id}/resume")
        done = ended(client, id)
        assert (done["state"], done["step"]) == ("done", done["of"]), done["error"]
        names = {file["name"] for file in done["files"]}
        assert {"model.safetensors", "index.html", "events.jsonl"} <= names
        text = client.get(f"/api/jobs/{id}/events").text
        assert "validation_accuracy" in text and '"loss"' in text
        net = f"run-{id}"
        for command, options in (
            ("predict", {"pictures": ["sample-rocket"]}),
            ("evaluate", {"data": "dots"}),
            ("export", {"to": "safetensors"}),
        ):
            after = ended(client, begin(client, command, net=net, **options))
            assert after["state"] == "done", after["error"]
        rate = ended(client, begin(client, "find-lr", steps=10, **training))
        assert rate["state"] in ("done", "failed") and rate["step"] == 10  # so few say little


def dots(folder: Path) -> None:
    """Put a set of two classes, light and dark, where sets of one's own lie."""
    for name, value in (("dark", 40), ("light", 200)):
        place = folder / "home" / "data" / "dots" / name
        place.mkdir(parents=True)
        for number in range(12):
            noise = np.random.default_rng(number).integers(0, 30, (28, 28, 3), np.uint8)
            Image.fromarray(noise + np.uint8(value)).save(place / f"{number}.png")
