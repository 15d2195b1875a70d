"""Checkpoints: killed at any moment and gone on with, the end is the same to the bit."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from innervision.cli import cli
from innervision.errors import InnervisionError, RunUnusable
from innervision.learn import checkpoints
from innervision.learn.augment import Augmentation
from innervision.learn.averages import Ema, Lookahead
from innervision.learn.data import DataSet
from innervision.learn.optimisers import AdamW, Muon, Sgd
from innervision.learn.recipe import Recipe
from innervision.learn.schedules import Cosine
from innervision.learn.train import Training
from innervision.weights import Preprocessing

GUEST = """
import os, time
from torch import nn

class Pause(nn.Module):
    def forward(self, x):
        time.sleep(float(os.environ.get("PAUSE", "0")))  # so that there is time to break it off
        return x

def net():
    return nn.Sequential(
        Pause(),
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 3))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def guest(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(GUEST)
    return f"{tmp_path / 'mine.py'}:net"


def pictures(count: int, seed: int) -> DataSet:
    rng = np.random.default_rng(seed)
    labels = torch.arange(count) % 3
    pixels = torch.from_numpy(rng.integers(0, 255, (count, 3, 8, 8), np.uint8))
    return DataSet(pixels, labels, ("a", "b", "c"), "noise", f"noise {seed}")


def plan(guest: str, **changes: Any) -> Recipe:
    usual = Recipe(
        name="noise",
        text="",
        net=guest,
        size=8,
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
        epochs=3,
        batch=10,
        optimiser=Sgd(0.1, weight_decay=1e-3),
        schedule=Cosine(),
        augmentation=Augmentation(flip="alternating", shift=1, cutout=2),
        precision="float32",
        keep="best",
    )
    return replace(usual, **changes)


def training(recipe: Recipe, **options: Any) -> Training:
    return Training(recipe, pictures(40, 0), pictures(18, 1), threads=1, **options)


WAYS: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adamw, ema": {"optimiser": AdamW(0.01), "average": Ema(0.9)},
    "muon, lookahead, parts": {
        "optimiser": Muon(0.1, rest=Sgd(0.1, norm_lr=8.0, decay="all", weight_decay=1e-3)),
        "average": Lookahead(3),
        "micro": 4,
        "clip": 1.0,
    },
    "patience": {"epochs": 9, "patience": 2},
    "bfloat16, mixed": {"precision": "bfloat16", "augmentation": Augmentation(mixup=0.4, cutmix=1.0)},
}


@pytest.mark.parametrize("way", WAYS)
def test_gone_on_with_from_any_step_it_ends_the_same(guest: str, way: str, tmp_path: Path) -> None:
    recipe = plan(guest, **WAYS[way])
    whole = training(recipe)
    told: list[Any] = []
    for lesson in whole:
        told.append(lesson)
        if lesson.tick.count in (1, 4, 6, 12):  # in an epoch, at ends of epochs, near the end
            checkpoints.save(whole.checkpoint(), tmp_path / f"{lesson.tick.count}")
    assert (whole.done < whole.steps) == (way == "patience") == whole.stopped
    for at in (1, 4, 6, 12):
        saved = checkpoints.load(tmp_path / f"{at}")
        assert saved is not None and (saved.epoch, saved.batch) == divmod(at, 4)
        again = training(recipe, resume=saved)
        torch.rand(5)
        assert list(again) == told[at:]  # losses, scores and all
        for one, other in ((whole.module, again.module), (whole.kept.module, again.kept.module)):
            for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
                assert torch.equal(a, b), f"{name} after step {at}"


def test_a_pair_of_files_that_agree_is_left_whenever_it_is_broken_off(
    guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break off at each of the calls that change the folder."""
    one = training(plan(guest))
    work = iter(one)
    next(work)
    folder = tmp_path / "run"
    checkpoints.save(one.checkpoint(), folder)
    next(work)
    real = Path.replace

    class Killed(BaseException):
        pass

    for after in range(2):  # numbers, then the JSON that names them
        calls = 0

        def breaks(path: Path, target: Path, after: int = after) -> Path:
            nonlocal calls
            if calls == after:
                raise Killed
            calls += 1
            return real(path, target)

        monkeypatch.setattr(Path, "replace", breaks)
        with pytest.raises(Killed):
            checkpoints.save(one.checkpoint(), folder)
        monkeypatch.setattr(Path, "replace", real)
        found = checkpoints.load(folder)
        assert found is not None and found.count == 1
    (folder / ".checkpoint-000001.0123abcd.safetensors").touch()  # half written by one that was killed
    checkpoints.save(one.checkpoint(), folder)
    found = checkpoints.load(folder)
    assert found is not None and found.count == 2
    assert sorted(p.name for p in folder.iterdir()) == ["checkpoint-000002.safetensors", "checkpoint.json"]
    checkpoints.remove(folder)
    assert checkpoints.load(folder) is None and not list(folder.iterdir())
    work.close()


def test_packing_gives_back_an_optimisers_state() -> None:
    state = {
        "state": {0: {"step": torch.tensor(3.0)}, 7: {}},
        "param_groups": [{"betas": (0.9, 0.99), "lr": 0.1}],
    }
    tensors: dict[str, torch.Tensor] = {}
    plain = json.loads(json.dumps(checkpoints.packed(state, tensors, "o")))
    found = checkpoints.unpacked(plain, tensors)
    assert list(tensors) == ["o.state.0.step"]
    assert found == {**state, "param_groups": [{"betas": [0.9, 0.99], "lr": 0.1}]}


# what cannot be gone on with


@pytest.fixture
def saved(guest: str, tmp_path: Path) -> Path:
    one = training(plan(guest))
    work = iter(one)
    next(work)
    checkpoints.save(one.checkpoint(), tmp_path / "run")
    work.close()
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimiser": Sgd(0.2)}, r"recipe optimiser lr is 0\.2, was 0\.1"),
        ({"name": "other"}, r'recipe name is "other", was "noise"'),
        ({"epochs": 9}, r"recipe epochs is 9, was 3.*steps is 36, was 12"),
        ({"average": Ema(0.9)}, r"recipe average is .*, was null"),
    ],
)
def test_another_recipe(guest: str, saved: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RunUnusable, match=message):
        training(plan(guest, **changes), resume=checkpoints.load(saved))


def test_another_net_seed_or_data(guest: str, saved: Path, tmp_path: Path) -> None:
    found = checkpoints.load(saved)
    other = tmp_path / "other.py"
    other.write_text(GUEST.replace("8", "9"))
    with pytest.raises(RunUnusable, match=r"recipe net is .*other\.py"):
        training(plan(f"{other}:net"), resume=found)
    (tmp_path / "mine.py").write_text(GUEST.replace("8", "9"))  # the same name, another network
    with pytest.raises(RunUnusable, match=r"of another network: size mismatch for 1.weight"):
        training(plan(guest), resume=found)
    (tmp_path / "mine.py").write_text(GUEST)
    with pytest.raises(RunUnusable, match="seed is 1, was 0"):
        training(plan(guest), resume=found, seed=1)
    with pytest.raises(RunUnusable, match="data sha256"):
        Training(plan(guest), pictures(40, 5), pictures(18, 1), threads=1, resume=found)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: cut(folder / "checkpoint-000001.safetensors"), "is cut short or altered"),
        (lambda folder: cut(folder / "checkpoint.json"), "cannot be gone on from"),
        (lambda folder: (folder / "checkpoint-000001.safetensors").unlink(), "cannot be gone on from"),
        (lambda folder: (folder / "checkpoint.json").write_text("{}"), "no 'format'"),
        (lambda folder: (folder / "checkpoint.json").write_text('{"format": 99}'), "of format 99"),
    ],
    ids=["numbers cut short", "JSON cut short", "numbers missing", "empty", "a later format"],
)
def test_a_damaged_checkpoint(saved: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(saved)
    with pytest.raises(RunUnusable, match=message):
        checkpoints.load(saved)


def test_a_full_disk_leaves_the_checkpoint_before(
    guest: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    one = training(plan(guest), resume=checkpoints.load(saved))
    work = iter(one)
    next(work)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InnervisionError, match=r"no room to write .*checkpoint"):
        checkpoints.save(one.checkpoint(), saved)
    monkeypatch.undo()
    found = checkpoints.load(saved)
    assert found is not None and found.count == 1
    assert len(list(saved.iterdir())) == 2  # nothing half written
    work.close()


# the command, in processes of its own


@pytest.fixture
def order(guest: str, tmp_path: Path) -> list[str]:
    data = pictures(60, 0)
    for n in range(60):
        where = tmp_path / "pictures" / data.classes[int(data.labels[n])]
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.images[n].permute(1, 2, 0).numpy()).save(where / f"{n:02}.png")
    args = ["train", "--recipe", "vgg19-modern", "--data", str(tmp_path / "pictures"), "--net", guest]
    args += ["--size", "8", "--batch", "10", "--epochs", "10", "--views", "1", "--validation", "0.2"]
    args += ["--keep", "best", "--keep-every", "4"]
    return [*args, "--threads", "1", "--precision", "float32", "--no-report"]


def begin(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "innervision", *args]
    environment = {**os.environ, "PAUSE": "0.03"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def lines(folder: Path) -> int:
    path = folder / "events.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else 0


def wait(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            assert process.stdout is not None
            pytest.fail(f"it ended early: {process.stdout.read()}")
        time.sleep(0.002)


def told(folder: Path) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{k: v for k, v in event.items() if k != "seconds"} for event in events]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_and_interrupted_it_ends_the_same(order: list[str], tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(cli, [*order, "--run", "whole"]).exit_code == 0
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    process = begin(*order, "--run", str(broken), "--checkpoint-every", "0")
    wait(process, lambda: lines(broken) > 6)
    process.kill()  # at any moment
    process.communicate()
    card = json.loads((broken / "run.json").read_text())
    assert card["status"] == "running"
    saved = checkpoints.load(broken)
    assert saved is not None and 0 < saved.count < 40

    process = begin("train", "--resume", str(broken), "--checkpoint-every", "1000")
    before = lines(broken)
    wait(process, lambda: lines(broken) > before + 3)
    process.send_signal(signal.SIGINT)  # Ctrl-C
    output, _ = process.communicate()
    assert process.returncode == 130, output
    assert "go on by: innervision train --resume" in output
    card = json.loads((broken / "run.json").read_text())
    assert card["status"] == "stopped" and saved.count < card["result"]["count"] < 40

    wrong = runner.invoke(cli, ["train", "--resume", str(broken), "--lr", "0.5"])
    assert wrong.exit_code == 2 and "lr is 0.5, and was None" in wrong.output
    wrong = runner.invoke(cli, ["train", "--resume", str(broken), "--recipe", "fast94"])
    assert wrong.exit_code == 2 and "is of the recipe vgg19-modern, not of fast94" in wrong.output

    end = runner.invoke(cli, ["train", "--resume", str(broken)])
    assert end.exit_code == 0, end.output
    # not the files' bytes: safetensors writes its few words of metadata in any order
    names = ["model.safetensors", *(f"epochs/epoch-{n:03}.safetensors" for n in (0, 4, 8))]
    for name in names:
        one, other = (load_file(folder / name) for folder in (whole, broken))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert told(broken) == told(whole)
