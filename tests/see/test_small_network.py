"""All nine ways of looking, by their commands, at a small network that is trained here and now.

Digits are drawn from LeNet-5's own codes, at random places and sizes, on a noisy ground; a user's
FILE.py:FUNCTION learns them in a few seconds, and its weights are saved beside it. Each command then has to
say something that is true of a network that has learned digits, and would not be of another.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from innervision import images, load
from innervision.cli import cli
from innervision.nets.lenet import digit_codes
from innervision.network import Network
from innervision.see.backward import attribute
from innervision.see.occlusion import deletion, insertion
from innervision.see.target import Target
from innervision.see.units import TopImages

OWN = """
from collections import OrderedDict
from torch import nn

def digits():
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(1, 8, 5, padding=2), relu1=nn.ReLU(inplace=True), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(8, 16, 5, padding=2), relu2=nn.ReLU(inplace=True), pool2=nn.MaxPool2d(2),
        conv3=nn.Conv2d(16, 32, 3, padding=1), relu3=nn.ReLU(inplace=True),
        flatten=nn.Flatten(), fc=nn.Linear(32 * 7 * 7, 10),
    ))
"""
NET = ("--net", "own.py:digits", "--weights", "digits.safetensors", "--mean", "0.2", "--std", "0.3")
SIDE, RELUS = 28, ("relu1", "relu2", "relu3")


def drawn(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return digits (count, 28, 28) uint8, white on dark, and which they are."""
    draw = np.random.default_rng(seed)
    codes = (digit_codes().view(10, 1, 12, 7) + 1) / 2
    labels = np.arange(count) % 10
    pictures = 0.1 * draw.random((count, SIDE, SIDE), np.float32)
    for picture, label in zip(pictures, labels, strict=True):
        h, w = int(draw.integers(15, 23)), int(draw.integers(10, 17))
        top, left = int(draw.integers(1, SIDE - h)), int(draw.integers(1, SIDE - w))
        digit = F.interpolate(codes[label][None], (h, w), mode="bilinear", antialias=True)[0, 0].numpy()
        picture[top : top + h, left : left + w] += 0.85 * digit
    return (pictures.clip(0, 1) * 255).round().astype(np.uint8), labels


def batch(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(pictures).float()[:, None] / 255


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with own.py, its weights before and after training, and pictures held out."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "own.py").write_text(OWN)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = load(f"{folder / 'own.py'}:digits", mean=(0.2,), std=(0.3,))
            module = network.module.train()
            save_file(module.state_dict(), folder / "untrained.safetensors")
            optimiser = torch.optim.Adam(module.parameters(), 2e-3)
            pictures, labels = drawn(2000, seed=1)
            for _ in range(4):
                for part in torch.randperm(2000).split(50):
                    x = network.preprocessing(batch(pictures[part.numpy()]))
                    loss = F.cross_entropy(module(x), torch.from_numpy(labels[part.numpy()]))
                    optimiser.zero_grad()
                    loss.backward()
                    optimiser.step()
    finally:
        torch.set_num_threads(threads)
    save_file(module.state_dict(), folder / "digits.safetensors")
    held, named = drawn(300, seed=2)
    np.save(folder / "held.npy", held)
    right = (network(batch(held)).argmax(1).numpy() == named).mean()
    assert right >= 0.9, f"the network has not learned: {right:.1%} of digits held out"
    for digit in range(10):
        Image.fromarray(held[digit]).save(folder / f"{digit}.png")
    return folder


@pytest.fixture(autouse=True)
def there(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)


def run(*args: str) -> dict[str, Any]:
    """Run a command on the network; return its last event."""
    found = CliRunner().invoke(cli, [*args, *NET, "--device", "cpu", "--json"])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout.splitlines()[-1])


def opened() -> Network:
    return load("own.py:digits", weights_file="digits.safetensors", mean=(0.2,), std=(0.3,)).frozen()


def seen(path: str) -> Tensor:
    """Return a picture file as the network is given it."""
    return images.read(path).tensor()


def near_strokes(digit: int, by: int) -> Tensor:
    """Return where a digit's strokes are, (28, 28), and what lies within so many pixels of them."""
    with Image.open(f"{digit}.png") as file:
        strokes = torch.from_numpy(np.asarray(file) > 100)
    return F.max_pool2d(strokes[None].float(), 2 * by + 1, 1, by)[0] > 0


def test_activations_are_the_networks_own() -> None:
    told = run("activations", "7.png", "--raw", "n.npz", "-o", "layers")
    module, x = opened().module, (seen("7.png").mean(1, keepdim=True) - 0.2) / 0.3
    with np.load("n.npz") as numbers, torch.no_grad():
        assert tuple(numbers) == RELUS
        for name, part in module.named_children():
            x = part(x)
            if name in RELUS:
                np.testing.assert_allclose(numbers[name], x[0], rtol=0, atol=1e-4 * float(x.max()))
    sees = {each["layer"]: each["size"] for each in told["layers"]}
    assert sees == {"relu1": [5, 5], "relu2": [14, 14], "relu3": [24, 24]}
    with np.load("n.npz") as numbers:  # an edge detector has most to say where the strokes are
        loud = np.abs(numbers["relu1"] - np.median(numbers["relu1"], (1, 2), keepdims=True)).sum(0)
    assert loud[near_strokes(7, 2)].mean() > 3 * loud[~near_strokes(7, 2)].mean()


@pytest.mark.parametrize("digit", [2, 4, 7])
def test_every_map_lies_on_the_strokes(digit: int) -> None:
    told = run("attribute", f"{digit}.png", "--method", "all", "-o", "all.png")
    assert told["target"] == f"class:{digit}"
    assert len(told["methods"]) == 11
    for method, numbers in told["methods"].items():
        row, column = numbers["strongest"]
        # what is missing speaks for a digit too: these two may point at the open top of a four
        on = method in ("grad-cam", "occlusion") or near_strokes(digit, 4)[row, column]
        assert "refused" not in numbers and on, (method, row, column)
    assert told["methods"]["occlusion"]["greatest"] > 0
    integrated = told["methods"]["integrated"]
    assert integrated["change"] > 1 and abs(integrated["gap"]) < 0.05 * integrated["change"]
    assert integrated["sum"] == pytest.approx(integrated["change"] + integrated["gap"], rel=1e-3)


@pytest.mark.parametrize("method", ["gradient", "deconvnet", "guided", "smoothgrad"])
def test_what_comes_back_lies_on_the_strokes(method: str) -> None:
    network, shares = opened(), []
    for digit in range(10):
        map = attribute(network, seen(f"{digit}.png"), Target(None, digit), method).map.abs().sum(1)[0]
        near = near_strokes(digit, 2)
        shares.append(float(map[near].sum() / map.sum() / near.float().mean()))
    assert np.mean(shares) > 1.3, shares


def test_a_map_foretells_what_covering_does() -> None:
    """Covering pixels in a map's order takes the class away sooner than in any order.

    And uncovering them brings it sooner than in the opposite order.
    """
    network, draw = opened(), torch.Generator().manual_seed(0)
    worse, better = 0, 0
    for digit in range(10):
        image, asked = seen(f"{digit}.png"), Target(None, digit)
        map = attribute(network, image, asked, "integrated").map.sum(1)
        chance = torch.rand(map.shape, generator=draw)
        fall = [deletion(network, image, asked, each, value=0.05, steps=16).area for each in (map, chance)]
        rise = [insertion(network, image, asked, each, steps=16).area for each in (map, -map)]
        worse += fall[0] < fall[1]
        better += rise[0] > rise[1]
    assert worse >= 8 and better >= 7


def test_an_excited_picture_is_of_its_class() -> None:
    told = run("excite", "--targets", "class:0-9", "--size", "28", "--steps", "100", "-o", "classes.png")
    assert [each["target"] for each in told["units"]] == [f"class:{n}" for n in range(10)]
    for each in told["units"]:
        assert each["after"] > each["before"] + 10, each
    network = opened()
    run("excite", "--target", "class:3", "--size", "28", "--steps", "100", "--no-caption", "-o", "three.png")
    assert int(network(seen("three.png")).argmax()) == 3


def test_the_strongest_pictures_of_a_class_are_of_it() -> None:
    told = run("units", "held.npy", "--layers", "relu3,fc", "--precision", "float32", "-o", "units")
    found, held = TopImages.load("units/index.safetensors"), np.load("held.npy")
    assert told["units"] == 32 + 10 and found.of == len(held)
    answers = opened().features(batch(held), ["relu3", "fc"])
    for name, answer in answers.items():
        best = answer.flatten(2).amax(2) if answer.ndim == 4 else answer
        want = best.T.sort(descending=True).values[:, :9].detach()
        np.testing.assert_allclose(found[name].values, want, rtol=1e-4, atol=1e-4)
    labels = np.arange(len(held)) % 10
    assert (labels[found["fc"].pictures] == np.arange(10)[:, None]).mean() > 0.85
    for name in ("relu3", "fc"):
        with Image.open(f"units/{name}.png") as sheet:
            assert np.asarray(sheet.convert("L")).std() > 10


def test_depth_keeps_less_of_a_picture() -> None:
    rows = run("invert", "7.png", "--steps", "40", "-o", "inverted")["layers"]
    assert [row["layer"] for row in rows] == list(RELUS)
    assert rows[0]["ssim"] > rows[1]["ssim"] > rows[2]["ssim"]
    assert rows[0]["psnr"] > rows[1]["psnr"] > rows[2]["psnr"]
    assert rows[0]["ssim"] > 0.5 and max(row["error"] for row in rows) < 0.1
    # what is left is still a seven to the network
    assert int(opened()(seen("inverted/relu3.png")).argmax()) == 7


def test_a_dream_of_a_class_has_more_of_it() -> None:
    run("dream", "7.png", "--layers", "class:3", "--octaves", "1", "--steps", "20", "-o", "dream.png")
    before, after = (opened()(seen(name))[0] for name in ("7.png", "dream.png"))
    assert float(after[3]) > float(before[3]) + 5
    assert int(before.argmax()) == 7


def test_layers_are_alike_as_they_are_near() -> None:
    names = ("relu1", "relu2", "relu3", "fc")
    run("compare", "held.npy", "--layers", ",".join(names), "-o", "alike.png")
    with Path("alike.csv").open() as file:
        alike = np.array([row[1:] for row in csv.reader(file)][1:], float)
    np.testing.assert_allclose(alike, alike.T, atol=1e-9)
    np.testing.assert_allclose(np.diag(alike), 1)
    assert alike[0, 1] > alike[0, 2] > alike[0, 3] and alike[3, 2] > alike[3, 1]
    run("compare", "held.npy", "--layers", "fc", "--weights2", "untrained.safetensors", "--layers2", "fc",
        "-o", "two.png")  # fmt: skip
    with Path("two.csv").open() as file:
        (_, (_, other)) = csv.reader(file)
    assert float(other) < 0.8, "what was learned is not what it began with"


def test_maps_that_depend_on_what_was_learned_are_trusted() -> None:
    for method in ("gradient", "integrated", "grad-cam"):
        trust = run("attribute", "7.png", "--method", method, "--trust", "-o", "t.png")["methods"][method][
            "trust"
        ]
        assert trust["depends"] and trust["layers"][-1]["random"] == trust["layers"][-1]["of"] == 4, method


def test_the_page_tells_the_digit() -> None:
    told = run("look", "7.png", "--size", "32", "--steps", "8", "-o", "page.html")
    assert len(told["sections"]) == 7
    page = Path("page.html").read_text(encoding="utf-8")
    first = re.search(r"<tr><td>([^<]*)</td><td>([\d.]+) %", page)
    assert first is not None and first[1].endswith("7") and float(first[2]) > 90, first
