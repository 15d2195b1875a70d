"""The page of `innervision look`, whole, on small networks: what it holds, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from innervision.cli import cli

OWN = """
from collections import OrderedDict
import torch
from torch import nn

def layers():
    torch.manual_seed(0)
    return OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1), relu1=nn.ReLU(inplace=True), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 8, 3, padding=1), relu2=nn.ReLU(inplace=True),
    )

def base():
    with torch.random.fork_rng():
        return nn.Sequential(layers())

def classifier():
    with torch.random.fork_rng():
        return nn.Sequential(layers() | OrderedDict(
            pool2=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), fc=nn.Linear(32, 3)
        ))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    grid = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(grid).resize((56, 40), Image.Resampling.BILINEAR).save("photo.png")


def look(*args: str) -> Result:
    return CliRunner().invoke(cli, ("look", "photo.png", "--device", "cpu", *args))


def test_the_page_holds_all_it_shows() -> None:
    Path("names.txt").write_text("apple\nbread & butter\ncat\n")
    found = look("--net", "own.py:classifier", "--steps", "3", "--classes", "names.txt", "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert result["sections"] == [
        "The picture",
        "What the layers answer",
        "The strongest units",
        "Where it looks",
        "What each layer keeps",
    ]
    page = Path("look-photo.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|<script|<link", page)
    assert "bread &amp; butter" in page and page.count(" %</td>") == 3
    for source in sources:  # each a picture with something on it
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as shown:
            assert np.ptp(np.asarray(shown.convert("L"), int)) > 0
    for method in ("gradient", "deconvnet", "guided", "integrated", "occlusion", "layer-cam"):
        assert f">{method}" in page
    assert "on the weights" in page and "SSIM" in page
    card = json.loads(Path("look-photo.html.run.json").read_text())
    assert card["command"] == "look" and card["inputs"][0]["sha256"]


def test_quick_leaves_out_what_takes_long_and_a_base_has_no_prediction() -> None:
    found = look("--net", "own.py:base", "--quick", "-o", "page.html")
    assert found.exit_code == 0, found.output
    assert "wrote page.html" in found.stderr
    page = Path("page.html").read_text(encoding="utf-8")
    assert "no classifier here" in page and "What is explained below is relu2:" in page
    assert "What each layer keeps" not in page and "on the weights" not in page


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--target", "relu9:1"), "no layer 'relu9'"),
        (("--target", "class:3"), "no channel 3 in class, which has 0 … 2"),
        (("--classes", "none.txt"), "'none.txt' cannot be read as names of classes"),
        (("-o", "."), "is a folder: name a file"),
    ],
)
def test_bad_input_is_one_line(args: tuple[str, ...], said: str) -> None:
    found = look("--net", "own.py:classifier", "--quick", *args)
    assert found.exit_code == 2, found.output
    assert said in found.stderr and found.stderr.splitlines()[-1].startswith("innervision: ")
    assert not list(Path.cwd().glob("*.html"))
