"""Oracles: matrices and sums worked by hand, numpy's einsum, finite differences in float64."""

from __future__ import annotations

import math
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from innervision.core import energy, excite, gamut, gram, match, smooth
from innervision.core.measures import same
from innervision.core.objective import Objective, Term
from innervision.errors import Invalid
from innervision.network import Network, wrap

LAYERS = ("conv1", "relu1", "conv2")


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 3, 3, padding=1, padding_mode="circular")


def small(dtype: torch.dtype = torch.float64) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(Small(), mean=(0.5, 0.5, 0.5)).frozen(dtype)


def picture(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape or (1, 3, 6, 5), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value(goal: Objective, network: Network, image: Tensor) -> Tensor:
    return goal(network.features(image, goal.layers), image)[0]


def slope(goal: Objective, network: Network, image: Tensor) -> Tensor:
    image = image.clone().requires_grad_()
    return torch.autograd.grad(value(goal, network, image), image)[0]


# The Gram matrix


def test_a_gram_matrix_by_hand() -> None:
    activation = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, -1.0], [1.0, 2.0]]]])
    # channel 0: 1+4+9+16; the two: 0-2+3+8; channel 1: 0+1+1+4
    none = torch.tensor([[[30.0, 9.0], [9.0, 6.0]]])
    for norm, divisor in (("none", 1), ("hw", 4), ("chw", 8)):
        assert torch.equal(gram(activation, norm), none / divisor)
    assert torch.equal(gram(activation), none / 4)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gram_matrix_is_einsums(layout: torch.memory_format) -> None:
    a = picture(2, 5, 70, 61).contiguous(memory_format=layout)  # more positions than one block
    expected = np.einsum("nihw,njhw->nij", a.numpy(), a.numpy())
    np.testing.assert_allclose(gram(a, "none").numpy(), expected, rtol=1e-12)
    crossed = a.transpose(2, 3)  # a view that is neither
    np.testing.assert_allclose(gram(crossed, "none").numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("norm", ["hw", "chw", "none"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_gram_matrixs_gradient(norm: str, layout: torch.memory_format) -> None:
    a = picture(2, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    weight = picture(2, 3, 3, seed=2)  # not symmetric: the gradient of either half counts
    assert torch.autograd.gradcheck(lambda a: gram(a, norm) * weight, (a,))


def test_a_gram_matrix_ignores_size() -> None:
    a = picture(1, 4, 6, 5)
    torch.testing.assert_close(gram(a.tile(1, 1, 2, 2)), gram(a))
    torch.testing.assert_close(gram(a.tile(1, 1, 2, 2), "none"), 4 * gram(a, "none"))


def test_a_picture_tiled_twice_has_the_same_style() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wrap(
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.ReLU())
        ).frozen(torch.float64)
    style, image = picture(1, 3, 6, 8), picture(1, 3, 9, 7, seed=2)
    once, twice = (match(network, s, ["1"], by=gram) for s in (style, style.tile(1, 1, 2, 3)))
    torch.testing.assert_close(value(once, network, image), value(twice, network, image))


def test_half_precision_is_summed_in_float32() -> None:
    a = picture(1, 4, 64, 96, dtype=torch.float32) * 300
    exact = gram(a.double())
    for dtype, rtol in ((torch.bfloat16, 1e-2), (torch.float16, 1e-3)):
        got = gram(a.to(dtype))
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), exact, rtol=rtol, atol=0)
        half = a.to(dtype).requires_grad_()
        gram(half).sum().backward()
        assert half.grad is not None and half.grad.dtype == dtype
        expected = a.clone().requires_grad_()
        gram(expected).sum().backward()
        assert (half.grad.float() - expected.grad).norm() < 0.02 * expected.grad.norm()


@pytest.mark.usefixtures("unshaped")
def test_gram_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(Invalid, match="no Gram norm 'wh'; there are hw, chw, none"):
        gram(picture(), "wh")
    with pytest.raises(Invalid, match=r"activation \(n, c, h, w\), not \(1, 4, 8\)"):
        gram(picture(1, 4, 8))


# match


@pytest.mark.parametrize("by", [same, gram, partial(gram, norm="chw")])
@pytest.mark.parametrize("distance", ["mean", "sum", "half-root"])
def test_nothing_is_left_to_do_at_the_target(by: object, distance: str) -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        network, target = small(dtype), picture()
        goal = match(network, target, LAYERS, by=by, weights=(2, 0.5, 1e3), distance=distance)
        assert value(goal, network, target) == 0
        assert not slope(goal, network, target).any()
        assert value(goal, network, picture(seed=2)) > 0


@pytest.mark.parametrize("by", [same, gram])
@pytest.mark.parametrize("distance", ["mean", "sum", "half-root"])
def test_match_by_hand_and_its_gradient(by: object, distance: str) -> None:
    network, target, image = small(), picture(), picture(seed=2).requires_grad_()
    weights = (2.0, 0.5, 3.0)
    goal = match(network, target, LAYERS, by=by, weights=weights, distance=distance)
    found = {name: network.features(x, LAYERS) for name, x in (("image", image), ("target", target))}
    expected = torch.zeros((), dtype=torch.float64)
    for layer, w in zip(LAYERS, weights, strict=True):
        a, b = (found[name][layer] for name in ("image", "target"))
        if by is gram:
            a, b = (torch.einsum("nihw,njhw->nij", x, x) / 30 for x in (a, b))
        square = ((a - b) ** 2).sum()
        channels = found["image"][layer].shape[1]
        expected = (
            expected
            + w
            * {
                "mean": square / a.numel(),
                "sum": square,
                "half-root": square / (2 * math.sqrt(channels) * math.sqrt(30)),
            }[distance]
        )
    torch.testing.assert_close(value(goal, network, image), expected, rtol=1e-12, atol=0)
    assert torch.autograd.gradcheck(lambda x: value(goal, network, x), (image,))


@pytest.mark.parametrize("by", [same, gram])
def test_several_targets_are_their_weighted_mean(by: object) -> None:
    network, image = small(), picture()
    styles = [(picture(seed=2), 0.5), (picture(seed=3), 0.3), (picture(seed=4), 0.2)]
    blended = match(network, styles, LAYERS, by=by)
    apart = Objective()
    for style, share in styles:
        apart = apart + share * match(network, style, LAYERS, by=by)
    torch.testing.assert_close(
        slope(blended, network, image), slope(apart, network, image), rtol=1e-10, atol=1e-16
    )
    # the shares alone count
    again = match(network, [(style, 40 * share) for style, share in styles], LAYERS, by=by)
    torch.testing.assert_close(value(again, network, image), value(blended, network, image))


def test_styles_of_different_sizes_blend_by_gram_and_not_by_themselves() -> None:
    network, image = small(), picture()
    styles = [(picture(seed=2), 1.0), (picture(1, 3, 9, 12, seed=3), 1.0)]
    goal = match(network, styles, ("conv2",), by=gram)
    mean = sum(gram(network.features(s, ("conv2",))["conv2"]) for s, _ in styles) / 2
    expected = (gram(network.features(image, ("conv2",))["conv2"]) - mean).square().mean()
    torch.testing.assert_close(value(goal, network, image), expected)
    with pytest.raises(Invalid, match="targets differ in size: conv2 gives 3x6x5 and 3x9x12"):
        match(network, styles, ("conv2",))


def test_match_refuses_what_it_cannot_mean() -> None:
    network, target = small(), picture()
    with pytest.raises(Invalid, match="at least one layer"):
        match(network, target, ())
    with pytest.raises(Invalid, match="no layer 'conv3'"):
        match(network, target, ("conv3",))
    with pytest.raises(Invalid, match=r"2 weights for 1 layers \(conv1\): give one a layer"):
        match(network, target, ("conv1",), weights=(1, 2))
    with pytest.raises(Invalid, match="no distance 'max'; there are mean, sum, half-root"):
        match(network, target, ("conv1",), distance="max")
    for nothing in ([], [(target, 0.0)], [(target, 1.0), (target, -1.0)]):
        with pytest.raises(Invalid, match="sum to more than 0"):
            match(network, nothing, ("conv1",))
    goal = match(network, target, ("conv1",))
    with pytest.raises(Invalid, match="conv1 gives 4x3x5 where the target has 4x6x5"):
        value(goal, network, picture(1, 3, 3, 5))
    with pytest.raises(Invalid, match="conv1 gives 4x1x1 where"):  # would broadcast in silence
        value(goal, network, picture(1, 3, 1, 1))


def test_a_batch_is_compared_with_one_target() -> None:
    network, target = small(), picture()
    goal = match(network, target, ("conv2",), by=gram)
    batch = torch.cat([picture(seed=2), picture(seed=3)])
    each = [value(goal, network, image[None]) for image in batch]
    torch.testing.assert_close(value(goal, network, batch), sum(each) / 2)


def test_targets_made_under_inference_mode_can_be_descended() -> None:
    network = small()
    with torch.inference_mode():
        goal = match(network, picture() * 1, LAYERS, by=gram)
    assert slope(goal, network, picture(seed=2)).any()
    assert not any(
        term.measure.target.requires_grad for term in match(network, picture().requires_grad_(), LAYERS).terms
    )


# What excites


def test_excite_and_energy_by_hand() -> None:
    network, image = small(), picture().requires_grad_()
    a = network.features(image, ("conv2",))["conv2"]
    torch.testing.assert_close(value(excite("conv2"), network, image), -a.mean())
    torch.testing.assert_close(value(excite("conv2", 1), network, image), -a[:, 1].mean())
    torch.testing.assert_close(value(energy("conv2"), network, image), -(a**2).sum() / (2 * a.numel()))
    for goal in (excite("conv2"), excite("conv2", 2), energy("conv2"), energy("relu1")):
        assert torch.autograd.gradcheck(lambda x, goal=goal: value(goal, network, x), (image,))
    for channel in (3, -1):
        with pytest.raises(Invalid, match=f"no channel {channel} in conv2, which has 0 … 2"):
            value(excite("conv2", channel), network, image)
    assert value(energy("conv2"), small(torch.bfloat16), picture().float()).dtype == torch.float32


# What the image is asked for


def by_loops(image: Tensor, power: float, form: str, unit: tuple[float, ...]) -> float:
    """Total variation pixel by pixel."""
    _, c, h, w = image.shape
    x = (image[0] * torch.tensor(unit).view(-1, 1, 1)).tolist()
    right = [[x[k][i][j + 1] - x[k][i][j] for j in range(w - 1)] for k in range(c) for i in range(h)]
    down = [[x[k][i + 1][j] - x[k][i][j] for j in range(w)] for k in range(c) for i in range(h - 1)]
    if form == "pairs":
        return sum(
            ((x[k][i][j + 1] - x[k][i][j]) ** 2 + (x[k][i + 1][j] - x[k][i][j]) ** 2) ** power
            for k in range(c)
            for i in range(h - 1)
            for j in range(w - 1)
        )
    sums = [sum(abs(d) ** power for row in rows for d in row) for rows in (right, down)]
    if form == "sum":
        return sum(sums)
    return sum(s / sum(len(row) for row in rows) for s, rows in zip(sums, (right, down), strict=True))


@pytest.mark.parametrize("form", ["mean", "sum", "pairs"])
@pytest.mark.parametrize("power", [2.0, 1.0, 1.25])
def test_smooth_by_loops_and_its_gradient(form: str, power: float) -> None:
    image, unit = picture(1, 3, 4, 5), (2.0, 3.0, 5.0)
    goal = smooth(power, form=form, scale=torch.tensor(unit))
    expected = by_loops(image, power, form, unit)
    assert float(goal({}, image)[0]) == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda x: goal({}, x)[0], (image.requires_grad_(),), eps=1e-7, atol=1e-4)
    even = torch.full((1, 3, 4, 5), 0.3, dtype=torch.float64, requires_grad=True)
    total = goal({}, even)[0]
    assert total == 0
    assert not torch.autograd.grad(total, even)[0].any()  # and no NaN


def test_smooths_scale_is_bytes_unless_said() -> None:
    image = picture(1, 3, 4, 5)
    one, bytes_ = (float(goal({}, image)[0]) for goal in (smooth(scale=1.0), smooth()))
    assert bytes_ == pytest.approx(255**2 * one)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 1, 4), (1, 3, 4, 1)])
@pytest.mark.parametrize("form", ["mean", "sum", "pairs"])
def test_smooth_of_a_line_or_a_point(shape: tuple[int, ...], form: str) -> None:
    image = picture(*shape).requires_grad_()
    total = smooth(form=form)({}, image)[0]
    total.backward()
    assert image.grad is not None and image.grad.isfinite().all() and total.isfinite()
    assert (total == 0) == (form == "pairs" or shape == (1, 3, 1, 1))


def test_smooth_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(Invalid, match="no form of total variation 'max'; there are mean, sum, pairs"):
        smooth(form="max")
    for power in (0.5, -1.0, math.nan):
        with pytest.raises(Invalid, match="no gradient where it is even: give 1 or more"):
            smooth(power)


def test_gamut_by_hand_and_its_gradient() -> None:
    image = torch.tensor([[[[-0.1, 0.0, 0.5], [1.0, 1.2, 0.9]]]], dtype=torch.float64)
    total = gamut()({}, image)[0]
    assert float(total) == pytest.approx((25.5**2 + 51.0**2) / 6)
    assert gamut()({}, picture())[0] == 0
    assert torch.autograd.gradcheck(lambda x: gamut()({}, x)[0], (2 * picture().requires_grad_() - 0.5,))


# Objectives are data


def test_terms_add_and_scale() -> None:
    network, image = small(), picture(seed=2)
    a, b = match(network, picture(), ("conv1", "conv2")), smooth()
    both = 3 * (a + 0.5 * b) * 2
    va, vb = value(a, network, image), value(b, network, image)
    torch.testing.assert_close(value(both, network, image), 6 * va + 3 * vb)
    total, values = both(network.features(image, both.layers), image)
    assert list(values) == ["match conv1", "match conv2", "smooth"]
    torch.testing.assert_close(sum(values.values()), total)
    assert str(both) == "6 · match conv1 + 6 · match conv2 + 3 · smooth"
    assert (str(a), str(Objective())) == ("1 · match conv1 + 1 · match conv2", "0")
    torch.testing.assert_close(
        slope(both, network, image), 6 * slope(a, network, image) + 3 * slope(b, network, image)
    )


def test_terms_are_evaluated_in_the_order_of_the_layers_however_they_are_added() -> None:
    """So that the way back frees each part as it passes (see `chain.Answers`)."""
    network, image, asked = small(), picture(), []

    class Watched(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            asked.append(name)
            return super().__getitem__(name)

    goal = smooth() + energy("conv2") + excite("conv1") + energy("relu1") + excite("conv2")
    goal(Watched(network.features(image, LAYERS)), image)
    assert list(dict.fromkeys(asked)) == ["conv1", "relu1", "conv2"]


def test_layers_are_asked_for_once_and_values_of_one_name_are_summed() -> None:
    network, image = small(), picture(seed=2)
    goal = excite("conv2", 0) + energy("conv1") + excite("conv2", 1) + excite("conv2", 0)
    assert goal.layers == ("conv2", "conv1")
    values = goal(network.features(image, goal.layers), image)[1]
    assert list(values) == ["excite conv2:0", "energy conv1", "excite conv2:1"]
    single = excite("conv2", 0)(network.features(image, ("conv2",)), image)[0]
    torch.testing.assert_close(values["excite conv2:0"], 2 * single)
    assert not any(v.requires_grad for v in values.values())


def test_an_objective_can_be_pickled_and_asked_again() -> None:
    network, image = small(), picture(seed=2)
    goal = (
        match(network, picture(), ("conv1",), by=partial(gram, norm="chw"))
        + excite("conv2", 1)
        + energy("conv1")
    )
    goal = goal + 2 * smooth(1.25, form="pairs") + gamut()
    again: Objective = pickle.loads(pickle.dumps(goal))
    assert str(again) == str(goal)
    assert torch.equal(value(again, network, image), value(goal, network, image))
    assert Term("smooth", smooth().terms[0].measure).weight == 1
