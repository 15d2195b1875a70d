"""What users get wrong: each mistake is one clear line and exit code 2, and leaves no run behind."""

from __future__ import annotations

import errno
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from innervision.cli import cli, training
from innervision.errors import InnervisionError

GUEST = """
from torch import nn

def net(classes=3, width=4):
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))

def of_five():
    return net(5)

def wider():
    return net(width=6)
"""
COLOURS = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a guest and a folder of twelve pictures in each of three classes."""
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(GUEST)
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        Path("zoo", name).mkdir(parents=True)
        for n in range(12):
            pixels = np.array(colour) + rng.integers(-40, 40, (8, 8, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(f"zoo/{name}/{n:02}.png")


def train(*more: object, net: str = "net", data: str = "zoo") -> Result:
    usual = ["--recipe", "folder", "--data", data, "--net", f"mine.py:{net}", "--size", 8, "--epochs", 2]
    usual += ["--batch", 6, "--threads", 1, "--no-report", "--run", "out"]
    return CliRunner().invoke(cli, ["train", *(str(arg) for arg in (*usual, *more))])


def refused(found: Result) -> str:
    """Return the one line that a mistake is told in."""
    assert found.exit_code == 2, found.output
    assert isinstance(found.exception, SystemExit), found.exception
    (line,) = [line for line in found.output.splitlines() if line.startswith("innervision: ")]
    return line


# data


def empty_class() -> None:
    Path("zoo/fox").mkdir()


def one_class() -> None:
    shutil.rmtree("zoo/blue")
    shutil.rmtree("zoo/green")


def unreadable() -> None:
    whole = Path("zoo/red/03.png").read_bytes()
    Path("zoo/red/03.png").write_bytes(whole[:60])
    Path("zoo/blue/00.png").write_text("a note")


def mislabelled() -> None:
    Path("zoo/train").mkdir()
    for name in COLOURS:
        Path("zoo", name).rename(f"zoo/train/{name}")
    Path("zoo/test/purple").mkdir(parents=True)
    shutil.copy("zoo/train/red/00.png", "zoo/test/purple/00.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, "class 'fox' has no pictures: "),
        (one_class, "only one class, 'red': a classifier tells two or more apart"),
        (unreadable, "2 of 36 pictures of 'zoo' cannot be used: blue/00.png: "),
    ],
)
def test_folders_that_cannot_be_learned_from(spoil: Callable[[], None], message: str) -> None:
    spoil()
    assert message in refused(train())
    assert not Path("out").exists()


def test_what_cannot_be_read_is_left_out_if_asked(tmp_path: Path) -> None:
    unreadable()
    found = train("--bad", "skip")
    assert found.exit_code == 0, found.output
    assert "2 files left out that cannot be used" in found.output
    assert "left out: red/03.png: " in found.output
    facts = json.loads(Path("out/model.json").read_text())["facts"]
    assert facts["pictures"] + facts["held_out"] == 34


def test_a_class_that_was_not_learned_is_told_when_it_is_tested() -> None:
    mislabelled()
    assert "no class 'purple' in the network, which has blue, green, red" in refused(train())
    assert not Path("out").exists()  # told before the work
    Path("labels.csv").write_text("path,label,part\nzoo/test/purple/00.png,purple,test\n")
    shutil.rmtree("zoo/test")
    assert train().exit_code == 0
    line = refused(CliRunner().invoke(cli, ["evaluate", "--net", "out", "--data", "labels.csv"]))
    assert "cannot be used: line 2, zoo/test/purple/00.png: no class 'purple'" in line


def test_what_is_no_archive_of_pictures() -> None:
    with tarfile.open("wrong.tar.gz", "w:gz") as archive:
        body = b"not a data set"
        entry = tarfile.TarInfo("readme.txt")
        entry.size = len(body)
        archive.addfile(entry, io.BytesIO(body))
    Path("cut.tar.gz").write_bytes(Path("wrong.tar.gz").read_bytes()[:30])
    Path("zip.zip").write_bytes(b"PK\3\4 and so on")
    assert "wrong.tar.gz" in refused(train(data="wrong.tar.gz"))
    assert "cut.tar.gz' is cut short or damaged" in refused(train(data="cut.tar.gz"))
    assert "zip.zip" in refused(train(data="zip.zip"))
    assert not Path("out").exists()


def test_grey_pictures_among_coloured_ones_are_told() -> None:
    for n in range(3):
        Image.open(f"zoo/red/{n:02}.png").convert("L").save(f"zoo/red/{n:02}.png")
    found = train()
    assert found.exit_code == 0, found.output
    assert "3 of 36 pictures are grey: three equal channels" in found.output


# the plan


@pytest.mark.parametrize(
    ("more", "net", "message"),
    [
        (["--batch", 64], "net", "a batch of 64 is larger than the set: zoo has 30 pictures"),
        ([], "of_five", "answers (5,) to a picture, and the data has 3 classes: they must be as many"),
        (["--size", 2], "net", "mine.py:net cannot take pictures of 2x2: "),
        (["--start", "nowhere.pth"], "net", "no weights "),
        (["--keep", "best", "--validation", 0], "net", "keep best needs a part that is held out"),
    ],
)
def test_plans_that_cannot_work(more: list[object], net: str, message: str) -> None:
    assert message in refused(train(*more, net=net))
    assert not Path("out").exists()


def test_a_network_of_other_classes_is_no_judge_of_these() -> None:
    assert train().exit_code == 0
    Path("zoo/red").rename("zoo/fox")
    line = refused(CliRunner().invoke(cli, ["evaluate", "--net", "out", "--data", "zoo"]))
    assert "no class 'fox' in the network, which has blue, green, red" in line


def test_a_rate_that_is_too_great_ends_with_advice() -> None:
    line = refused(train("--lr", 1e30))
    assert "no longer a number, at step " in line
    assert "give a smaller learning rate, a warm-up, or clip gradients" in line
    assert json.loads(Path("out/run.json").read_text())["status"] == "failed"
    assert not Path("out/model.safetensors").exists()


# going on


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train, and break it off after the last step."""

    def breaks(*_: object, **__: object) -> None:
        raise InnervisionError("the lights went out")

    with monkeypatch.context() as patch:
        patch.setattr(training, "conclude", breaks)
        assert "the lights went out" in refused(train())
    assert Path("out/checkpoint.json").is_file()
    return Path("out")


def resume(*more: str) -> Result:
    return CliRunner().invoke(cli, ["train", "--resume", "out", *more])


def test_another_recipe_net_or_data(broken: Path) -> None:
    assert "is of the recipe folder, not of fast94" in refused(resume("--recipe", "fast94"))
    assert "net is " in refused(resume("--net", "mine.py:wider"))
    assert "lr is 0.5, and was None in 'out': leave it out" in refused(resume("--lr", "0.5"))
    shutil.copytree("zoo", "other")
    Path("other/red/03.png").unlink()
    assert "data" in refused(resume("--data", "other"))
    Path("mine.py").write_text(GUEST.replace("width=4", "width=5"))  # the same name, another network
    assert "the checkpoint is of another network: size mismatch for 0.weight: " in refused(resume())
    Path("mine.py").write_text(GUEST)
    assert resume().exit_code == 0


def test_a_checkpoint_cut_short(broken: Path) -> None:
    (numbers,) = broken.glob("checkpoint-*.safetensors")
    numbers.write_bytes(numbers.read_bytes()[:-50])
    line = refused(resume())
    assert "is cut short or altered; train anew in another folder" in line
    (broken / "checkpoint.json").write_text("{")
    assert "cannot be gone on from" in refused(resume())


@pytest.mark.parametrize(("what", "after"), [("checkpoint-", 1), ("model", 0)])
def test_a_full_disk_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, what: str, after: int) -> None:
    real, written = Path.write_bytes, list[Path]()

    def full(path: Path, data: bytes) -> int:
        if path.name.startswith(f".{what}"):
            written.append(path)
            if len(written) > after:
                real(path, data[:100])
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        found = train("--checkpoint-every", 0)
    assert f"no room to write {Path('out').absolute() / what}" in refused(found)
    assert "go on by: innervision train --resume out" in found.output
    assert json.loads(Path("out/run.json").read_text())["status"] == "failed"
    assert not list(Path("out").glob(f".{what}*"))  # nothing half written
    end = resume()
    assert end.exit_code == 0, end.output
    assert Path("out/model.safetensors").is_file()
