"""Optimisers: groups by kind, steps by hand, Muon's updates by singular values, averages by recursion."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.learn.averages import Averaging, Ema, Lookahead
from innervision.learn.optimisers import AdamW, Muon, Sgd, groups, orthogonalised, with_lr
from innervision.nets import build


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential()
        net.add_module("whiten", nn.Conv2d(3, 4, 2))
        net.add_module("conv", nn.Conv2d(4, 6, 3))
        net.add_module("bn", nn.BatchNorm2d(6))
        net.add_module("flat", nn.Flatten())
        net.add_module("fc", nn.Linear(6 * 9, 5))
        net.get_submodule("whiten").weight.requires_grad_(False)
        return net


def names(net: nn.Module, params: list[Tensor]) -> list[str]:
    known = {id(p): name for name, p in net.named_parameters()}
    return [known[id(p)] for p in params]


def test_weights_are_grouped_by_kind_with_rate_and_decay() -> None:
    net = small()
    found = groups(net, 0.1, 0.01, own={"norms": 64.0, "whiten": 2.0}, slow={"fc": 0.5})
    told = [(g["name"], names(net, g["params"]), g["lr"], g["weight_decay"]) for g in found]
    assert told == [
        ("kernels", ["conv.weight"], 0.1, 0.01),
        ("kernels", ["fc.weight"], 0.05, 0.01),
        ("biases", ["conv.bias"], 0.1, 0.0),
        ("biases", ["fc.bias"], 0.05, 0.0),
        ("norms", ["bn.weight", "bn.bias"], pytest.approx(6.4), 0.0),
        ("whiten", ["whiten.bias"], 0.2, 0.0),
    ]
    every = groups(net, 0.1, 0.01, decay="all", own={"norms": 64.0})
    assert all(g["lr"] * g["weight_decay"] == pytest.approx(1e-3) for g in every)  # all shrink alike
    with pytest.raises(Invalid, match="no weight can be trained"):
        groups(net.requires_grad_(False), 0.1)


def test_vgg_decays_its_kernels_and_nothing_else() -> None:
    net = build("vgg19_article", device="meta")
    kernels, *others = groups(net, 0.08, 1e-3)
    assert len(kernels["params"]) == 16 + 3
    assert {p.ndim for p in kernels["params"]} == {2, 4}
    assert [g["weight_decay"] for g in others] == [0.0, 0.0]
    assert sum(len(g["params"]) for g in (kernels, *others)) == 2 * (16 + 3) + 2 * (16 + 3)


def test_sgd_by_hand_with_keras_penalty() -> None:
    """Keras adds l2·w² to the loss; here weight_decay 2·l2 adds the same gradient."""
    l2, lr, momentum, x, y = 0.05, 0.1, 0.9, 2.0, 3.0
    net = nn.Linear(1, 1)
    with torch.no_grad():
        net.weight.fill_(0.5)
        net.bias.fill_(-0.25)
    optimiser = Sgd(lr, momentum=momentum, weight_decay=2 * l2)(net)
    w, b, vw, vb = 0.5, -0.25, 0.0, 0.0
    for _ in range(3):
        optimiser.zero_grad()
        (net(torch.tensor([[x]])) - y).square().sum().backward()
        optimiser.step()
        error = w * x + b - y
        gw, gb = 2 * error * x + 2 * l2 * w, 2 * error  # no penalty on the bias
        vw, vb = momentum * vw + gw, momentum * vb + gb
        w, b = w - lr * (gw + momentum * vw), b - lr * (gb + momentum * vb)
    assert (net.weight.item(), net.bias.item()) == pytest.approx((w, b), rel=1e-5)


def test_adamw_decays_kernels_apart_from_the_gradient() -> None:
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone(), net.bias.detach().clone()
    optimiser = AdamW(0.1, weight_decay=0.5)(net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    torch.testing.assert_close(net.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    assert torch.equal(net.bias, before[1])


@pytest.mark.parametrize("shape", [(16, 27), (40, 9), (12, 12), (1, 5)])
def test_an_orthogonalised_matrix_keeps_its_directions_and_evens_its_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 3
    u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix, 5)
    values = u.T @ found @ vt.T  # diagonal where the directions are kept
    off = values - values.diagonal().diag()
    assert off.abs().max() < 1e-3
    assert values.diagonal()[s > s.max() / 50].min() > 0.6
    assert values.diagonal().max() < 1.25
    assert torch.linalg.svdvals(orthogonalised(matrix * 1e-4, 5)).max() < 1.25  # whatever the scale


def test_muon_turns_filters_by_its_rate_and_leaves_the_rest_to_sgd() -> None:
    net, twin = small(), small()
    rest = Sgd(0.1, momentum=0.8, weight_decay=0.01, decay="all", norm_lr=4.0)
    muon, plain = Muon(0.2, momentum=0.5, iterations=8, rest=rest)(net), rest(twin)
    assert muon.param_groups[0]["name"] == "filters"
    image = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    buffer, sizes = 0.0, []
    for _ in range(3):
        for one, optimiser in ((net, muon), (twin, plain)):
            optimiser.zero_grad()
            one(image).square().sum().backward()
        for p, q in zip(net.parameters(), twin.parameters(), strict=True):
            if p.grad is not None and q.grad is not None:
                q.grad.copy_(p.grad)  # the nets differ in their filters: compare the steps alone
        weight, gradient = net.conv.weight.detach().clone(), net.conv.weight.grad.clone()
        muon.step()
        plain.step()
        buffer = 0.5 * buffer + gradient
        wanted = (gradient + 0.5 * buffer).reshape(6, -1)
        u, _, vt = torch.linalg.svd(wanted, full_matrices=False)
        scaled = weight * (math.sqrt(6) / weight.norm())
        step = (scaled - net.conv.weight.detach()).reshape(6, -1) / 0.2
        torch.testing.assert_close(step.norm(), torch.tensor(math.sqrt(6.0)), rtol=0.25, atol=0)
        cosine = (step * (u @ vt)).sum() / step.norm() / (u @ vt).norm()
        sizes.append(cosine.item())
        for name, p in net.named_parameters():
            if name != "conv.weight":
                torch.testing.assert_close(p, dict(twin.named_parameters())[name], msg=name)
    assert min(sizes) > 0.97


def test_another_rate_keeps_the_proportions() -> None:
    assert with_lr(Sgd(0.1, momentum=0.5), 0.3) == Sgd(0.3, momentum=0.5)
    assert with_lr(AdamW(0.1), 0.3) == AdamW(0.3)
    assert with_lr(Muon(0.2, rest=Sgd(1.0)), 0.1) == Muon(0.1, rest=Sgd(0.5))


@pytest.mark.parametrize(
    "make", [lambda: Sgd(0), lambda: AdamW(-1), lambda: Muon(math.nan), lambda: Sgd(1, 1)]
)
def test_what_is_not_allowed(make: object) -> None:
    with pytest.raises(Invalid, match=r"must be"):
        make()  # type: ignore[operator]


# averages


def test_an_exponential_average_by_recursion() -> None:
    net = nn.BatchNorm1d(1)
    average = Averaging(Ema(0.5), net)
    want = 1.0
    for count, value in enumerate((2.0, 5.0, -1.0, 0.5), start=1):
        with torch.no_grad():
            net.weight.fill_(value)
            net.running_mean.fill_(-value)
        average.update(net, count, 4)
        stays = min(0.5, (1 + count) / (10 + count))  # 2/11, 1/4, 4/13, 5/14
        want = stays * want + (1 - stays) * value
        assert net.weight.item() == value  # the network itself is not moved
    assert average.values["weight"].item() == pytest.approx(want)
    assert average.values["running_mean"].item() < 0  # statistics are averaged too
    other = nn.BatchNorm1d(1)
    average.fill(other)
    assert other.weight.item() == pytest.approx(want)


def test_lookahead_pulls_the_network_back_as_airbench_does() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    steps, slow, fast = 12, 1.0, 1.0
    average = Averaging(Lookahead(every=5, slow=0.95), net)
    for count in range(1, steps + 1):
        with torch.no_grad():
            net.weight += 1.0
        fast += 1.0
        average.update(net, count, steps)
        if count == steps:
            fast = slow
        elif count % 5 == 0:
            stays = 0.95**5 * (count / steps) ** 3
            slow = fast = stays * slow + (1 - stays) * fast
        assert net.weight.item() == pytest.approx(fast)
    assert net.weight.item() == pytest.approx(slow)


def test_averages_that_are_not_allowed() -> None:
    with pytest.raises(Invalid, match="decay is 1"):
        Ema(1.0)
    with pytest.raises(Invalid, match="every is 0"):
        Lookahead(0)
