"""Oracles: an unstopped run to the bit, torch's and scipy's own optimisers, and a count of evaluations."""

from __future__ import annotations

import copy
import gc
import io
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor, nn

from innervision import memory, winograd
from innervision.core import (
    Adam,
    Detail,
    Frame,
    Lbfgs,
    Objective,
    Pixels,
    Stage,
    Term,
    blur,
    clamp,
    decay,
    descend,
    excite,
    gamut,
    gram,
    lbfgs,
    match,
    roll,
    scale,
    smooth,
)
from innervision.core.canvas import Canvas
from innervision.core.lbfgs import LimitedMemory
from innervision.errors import Diverged, Invalid
from innervision.network import Network, wrap


def small(*, frozen: bool = True, dtype: torch.dtype = torch.float32) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential()
        for name, part in (
            ("conv1", nn.Conv2d(3, 4, 3, padding=1)),
            ("relu1", nn.ReLU(inplace=True)),
            ("pool1", nn.MaxPool2d(2)),
            ("conv2", nn.Conv2d(4, 5, 3, padding=1)),
            ("relu2", nn.ReLU(inplace=True)),
        ):
            module.add_module(name, part)
        network = wrap(module.to(dtype), mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    return network.frozen(dtype) if frozen else network


def picture(*size: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    h, w = size or (8, 10)
    return torch.rand((1, 3, h, w), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def goal(network: Network) -> Objective:
    style = match(network, picture(12, 12, seed=2), ("relu1", "relu2"), by=gram, name="style")
    return style + smooth() * 1e-5 + gamut() * 1e-4


# What a frame says


def test_frames_count_and_measure() -> None:
    network, start = small(), picture()
    a, b = goal(network), excite("conv2", 1)
    stages = [Stage(a, 3), Stage(b, 2, size=(12, 15), optimiser=Adam(0.01))]
    frames = list(descend(network, Pixels(start), stages))
    assert [(f.stage, f.step, f.count, f.steps, f.last) for f in frames] == [
        (0, 1, 1, 5, False),
        (0, 2, 2, 5, False),
        (0, 3, 3, 5, True),
        (1, 1, 4, 5, False),
        (1, 2, 5, 5, True),
    ]
    assert torch.equal(frames[0].image, start), "the first image judged is the start"
    for frame in frames:
        objective = stages[frame.stage].objective
        total, values = objective(network.features(frame.image, objective.layers), frame.image)
        assert frame.total == pytest.approx(float(total), rel=1e-5)
        assert frame.values == pytest.approx({name: float(v) for name, v in values.items()}, rel=1e-5)
        assert not frame.image.requires_grad
    assert frames[3].image.shape == (1, 3, 12, 15)
    assert "image" not in repr(frames[0]) and "Frame(stage=0, step=1" in repr(frames[0])


def test_every_loss_goes_down() -> None:
    network = small()
    for canvas in (Pixels(picture()), Detail(picture(), gain=0.3)):
        for optimiser in (Lbfgs(), Adam(0.01)):
            frames = list(descend(network, canvas, [Stage(goal(network), 25, optimiser=optimiser)]))
            assert frames[-1].total < 0.7 * frames[0].total
            canvas.repainted(picture())


def test_frames_keep_their_own_images() -> None:
    frames, copies = [], []
    for frame in descend(small(), Pixels(picture()), [Stage(smooth(), 4, optimiser=Adam(0.01))]):
        frames.append(frame)
        copies.append(frame.image.clone())
    assert all(torch.equal(f.image, c) for f, c in zip(frames, copies, strict=True))
    assert not torch.equal(copies[0], copies[1])


def test_a_stage_is_one_evaluation_a_step() -> None:
    network = small(frozen=False)
    calls: list[int] = []
    network.module.conv1.register_forward_hook(lambda *_: calls.append(1))
    for optimiser in (Lbfgs(), Adam(0.01)):
        objective = excite("conv2")
        for number, _ in enumerate(
            descend(network, Pixels(picture()), [Stage(objective, 7, optimiser=optimiser)]), 1
        ):
            assert len(calls) == number
        calls.clear()


def test_the_network_sees_the_view_and_the_image_terms_the_whole() -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []

    def measure(activations: Any, image: Tensor) -> Tensor:
        seen.append((activations["conv1"].shape[-2:], image.shape[-2:]))
        return activations["conv1"].mean()

    stage = Stage(
        Objective((Term("spy", measure, ("conv1",)),)), 3, optimiser=Adam(0.1), view=scale(0.5, 0.5)
    )
    list(descend(small(), Pixels(picture()), [stage]))
    assert seen == [((4, 5), (8, 10))] * 3


def test_edits_are_made_in_order_after_each_step() -> None:
    log: list[tuple[str, int]] = []

    def noted(name: str, by: float) -> Callable[[Tensor, int], Tensor]:
        def edit(image: Tensor, step: int) -> Tensor:
            assert not torch.is_grad_enabled()
            log.append((name, step))
            return image * 0 + by

        return edit

    stage = Stage(smooth(), 3, optimiser=Adam(0.1), edits=(noted("first", 0.25), noted("second", 0.75)))
    frames = list(descend(small(), Pixels(picture()), [stage]))
    assert log == [(name, step) for step in (1, 2, 3) for name in ("first", "second")]
    assert torch.equal(frames[0].image, picture()) and (frames[1].image == 0.75).all()


def test_a_canvas_is_moved_in_place_until_a_stage_has_a_size() -> None:
    network, canvas = small(), Pixels(picture())
    (frame,) = descend(network, canvas, [Stage(smooth(), 1, optimiser=Adam(0.1))])
    assert not torch.equal(canvas.render(), frame.image)
    shown = canvas.render().detach()
    list(descend(network, canvas, [Stage(smooth(), 2, size=(4, 4), optimiser=Adam(0.1))]))
    assert torch.equal(canvas.render(), shown)


# L-BFGS


def quadratic(size: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    return root @ root.T / size + torch.eye(size) * 0.1, torch.randn(
        size, generator=generator, dtype=torch.float64
    )


@pytest.mark.parametrize("factor", [1.0, 1e-9, 1e9])
def test_lbfgs_finds_the_minimum_scipy_finds_whatever_the_scale(factor: float) -> None:
    a, b = quadratic()
    x = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    memory = LimitedMemory(x, 20)
    evaluations = 0

    def closure() -> Tensor:
        nonlocal evaluations
        evaluations += 1
        memory.zero_grad()
        loss = factor * (x @ a @ x / 2 - b @ x)
        loss.backward()
        return loss

    for _ in range(80):
        memory.step(closure)
    assert evaluations == 80
    start, jac = np.zeros(12), lambda v: a.numpy() @ v - b.numpy()
    best = optimize.minimize(
        lambda v: v @ a.numpy() @ v / 2 - b.numpy() @ v,
        start,
        jac=jac,
        method="L-BFGS-B",
        options={"gtol": 1e-12, "ftol": 0},
    )
    np.testing.assert_allclose(x.detach().numpy(), best.x, atol=1e-6)
    torch.testing.assert_close(x.detach(), torch.linalg.solve(a, b), rtol=1e-8, atol=1e-8)


def test_lbfgs_takes_torchs_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same path as torch.optim.LBFGS of one evaluation a step, where the start is alike (|g|₁ > 1)."""
    a, b = quadratic()
    monkeypatch.setattr(
        lbfgs, "_FIRST", float(b.abs().max() / b.abs().sum())
    )  # torch's first step is of |s|₁ = 1
    paths = []
    for make in (
        lambda p: LimitedMemory(p, 4),
        lambda p: torch.optim.LBFGS([p], max_iter=1, history_size=4, tolerance_grad=0, tolerance_change=0),
    ):
        x = torch.zeros(12, dtype=torch.float64, requires_grad=True)
        optimiser, path = make(x), []

        def closure(x: Tensor = x, optimiser: Any = optimiser) -> Tensor:
            optimiser.zero_grad()
            loss = x @ a @ x / 2 - b @ x
            loss.backward()
            return loss

        for _ in range(15):
            optimiser.step(closure)
            path.append(x.detach().clone())
        paths.append(torch.stack(path))
    torch.testing.assert_close(*paths, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
def test_lbfgs_grows_its_first_step_until_it_tells_something(factor: float) -> None:
    """As where bfloat16 sees no change: the gradient stays what it was, and tells no curvature."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    memory, places = LimitedMemory(x, 5), []

    def closure() -> Tensor:
        x.grad = factor * torch.tensor([3.0, -1.0, 4.0], dtype=torch.float64)
        return torch.tensor(0.0)

    for _ in range(4):
        memory.step(closure)
        places.append(float(x.detach()[2]))
    assert places == pytest.approx([-0.1, -0.5, -1.5, -2.5])  # by 0.1, 0.4, then 1 at most
    torch.testing.assert_close(x.detach(), torch.tensor([-3.0, 1.0, -4.0], dtype=torch.float64) * 2.5 / 4)


def test_lbfgs_forgets_a_memory_that_leads_uphill() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    one = torch.ones(1, dtype=torch.float64)
    memory = LimitedMemory(x, 5)
    # by hand: a = -g, q = g - a·(-1) = 0, then q = 1·(-g - 0): against the gradient
    state = {"scale": 0.25, "pairs": [(one, -one, -1.0)]}
    memory.load_state_dict({**state, "recent": [], "place": None, "gradient": None, "step": None})

    def closure() -> Tensor:
        x.grad = 2 * one
        return torch.tensor(0.0)

    memory.step(closure)
    assert float(x.detach()) == -0.5 and memory.state_dict()["pairs"] == []


def test_lbfgs_rests_where_there_is_no_slope() -> None:
    network, start = small(), picture()
    frames = list(descend(network, Pixels(start), [Stage(match(network, start, ("conv2",)), 5)]))
    assert [f.total for f in frames] == [0.0] * 5
    assert all(torch.equal(f.image, start) for f in frames)


def test_lbfgs_turns_round_where_its_memory_climbs() -> None:
    """On a dome each pair has negative curvature: none is kept, and every step goes down."""
    x = torch.tensor([0.1, -0.2], requires_grad=True)
    memory, values = LimitedMemory(x, 5), []

    def closure() -> Tensor:
        memory.zero_grad()
        loss = -x.square().sum()
        loss.backward()
        values.append(float(loss.detach()))
        return loss

    for _ in range(6):
        memory.step(closure)
    assert values == sorted(values, reverse=True) and len(set(values)) == 6
    assert memory.state_dict()["pairs"] == []


def on_a_quadratic(history: int) -> tuple[LimitedMemory, Callable[[], Tensor]]:
    a, b = quadratic()
    x = torch.zeros(12, dtype=torch.float64, requires_grad=True)
    memory = LimitedMemory(x, history)

    def closure() -> Tensor:
        memory.zero_grad()
        loss = x @ a @ x / 2 - b @ x
        loss.backward()
        return loss

    return memory, closure


def test_lbfgs_remembers_so_many_pairs() -> None:
    memory, closure = on_a_quadratic(3)
    for _ in range(8):
        memory.step(closure)
    assert len(memory.state_dict()["pairs"]) == 3


def test_lbfgs_keeps_what_it_has_where_a_pair_is_not_believed() -> None:
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    memory = LimitedMemory(x, 2)
    bends = [1.0, 0.5, 0.8, 0.6, -1.0]  # the last gradient shrinks the wrong way: negative curvature
    gradient = torch.tensor([-1.0, -2.0], dtype=torch.float64)
    for bend in bends:
        before = copy.deepcopy(memory.state_dict()["pairs"])
        step = memory.state_dict()["step"]

        def closure(bend: float = bend, step: Any = step) -> Tensor:
            if step is not None:
                gradient.add_(step, alpha=bend)
            x.grad = gradient.clone()
            return torch.tensor(0.0)

        memory.step(closure)
    after = memory.state_dict()["pairs"]
    assert len(before) == len(after) == 2
    for old, new in zip(before, after, strict=True):
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(old, new, strict=True))


def test_a_state_of_lbfgs_stays_as_it_was() -> None:
    memory, closure = on_a_quadratic(3)
    for _ in range(5):
        memory.step(closure)
    state = memory.state_dict()
    saved = copy.deepcopy(state)
    for _ in range(5):
        memory.step(closure)
    for (s, y, rho), (s0, y0, rho0) in zip(state["pairs"], saved["pairs"], strict=True):
        assert torch.equal(s, s0) and torch.equal(y, y0) and rho == rho0
    assert all(torch.equal(state[name], saved[name]) for name in ("place", "gradient", "step"))


def test_a_guest_s_weights_get_no_gradient() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    network = wrap(module)
    for optimiser in (Lbfgs(), Adam(0.01)):
        stage = Stage(match(network, picture(12, 12, seed=2), ("1",)), 2, optimiser=optimiser)
        for _ in descend(network, Pixels(picture(12, 12)), [stage]):
            pass
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def two_sizes(network: Network, first: Objective, then: Objective) -> tuple[float, Tensor, Tensor]:
    """Return the scale after 12 steps, and the gradient and the step at the beginning of another size."""
    frames = descend(network, Pixels(picture()), [Stage(first, 12), Stage(then, 2, size=(16, 20))])
    for frame in frames:
        if frame.last:
            found = frame.checkpoint()["optimiser"]["scale"]
            break
    one, two = (frame.image for frame in frames)
    image = one.clone().requires_grad_()
    total, _ = then(network.features(image, then.layers), image)
    return found, torch.autograd.grad(total, image)[0], two - one


def test_the_next_size_begins_with_the_scale_found_before() -> None:
    network = small()
    found, gradient, step = two_sizes(network, goal(network), goal(network))
    # four times the pixels: a mean's gradient is a quarter as large
    torch.testing.assert_close(step, -4 * found * gradient, rtol=1e-3, atol=1e-6)
    assert step.abs().max() > 1e-4


def test_another_objective_begins_anew() -> None:
    network = small()
    _, gradient, step = two_sizes(network, goal(network), 1e3 * goal(network))
    torch.testing.assert_close(step, -0.1 * gradient / gradient.abs().max(), rtol=1e-3, atol=1e-6)


def test_lbfgs_steps_back_by_hand() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    memory = LimitedMemory(x, 5)
    losses = [1.0, 1.1, 50.0, 1.0025, 0.9]  # at 0, .1, .025, …
    places = []
    for loss in losses:
        places.append(float(x.detach()))

        def closure(loss: float = loss) -> Tensor:
            x.grad = torch.tensor([-1.0], dtype=torch.float64)
            return torch.tensor(loss)

        memory.step(closure)
    # a parabola of value 1, slope -1 at 0 and value 1.1 at .1 is least at .025; a share is a tenth or more
    assert places == pytest.approx([0, 0.1, 0.025, 0.0025, 0.000625], rel=1e-4)  # losses are float32


def test_lbfgs_may_climb_as_high_as_the_last_ten_losses() -> None:
    x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    memory, moves = LimitedMemory(x, 5), []
    for loss in (5.0, 1.0, 2.0, *[1.0] * 9, 2.0, *[1.0] * 10, 2.0):
        before = float(x.detach())

        def closure(loss: float = loss) -> Tensor:
            x.grad = torch.tensor([-1.0], dtype=torch.float64)
            return torch.tensor(loss)

        memory.step(closure)
        moves.append(float(x.detach()) > before)
    assert moves == [True] * 23 + [False]  # 2 is no more than one of ten, until ten were 1


def test_lbfgs_finds_its_way_back_from_afar() -> None:
    x = torch.tensor([0.5], requires_grad=True)
    memory = LimitedMemory(x, 5, scale=1e12)

    def closure() -> Tensor:
        x.grad = 2 * x.detach() - 1.001
        return (x.detach() - 0.5005).square().sum()

    for _ in range(14):
        memory.step(closure)
    assert float(x.detach()) == pytest.approx(0.5005, abs=1e-4)  # where 1e9 + 0.5 has no place for 0.5


def test_a_stiff_wall_does_not_throw_the_picture_out() -> None:
    network = small()
    objective = (
        match(network, picture(12, 12, seed=2), ("relu1", "relu2"), by=gram) + 1e-5 * smooth() + gamut()
    )
    for canvas in (Pixels(picture()), Detail(picture()), Detail(picture(), gain=0.3)):
        totals = [frame.total for frame in descend(network, canvas, [Stage(objective, 60)])]
        assert min(totals[-10:]) < 0.05 * totals[0]


# A plan that cannot work


def test_a_plan_is_checked_before_anything_moves() -> None:
    network, canvas = small(), Pixels(picture())
    for stages, said in (
        ([], "at least one stage"),
        ([Stage(Objective(), 3)], "without terms"),
        ([Stage(smooth(), 0)], "0 steps: give at least 1"),
        ([Stage(smooth(), 3), Stage(excite("conv9"), 3)], "no layer 'conv9'"),
        ([Stage(smooth(), 3, view=roll(2))], "L-BFGS remembers .*: use Adam"),
        ([Stage(smooth(), 3, optimiser=Lbfgs(5), edits=(clamp(0, 1),))], "L-BFGS remembers"),
    ):
        with pytest.raises(Invalid, match=said):
            descend(network, canvas, stages)  # without asking for a frame


def test_stages_may_come_from_a_generator() -> None:
    stages = (Stage(smooth(), 1, size=(n, n), optimiser=Adam(0.1)) for n in (4, 8))
    assert [f.image.shape[-1] for f in descend(small(), Pixels(picture()), stages)] == [4, 8]


# What is no longer a number


def measured(numbers: list[float]) -> Objective:
    queue = iter(numbers)

    def measure(activations: Any, image: Tensor) -> Tensor:
        return image.sum() * 0 + next(queue)

    return Objective((Term("good", measured_zero), Term("the culprit", measure)))


def measured_zero(activations: Any, image: Tensor) -> Tensor:
    return image.square().sum() * 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("optimiser", [Lbfgs(), Adam(0.1)])
def test_what_is_no_number_is_named(bad: float, optimiser: Any) -> None:
    canvas, seen = Pixels(picture()), []
    stages = [
        Stage(smooth(), 1, optimiser=optimiser),
        Stage(measured([1.0, 2.0, bad]), 5, optimiser=optimiser),
    ]
    with pytest.raises(
        Diverged, match=rf"term 'the culprit' is {bad}, .* at step 3 of stage 2: give smaller weights"
    ) as error:
        for frame in descend(small(), canvas, stages):
            seen.append(frame)
    assert len(seen) == 3 and "\n" not in str(error.value)
    assert canvas.render().isfinite().all(), "no black picture"


def test_a_sum_too_large_is_told_from_its_terms() -> None:
    def large(activations: Any, image: Tensor) -> Tensor:
        return image.sum() * 0 + 3e38

    with pytest.raises(Diverged, match=r"the total is inf, .* at step 1 of stage 1"):
        list(descend(small(), Pixels(picture()), [Stage(Objective((Term("a", large), Term("b", large))), 1)]))


def test_weights_beyond_all_measure_end_in_an_error() -> None:
    network = small()
    stage = Stage(1e30 * goal(network), 30, optimiser=Adam(1e30))
    with pytest.raises(Diverged, match="smaller learning rate"):
        list(descend(network, Pixels(picture()), [stage]))


# Stopping


def still_clean(network: Network) -> bool:
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in network.module.modules())
    return torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not hooks


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_global_changes_between_frames_or_after(frozen: bool) -> None:
    network = small(frozen=frozen)
    network.module.train()
    network.module.pool1.eval()
    flags = [m.training for m in network.module.modules()]
    before = torch.get_rng_state()
    stage = Stage(excite("conv2"), 5, optimiser=Adam(0.1), view=roll(1), edits=(decay(0.1),))
    frames = descend(network, Pixels(picture()), [stage, Stage(goal(network), 5, size=(6, 6))])
    for frame in frames:
        assert still_clean(network) and [m.training for m in network.module.modules()] == flags
        if frame.count == 7:
            break
    frames.close()
    assert still_clean(network) and [m.training for m in network.module.modules()] == flags
    assert torch.equal(torch.get_rng_state(), before)
    assert list(frames) == []


def test_nothing_global_changes_after_a_failure() -> None:
    network = small(frozen=False)

    def fails(activations: Any, image: Tensor) -> Tensor:
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        list(descend(network, Pixels(picture()), [Stage(Objective((Term("x", fails, ("conv2",)),)), 1)]))
    assert still_clean(network)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("kind", [Pixels, Detail])
def test_the_callers_mode_is_neither_felt_nor_changed(mode: Any, frozen: bool, kind: Any) -> None:
    network = small(frozen=frozen)

    def images() -> Iterator[tuple[Tensor, float]]:
        objective = goal(network)
        stages = [
            Stage(objective, 3),
            Stage(
                objective,
                3,
                size=(12, 10),
                optimiser=Adam(0.01),
                view=roll(1),
                edits=(clamp(0, 1), blur(1.0)),
            ),
        ]
        for frame in descend(network, kind(picture() * 1), stages):
            yield frame.image.clone(), frame.total

    expected = list(images())
    with mode():
        state = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        got = []
        for pair in images():
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == state
            got.append(pair)
    assert torch.is_grad_enabled()
    assert [total for _, total in got] == [total for _, total in expected]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(got, expected, strict=True))


class Plain:
    """A user's own canvas, which takes no care of modes."""

    def __init__(self, image: Tensor) -> None:
        self.parameter = image.clone().requires_grad_()

    def render(self) -> Tensor:
        return self.parameter * 1

    def resized(self, size: tuple[int, int]) -> Plain:
        return Plain(torch.nn.functional.interpolate(self.parameter.detach(), size))

    def repainted(self, image: Tensor) -> None:
        self.parameter.copy_(image)

    def state(self) -> dict[str, Tensor]:
        return {"parameter": self.parameter.detach().clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.parameter = state["parameter"].clone().requires_grad_()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_users_canvas_need_not_know_of_modes(mode: Any) -> None:
    network, canvas = small(), Plain(picture())
    stages = [Stage(excite("conv2"), 2, size=(6, 6), optimiser=Adam(0.1), edits=(clamp(0, 1),))]
    expected = [(f.total, f.checkpoint()) for f in descend(network, canvas, stages)]
    with mode():
        assert [f.total for f in descend(network, canvas, stages)] == [total for total, _ in expected]
        (last,) = descend(network, canvas, stages, resume=expected[0][1])
        assert last.total == expected[1][0]


@pytest.mark.parametrize("ending", ["its end", "closed", "let go of", "interrupted", "failed"])
def test_the_heap_is_told_its_usual_ways_again(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    told: dict[int, int] = {}
    monkeypatch.setattr(memory, "_heap", memory._Heap())  # a descent that another test holds keeps its own
    monkeypatch.setattr(memory._heap, "tell", told.__setitem__)
    network = small()
    stages = [Stage(goal(network), 2), Stage(measured([1.0, float("nan")]), 2, size=(6, 6))]
    frames = descend(network, Pixels(picture()), stages if ending == "failed" else stages[:1])
    next(frames)
    assert told[memory._TRIM_THRESHOLD] == memory._MOST_KEPT
    assert told[memory._MMAP_THRESHOLD] == memory._MOST_HELD, "also after places were taken apart"
    if ending == "its end":
        list(frames)
    elif ending == "closed":
        frames.close()
    elif ending == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            frames.throw(KeyboardInterrupt)
    elif ending == "failed":
        with pytest.raises(Diverged):
            list(frames)
    del frames
    assert told == {
        memory._TRIM_THRESHOLD: memory._USUALLY_KEPT,
        memory._MMAP_THRESHOLD: memory._USUALLY_HELD,
    }


@pytest.mark.parametrize("frozen", [False, True])
def test_many_descents_leave_nothing(frozen: bool) -> None:
    network = small(frozen=frozen)
    objective = goal(network)

    def each_way() -> None:
        stages = [Stage(objective, 2), Stage(objective, 1, size=(6, 6), optimiser=Adam(0.1), view=roll(1))]
        list(descend(network, Detail(picture()), stages))
        next(descend(network, Pixels(picture()), stages))  # let go of after one
        with pytest.raises(Diverged):
            list(descend(network, Pixels(picture()), [Stage(excite("conv2") + measured([float("nan")]), 2)]))

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(one), Tensor) for one in gc.get_objects())

    each_way()
    before = tensors()
    for _ in range(3):
        each_way()
    assert tensors() == before
    assert still_clean(network) and all(p.grad is None for p in network.module.parameters())


def test_a_descent_dies_when_released() -> None:
    network = small()
    gc.collect()
    gc.disable()
    try:
        canvas = Pixels(picture())
        frames = descend(network, canvas, [Stage(goal(network), 9)])
        alive = [
            weakref.ref(next(frames).image),
            weakref.ref(next(frames).image),
            weakref.ref(canvas.parameter),
        ]
        assert alive[0]() is None, "a frame let go of is gone"
        frames.close()
        del frames, canvas
        assert [ref() for ref in alive] == [None] * 3
    finally:
        gc.enable()


# The same again


def plan(network: Network) -> list[Stage]:
    """Every kind of state there is: two sizes of L-BFGS, Adam with views and edits, L-BFGS again."""
    objective = goal(network)
    return [
        Stage(objective, 4, optimiser=Lbfgs(2)),
        Stage(objective, 3, size=(12, 15), optimiser=Lbfgs(2)),
        Stage(
            excite("conv2", 1),
            3,
            optimiser=Adam(0.02),
            view=roll(2) | scale(0.8, 1.2),
            edits=(decay(0.01), blur(0.5, every=2)),
        ),
        Stage(objective, 2, size=(6, 7)),
    ]


PHOTOS = {size: picture(*size, seed=7) for size in ((8, 10), (12, 15), (6, 7))}
KINDS: dict[str, Callable[[], Canvas]] = {
    "pixels": lambda: Pixels(picture(), torch.tensor([0.2, 0.3, 0.5])),
    "detail": lambda: Detail(picture()),
    "detail over photographs": lambda: Detail(PHOTOS[8, 10], photos=PHOTOS.__getitem__),
}


def run(
    network: Network, kind: str, seed: int = 5, resume: Any = None, frozen_at: int | None = None
) -> list[Frame]:
    generator = torch.Generator().manual_seed(seed)
    return list(descend(network, KINDS[kind](), plan(network), generator=generator, resume=resume))


def alike(one: list[Frame], two: list[Frame]) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a.image, b.image)
        and (a.total, a.values, a.stage, a.step, a.count, a.steps, a.last)
        == (b.total, b.values, b.stage, b.step, b.count, b.steps, b.last)
        for a, b in zip(one, two, strict=True)
    )


def test_one_seed_paints_one_picture() -> None:
    network = small()
    assert alike(run(network, "pixels"), run(network, "pixels"))
    assert not alike(run(network, "pixels"), run(network, "pixels", seed=6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_seed_paints_one_picture_in_wide_layers_too(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    own, asked = winograd.convolve, []
    monkeypatch.setattr(winograd, "convolve", lambda *given: asked.append(1) or own(*given))

    def painted() -> list[Frame]:
        network = wide(dtype)
        objective = match(network, picture(30, 32, seed=2), ("relu1", "relu2"), by=gram) + gamut()
        looks = Stage(excite("conv2", 1), 2, optimiser=Adam(0.02), view=roll(2))
        return list(descend(network, Detail(picture(27, 29)), [Stage(objective, 3), looks]))

    assert alike(painted(), painted()) and asked


def wide(dtype: torch.dtype) -> Network:
    """Layers that are convolved by Winograd's method."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential()
        for number, width in enumerate((3, 160), 1):
            module.add_module(f"conv{number}", nn.Conv2d(width, 160, 3, padding=1))
            module.add_module(f"relu{number}", nn.ReLU(inplace=True))
    return wrap(module, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)).frozen(dtype)


def test_without_a_generator_a_seed_is_taken() -> None:
    network, stage = small(), Stage(excite("conv2"), 4, optimiser=Adam(0.1), view=roll(3))
    torch.manual_seed(1)
    one = list(descend(network, Pixels(picture()), [stage]))
    torch.manual_seed(2)
    two = list(descend(network, Pixels(picture()), [stage]))
    assert alike(one, two)
    zero = list(descend(network, Pixels(picture()), [stage], generator=torch.Generator().manual_seed(0)))
    assert alike(one, zero)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("through_a_file", [False, True])
def test_a_run_resumed_after_any_step_is_the_unstopped_one(kind: str, through_a_file: bool) -> None:
    network = small()
    whole: list[Frame] = []
    saved: list[dict[str, Any]] = []
    generator = torch.Generator().manual_seed(5)
    for frame in descend(network, KINDS[kind](), plan(network), generator=generator):
        whole.append(frame)
        saved.append(frame.checkpoint())
    assert len(whole) == 12
    for number, checkpoint in enumerate(saved, 1):  # taken long since: a checkpoint stays as it was
        for _ in range(1 if through_a_file else 2):  # and is not used up
            if through_a_file:
                file = io.BytesIO()
                torch.save(checkpoint, file)
                file.seek(0)
                checkpoint = torch.load(file, weights_only=True)
            # another seed: the state of the generator is the checkpoint's
            assert alike(run(network, kind, seed=99, resume=checkpoint), whole[number:]), (
                f"after frame {number}"
            )


def test_resuming_from_the_end_yields_nothing() -> None:
    network = small()
    frame = run_to_end = None
    for frame in descend(network, Pixels(picture()), plan(network)):
        run_to_end = frame.checkpoint()
    assert run(network, "pixels", resume=run_to_end) == []


def test_a_checkpoint_comes_too_late_after_the_next_frame() -> None:
    network = small()
    frames = descend(network, Pixels(picture()), plan(network))
    first, second = next(frames), next(frames)
    with pytest.raises(
        Invalid, match="from step 1 of stage 1 to step 2 of stage 1: take a frame's checkpoint before"
    ):
        first.checkpoint()
    assert second.checkpoint()["step"] == 2


def test_a_checkpoint_of_another_plan_is_refused() -> None:
    network = small()
    frames = descend(network, Pixels(picture()), plan(network))
    checkpoints = [frame.checkpoint() for frame in frames]
    for checkpoint, stages, said in (
        (checkpoints[5], plan(network)[:1], "of step 2 of stage 2, and the stages have 4 steps"),
        (checkpoints[3], [Stage(smooth(), 2)], "of step 4 of stage 1, and the stages have 2 steps"),
        (checkpoints[2], [Stage(smooth(), 9, optimiser=Adam(0.1))], "stage 1 had another optimiser"),
        ({"step": 1, "stage": 0}, plan(network), "this one lacks canvas, generator, optimiser"),
    ):
        with pytest.raises(Invalid, match=said):
            descend(network, Pixels(picture()), stages, resume=checkpoint)


# All together


def test_a_network_in_float64_is_descended_in_float64() -> None:
    network = small(dtype=torch.float64)
    start, target = picture(dtype=torch.float64), picture(seed=3, dtype=torch.float64)
    objective = match(network, target, ("conv1",))
    frames = list(descend(network, Pixels(start), [Stage(objective, 150)]))
    assert frames[-1].image.dtype == torch.float64
    assert frames[-1].total < 1e-12 * frames[0].total
    torch.testing.assert_close(frames[-1].image, target, rtol=0, atol=1e-4)


def test_bfloat16_descends_a_picture_of_float32() -> None:
    network = small(dtype=torch.bfloat16)
    frames = list(descend(network, Detail(picture()), [Stage(goal(network), 20)]))
    assert frames[-1].image.dtype == torch.float32
    assert frames[-1].total < 0.7 * frames[0].total
