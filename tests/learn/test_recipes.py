"""Recipes: the article's numbers, networks that fit, whitening and identity starts, and the command."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn

from innervision import weights
from innervision.cli import cli
from innervision.errors import Invalid
from innervision.learn.augment import Augmentation
from innervision.learn.optimisers import AdamW, Muon, Sgd
from innervision.learn.recipes import RECIPES, explain, recipe, record
from innervision.nets import NETS, build
from innervision.nets.cifar import whiten


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, list(args))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_fits_its_network_and_can_be_written_down(name: str) -> None:
    one = RECIPES[name]
    assert one.name == name
    card = NETS[one.net]
    assert len(one.preprocessing.mean) == card.channels
    module = build(one.net, classes=10, device="meta")
    optimiser = one.optimiser(module, dict(one.slow))
    trained = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(trained) == len({id(p) for p in trained})
    assert {id(p) for p in trained} == {id(p) for p in module.parameters() if p.requires_grad}
    for start in (*one.frozen, *(start for start, _ in one.slow)):
        assert any(layer.startswith(start) for layer, _ in module.named_parameters())
    assert not one.start or one.start in weights.WEIGHTS
    assert bool(one.whiten) == hasattr(module, "whiten")
    assert json.loads(json.dumps(record(one))) == record(one)
    assert 0 <= one.schedule(one.epochs / 3, one.epochs) <= 1
    assert max(one.schedule(one.epochs * t / 100, one.epochs) for t in range(101)) > 0.95


def test_the_article_to_the_letter() -> None:
    one = RECIPES["vgg19-article"]
    assert one.optimiser == Sgd(0.08, momentum=0.9, nesterov=True, weight_decay=2 * 5e-4, decay="kernels")
    rates = [one.optimiser.lr * one.schedule(epoch, 164) for epoch in (0, 80, 81, 121, 122, 163)]
    assert rates == pytest.approx([0.08, 0.08, 0.01, 0.01, 0.001, 0.001])
    assert (one.epochs, one.batch, one.drop_last) == (164, 128, False)
    assert -(-50_000 // one.batch) == 391  # its steps an epoch, the last a smaller batch
    pre = one.preprocessing
    assert (pre.mean, pre.std, pre.range, pre.order) == ((123.680, 116.779, 103.939), (1, 1, 1), 255, "RGB")
    augmentation = one.augmentation
    assert (augmentation.flip, augmentation.shift) == ("random", 0.125)
    assert isinstance(augmentation.shift, float)
    filled = torch.tensor(augmentation.fill).view(1, 3, 1, 1)
    torch.testing.assert_close(pre(filled), torch.zeros(1, 3, 1, 1), atol=2e-5, rtol=0)  # fill with 0
    net = build("vgg19_article", device="meta")
    layers = [type(layer).__name__ for layer in net.children()]
    assert layers[-2:] == ["Linear", "BatchNorm1d"]
    assert [layers.count(k) for k in ("Conv2d", "BatchNorm2d", "MaxPool2d", "Dropout")] == [16, 16, 4, 2]
    norm = net.get_submodule("bn1_1")
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)
    assert net.get_submodule("bn8").eps == 1e-3


def test_imagenets_convolutions_are_put_in_by_name() -> None:
    net = build("vgg19_article", generator=seeded())
    report = weights.load(net, weights.locate(weights.WEIGHTS["vgg19-8bit"]))
    assert len(report.matched) == 32 and not report.skipped
    names = [f"conv{s}_{p}" for s, n in enumerate((2, 2, 4, 4, 4), 1) for p in range(1, n + 1)]
    assert set(report.matched) == {f"{name}.{leaf}" for name in names for leaf in ("weight", "bias")}
    assert {name.partition(".")[0][:2] for name in report.missing} == {"bn", "fc"}


def test_airbenchs_numbers_for_a_mean_loss() -> None:
    """The authors' rates are for a loss summed over 2000 pictures."""
    muon = RECIPES["fast94"].optimiser
    assert isinstance(muon, Muon)
    assert muon.rest.lr * muon.rest.norm_lr == pytest.approx(0.053 * 2000)
    assert muon.rest.lr * muon.rest.weight_decay == pytest.approx(2e-6 * 2000)
    # a dense layer scaled by 1/256 at rate .67, here by 1/9: the same steps of what it computes
    assert muon.rest.lr == pytest.approx(0.67 * 2000 * (9 / 256) ** 2, rel=0.05)


def test_options_go_over_a_recipe() -> None:
    one = recipe("lenet5-modern", epochs=2, lr=0.1, validation=0.2)
    assert (one.epochs, one.optimiser, one.validation) == (2, AdamW(0.1, weight_decay=0.02), 0.2)
    assert recipe("folder", validation=0).keep == "last"  # there is nothing to choose by
    assert recipe("folder", validation=0).patience is None
    alike = recipe("folder", net="cifar_fast")  # of other layers
    assert (alike.frozen, alike.slow, alike.start) == ((), (), "")
    other = recipe("folder", start="vgg19-torchvision")  # they want another input
    assert other.preprocessing == weights.WEIGHTS["vgg19-torchvision"].preprocessing


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"keep": "best", "validation": 0.0}, "keep best needs"),
        ({"patience": 3, "validation": 0.0}, "patience needs"),
        ({"precision": "half"}, "precision is 'half'; it can be auto, float32, bfloat16"),
        ({"lr": -1.0}, "lr is -1"),
    ],
)
def test_what_is_not_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        recipe("fast94", **options)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match=r"no recipe 'fast99'.*Did you mean 'fast9"):
        recipe("fast99")


# the fast net


def smooth(n: int = 64) -> Tensor:
    """Pictures whose neighbours are alike, as those of photographs are."""
    noise = torch.randn(n, 3, 12, 12, generator=seeded(1))
    return nn.functional.avg_pool2d(noise, 3, 1) * torch.tensor([2.0, 1.0, 0.5]).view(1, 3, 1, 1)


def test_whitened_patches_have_the_unit_matrix_for_second_moments() -> None:
    layer = nn.Conv2d(3, 24, 2)
    images = smooth()
    whiten(layer, images, eps=0)
    found = layer(images).detach().permute(1, 0, 2, 3).reshape(24, -1)
    moments = found @ found.T / found.shape[1]
    torch.testing.assert_close(moments[:12, :12], torch.eye(12), atol=2e-4, rtol=0)
    torch.testing.assert_close(found[12:], -found[:12])
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
    spread = [
        (patches @ (f / f.norm())).square().mean().item() for f in layer.weight.detach()[:12].flatten(1)
    ]
    assert spread == sorted(spread, reverse=True)  # the largest first
    assert layer.bias is not None and layer.bias.count_nonzero() == 0
    with pytest.raises(Invalid, match="takes 24 filters"):
        whiten(nn.Conv2d(3, 12, 2), images)


def test_the_fast_net_starts_by_passing_channels_on() -> None:
    net = build("cifar_fast", generator=seeded())
    for name, passed in {"conv1_1": 24, "conv1_2": 64, "conv2_1": 64, "conv3_2": 256}.items():
        conv = net.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        x = torch.randn(1, conv.in_channels, 5, 5, generator=seeded(2))
        torch.testing.assert_close(conv(x)[:, :passed], x[:, :passed])
    assert not net.get_submodule("whiten").weight.requires_grad
    assert not net.get_submodule("bn1_1").weight.requires_grad
    scores = net.eval()(torch.randn(4, 3, 32, 32, generator=seeded(3)))
    torch.testing.assert_close(scores, net[:-1](torch.randn(4, 3, 32, 32, generator=seeded(3))) / 9)
    again = build("cifar_fast", generator=seeded())
    pairs = zip(net.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# the command


def test_recipes_are_listed_and_explained() -> None:
    listed = run("recipes")
    assert listed.exit_code == 0
    assert all(name in listed.output for name in RECIPES)
    told = run("recipes", "vgg19-article").output
    facts = (
        "lr 0.08",
        "weight_decay 0.001",
        "steps at (81, 122)",
        "164, in batches of 128",
        "123.68/116.779",
    )
    for fact in facts:
        assert fact in told
    assert "weight_decay 0.002353 decay all norm_lr 62.35" in run("recipes", "fast94").output  # 0.004 / 1.7
    data = json.loads(run("recipes", "fast94", "--json").output)
    assert data["optimiser"]["kind"] == "Muon" and data["optimiser"]["rest"]["momentum"] == 0.85
    assert len(json.loads(run("recipes", "--json").output)) == len(RECIPES)
    wrong = run("recipes", "lenet")
    assert wrong.exit_code == 2 and "no recipe 'lenet'" in wrong.output
    assert ("augmentation", str(Augmentation(shift=2))) in explain(RECIPES["lenet5-modern"])
