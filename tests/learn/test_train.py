"""Training: small sets that can be learned, what is kept, when it stops, and the command as a whole."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from innervision import network
from innervision.cli import cli
from innervision.cli.course import of_each
from innervision.errors import Diverged, Invalid
from innervision.learn.augment import Augmentation
from innervision.learn.averages import Ema, Lookahead
from innervision.learn.checkpoints import kept
from innervision.learn.cost import cost
from innervision.learn.data import DataSet
from innervision.learn.finder import Trial, find_lr, suggest
from innervision.learn.judge import Judge, class_weights
from innervision.learn.optimisers import Muon, Sgd
from innervision.learn.recipe import Recipe
from innervision.learn.schedules import Cosine
from innervision.learn.train import Lesson, Training
from innervision.weights import Preprocessing

GUEST = """
import torch
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, 3))
"""
COLOURS = ((200, 60, 60), (60, 200, 60), (60, 60, 200))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def guest(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(GUEST)
    return f"{tmp_path / 'mine.py'}:net"


def coloured(count: int = 60, seed: int = 0, side: int = 8, noise: int = 60) -> DataSet:
    """Noise about red, green or blue."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    base = np.array(COLOURS)[labels][:, :, None, None]
    pixels = np.clip(base + rng.integers(-noise, noise, (count, 3, side, side)), 0, 255).astype(np.uint8)
    return DataSet(
        torch.from_numpy(pixels), torch.from_numpy(labels), ("red", "green", "blue"), "colours", str(seed)
    )


def plan(guest: str, **changes: Any) -> Recipe:
    usual = Recipe(
        name="colours",
        text="",
        net=guest,
        size=8,
        preprocessing=Preprocessing((0.5,) * 3, (0.25,) * 3),
        epochs=6,
        batch=12,
        optimiser=Sgd(0.1),
        schedule=Cosine(),
        validation=0.1,
        precision="float32",
    )
    return replace(usual, **changes)


def lessons(training: Training) -> list[Lesson]:
    return list(training)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimiser": Muon(0.1, rest=Sgd(0.1)), "micro": 4, "average": Lookahead(5)},
        {"average": Ema(0.9), "label_smoothing": 0.1, "class_weights": True, "clip": 1.0},
        {"augmentation": Augmentation(flip="alternating", shift=1, mixup=0.2), "channels_last": False},
        {"precision": "bfloat16"},
    ],
    ids=["sgd", "muon", "ema", "mixup", "bfloat16"],
)
def test_colours_are_learned(guest: str, changes: dict[str, Any]) -> None:
    training = Training(plan(guest, epochs=8, **changes), coloured(), coloured(30, seed=1), threads=1)
    found = lessons(training)
    assert len(found) == training.steps == 8 * 5
    assert found[-1].ends and not any(lesson.ends for lesson in found[:-1])
    ends = [lesson for lesson in found if lesson.validation is not None]
    assert [lesson.tick.epoch for lesson in ends] == list(range(1, 9))
    assert ends[-1].validation is not None and ends[-1].validation.accuracy > 0.95
    assert training.evaluate(coloured(30, seed=2)).accuracy > 0.9
    assert training.network.dtype == torch.float32  # weights stay float32 whatever is computed in


def test_scores_are_those_of_plain_loops(guest: str) -> None:
    training = Training(plan(guest, epochs=1), coloured(60), coloured(30, seed=1), threads=1)
    module = training.module
    want, right = 0.0, 0
    seen = []
    batches = training.batches.epoch(0)
    for lesson in training:  # the loss of a batch is that before its step
        _, labels = next(batches)
        seen.append(lesson)
        assert lesson.tick.loss is not None
        want += lesson.tick.loss * len(labels)
    last = seen[-1]
    assert last.training is not None and last.validation is not None
    assert last.training.n == 60 and last.training.loss == pytest.approx(want / 60, rel=1e-5)
    data = coloured(30, seed=1)
    module.eval()
    with torch.no_grad():
        scores = module((data.images.float() / 255 - 0.5) / 0.25)
    right = int((scores.argmax(1) == data.labels).sum())
    assert last.validation.accuracy == right / 30
    assert last.validation.loss == pytest.approx(F.cross_entropy(scores, data.labels).item(), rel=1e-4)


def test_the_same_seed_is_the_same_to_the_bit_and_another_is_not(guest: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        training = Training(plan(guest, epochs=1), coloured(), coloured(9, seed=1), seed=seed, threads=1)
        torch.rand(3)  # whatever else draws
        lessons(training)
        return torch.cat([p.detach().flatten() for p in training.module.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_class_weights_let_a_mean_picture_weigh_one(guest: str) -> None:
    data = coloured(60).subset([*range(0, 60, 3), *range(1, 30, 3), 2, 5])  # 20 red, 10 green, 2 blue
    found = class_weights(data)
    assert found.tolist() == pytest.approx([32 / 3 / 20, 32 / 3 / 10, 32 / 3 / 2])
    assert found[data.labels].mean().item() == pytest.approx(1)
    judge = Judge(plan(guest, class_weights=True), data, torch.device("cpu"), torch.float32)
    scores = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    loss = judge(scores, (data.images.float() / 255, data.labels))
    x = (data.images.float() / 255 - 0.5) / 0.25
    each = -scores(x).log_softmax(1)[range(32), data.labels]
    torch.testing.assert_close(loss, (each * found[data.labels]).sum() / 32)
    assert judge.take(1).n == 32


def test_smoothed_labels_by_hand(guest: str) -> None:
    data = coloured(6)
    judge = Judge(plan(guest, label_smoothing=0.3), data, torch.device("cpu"), torch.float32)
    scores = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    shares = F.one_hot(data.labels, 3) * 0.7 + 0.1
    logs = scores((data.images.float() / 255 - 0.5) / 0.25).log_softmax(1)
    torch.testing.assert_close(
        judge(scores, (data.images.float() / 255, data.labels)), -(shares * logs).sum() / 6
    )


def test_the_best_is_kept_and_patience_ends_it(guest: str) -> None:
    """At a rate that grows, early epochs are best."""

    class Growing:
        def __call__(self, done: float, epochs: float) -> float:
            return 1.0 if done < 2 else 200.0

    chosen = plan(guest, epochs=30, keep="best", patience=3, schedule=Growing())
    chosen = replace(chosen, clip=10.0)
    held = coloured(60, seed=1, noise=120)
    training = Training(chosen, coloured(60, noise=120), held, threads=1)
    found = lessons(training)
    ends = [lesson for lesson in found if lesson.validation is not None]
    scores = [lesson.validation for lesson in ends]
    best = max(range(len(ends)), key=lambda n: (scores[n].accuracy, -scores[n].loss))  # type: ignore[union-attr]
    assert training.stopped and len(ends) == best + 1 + 3
    assert ends[best].best and not any(lesson.best for lesson in ends[best + 1 :])
    assert found[-1].ends
    kept = training.kept
    right = (kept(held.images.float() / 255).argmax(1) == held.labels).float().mean().item()
    assert right == pytest.approx(scores[best].accuracy)  # type: ignore[union-attr]
    assert training.evaluate(held).accuracy < right


def test_running_means_go_as_far_with_parts(guest: str) -> None:
    whole = Training(plan(guest), coloured(), coloured(9, 1), threads=1)
    parts = Training(plan(guest, micro=4), coloured(), coloured(9, 1), threads=1)
    norms = [next(m for m in t.module.modules() if isinstance(m, nn.BatchNorm2d)) for t in (whole, parts)]
    assert norms[0].momentum == 0.1
    assert norms[1].momentum is not None and (1 - norms[1].momentum) ** 3 == pytest.approx(0.9)


def test_cost_is_told_without_a_trace(guest: str) -> None:
    training = Training(plan(guest, micro=6), coloured(), coloured(30, seed=1), threads=1)
    before = {name: value.clone() for name, value in training.module.state_dict().items()}
    found = cost(training)
    assert found.steps == 30 and found.seconds >= 30 * found.step > 0
    assert 0 < found.loading < 1
    assert all(torch.equal(before[n], v) for n, v in training.module.state_dict().items())
    assert training.judge.sums.count_nonzero() == 0


# bad input


def test_what_cannot_be_trained_is_told_at_once(guest: str) -> None:
    data = coloured()
    with pytest.raises(Invalid, match=r"a batch of 90 is larger than the set: colours has 60"):
        Training(plan(guest, batch=90), data, data)
    with pytest.raises(Invalid, match=r"answers \(3,\) to a picture, and the data has 4 classes"):
        Training(plan(guest), replace(data, classes=("red", "green", "blue", "grey")), None)
    with pytest.raises(Invalid, match="one class, 'red': there is nothing to tell apart"):
        Training(plan(guest), replace(data.subset(range(0, 60, 3)), classes=("red",)))
    with pytest.raises(Invalid, match="for pictures of 3 channels, and colours has 1"):
        Training(plan(guest), replace(data, images=data.images[:, :1]))
    with pytest.raises(Invalid, match="other classes than"):
        Training(plan(guest), data, replace(data, classes=("a", "b", "c")))
    with pytest.raises(Invalid, match="need pictures that are held out"):
        Training(plan(guest, keep="best"), data)
    with pytest.raises(Invalid, match="no layer 'whiten' to set"):
        Training(plan(guest, whiten=10), data)
    with pytest.raises(Invalid, match="no layer that begins with 'conv9'"):
        Training(plan(guest, frozen=("conv9",)), data)
    with pytest.raises(Invalid, match="cannot be shared by 5 processes"):
        Training(plan(guest), data, world=5)


def test_a_rate_that_is_too_great_is_told_with_advice(guest: str) -> None:
    training = Training(plan(guest, optimiser=Sgd(1e30)), coloured(), threads=1)
    with pytest.raises(Diverged, match=r"no longer a number.*smaller learning rate.*now was 9\.\d+e\+29"):
        lessons(training)


# the range test


def test_a_rate_is_found_where_the_loss_falls_fastest() -> None:
    """A loss that falls as a smooth step about 1e-2 and rises after 1."""
    rates = np.logspace(-6, 1, 141)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (np.log10(rates) + 2))) + 10 * np.maximum(0, np.log10(rates)) ** 2
    trials = [Trial(n + 1, 141, r, v, v) for n, (r, v) in enumerate(zip(rates, losses, strict=True))]
    found = suggest(trials)
    assert found.lr == pytest.approx(1e-2, rel=0.15)
    assert 0.8 < found.least < 1.3
    with pytest.raises(Invalid, match="never fell"):
        suggest([replace(trial, smooth=float(n)) for n, trial in enumerate(trials)])


def test_noise_at_small_rates_is_no_fall() -> None:
    """The same loss under noise: single steps fall faster by chance than it ever does."""
    rng = np.random.default_rng(0)
    rates = np.logspace(-6, 1, 100)
    losses = 2 - 1.5 / (1 + np.exp(-4 * (np.log10(rates) + 2))) + 10 * np.maximum(0, np.log10(rates)) ** 2
    for _ in range(5):
        noisy = losses + rng.normal(0, 0.15, 100)
        mean, smooth = 0.0, []
        for n, loss in enumerate(noisy, 1):
            mean = 0.9 * mean + 0.1 * loss
            smooth.append(mean / (1 - 0.9**n))
        trials = [Trial(n + 1, 100, *each) for n, each in enumerate(zip(rates, noisy, smooth, strict=True))]
        assert 3e-3 < suggest(trials).lr < 3e-2


def test_rates_are_tried_from_small_to_great(guest: str) -> None:
    found = list(find_lr(plan(guest), coloured(), low=1e-4, high=100.0, steps=40, threads=1))
    assert [t.lr for t in found] == pytest.approx([1e-4 * 10 ** (6 * n / 39) for n in range(len(found))])
    mean = 0.0
    for n, trial in enumerate(found, 1):
        mean = 0.9 * mean + 0.1 * trial.loss
        assert trial.smooth == pytest.approx(mean / (1 - 0.9**n))
    assert 1e-3 < suggest(found).lr < 10
    with pytest.raises(Invalid, match="rates must be above 0 and rise"):
        next(find_lr(plan(guest), coloured(), low=1.0, high=0.1))


# the commands


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write a folder of class folders, with a test part."""
    for part, count, seed in (("train", 60, 0), ("test", 24, 1)):
        data = coloured(count, seed)
        for n in range(count):
            where = tmp_path / "pictures" / part / data.classes[int(data.labels[n])]
            where.mkdir(parents=True, exist_ok=True)
            Image.fromarray(data.images[n].permute(1, 2, 0).numpy()).save(where / f"{n:02}.png")
    return tmp_path / "pictures"


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def small(guest: str, folder: Path, *more: object) -> list[object]:
    usual = ["--recipe", "folder", "--data", folder, "--net", guest, "--size", 8]
    return [*usual, "--epochs", 4, "--batch", 12, "--lr", 0.01, "--threads", 1, *more]


def test_train_leaves_a_folder_that_other_commands_take(guest: str, folder: Path) -> None:
    found = run("train", *small(guest, folder, "--run", "out", "--json"))
    assert found.exit_code == 0, found.output
    events = [json.loads(line) for line in found.stdout.splitlines()]
    result = events[-1]
    assert result["event"] == "result" and result["status"] == "done"
    assert result["accuracy"] > 0.9 and result["measured_on"] == "24 pictures of the test part"
    assert result["temperature"] is not None and result["accuracy_2_views"] > 0.9
    out = Path("out")
    names = {path.name for path in out.iterdir()}
    assert {
        "model.json",
        "model.safetensors",
        "run.json",
        "events.jsonl",
        "index.html",
        "evaluation.json",
    } <= names
    assert not any(name.startswith("checkpoint") for name in names)
    card = json.loads((out / "run.json").read_text())
    assert (card["status"], card["preset"], card["command"]) == ("done", "folder", "train")
    assert card["result"]["count"] == card["result"]["steps"] == 4 * (51 // 12)
    lines = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    assert [e["count"] for e in lines if e["event"] == "step"] == list(range(1, 17))
    epochs = [e for e in lines if e["event"] == "epoch"]
    assert [e["epoch"] for e in epochs] == [1, 2, 3, 4]
    assert all(
        {"loss", "accuracy", "validation_loss", "validation_accuracy", "lr"} <= e.keys() for e in epochs
    )
    again = run("evaluate", "--net", "out", "--data", folder, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["accuracy"] == result["accuracy"]
    opened = network.load("out")
    assert opened.classes == ("blue", "green", "red") and opened.input_size == 8
    assert run("runs", ".").output.count("done") == 1
    refused = run("train", *small(guest, folder, "--run", "out"))
    assert refused.exit_code == 2 and "holds a run already" in refused.output
    done = run("train", "--resume", "out")
    assert (done.exit_code, done.output) == (0, "already done: out\n")
    told = json.loads(run("train", "--resume", "out", "--json").stdout)
    assert (told["status"], told["accuracy"]) == ("done", result["accuracy"])
    for more in (("--epochs", "9"), ("--data", "elsewhere")):
        assert run("train", "--resume", "out", *more).exit_code == 2
    (out / "model.safetensors").unlink()
    refused = run("train", "--resume", "out")
    assert refused.exit_code == 2 and "is done" in refused.output


def test_weights_of_epochs_are_kept_and_looked_at(guest: str, folder: Path) -> None:
    """With all else the same: what is kept after the last epoch is what the run ends with."""
    args = small(guest, folder, "--keep", "last", "--no-report", "--quiet")
    assert run("train", *args, "--run", "plain").exit_code == 0
    assert not Path("plain/epochs").exists()
    assert run("train", *args, "--run", "out", "--keep-every", 2).exit_code == 0
    files = kept("out")
    assert list(files) == [0, 2, 4]
    start, half, end = (load_file(file) for file in files.values())
    last = load_file("out/model.safetensors")
    assert all(torch.equal(end[n], v) for n, v in last.items())
    assert all(torch.equal(load_file("plain/model.safetensors")[n], v) for n, v in last.items())
    assert not torch.equal(start["0.weight"], half["0.weight"])
    assert not torch.equal(half["0.weight"], end["0.weight"])
    then = network.load("out", weights_file=files[2])
    assert torch.equal(then.module.state_dict()["0.weight"], half["0.weight"])
    asked = ["compare", folder / "test", "--net", "out", "--target", "0:1", "--size", 8, "-o", "unit.png"]
    found = run(*asked, "--checkpoints", *files.values())
    assert found.exit_code == 0, found.output
    told = Path("unit.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in told] == ["epoch-000", "epoch-002", "epoch-004"]


def test_what_is_about_to_be_done_is_told(guest: str, folder: Path) -> None:
    said = run("train", *small(guest, folder, "--dry-run")).output
    assert "mine.py:net on pictures by the recipe folder: 8" in said
    assert "51 pictures of 8x8 in 3 classes, 9 held out; 17 of each class" in said
    for path in sorted((folder / "train/red").iterdir())[:5]:
        path.unlink()
    said = run("train", *small(guest, folder, "--dry-run")).output
    assert "; blue 17, green 17, red 13" in said
    many = DataSet(torch.zeros(14, 3, 8, 8, dtype=torch.uint8), torch.arange(14) % 13, tuple("abcdefghijklm"))
    assert of_each(many) == "from 1 (b) to 2 (a) of a class"


def test_a_dry_run_tells_the_cost_and_leaves_nothing(guest: str, folder: Path) -> None:
    found = run("train", *small(guest, folder, "--dry-run", "--run", "out", "--json"))
    told = json.loads(found.stdout.splitlines()[-1])
    assert found.exit_code == 0 and told["steps"] == 16 and told["seconds"] > 0
    assert not Path("out").exists()
    assert "pictures a second" in run("train", *small(guest, folder, "--dry-run")).output


def test_tensorboard_is_an_extra(guest: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = small(guest, folder, "--epochs", 1, "--tensorboard", "--no-report", "--run", "out", "--quiet")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)  # as if it were not installed
    found = run("train", *args)
    assert found.exit_code == 2 and "pip install 'innervision[tensorboard]'" in found.output
    told: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            assert Path(folder) == Path("out/tensorboard") and purge_step is None

        def add_scalar(self, key: str, value: float, count: int) -> None:
            told.append((key, value, count))

        def close(self) -> None:
            told.append(("closed", 0, 0))

    module = types.ModuleType("writer")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", module)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.ModuleType("tensorboard"))
    assert run("train", *args).exit_code == 0
    assert [count for key, _, count in told if key == "loss"] == [1, 2, 3, 4, 4]  # steps, and the epoch
    assert {"lr", "accuracy", "validation_accuracy", "validation_loss"} <= {key for key, _, _ in told}
    assert told[-1][0] == "closed"


def test_tensorboard_reads_what_is_written(guest: str, folder: Path) -> None:
    """With the package itself, where it is installed."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    args = small(guest, folder, "--epochs", 2, "--tensorboard", "--no-report", "--run", "out", "--quiet")
    assert run("train", *args).exit_code == 0
    found = reader.EventAccumulator("out/tensorboard").Reload()
    written = [json.loads(line) for line in Path("out/events.jsonl").read_text().splitlines()]
    for key in ("loss", "lr", "accuracy", "validation_accuracy", "validation_loss"):
        wanted = [(event["count"], event[key]) for event in written if key in event]
        assert [(one.step, one.value) for one in found.Scalars(key)] == [
            (count, pytest.approx(value, rel=1e-6)) for count, value in wanted
        ]


def test_find_lr_draws_a_curve(guest: str, folder: Path) -> None:
    args = ["--recipe", "alexnet-cifar", "--data", folder, "--net", guest, "--size", 8]
    args += ["--batch", 12, "--micro", 12, "--threads", 1, "--json"]
    found = run("find-lr", *args, "--from", 1e-4, "--to", 10, "--steps", 30)
    assert found.exit_code == 0, found.output
    assert 1e-4 < json.loads(found.stdout.splitlines()[-1])["lr"] < 10
    with Image.open("find-lr.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--recipe", "fast99"], "no recipe 'fast99'"),
        (["--recipe", "folder"], "name their folder by --data"),
        (["--data", "nowhere/at/all"], "no file or folder"),
        (["--resume", "nothing"], "holds no run"),
        (["--recipe", "lenet5-modern", "--net", "vgg61"], "no network 'vgg61'"),
        (["--recipe", "fast94", "--validation", "1.5"], "validation is 1.5"),
        (["--resume", "x", "--run", "y"], "leave --run"),
    ],
)
def test_a_mistake_is_one_clear_line(args: list[str], message: str) -> None:
    found = run("train", *args)
    assert found.exit_code == 2
    assert message in found.output
    assert "Traceback" not in found.output


def test_no_number_of_epochs_is_lost_in_rounding(guest: str) -> None:
    for epochs, steps in ((1, 5), (1.5, 8), (2.2, 11), (0.1, 1)):
        training = Training(plan(guest, epochs=epochs), coloured(), coloured(9, 1), threads=1)
        assert training.steps == steps
        assert math.isclose(training.epochs, steps / 5)
