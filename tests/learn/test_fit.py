"""fit(): steps computed by hand, parts against the whole, resumption, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from innervision.core.fit import Batch, Tick, fit
from innervision.errors import Diverged, Invalid


class Points:
    """Batches of (x, y): the same `length` batches in every epoch, told apart by their numbers."""

    def __init__(self, *batches: tuple[list[float], list[float]]) -> None:
        self.batches = [(torch.tensor(x)[:, None], torch.tensor(y)[:, None]) for x, y in batches]
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterable[Batch]:
        self.asked.append((number, start))
        yield from self.batches[start:]


def squares(module: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    return (module(x) - y).square().mean()


def line(weight: float = 1.0) -> nn.Linear:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, weight)
    return module


def sgd(module: nn.Module, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(module.parameters(), lr=lr)


def test_two_epochs_by_hand() -> None:
    module, points = line(1.0), Points(([1.0], [3.0]), ([2.0], [2.0]))
    ticks = list(fit(module, points, squares, sgd(module, 0.1), lambda done, _: 1 / (done + 1), steps=3))
    # w = 1: loss (1-3)², gradient 2·(1-3)·1 = -4, rate .1: w = 1.4
    # w = 1.4: loss (2.8-2)², gradient 2·.8·2 = 3.2, rate .05: w = 1.24
    # w = 1.24: loss (1.24-3)², gradient -3.52, rate .1/3: w = 1.24 + .352/3
    assert [t.loss for t in ticks] == pytest.approx([4.0, 0.64, 1.76**2])
    assert [t.lr for t in ticks] == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert module.weight.item() == pytest.approx(1.24 + 0.352 / 3)
    assert [(t.epoch, t.step, t.count, t.steps, t.last) for t in ticks] == [
        (1, 1, 1, 3, False),
        (1, 2, 2, 3, True),
        (2, 1, 3, 3, True),
    ]
    assert points.asked == [(0, 0), (1, 0)]


def test_a_group_has_its_own_rate_by_name() -> None:
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(1)
        module.bias.fill_(0)
    groups = [
        {"name": "weights", "params": [module.weight], "lr": 0.1},
        {"name": "biases", "params": [module.bias], "lr": 1.0},
    ]
    points = Points(([1.0], [3.0]))
    factors = {"weights": 1.0, "biases": 0.5}
    list(fit(module, points, squares, torch.optim.SGD(groups), lambda _, name: factors[name], steps=1))
    assert (module.weight.item(), module.bias.item()) == pytest.approx((1.4, 2.0))


def test_parts_have_the_gradient_of_the_whole() -> None:
    torch.manual_seed(0)
    whole, parts = nn.Linear(3, 2), nn.Linear(3, 2)
    parts.load_state_dict(whole.state_dict())
    batch = (torch.randn(7, 3), torch.randn(7, 2))

    class One(Points):
        def __init__(self) -> None:
            self.batches, self.asked = [batch], []

    for module, micro in ((whole, None), (parts, 3)):  # parts of 3, 3 and 1
        ticks = list(fit(module, One(), squares, sgd(module, 0.5), steps=2, micro=micro))
        assert ticks[-1].loss is not None
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_clipped_step_is_as_long_as_said() -> None:
    module = line(0.0)
    list(fit(module, Points(([10.0], [100.0])), squares, sgd(module, 1.0), steps=1, clip=0.25))
    assert module.weight.item() == pytest.approx(0.25, rel=1e-4)  # the gradient itself is -2000


def test_the_loss_is_the_mean_since_it_was_told() -> None:
    module = line(0.0)
    points = Points(*(([1.0], [float(n)]) for n in range(1, 6)))
    ticks = list(fit(module, points, squares, sgd(module, 1e-12), steps=5, every=2))
    assert [t.loss for t in ticks] == [
        None,
        pytest.approx((1 + 4) / 2),
        None,
        pytest.approx((9 + 16) / 2),
        25.0,
    ]


def dropping() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(1, 16), nn.Dropout(0.5), nn.Linear(16, 1))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_gone_on_with_it_is_the_same_to_the_bit_dropout_included(at: int) -> None:
    points = Points(([1.0, 2.0], [3.0, 1.0]), ([2.0, 0.5], [2.0, 4.0]))

    def run(module: nn.Module, done: int, steps: int, seed: int = 3) -> list[Tick]:
        torch.rand(done + 1)  # whatever else draws meanwhile
        return list(fit(module, points, squares, sgd(module, 0.1), steps=steps, done=done, seed=seed))

    once, twice, other = dropping(), dropping(), dropping()
    run(once, 0, 4)
    run(other, 0, 4, seed=4)
    run(twice, 0, at)
    ticks = run(twice, at, 4)
    assert all(torch.equal(a, b) for a, b in zip(once.parameters(), twice.parameters(), strict=True))
    assert not torch.equal(once[0].weight, other[0].weight)  # the seed matters
    assert [t.count for t in ticks] == list(range(at + 1, 5))
    assert points.asked[-1] == (1, 0 if at < 3 else 1)


def test_each_step_and_part_draws_anew() -> None:
    masks: list[tuple[float, ...]] = []

    class Watched(nn.Dropout):
        def forward(self, input: Tensor) -> Tensor:
            output = super().forward(torch.ones(1, 64))
            masks.append(tuple(output.flatten().tolist()))
            return input + 0 * output[:, :1]

    module = nn.Sequential(Watched(0.5), line())
    list(fit(module, Points(([1.0, 2.0], [3.0, 1.0])), squares, sgd(module, 0.1), steps=3, micro=1))
    assert len(masks) == 6 == len(set(masks))


def test_all_that_was_borrowed_is_given_back() -> None:
    module = dropping().eval()
    state = torch.get_rng_state()
    with torch.no_grad():
        for tick in fit(module, Points(([1.0], [3.0])), squares, sgd(module, 0.1), steps=3):
            assert not torch.is_grad_enabled()
            assert torch.equal(torch.get_rng_state(), state)
            if tick.count == 2:
                break
    assert not module.training
    assert torch.equal(torch.get_rng_state(), state)


def test_a_part_that_was_not_in_training_is_not_left_in_it() -> None:
    module = dropping()
    module[1].eval()
    list(fit(module, Points(([1.0], [3.0])), squares, sgd(module, 0.1), steps=1))
    assert [part.training for part in module.modules()] == [True, True, False, True]


def test_it_trains_within_inference_mode() -> None:
    module = line(1.0)
    with torch.inference_mode():  # in which the batches are made too
        list(fit(module, Points(([1.0], [3.0])), squares, sgd(module, 0.1), steps=1))
    assert module.weight.item() == pytest.approx(1.4)


def test_a_loss_that_is_no_number_stops_it_with_advice() -> None:
    module = line(1.0)
    with pytest.raises(Diverged, match=r"step \d+: give a smaller learning rate, a warm-up"):
        list(fit(module, Points(([1e6], [3.0])), squares, sgd(module, 1e30), steps=9))
    assert math.isnan(module.weight.item()) or math.isinf(module.weight.item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1, "micro": 0}, "micro is 0"),
        ({"steps": 1, "clip": 0.0}, "clip is 0"),
        ({"steps": 1, "every": 0}, "every is 0"),
    ],
)
def test_a_plan_that_cannot_work(options: dict[str, float], message: str) -> None:
    module = line()
    with pytest.raises(Invalid, match=message):
        fit(module, Points(([1.0], [3.0])), squares, sgd(module, 0.1), **options)  # type: ignore[arg-type]


def test_no_batch_is_told_at_once() -> None:
    module = line()
    with pytest.raises(Invalid, match="not one batch"):
        fit(module, Points(), squares, sgd(module, 0.1), steps=1)

    class Short(Points):
        def epoch(self, number: int, start: int = 0) -> Iterable[Batch]:
            return []

    with pytest.raises(Invalid, match="epoch 1 gave no batch"):
        list(fit(module, Short(([1.0], [3.0])), squares, sgd(module, 0.1), steps=1))
