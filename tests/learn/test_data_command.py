"""`innervision data`: what it tells of a small set, against the counts it was made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from innervision.cli import cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    for part, counts in (("train", {"cat": 5, "dog": 3}), ("test", {"cat": 2, "dog": 1})):
        for name, count in counts.items():
            (tmp_path / "zoo" / part / name).mkdir(parents=True)
            for n in range(count):
                grey = 51 * n if part == "train" else 51 * (n + 2)  # the first test picture of each is a copy
                pixels = np.full((12, 12, 3), (grey, 255 if name == "cat" else 0, 102), np.uint8)
                Image.fromarray(pixels).save(tmp_path / f"zoo/{part}/{name}/{n}.png")
    return tmp_path


def run(*args: str, code: int = 0) -> str:
    done = CliRunner().invoke(cli, ["data", *args])
    assert done.exit_code == code, done.output
    return done.output


def test_counts_means_and_twins_are_told(here: Path) -> None:
    (here / "zoo/train/cat/broken.png").write_bytes(b"no picture")
    text = run("inspect", "zoo")
    lines = [line.split() for line in text.splitlines()]
    for row in (["class", "train", "test"], ["cat", "5", "2"], ["dog", "3", "1"], ["all", "8", "3"]):
        assert row in lines
    assert "train: 12x12x3, mean 0.3250 0.6250 0.4000, standard deviation " in text
    assert "train: left out cat/broken.png: " in text
    assert "3 test pictures among the training pictures too" in text
    with Image.open("zoo-examples.png") as sheet:
        assert sheet.width > 10 * 12 * 8
    card = json.loads(Path("zoo-examples.png.run.json").read_text())
    assert card["command"] == "data inspect"


def test_json_ends_with_all_of_it(here: Path) -> None:
    last: dict[str, Any] = json.loads(run("inspect", "zoo", "--json", "--no-sheet").splitlines()[-1])
    assert last["event"] == "result"
    assert last["classes"] == ["cat", "dog"]
    train, test = last["parts"]["train"], last["parts"]["test"]
    assert (train["pictures"], train["counts"], test["counts"]) == (
        8,
        {"cat": 5, "dog": 3},
        {"cat": 2, "dog": 1},
    )
    assert train["size"] == [12, 12]
    reds = np.array([0, 51, 102, 153, 204, 0, 51, 102]) / 255
    assert train["mean"][0] == pytest.approx(reds.mean(), abs=1e-6)
    assert train["std"][0] == pytest.approx(reds.std(), abs=1e-6)
    assert last["twins"] == {"within": {"train": 0, "test": 0}, "across": 3, "across_of_another_class": 0}
    assert not Path("zoo-examples.png").exists()


def test_a_class_without_pictures_and_a_single_one_are_shown(here: Path) -> None:
    (here / "zoo/train/fox").mkdir()
    (here / "zoo/train/gnu").mkdir()
    (here / "zoo/train/gnu/0.png").write_bytes(b"no picture")
    text = run("inspect", "zoo")
    lines = [line.split() for line in text.splitlines()]
    assert ["fox", "0", "0"] in lines and ["gnu", "0", "0"] in lines and ["cat", "5", "2"] in lines
    assert "train: no pictures of fox" in text
    assert "train: no picture of class 'gnu' can be read" in text
    text = run("inspect", "zoo/train/cat/..", "--no-sheet")  # as a set of its own
    assert ["fox", "0"] in [line.split() for line in text.splitlines()]
    (here / "one/cat").mkdir(parents=True)
    (here / "zoo/train/cat/1.png").rename("one/cat/1.png")
    assert "train: only one class, 'cat': a classifier tells two or more apart" in run("inspect", "one")
    (here / "none").mkdir()
    assert "no class folders in" in run("inspect", "none", code=2)


def test_one_part_is_read_alone_and_quietly(here: Path) -> None:
    (here / "zoo/test/cat/broken.png").write_bytes(b"no picture")
    assert run("inspect", "zoo", "--part", "train", "--bad", "refuse", "--quiet", "-o", "sheet.png") == ""
    assert Path("sheet.png").exists()
    assert "cannot be used: cat/broken.png" in run("inspect", "zoo", "--bad", "refuse", code=2)


def test_the_known_sets_are_listed_and_fetching_offline_says_how(here: Path) -> None:
    text = run("list")
    assert all(
        name in text for name in ("cifar10", "cifar100", "mnist", "fashion-mnist", "innervision data fetch")
    )
    said = run("fetch", "cifar10", code=2)
    assert "fetch https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz by hand and save it as" in said
    assert "Did you mean 'mnist'" in run("fetch", "minst", code=2)
    assert "Did you mean 'cifar10'" in run("inspect", "cifar1", code=2)
