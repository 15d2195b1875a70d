"""Evaluation: oracles are tables worked by hand, loops over single pictures, and views drawn one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision import network, saved
from innervision.cli import cli
from innervision.errors import Invalid
from innervision.learn.data import DataSet
from innervision.learn.evaluate import batches, evaluate, logits
from innervision.network import Network

NET = """
import torch
from torch import nn

def colours():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 3),
    )
"""


def pictures(n: int, channels: int = 3, side: int = 8, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, side, side), generator=generator, dtype=torch.uint8)


def data(n: int = 7, channels: int = 3, classes: int = 3, side: int = 8) -> DataSet:
    return DataSet(
        images=pictures(n, channels, side),
        labels=torch.arange(n) % classes,
        classes=tuple("abcdefghijkl"[:classes]),
        name="squares",
    )


def colours(*, classes: tuple[str, ...] = ("a", "b", "c"), channels: int = 3) -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, len(classes)),
    )
    return network.wrap(module, mean=(0.4,) * channels, std=(0.3,) * channels, classes=classes, input_size=8)


def test_a_table_worked_by_hand() -> None:
    scores = torch.tensor([[2.0, 0, 0], [0, 1, 0], [0, 3, 1], [0, 0, 2], [1, 1, 0], [5, 0, 0]])
    labels = torch.tensor([0, 1, 2, 2, 1, 2])
    found = evaluate(scores, labels, ("x", "y", "z"))
    assert found.accuracy == 3 / 6
    assert found.confusion.tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert found.per_class == (1.0, 0.5, 1 / 3)
    assert found.top5 is None
    assert found.n == 6
    one = [torch.log_softmax(row, 0)[label] for row, label in zip(scores.double(), labels, strict=True)]
    assert found.loss == pytest.approx(-float(sum(one)) / 6)
    assert found.ece_calibrated == found.ece
    assert json.loads(json.dumps(found.record()))["confusion"] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_every_number_is_that_of_a_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(120, 8, generator=generator)
    labels = torch.randint(0, 7, (120,), generator=generator)  # the last class has no pictures
    found = evaluate(scores, labels)
    table = np.zeros((8, 8), int)
    first5 = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        order = sorted(range(8), key=lambda k: -row[k])
        table[label, order[0]] += 1
        first5 += label in order[:5]
    assert found.confusion.tolist() == table.tolist()
    assert found.top5 == pytest.approx(first5 / 120)
    assert found.accuracy == pytest.approx(np.trace(table) / 120)
    assert found.per_class[7] is None
    assert found.per_class[3] == pytest.approx(table[3, 3] / table[3].sum())
    assert found.classes == tuple("01234567")


def test_a_temperature_changes_the_loss_and_the_calibration_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, labels = 5 * torch.randn(200, 4, generator=generator), torch.arange(200) % 4
    plain, cooled = evaluate(scores, labels), evaluate(scores, labels, temperature=4.0)
    scaled = evaluate(scores / 4, labels)
    assert (cooled.accuracy, cooled.loss, cooled.ece) == (plain.accuracy, plain.loss, plain.ece)
    assert cooled.ece_calibrated == pytest.approx(scaled.ece)
    assert cooled.loss_calibrated == pytest.approx(scaled.loss, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "labels", "classes", "words"),
    [
        (torch.zeros(2, 3), [0, 1], ("a", "b"), "tells 3 classes apart, the data has 2: a, b"),
        (torch.zeros(2, 3), [0, 3], (), "label 3 is none of the network's 3 classes"),
        (torch.zeros(2, 3), [0, -1], (), "label -1 is none"),
        (torch.zeros(2, 3), [0], (), r"logits \(2, 3\) and labels \(1,\)"),
        (torch.zeros(0, 3), [], (), r"\(n, classes\)"),
        (torch.full((1, 3), torch.nan), [0], (), "NaN or infinite"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    scores: Tensor, labels: list[int], classes: tuple[str, ...], words: str
) -> None:
    with pytest.raises(Invalid, match=words):
        evaluate(scores, torch.tensor(labels, dtype=torch.long), classes)


def test_logits_are_the_networks_answers_whatever_the_batch() -> None:
    own, some = colours(), data(7)
    by_hand = own.module.eval()((some.images.float() / 255 - 0.4) / 0.3)
    own.module.train()
    for batch in (1, 3, 7, 500):
        assert torch.allclose(logits(own, some, batch=batch), by_hand, atol=1e-5)
    assert own.module.training
    assert not logits(own, some).requires_grad


def test_the_callers_gradients_stay_on_while_batches_are_taken() -> None:
    for _ in batches(colours(), data(4), batch=2):
        assert torch.is_grad_enabled()


def test_views_are_the_mean_over_mirrored_and_shifted_pictures() -> None:
    own, some = colours(), data(5)
    images = some.images.float() / 255

    def answers(x: Tensor) -> Tensor:
        with torch.no_grad():
            return own(x)

    def shifted(x: Tensor, by: int) -> Tensor:
        """Return the picture moved down and right by so many pixels, its border mirrored."""
        places = [abs(n - by) if n - by < 8 else 14 - (n - by) for n in range(8)]
        return x[:, :, places][:, :, :, places]

    plain, mirrored = answers(images), answers(images.flip(-1))
    assert torch.allclose(logits(own, some, views=2), (plain + mirrored) / 2, atol=1e-6)
    others = [answers(x) for by in (1, -1) for x in (shifted(images, by), shifted(images, by).flip(-1))]
    six = (plain + mirrored) / 4 + sum(others) / 8
    assert torch.allclose(logits(own, some, views=6), six, atol=1e-6)
    with pytest.raises(Invalid, match="views is 3: 1 "):
        logits(own, some, views=3)


def test_grey_pictures_for_a_network_of_colours_and_the_other_way_round() -> None:
    grey = data(4, channels=1)
    three = DataSet(grey.images.expand(-1, 3, -1, -1), grey.labels, grey.classes)
    assert torch.equal(logits(colours(), grey), logits(colours(), three))
    one, coloured = colours(channels=1), data(4)
    r, g, b = (coloured.images.float() / 255).unbind(1)
    luma = (0.299 * r + 0.587 * g + 0.114 * b)[:, None]
    assert torch.allclose(logits(one, coloured), one(luma).detach(), atol=1e-5)


def test_what_is_no_classifier_or_too_small_a_picture_is_refused() -> None:
    maps = network.wrap(nn.Conv2d(3, 2, 3))
    with pytest.raises(Invalid, match=r"no classifier: it answers \(1, 2, 6, 6\), not \(n, classes\)"):
        logits(maps, data(4))  # one picture is asked for before all
    deep = network.wrap(nn.Sequential(nn.MaxPool2d(16), nn.Flatten(), nn.Linear(3, 2)))
    with pytest.raises(Invalid, match="cannot take pictures of 8x8"):
        logits(deep, data(4))
    with pytest.raises(Invalid, match="batches of 0"):
        logits(colours(), data(4), batch=0)


def folder_of_classes(root: Path, names: tuple[str, ...] = ("a", "b", "c"), count: int = 4) -> DataSet:
    """Write PNGs in class folders; return the same data, in the order in which folders are read."""
    images = pictures(count * len(names))
    for number, image in enumerate(images):
        place = root / names[number // count] / f"{number:03}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(place)
    return DataSet(images, torch.arange(len(images)) // count, names)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    Path("own.py").write_text(NET)
    opened = network.load("own.py:colours", mean=(0.4,) * 3, std=(0.3,) * 3)
    trained = Network(
        opened.module,
        name="tiny",
        preprocessing=opened.preprocessing,
        classes=("a", "b", "c"),
        input_size=8,
    )
    saved.save(trained, "runs/tiny", net="own.py:colours", facts={"temperature": 2.0})
    return tmp_path


def command(*args: str) -> Result:
    return CliRunner().invoke(cli, ["evaluate", "--device", "cpu", *args])


def test_the_command_ends_in_one_object_with_the_accuracy(elsewhere: Path) -> None:
    wanted = folder_of_classes(Path("photos"))
    found = command("--net", "runs/tiny", "--data", "photos", "--views", "6", "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    own = network.load("runs/tiny")
    scores = logits(own, wanted)
    by_hand = evaluate(scores, wanted.labels, temperature=2.0)
    assert result["accuracy"] == by_hand.accuracy
    assert result["loss"] == pytest.approx(by_hand.loss, rel=1e-5)
    assert result["ece_calibrated"] == pytest.approx(by_hand.ece_calibrated, rel=1e-4)
    six = logits(own, wanted, views=6).argmax(1)
    assert result["accuracy_6_views"] == float((six == wanted.labels).double().mean())
    assert result["n"] == 12
    assert set(result["per_class"]) == {"a", "b", "c"}


def test_without_json_a_person_reads_a_table(elsewhere: Path) -> None:
    folder_of_classes(Path("photos"))
    found = command("--net", "runs/tiny", "--data", "photos")
    assert found.exit_code == 0, found.output
    assert "accuracy" in found.stdout
    assert "at temperature 2" in found.stdout
    assert [line.split()[0] for line in found.stdout.splitlines()[-3:]] == ["a", "b", "c"] or all(
        f"\n{name} " in found.stdout for name in "abc"
    )
    assert command("--net", "runs/tiny", "--data", "photos", "--quiet").stdout == ""


def test_classes_are_matched_by_name_and_strange_ones_refused(elsewhere: Path) -> None:
    wanted = folder_of_classes(Path("photos"), ("b", "c"))
    found = command("--net", "runs/tiny", "--data", "photos", "--json")
    assert found.exit_code == 0, found.output
    scores = logits(network.load("runs/tiny"), wanted)
    right = (scores.argmax(1) == wanted.labels + 1).double().mean()
    assert json.loads(found.stdout.splitlines()[-1])["accuracy"] == float(right)
    folder_of_classes(Path("more"), ("a", "b", "c", "zebra"))
    found = command("--net", "runs/tiny", "--data", "more")
    assert found.exit_code == 2
    assert "zebra" in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_a_network_without_names_must_have_as_many_classes(elsewhere: Path) -> None:
    folder_of_classes(Path("photos"), ("a", "b"))
    found = command("--net", "own.py:colours", "--data", "photos", "--json")
    assert found.exit_code == 2
    assert "tells 3 classes apart, the data has 2: a, b" in found.stderr


@pytest.mark.parametrize("args", [("evaluate", "--data", "nowhere"), ("predict", "nowhere.png")])
def test_a_base_is_refused_before_anything_is_read(elsewhere: Path, args: tuple[str, ...]) -> None:
    Path("own.py").write_text(NET + "def base():\n    return colours()[:4]\n")
    found = CliRunner().invoke(cli, [*args, "--net", "own.py:base", "--device", "cpu"])
    assert found.exit_code == 2
    assert found.stderr == (
        "innervision: own.py:base ends in features and has no classes: name a network with a classifier, "
        "such as --net efficientnet_lite0 or --net cifar10-fast\n"
    )


def test_a_damaged_picture_is_refused_or_skipped_as_asked(elsewhere: Path) -> None:
    folder_of_classes(Path("photos"))
    Path("photos/b/broken.png").write_bytes(Path("photos/b/004.png").read_bytes()[:60])
    found = command("--net", "runs/tiny", "--data", "photos", "--json")
    assert found.exit_code == 2
    assert "broken.png" in found.stderr
    found = command("--net", "runs/tiny", "--data", "photos", "--bad", "skip")
    assert found.exit_code == 0, found.output
    assert "broken.png" in found.stderr
    assert "12" in found.stdout
