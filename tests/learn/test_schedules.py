"""Schedules against tables computed by hand, NumPy's interpolation, and PyTorch's own."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch

from innervision.errors import Invalid
from innervision.learn.schedules import (
    Constant,
    Cosine,
    OneCycle,
    Schedule,
    Steps,
    Tanh,
    Triangle,
    WarmUp,
    explain,
)

# (epochs done, factor) of so many epochs
TABLES: list[tuple[Schedule, float, list[tuple[float, float]]]] = [
    (Constant(), 10, [(0, 1), (5, 1), (10, 1)]),
    (
        Steps((81, 122), (0.125, 0.0125)),
        164,
        [(0, 1), (80.99, 1), (81, 0.125), (121.9, 0.125), (122, 0.0125), (163.9, 0.0125)],
    ),
    (Cosine(), 8, [(0, 1), (2, (1 + math.sqrt(0.5)) / 2), (4, 0.5), (8, 0), (9, 0)]),
    (Cosine(0.1), 8, [(0, 1), (4, 0.55), (8, 0.1)]),
    # (1 - tanh(-6 + 9t)) / 2: tanh(0) at t = 2/3
    (Tanh(), 9, [(0, 0.9999939), (6, 0.5), (9, 0.0024726)]),
    (Tanh(-1, 1), 4, [(0, 0.8807971), (2, 0.5), (4, 0.1192029)]),
    (Triangle(0.2, 0.25, 0.08), 8, [(0, 0.2), (1, 0.6), (2, 1), (5, 0.54), (8, 0.08)]),
    (Triangle(1, 0, 0), 8, [(0, 1), (2, 0.75), (8, 0)]),
    (WarmUp(2, Cosine(), start=0.1), 10, [(0, 0.1), (1, 0.55), (2, 1), (6, 0.5), (10, 0)]),
    (WarmUp(1, Cosine()), 1, [(0, 0), (0.25, 0.5), (0.5, 1), (0.75, 0.5), (1, 0)]),  # in all it has half
    (WarmUp(1, Steps((2,), (0.5,))), 9, [(0.5, 0.5), (1, 1), (2.9, 1), (3, 0.5)]),
]


@pytest.mark.parametrize(("schedule", "epochs", "table"), TABLES, ids=lambda v: type(v).__name__)
def test_by_hand(schedule: Schedule, epochs: float, table: list[tuple[float, float]]) -> None:
    assert [schedule(done, epochs) for done, _ in table] == pytest.approx([f for _, f in table], abs=1e-6)


def torchs(kind: type, count: int, **options: object) -> list[float]:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([weight], lr=1.0)
    schedule = kind(optimiser, **options)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is stepped without its optimiser
        for _ in range(count):
            rates.append(optimiser.param_groups[0]["lr"])
            schedule.step()
    return rates


def test_cosine_and_one_cycle_are_torchs() -> None:
    have = [Cosine(0.2)(step / 5, 4) for step in range(20)]
    kind = torch.optim.lr_scheduler.CosineAnnealingLR
    assert have == pytest.approx(torchs(kind, 20, T_max=20, eta_min=0.2))
    # torch ends at the last step, step count - 1, and turns at pct · count - 1
    count = 21
    peak = (0.3 * count - 1) / (count - 1)
    have = [OneCycle(peak)(step, count - 1) for step in range(count)]
    kind = torch.optim.lr_scheduler.OneCycleLR
    want = torchs(kind, count, max_lr=1.0, total_steps=count + 0, cycle_momentum=False)
    assert have == pytest.approx(want, abs=1e-9)


def test_triangle_is_numpys_interpolation() -> None:
    total, peak = 480, 0.23
    want = np.interp(np.arange(total + 1), [0, peak * total, total], [0.2, 1, 0.07])
    have = [Triangle()(step / 48, 10) for step in range(total + 1)]
    np.testing.assert_allclose(have, want, atol=1e-12)


def test_they_say_what_they_are() -> None:
    assert explain(Constant()) == "constant"
    assert explain(Steps((81, 122), (0.1, 0.01))) == "steps at (81, 122) factors (0.1, 0.01)"
    assert explain(WarmUp(2, Cosine())) == "warm-up of 2 epochs, then cosine floor 0.0"


def test_what_is_not_allowed() -> None:
    with pytest.raises(Invalid, match="rising epochs"):
        Steps((122, 81), (0.1, 0.01))
    with pytest.raises(Invalid, match="a factor for each"):
        Steps((81,), (0.1, 0.01))
    with pytest.raises(Invalid, match="peak is 1"):
        Triangle(peak=1)
    with pytest.raises(Invalid, match="peak is 0"):
        OneCycle(peak=0)
