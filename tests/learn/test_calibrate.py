"""Calibration: oracles are a table worked by hand, a loop over single pictures, and L-BFGS."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid
from innervision.learn.calibrate import reliability, remark, temperature


def two(*sure: float) -> Tensor:
    """Return logits of two classes whose first has these probabilities."""
    p = torch.tensor(sure, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], 1)


def drawn(n: int, classes: int, heat: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits that are `heat` times too large for the labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    honest = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return heat * honest, labels


def test_a_table_worked_by_hand() -> None:
    # five bins: .55 and .58 lie in (.4, .6], .7 in (.6, .8], .9 and .95 and 1 in (.8, 1]
    logits = torch.cat([two(0.55, 0.58, 0.7, 0.9, 0.95), torch.tensor([[40.0, -40.0]])])
    labels = torch.tensor([0, 1, 0, 0, 0, 1])
    found = reliability(logits, labels, bins=5)
    assert found.counts == (0, 0, 2, 1, 3)
    assert found.accuracy == pytest.approx((0, 0, 0.5, 1, 2 / 3))
    assert found.confidence == pytest.approx((0.1, 0.3, 0.565, 0.7, 0.95))
    by_hand = (2 * abs(0.5 - 0.565) + 1 * abs(1 - 0.7) + 3 * abs(2 / 3 - 0.95)) / 6
    assert found.ece == pytest.approx(by_hand)


def test_a_bin_has_its_upper_edge() -> None:
    logits = two(0.5, 0.75, 0.75 + 1e-9, 1 - 1e-9)
    assert reliability(logits, torch.zeros(4, dtype=torch.long), bins=4).counts == (0, 1, 1, 2)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_the_error_is_that_of_a_loop_over_pictures(bins: int) -> None:
    logits, labels = drawn(400, 6, 2.5)
    total = 0.0
    for m in range(1, bins + 1):
        inside = []
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            peak = max(row)
            weights = [math.exp(value - peak) for value in row]
            sure = max(weights) / sum(weights)
            if (m - 1) / bins < sure <= m / bins:
                inside.append((row.index(peak) == label, sure))
        if inside:
            right, sure = (sum(values) / len(inside) for values in zip(*inside, strict=True))
            total += len(inside) / len(labels) * abs(right - sure)
    assert reliability(logits, labels, bins=bins).ece == pytest.approx(total, abs=1e-12)


@pytest.mark.parametrize("heat", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_recovered(heat: float) -> None:
    logits, labels = drawn(20_000, 10, heat)
    found = temperature(logits, labels)
    assert found == pytest.approx(heat, rel=0.03)
    assert reliability(logits / found, labels).ece < 0.012
    if heat != 1:
        assert reliability(logits, labels).ece > 0.05


def test_the_temperature_is_where_lbfgs_finds_the_least_loss() -> None:
    logits, labels = drawn(500, 5, 1.7, seed=2)
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [inverse], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        loss = F.cross_entropy(logits * inverse, labels)
        loss.backward()
        return loss

    search.step(closure)
    assert temperature(logits, labels) == pytest.approx(1 / inverse.item(), rel=1e-6)


def test_scaling_changes_no_prediction_and_large_logits_overflow_nothing() -> None:
    logits, labels = drawn(200, 4, 1.0)
    found = temperature(1000 * logits, labels)
    assert found == pytest.approx(1000 * temperature(logits, labels), rel=1e-6) or found == 100.0
    assert torch.equal((logits / found).argmax(1), logits.argmax(1))


def test_where_no_temperature_is_best_it_stops_at_the_ends() -> None:
    labels = torch.tensor([0, 1, 1])
    right = torch.tensor([[3.0, 1.0], [0.0, 1.0], [-1.0, 5.0]])
    assert temperature(right, labels) == 0.01
    assert temperature(right, 1 - labels) == 100.0
    assert temperature(torch.zeros(3, 2), labels) == 100.0


def test_an_end_of_the_range_is_said_to_be_one() -> None:
    labels = torch.tensor([0, 1, 1])
    right = torch.tensor([[3.0, 1.0], [0.0, 1.0], [-1.0, 5.0]])
    assert "100 is the end of the range: " in remark(temperature(torch.zeros(3, 2), labels))
    assert "0.01 is the end of the range: " in remark(temperature(right, labels))
    assert remark(1.0) == remark(99.9) == remark(0.011) == ""


def test_no_pictures_or_bins_are_refused() -> None:
    with pytest.raises(Invalid, match="held out"):
        temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(Invalid, match="0 bins"):
        reliability(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), bins=0)
