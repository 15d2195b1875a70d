"""The report of a small network that has really learned: its numbers, its pictures and its page."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from innervision import nets, network, saved
from innervision.errors import Invalid
from innervision.learn import calibrate, figures, modelcard, pictures, report
from innervision.learn.data import DataSet
from innervision.learn.evaluate import evaluate, logits
from innervision.learn.figures import DARK, LIGHT
from innervision.network import Network
from innervision.weights import Preprocessing

CLASSES = ("dot", "bar", "cross", "ring")


def shapes(n: int, seed: int) -> DataSet:
    """Draw bright shapes in noise, a fiftieth of them under a wrong label."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 4, n)
    y, x = np.mgrid[:16, :16]
    images = np.empty((n, 1, 16, 16), np.float64)
    for number, label in enumerate(labels):
        cy, cx = draw.uniform(5, 10, 2)
        r = np.hypot(y - cy, x - cx)
        form = (r < 2.5, abs(y - cy) < 1.2, np.minimum(abs(y - cy), abs(x - cx)) < 1.2, abs(r - 4) < 1)[label]
        images[number, 0] = 90 * form + draw.normal(80, 60, (16, 16))
    wrong = draw.random(n) < 0.02
    labels = np.where(wrong, draw.integers(0, 4, n), labels)
    pixels = torch.from_numpy(images.clip(0, 255).astype(np.uint8))
    return DataSet(pixels, torch.from_numpy(labels), CLASSES, name="shapes")


@pytest.fixture(scope="module")
def learned() -> tuple[Network, DataSet, Tensor, float, list[dict[str, object]]]:
    """Train LeNet-5 until it is too sure of itself; return it, a test set, its logits, a temperature."""
    train, held, test = shapes(500, 0), shapes(600, 1), shapes(1000, 2)
    module = nets.build("lenet5", classes=4, generator=torch.Generator().manual_seed(0))
    own = Network(
        module,
        name="shapes-lenet",
        preprocessing=Preprocessing((0.35,), (0.2,)),
        classes=CLASSES,
        input_size=16,
    )
    optimiser = torch.optim.SGD(module.parameters(), lr=0.02, momentum=0.9)
    events: list[dict[str, object]] = []
    inputs = own.preprocessing(train.images.float() / 255)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(1, 21):
        module.train()
        for which in torch.randperm(500, generator=generator).split(50):
            optimiser.zero_grad()
            loss = F.cross_entropy(module(inputs[which]), train.labels[which])
            loss.backward()
            optimiser.step()
        seen = evaluate(logits(own, held), held.labels)
        events.append(
            {
                "event": "epoch",
                "epoch": epoch,
                "loss": float(loss.detach()),
                "validation_loss": seen.loss,
                "validation_accuracy": seen.accuracy,
                "lr": 0.02,
            }
        )
    heat = calibrate.temperature(logits(own, held), held.labels)
    return own, test, logits(own, test), heat, events


def test_a_temperature_found_on_other_pictures_calibrates(
    learned: tuple[Network, DataSet, Tensor, float, list],
) -> None:
    _, test, scores, heat, _ = learned
    found = evaluate(scores, test.labels, temperature=heat)
    assert found.accuracy > 0.75  # it has learned
    assert heat > 1.5  # and is too sure
    assert found.ece > 0.06
    assert found.ece_calibrated < found.ece / 2
    assert found.loss_calibrated < found.loss


def test_the_folder_holds_numbers_pictures_and_a_page_that_stands_alone(
    learned: tuple[Network, DataSet, Tensor, float, list], tmp_path: Path
) -> None:
    own, test, scores, heat, events = learned
    two = logits(own, test, views=2)
    found = report.write(
        tmp_path, own, test, scores, events, temperature=heat, views={2: two}, facts={"Recipe": "a <b> & c"}
    )
    names = {path.name for path in tmp_path.iterdir()}
    files = {
        "confusion.png",
        "per_class.png",
        "reliability.png",
        "mistakes.png",
        "filters.png",
        "curves.png",
    }
    assert names == {*files, "evaluation.json", "index.html"}
    record = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert record["accuracy"] == found.accuracy == evaluate(scores, test.labels).accuracy
    assert sum(map(sum, record["confusion"])) == 1000
    assert record["views_accuracy"] == {"2": evaluate(two, test.labels).accuracy}
    assert record["ece_calibrated"] == calibrate.reliability(scores / heat, test.labels).ece
    assert sum(record["reliability"]["counts"]) == 1000
    page = (tmp_path / "index.html").read_text("utf-8")
    assert not re.findall(r"""(?:src|href|srcset)=["'](?!data:|#)""", page)
    assert "http" not in re.sub(r"data:[^\"]+", "", page)
    assert "a &lt;b&gt; &amp; c" in page
    assert f"<title>{own.name} on {test.name} · innervision</title>" in page
    assert f"{100 * found.accuracy:.2f} %" in page
    embedded = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", page)
    assert len(embedded) == 2 * len(files)
    for name in files:
        dark = np.asarray(Image.open(tmp_path / name))
        assert dark.std() > 5, f"{name} is blank"
        assert any(
            np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))), dark)
            for one in embedded
        )


def test_the_mistakes_shown_are_the_most_confident(
    learned: tuple[Network, DataSet, Tensor, float, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, test, scores, _, _ = learned
    shown: dict[str, list] = {}
    monkeypatch.setattr(
        pictures.sheets,
        "sheet",
        lambda images, **options: shown.update(images=images, labels=options["labels"]),
    )
    pictures.mistakes(test, scores, most=5)
    shares = scores.double().softmax(1).numpy()
    wrong = [n for n in range(1000) if shares[n].argmax() != int(test.labels[n])]
    wrong = sorted(wrong, key=lambda n: -shares[n].max())[:5]
    for n, image, label in zip(wrong, shown["images"], shown["labels"], strict=True):
        assert np.array_equal(np.asarray(image), test.images[n, 0].numpy())
        assert label.startswith(CLASSES[shares[n].argmax()])
        assert label.endswith(f"labelled {CLASSES[int(test.labels[n])]}")


def test_pairs_most_often_confused() -> None:
    table = torch.tensor([[5, 3, 0], [0, 6, 1], [0, 4, 4]])
    scores, labels = [], []
    for true, row in enumerate(table.tolist()):
        for taken, count in enumerate(row):
            scores += [torch.eye(3)[taken]] * count
            labels += [true] * count
    found = evaluate(torch.stack(scores), torch.tensor(labels), ("x", "y", "z"))
    assert report.confused(found, 8) == [
        ("z", "y", 4, 0.5),
        ("x", "y", 3, 0.375),
        ("y", "z", 1, pytest.approx(1 / 7)),
    ]


def test_events_become_lines_over_the_epochs() -> None:
    events = [
        {"event": "step", "epoch": 1, "loss": 2.0, "lr": 0.1, "seconds": 3.0},
        {"event": "step", "epoch": 1, "loss": 1.0, "lr": 0.3},
        {"event": "epoch", "epoch": 1, "validation_accuracy": 0.5},
        {
            "event": "epoch",
            "epoch": 2,
            "validation_accuracy": 0.75,
            "validation_loss": float("nan"),
            "loss": None,
        },
        {"event": "frame", "accuracy": 0.1},
    ]
    assert figures.series_of(events) == {
        "loss": {"training": ([1.0], [1.5])},
        "accuracy": {"validation": ([1.0, 2.0], [0.5, 0.75])},
        "learning rate": {"training": ([1.0], [pytest.approx(0.2)])},
    }
    assert figures.series_of([]) == {}
    one = {group: {"training": ([1.0], [2.0])} for group in ("loss", "accuracy")}
    assert figures.curves(one, DARK) is None, "a point is no curve"
    two = {"loss": {"training": ([1.0, 2.0], [2.0, 1.0])}, "accuracy": {"validation": ([1.0], [0.5])}}
    alone = {"loss": two["loss"]}
    drawn, without = (np.asarray(figures.curves(each, DARK)) for each in (two, alone))
    assert np.array_equal(drawn, without)


def test_many_classes_and_few_pictures_are_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    found = evaluate(
        torch.randn(200, 100, generator=generator), torch.randint(0, 100, (200,), generator=generator)
    )
    for draw, paper in ((figures.confusion, DARK), (figures.per_class, LIGHT)):
        ground = np.array([int(paper.ground[n : n + 2], 16) for n in (1, 3, 5)])
        drawn = draw(found, paper)
        assert max(drawn.size) < 2400
        assert np.array_equal(np.asarray(drawn)[0, 0], ground)
    alone = evaluate(torch.tensor([[1.0, 0.0]]), torch.tensor([0]), ("a", "b"))
    figures.confusion(alone, LIGHT)
    figures.per_class(alone, DARK)
    bins = calibrate.reliability(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    figures.reliability(bins, None, DARK)


def test_no_mistakes_and_no_convolution_draw_nothing() -> None:
    data = DataSet(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), ("a", "b"))
    assert pictures.mistakes(data, torch.tensor([[1.0, 0.0]])) is None
    flat = network.wrap(torch.nn.Linear(2, 2), mean=(0.0,), std=(1.0,))
    assert pictures.filters(flat) is None


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.5, "50 %"),
        (0.994, "99 %"),
        (0.9951, "99.5 %"),
        (0.9996, "99.96 %"),
        (0.99999, "> 99.99 %"),
        (1.0, "> 99.99 %"),
        (0.006, "1 %"),
        (0.004, "0.4 %"),
        (0.0004, "0.04 %"),
        (0.00001, "< 0.01 %"),
        (0.0, "< 0.01 %"),
    ],
)
def test_no_probability_is_rounded_to_certainty(share: float, text: str) -> None:
    assert pictures.percent(share) == text


def test_a_models_page_tells_what_was_measured(
    learned: tuple[Network, DataSet, Tensor, float, list], tmp_path: Path
) -> None:
    own, test, scores, heat, events = learned
    saved.save(own, tmp_path, net="lenet5", options={"classes": 4}, facts={"text": "four shapes in noise"})
    found = evaluate(scores, test.labels, CLASSES, temperature=heat)
    path = modelcard.write(
        tmp_path,
        found,
        data="drawn",
        use="For tests.",
        limits="Not for photographs.",
        licence="MIT",
        seeds={0: 0.9, 1: 0.92, 2: 0.94},
        training={"recipe": "by hand"},
        events=events,
    )
    text = path.read_text("utf-8")
    assert text.startswith("# shapes-lenet\n\nFour shapes in noise")
    assert "92.00 ± 2.00 % (n = 3)" in text
    row = next(line for line in text.splitlines() if line.startswith("| **bar** "))
    counts = [0 if cell.strip() == "·" else int(cell) for cell in row.split("|")[2:6]]
    assert counts == found.confusion[1].tolist()
    assert len(re.findall(r"^\| (?:1|20) \|", text, re.MULTILINE)) == 2  # the log's ends
    for heading in ("Intended use", "Training", "Confusion", "Accuracy", "Licence"):
        assert f"\n## {heading}\n" in text
    with pytest.raises(Invalid, match="the evaluation is of 3"):
        modelcard.write(
            tmp_path, evaluate(torch.eye(3), torch.arange(3)), data="", use="", limits="", licence=""
        )
