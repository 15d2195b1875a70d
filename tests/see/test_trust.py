"""Weight randomisation: what it changes, what it leaves alone, and whom it convicts."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import images
from innervision.cli.attribute import Explained
from innervision.errors import Invalid
from innervision.network import Network, load, wrap
from innervision.see import trust as trust_module
from innervision.see.backward import gradient, guided
from innervision.see.similarity import ssim
from innervision.see.target import Target
from innervision.see.trust import (
    Comparison,
    Trust,
    chance,
    judge,
    randomised,
    rank_correlation,
    trust,
)


def picture(side: int = 16) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def small() -> Network:
    torch.manual_seed(0)
    return wrap(
        nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 144, 10),
        )
    )


def edges(network: Network, image: Tensor, target: Target) -> Tensor:
    """Explain nothing: the same map, whatever the network knows."""
    return F.pad(image.mean(1).diff(dim=-1).abs(), (0, 1))


def slope(network: Network, image: Tensor, target: Target) -> Tensor:
    return gradient(network, image, target).map


def lines(network: Network, image: Tensor, target: Target) -> Tensor:
    return guided(network, image, target).map


def weights(network: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.module.state_dict().items()}


def test_a_map_of_the_pictures_edges_does_not_depend_on_the_weights() -> None:
    verdict = trust(small(), picture(), Target(None, 1), edges)
    assert not verdict.depends
    assert verdict.rank == pytest.approx(1)
    assert all(c.ssim == pytest.approx(1) for c in verdict.comparisons)
    assert "hardly changes" in str(verdict)


def test_a_gradient_does() -> None:
    verdict = trust(small(), picture(), Target(None, 1), slope)
    assert verdict.depends
    assert verdict.rank < 0.4
    assert str(verdict).startswith("depends on the weights")


def test_guided_backpropagation_fails_on_vgg19_where_the_gradient_passes() -> None:
    network = load("vgg19").frozen()
    photo = images.read("sample:chelsea")
    image = photo.tensor((64, 96))
    wanted = Target("relu5_1", int(network.features(image, ["relu5_1"])["relu5_1"].sum((2, 3)).argmax()))
    convicted = trust(network, image, wanted, lines, steps=4)
    assert not convicted.depends, convicted
    assert trust(network, image, wanted, slope, steps=4).depends


def test_layers_lose_their_weights_from_the_top_and_stay_so() -> None:
    network = small()
    own = weights(network)
    changed: list[set[str]] = []

    def watch(other: Network, image: Tensor, target: Target) -> Tensor:
        if other is not network:
            now = other.module.state_dict()
            changed.append({name.split(".")[0] for name in own if not torch.equal(own[name], now[name])})
        return slope(other, image, target)

    names = [c.layer for c in randomised(network, picture(), Target(None, 1), watch)]
    assert names == ["6", "3", "1", "0"]
    # "1" is batch normalisation, untrained: the identity before and after
    assert changed == [{"6"}, {"6", "3"}, {"6", "3"}, {"6", "3", "0"}]
    changed.clear()
    names = [c.layer for c in randomised(network, picture(), Target(None, 1), watch, cascading=False)]
    assert names == ["6", "3", "1", "0"]
    assert changed == [{"6"}, {"3"}, set(), {"0"}]
    changed.clear()
    few = list(randomised(network, picture(), Target(None, 1), watch, steps=2))
    assert [(c.layer, c.layers, c.of) for c in few] == [("3", 2, 4), ("0", 4, 4)]
    assert [c.layer for c in randomised(network, picture(), Target("4", 1), slope)] == ["3", "1", "0"]


def test_the_network_stays_as_it_is() -> None:
    network = small()
    network.module.train()
    own = weights(network)
    state = torch.get_rng_state()
    steps = randomised(network, picture(), Target(None, 1), slope)
    next(steps)
    assert torch.is_grad_enabled()
    steps.close()
    with torch.inference_mode():
        trust(network, picture(), Target(None, 1), lines)
    assert all(torch.equal(own[name], now) for name, now in network.module.state_dict().items())
    assert all(m.training and not m._forward_pre_hooks for m in network.module.modules())
    assert all(p.requires_grad and p.grad is None for p in network.module.parameters())
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is not drawn from"


def test_a_seed_says_everything() -> None:
    ranks = [
        [c.rank for c in randomised(small(), picture(), Target(None, 1), slope, seed=seed)]
        for seed in (0, 0, 1)
    ]
    assert ranks[0] == ranks[1] != ranks[2]


class Functional(nn.Module):
    """Uses a layer's weights without calling it, owns a parameter itself, and has a layer nobody needs."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.randn(1, 4, 1, 1))
        self.first, self.idle, self.last = nn.Conv2d(3, 4, 3), nn.Linear(2, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.first.weight, self.first.bias).relu() + self.shift
        return self.last((x * x).mean((2, 3)))


def test_weights_that_are_used_without_a_call_are_found() -> None:
    torch.manual_seed(0)
    steps = randomised(wrap(Functional(), name="own"), picture(), Target(None, 1), slope)
    assert [c.layer for c in steps] == ["last", "first", "own"]


def test_a_target_that_dies_is_drawn_again() -> None:
    """One unit behind a ReLU: every other draw of its filter answers nothing."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 4, 16), nn.ReLU())
    network, image = wrap(net), picture()
    answer = network(image)[0, :, 0, 0]
    wanted = Target("1", int(answer.argmax()), (0, 0))
    for seed in range(6):
        (step,) = randomised(network, image, wanted, slope, seed=seed)
        assert step.map.any(), seed


def test_what_cannot_be_compared_is_refused() -> None:
    network = small()
    with pytest.raises(Invalid, match="no weights"):
        list(randomised(wrap(nn.Sequential(nn.ReLU())), picture(), Target("0", 0), edges))
    with pytest.raises(Invalid, match="0 everywhere"):
        list(randomised(network, picture(), Target(None, 1), lambda n, i, t: torch.zeros(1, 16, 16)))
    with pytest.raises(Invalid, match="steps"):
        list(randomised(network, picture(), Target(None, 1), slope, steps=0))
    with pytest.raises(Invalid, match="take it to its end"):
        judge(itertools.islice(randomised(network, picture(), Target(None, 1), slope), 1))


def test_a_verdict_is_the_median_of_the_maps_there_are() -> None:
    ranks = (0.9, 0.2, math.nan, 0.3)
    steps = [Comparison("x", n, 4, rank, 0.0, 0.0, torch.zeros(1)) for n, rank in enumerate(ranks, 1)]
    assert judge(steps).rank == pytest.approx(0.3)
    assert judge(steps).depends and not judge(steps, threshold=0.25).depends
    with pytest.raises(Invalid, match="every map is 0"):
        judge([Comparison("x", 1, 1, math.nan, 0.0, 0.0, torch.zeros(1))])


@pytest.mark.parametrize("channels", [0, 3])
def test_likeness_by_chance_is_that_of_every_shift(channels: int) -> None:
    """Brute force: each of 6 x 7 shifts by itself."""
    a, b = torch.rand(2, 1, *([channels] * bool(channels)), 6, 7, generator=torch.Generator().manual_seed(2))
    ranks = [
        rank_correlation(a, b.roll((down, across), (-2, -1))) for down in range(6) for across in range(7)
    ]
    want = math.sqrt(sum(rank**2 for rank in ranks) / len(ranks))
    assert chance(a, b) == pytest.approx(want, abs=1e-6)
    assert chance(a, torch.zeros_like(b)) == 0


@pytest.mark.parametrize("side", [4, 16])
def test_coarse_maps_may_be_alike_by_chance_and_fine_ones_are_not(side: int) -> None:
    """Noise on a grid of n places, enlarged as a class activation map is: alike by 1/√n by chance."""
    maps = torch.randn(200, 1, side, side, generator=torch.Generator().manual_seed(0))
    large = F.interpolate(maps, (64, 64), mode="bilinear")
    pairs = list(zip(large[::2], large[1::2], strict=True))
    told = statistics.fmean(chance(a, b) for a, b in pairs)
    scatter = statistics.stdev(rank_correlation(a, b) for a, b in pairs)
    assert told == pytest.approx(1 / side, rel=0.2) and scatter == pytest.approx(1 / side, rel=0.2)


def test_a_doubtful_verdict_is_tried_again() -> None:
    """A map of 3 x 3 places drawn anew each time: more cascades are made while chance may have had a hand."""
    draw = torch.Generator().manual_seed(1)
    own, calls = weights(small()), []

    def coarse(network: Network, image: Tensor, target: Target) -> Tensor:
        now = network.module.state_dict()
        calls.append({name.split(".")[0] for name in own if not torch.equal(own[name], now[name])})
        return F.interpolate(torch.rand(1, 1, 3, 3, generator=draw), (15, 15))[:, 0]

    verdicts = []
    for seed in range(20):
        calls.clear()
        verdicts.append(trust(small(), picture(), Target(None, 1), coarse, seed=seed))
        assert verdicts[-1].draws == len(calls) - 1 and verdicts[-1].draws % 4 == 0
        assert all(changed == {"6"} for changed in calls[1::4]), "each cascade begins at the top"
        assert len(verdicts[-1].comparisons) == 4, "what is shown is the first cascade"
        assert verdicts[-1].certain or verdicts[-1].draws == 4 * trust_module.CASCADES
    assert all(verdict.depends for verdict in verdicts)
    assert {verdict.draws for verdict in verdicts} > {4}
    doubt = Trust((), 0.55, 0.5, 16, 0.06)
    assert not doubt.certain and doubt.depends and str(doubt).startswith("in doubt")
    assert not Trust((), 0.63, 0.5, 16, 0.06).depends
    map = torch.ones(1, 4, 4)
    for rank, said in ((0.2, "depends on"), (0.55, "in doubt"), (0.9, "does NOT depend")):
        caption = Explained("grad-cam", map, {}, Trust((), rank, 0.5, 16, 0.06)).caption()
        assert caption.startswith(said) and f"{rank:.2f}" in caption


@pytest.mark.parametrize("values", ["spread", "tied", "even"])
def test_rank_correlation_is_scipys(values: str) -> None:
    draw = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 20, 30, generator=draw)
    if values == "tied":
        a, b = (a * 4).floor(), (a + b).mul(3).floor()
    if values == "even":
        assert rank_correlation(torch.ones_like(a), b) == 0
        return
    want = scipy.stats.spearmanr(a.flatten(), b.flatten()).statistic
    assert rank_correlation(a, b) == pytest.approx(want, abs=1e-12)
    assert rank_correlation(a, a) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)


def test_maps_smaller_than_the_window_are_compared() -> None:
    a, b = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    one, other = a[None] / a.max(), b[None] / b.max()
    assert trust_module._similarity(a, b)[2] == ssim(one, other, window=3)
    assert trust_module._similarity(a, a)[2] == pytest.approx(1)
