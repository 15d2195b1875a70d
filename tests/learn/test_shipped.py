"""The trained networks that come with innervision are as good as their cards say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from innervision import models, network
from innervision.learn.data import DataSet
from innervision.learn.evaluate import evaluate, logits

SHARED = Path(__file__).parents[2].parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside this clone")
OWN = Path(models.__file__).parent
NAMES = sorted(card.parent.name for card in OWN.glob(f"*/{models.CARD}"))


def digits() -> tuple[Tensor, Tensor]:
    with np.load(SHARED / "mnist.npz") as stored:
        return torch.from_numpy(stored["x_test"])[:, None], torch.from_numpy(stored["y_test"]).long()


def things(count: int = 1000) -> tuple[Tensor, Tensor]:
    """The first test pictures of CIFAR-10."""
    grid = np.asarray(Image.open(sorted((SHARED / "cifar10").glob("test_*.webp"))[0]).convert("RGB"))
    tiles = grid.reshape(50, 32, 50, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)
    labels = np.load(SHARED / "cifar10/labels.npz")["y_test"].astype(np.int64)
    return torch.from_numpy(tiles[:count].copy()), torch.from_numpy(labels[:count])


def measured(name: str, images: Tensor, labels: Tensor) -> float:
    net = network.load(name)
    data = DataSet(images, labels, net.classes)
    return evaluate(logits(net, data), labels, net.classes).accuracy


@pytest.mark.parametrize("name", NAMES)
def test_each_has_a_card_that_agrees_with_its_page(name: str) -> None:
    card = models.read_card(OWN / name)
    assert (card.name, len(card.classes)) == (name, 10)
    page = (OWN / name / "README.md").read_text(encoding="utf-8")
    assert f"{100 * card.facts['accuracy']:.2f} %" in page
    assert (OWN / name / models.WEIGHTS).stat().st_size < 5 * 2**20


@needs_shared
def test_the_digits_are_read_as_well_as_the_card_says() -> None:
    assert measured("lenet5-mnist", *digits()) == models.read_card(OWN / "lenet5-mnist").facts["accuracy"]


@needs_shared
def test_the_things_are_told_apart_as_well_as_the_card_says() -> None:
    """A thousand of ten, for time's sake: within four standard errors of the accuracy, 3.1 points."""
    stated = models.read_card(OWN / "cifar10-fast").facts["accuracy"]
    assert measured("cifar10-fast", *things()) == pytest.approx(stated, abs=0.031)
