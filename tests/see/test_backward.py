"""Attribution by going back: against a table by hand and a restatement without autograd (captum: oracles)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision.cli import cli
from innervision.errors import Diverged, Invalid
from innervision.network import Network, wrap
from innervision.see.backward import (
    METHODS,
    attribute,
    deconvnet,
    gradient,
    gradient_x_input,
    guided,
    integrated,
    overlay,
    show,
    smoothgrad,
)
from innervision.see.target import Target, target

RULED = {"gradient": gradient, "deconvnet": deconvnet, "guided": guided}


def picture(side: int = 16, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed)).to(dtype)


def seeded(module: nn.Module) -> nn.Module:
    """Give every weight a value that all can repeat, of both signs, so that every ReLU closes somewhere."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return module


# --- a table by hand ---------------------------------------------------------------------------------

RED = (
    (0.1, 0.2, 0.3, 0.4),
    (0.5, 0.6, 0.7, 0.8),
    (0.9, 1.0, 0.8, 0.6),
    (0.4, 0.2, 0.1, 0.0),
)


def by_hand() -> tuple[Network, Tensor]:
    """Three views of red, r, ½ - r and r - ¾, rectified, pooled 2x2, and mixed as a - 2b + 3c."""
    first, last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[:, 0, 0, 0] = torch.tensor([1.0, -1.0, 1.0])
        first.bias.copy_(torch.tensor([0.0, 0.5, -0.75]))  # pyright: ignore[reportOptionalMemberAccess]
        last.weight[0, :, 0, 0] = torch.tensor([1.0, -2.0, 3.0])
    image = torch.full((1, 3, 4, 4), 0.5, dtype=torch.float64)
    image[0, 0] = torch.tensor(RED, dtype=torch.float64)
    return wrap(nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), last).double()), image


BY_HAND = {
    # a goes back to the largest of each window, b (twice negative) to the least, c where red is above ¾
    ("gradient", "3:0"): ((2, 0, 2, 0), (0, 1, 0, 4), (0, 4, 4, 0), (0, 2, 0, 2)),
    # b is negative: closed. c goes to the first of four zeros in the first window, mask or no mask
    ("deconvnet", "3:0"): ((3, 0, 0, 0), (0, 1, 0, 4), (0, 4, 4, 0), (0, 0, 0, 0)),
    ("guided", "3:0"): ((0, 0, 0, 0), (0, 1, 0, 4), (0, 4, 4, 0), (0, 0, 0, 0)),
    ("gradient", "3:0@1,0"): ((0, 0, 0, 0), (0, 0, 0, 0), (0, 4, 0, 0), (0, 2, 0, 0)),
    ("guided", "3:0@1,0"): ((0, 0, 0, 0), (0, 0, 0, 0), (0, 4, 0, 0), (0, 0, 0, 0)),
}


@pytest.mark.parametrize(("method", "asked"), BY_HAND)
def test_a_table_by_hand(method: str, asked: str) -> None:
    network, image = by_hand()
    wanted = target(asked, network)
    one = {"start": "one"} if method == "deconvnet" else {}
    map = RULED[method](network, image, wanted, **one).map
    np.testing.assert_allclose(map[0, 0], BY_HAND[method, asked], atol=1e-12)
    assert not map[:, 1:].any(), "green and blue are not looked at"


def test_a_deconvnet_starts_from_the_activations_kept() -> None:
    network, image = by_hand()
    # the windows answer -.2, .55, 1.15 and -.05; a negative one opens b alone, whose filter is negative
    want = ((-0.4, 0, 0, 0), (0, 0, 0, 2.2), (0, 4.6, 0, 0), (0, 0, 0, -0.1))
    result = deconvnet(network, image, Target("3", 0))
    np.testing.assert_allclose(result.map[0, 0], want, atol=1e-12)
    assert result.score == pytest.approx(1.45)
    alone = deconvnet(network, image, Target("3", 0, (1, 0)))
    np.testing.assert_allclose(alone.map[0, 0, 2, 1], 4.6)
    assert alone.map.count_nonzero() == 1


def test_gradient_times_input() -> None:
    network, image = by_hand()
    want = np.array(BY_HAND["gradient", "3:0"]) * np.array(RED)
    np.testing.assert_allclose(gradient_x_input(network, image, Target("3", 0)).map[0, 0], want, atol=1e-12)


# --- a restatement without autograd -------------------------------------------------------------------


def restated(layers: nn.Sequential, image: Tensor, channel: int, rule: str, start: str) -> Tensor:
    """Go up and down a chain of convolutions, ReLUs and max poolings, as the paper says it."""
    xs, switches = [image], {}
    for n, layer in enumerate(layers):
        if isinstance(layer, nn.MaxPool2d):
            y, switches[n] = F.max_pool2d(xs[-1], layer.kernel_size, return_indices=True)
        elif isinstance(layer, nn.Conv2d):
            y = F.conv2d(xs[-1], layer.weight, layer.bias, padding=layer.padding)
        else:
            y = xs[-1].clamp(min=0)
        xs.append(y)
    down = torch.zeros_like(xs[-1])
    down[:, channel] = xs[-1][:, channel] if start == "activation" else 1
    for n, layer in reversed(list(enumerate(layers))):
        x = xs[n]
        if isinstance(layer, nn.MaxPool2d):
            down = F.max_unpool2d(down, switches[n], layer.kernel_size, output_size=x.shape[-2:])
        elif isinstance(layer, nn.Conv2d):
            down = F.conv_transpose2d(down, layer.weight, padding=layer.padding)
        else:
            mask = (x > 0).to(down)
            rectified = down.clamp(min=0)
            down = {"gradient": down * mask, "deconvnet": rectified, "guided": rectified * mask}[rule]
    return down


def chain(in_place: bool = False) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(in_place),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(in_place),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(in_place),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 5, 3),
    )


@pytest.mark.parametrize(
    "frozen", [False, True], ids=["as it is", "frozen"]
)  # frozen: a short cut to pass by
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("layer", ["8", "6", "3", "2"])
def test_the_rules_against_a_restatement(frozen: bool, in_place: bool, layer: str) -> None:
    module = seeded(chain(in_place)).double()
    network = wrap(module).frozen(torch.float64) if frozen else wrap(module)
    image = picture()
    part = chain()[: int(layer) + 1].double()
    part.load_state_dict({k: v for k, v in module.state_dict().items() if k in part.state_dict()})
    for rule, method in RULED.items():
        for start in ("activation", "one") if rule == "deconvnet" else ("one",):
            got = method(
                network, image, Target(layer, 1), **({"start": start} if rule == "deconvnet" else {})
            )
            with torch.no_grad():
                want = restated(part, image, 1, rule, start)
            assert want.any()
            torch.testing.assert_close(got.map, want, rtol=0, atol=1e-12)


def test_a_real_size_in_float32_agrees_to_a_millionth() -> None:
    network = wrap(seeded(chain())).frozen()
    image = picture(48, torch.float32)
    for rule in ("deconvnet", "guided"):
        map = attribute(network, image, Target("8", 2), rule, start="one").map
        with torch.no_grad():
            want = restated(network.module, image, 2, rule, "one")  # pyright: ignore[reportArgumentType]
        assert (map - want).abs().max() <= 1e-6 * want.abs().max()


# --- ReLU, however it is written ---------------------------------------------------------------------


def times_a_mask(x: Tensor) -> Tensor:
    x *= x > 0
    return x


def set_below(x: Tensor) -> Tensor:
    x[x < 0] = 0.0
    return x


WRITTEN: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True),
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "relu": lambda x: x.relu(),
    "relu_": lambda x: x.relu_(),
    "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(min=0),
    "clamp_min": lambda x: x.clamp_min(0.0),
    "clamp by a tensor": lambda x: x.clamp(min=x.new_zeros(())),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "maximum, turned": lambda x: torch.maximum(x.new_zeros(()), x),
    "fmax": lambda x: torch.fmax(x, torch.zeros_like(x)),
    "threshold": lambda x: F.threshold(x, 0, 0),
    "threshold in place": lambda x: F.threshold(x, 0, 0, inplace=True),
    "nn.Threshold": nn.Threshold(0, 0),
    "times a mask": lambda x: x * (x > 0),
    "times a mask of floats": lambda x: (x > 0).to(x) * x,
    "times a mask of whole numbers": lambda x: x * (x > 0).long(),
    "times a mask in place": lambda x: x.mul_(x > 0),
    "times= a mask": times_a_mask,
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, turned": lambda x: torch.where(x < 0, torch.zeros_like(x), x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": lambda x: x.masked_fill_(x <= 0, 0),
    "what is below set": set_below,
    "clamp_min_": lambda x: x.clamp_min_(0),
}


class Written(nn.Module):
    """`chain`, its ReLUs written by hand."""

    def __init__(self, relu: Callable[[Tensor], Tensor], pool: Callable[..., Tensor] = F.max_pool2d) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.third, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 3)
        self.relu, self.pool = relu, pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.second(self.relu(self.first(x))))
        x = self.relu(self.third(self.pool(x, 2)))
        return self.last(self.pool(x, 2))


@pytest.mark.parametrize("form", [*WRITTEN, "one module"])
@pytest.mark.parametrize("method", ["deconvnet", "guided"])
def test_relu_is_met_however_it_is_written(form: str, method: str) -> None:
    module = Written(WRITTEN[form] if form in WRITTEN else nn.ReLU(inplace=True))
    got = RULED[method](wrap(seeded(module).double()), picture(), Target("last", 1))
    usual = wrap(seeded(chain()).double())
    want = RULED[method](usual, picture(), Target("8", 1))
    torch.testing.assert_close(got.map, want.map, rtol=0, atol=1e-12)
    plain = gradient(usual, picture(), Target("8", 1))
    assert (want.map - plain.map).abs().max() > 0.01, "the rule changes nothing here: the test is void"


def test_guided_is_closed_at_0_where_a_clamp_is_open() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).clamp(min=0))

    network, image = wrap(seeded(Clamped()).double()), picture(4)
    image[..., :2] = 0  # where every filter answers 0
    assert gradient(network, image, Target("last", 0)).map[..., :2].any()
    map = guided(network, image, Target("last", 0)).map
    assert map[..., 2:].any() and not map[..., :2].any()


def test_relu6_and_gates_beside_relus() -> None:
    """A rectifier with a ceiling is ruled too; a gate that weighs channels keeps its gradient."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.gate = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.last = nn.Conv2d(4, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(F.relu6(self.first(x)) * torch.sigmoid(self.gate(x)))

    module = seeded(Gated()).double()
    image = picture(6)
    got = deconvnet(wrap(module), image, Target("last", 0), start="one").map
    with torch.no_grad():
        f, g = module.first.weight[:, :, 0, 0], module.gate.weight[:, :, 0, 0]  # pyright: ignore
        w = module.last.weight[0, :, 0, 0][:, None, None]  # pyright: ignore
        up, s = module.first(image)[0].clamp(0, 6), module.gate(image)[0].sigmoid()  # pyright: ignore
        want = torch.einsum("kc,khw->chw", f, (w * s).clamp(min=0))
        want += torch.einsum("kc,khw->chw", g, w * up * s * (1 - s))
    torch.testing.assert_close(got[0], want, rtol=0, atol=1e-12)


class ByHand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: object, g: Tensor) -> Tensor:  # pyright: ignore
        return g


def half(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :2].relu_()
    return x


def beside(activation: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Put an activation in place of the second of the network's three ReLUs."""
    calls = 0

    def between(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return activation(x) if calls % 3 == 2 else F.relu(x)

    return between


class Squared(nn.Module):
    """x² / 2 where x > 0: a function that torch does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).pow(2) / 2


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "GELU": (F.gelu, "GELU"),
    "SiLU": (nn.SiLU(), "SiLU"),
    "leaky": (nn.LeakyReLU(), "leaky ReLU"),
    "PReLU": (nn.PReLU(), "PReLU"),
    "ELU": (F.elu, "ELU"),
    "SELU": (F.selu, "ELU"),
    "CELU": (F.celu, "CELU"),
    "where": (lambda x: torch.where(x > 0, x, 0.1 * x), "where"),
    "softplus": (F.softplus, "softplus"),
    "hard swish": (F.hardswish, "hard swish"),
    "mish": (F.mish, "Mish"),
    "SiLU by hand": (lambda x: x * x.sigmoid(), "sigmoid"),
    "tanh": (torch.tanh, "tanh"),
    "hard swish by hand": (lambda x: x * F.relu6(x + 3) / 6, "an activation of its own"),
    "GELU by hand": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "erf"),
    "half of a sum": (lambda x: (x + x.abs()) / 2, "abs"),
    "a higher threshold": (nn.Threshold(0.1, 0), "threshold"),
    "another floor": (nn.Threshold(0, -0.1, inplace=True), "threshold"),
    "hard tanh": (nn.Hardtanh(), "hard tanh"),
    "what is above": (lambda x: x - x.clamp(max=0), "clamp"),
    "the greater of two": (lambda x: torch.maximum(x, 0.1 * x), "maximum"),
    "squared": (Squared(), "pow"),
    "a mask of another": (lambda x: x * (x > 0.1), "mul"),
    "a mask's other side": (lambda x: x.masked_fill(x > 0, 0), "masked_fill"),
    "a mask of another in place": (lambda x: x.masked_fill_(x < 0.1, 0), "masked_fill"),
    "a step without a gradient": (lambda x: x + (2 * x.relu() - x).detach(), "add"),
    "a gate of its own beside ReLUs": (beside(lambda x: torch.where(x > 0, x, 0.1 * x)), "where"),
    "tanh beside ReLUs": (beside(torch.tanh), "tanh"),
    "SiLU by hand beside ReLUs": (beside(lambda x: x * x.sigmoid()), "sigmoid"),
    "a step beside ReLUs": (beside(lambda x: x * (x > 0.1)), "mul"),
    "own gradient": (ByHand.apply, "gradient of its own"),  # pyright: ignore
    "a part in place": (half, "overwrites a part"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_no_rule_is_for_is_refused_with_the_reason(form: str) -> None:
    between, reason = REFUSED[form]
    network = wrap(seeded(Written(between)).double())
    for method in (deconvnet, guided):
        with pytest.raises(Invalid, match=reason):
            method(network, picture(), Target("last", 1))
    assert gradient(network, picture(), Target("last", 1)).map.any()
    assert guided(network, picture(), Target("first", 1)).map.any(), "nothing stands below the first layer"
    clean(network)


def by_square(x: Tensor) -> Tensor:
    squares = F.avg_pool3d(x.pow(2)[:, None], (3, 1, 1), stride=1, padding=(1, 0, 0))[:, 0]
    return x / (1 + squares) ** 0.75


def squeezed(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


BESIDE: dict[str, Callable[[Tensor], Tensor]] = {
    "contrast normalisation": lambda x: F.local_response_norm(x, 3),
    "the same by hand": by_square,
    "length 1": lambda x: F.normalize(x, dim=1),
    "layer normalisation by hand": lambda x: (
        (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt()
    ),
    "squeeze and excitation": squeezed,
    "a gate of the same size": lambda x: x * torch.sigmoid(F.avg_pool2d(x, 3, 1, 1)),
    "a place's weight": lambda x: x * torch.sigmoid(x.amax(1, keepdim=True)),
    "a constant mask": lambda x: x * (torch.arange(x.shape[-1]) % 2).to(x),
    "scaled by what it holds": lambda x: x / x.detach().std(),
    "another's ReLU": lambda x: F.relu(x) - 0.1 * F.relu(-x),
}


@pytest.mark.parametrize("form", BESIDE)
def test_gates_and_normalisation_beside_relus_keep_their_gradient(form: str) -> None:
    """With no ReLU closed to what comes down, the rule's map is the plain gradient."""

    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(BESIDE[form](self.first(x)) * 1e-3 + 50)
            return self.last(x)

    module = seeded(Open()).double()
    with torch.no_grad():
        module.last.weight.abs_()  # pyright: ignore
    network = wrap(module)
    for method in (guided, lambda *asked: deconvnet(*asked, start="one")):
        got, want = (each(network, picture(), Target("last", 0)).map for each in (method, gradient))
        if form == "another's ReLU":
            assert got.isfinite().all()
        else:
            assert want.any()
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_masks_of_the_weights_are_no_choice_of_the_picture() -> None:
    """Pruned weights, and a network whose weights take a gradient, are explained as any other."""

    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.first.weight * (self.first.weight.abs() > 0.2)
            return self.last(F.relu(F.conv2d(x, weight.tanh(), self.first.bias)))

    network = wrap(seeded(Pruned()).double())
    plain = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 1)).double()
    with torch.no_grad():
        first = network.module.first  # pyright: ignore
        plain[0].weight.copy_((first.weight * (first.weight.abs() > 0.2)).tanh())  # pyright: ignore
        plain[0].bias.copy_(first.bias)  # pyright: ignore
        plain[2].load_state_dict(network.module.last.state_dict())  # pyright: ignore
    for method in (guided, deconvnet):
        got = method(network, picture(), Target("last", 0)).map
        torch.testing.assert_close(
            got, method(wrap(plain), picture(), Target("2", 0)).map, rtol=0, atol=1e-12
        )


# --- what sums, and what is drawn --------------------------------------------------------------------


def linear() -> Network:
    return wrap(seeded(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 4))).double())


def test_a_linear_network_is_explained_exactly() -> None:
    network, image = linear(), picture()
    slope = gradient(network, image, Target(None, 2)).map
    noisy = smoothgrad(network, image, Target(None, 2), samples=3)
    torch.testing.assert_close(noisy.map, slope, rtol=0, atol=1e-12)
    whole = integrated(network, image, Target(None, 2), points=1, baseline=0.25)
    torch.testing.assert_close(whole.map, (image - 0.25) * slope, rtol=0, atol=1e-12)
    assert whole.gap == pytest.approx(0, abs=1e-12)
    assert whole.change == pytest.approx(whole.score - network(torch.full_like(image, 0.25))[0, 2].item())


def test_integrated_gradients_are_complete() -> None:
    network, image = wrap(seeded(chain()).double()), picture()
    result = integrated(network, image, Target("8", 1), points=2000, batch=100)
    assert result.change is not None and abs(result.change) > 0.1
    assert float(result.map.sum()) - result.change == pytest.approx(result.gap)
    assert abs(result.gap or 1) < 1e-3 * abs(result.change)
    # without kinks on the way the rule leaves no gap that could be measured
    smooth = wrap(seeded(Written(F.softplus, F.avg_pool2d)).double())
    result = integrated(smooth, image, Target("last", 1))
    assert abs(result.change or 0) > 0.1
    assert result.gap == pytest.approx(0, abs=1e-9)


def test_integrated_gradients_against_a_restatement() -> None:
    network, image = wrap(seeded(chain()).double()), picture()
    before = picture(seed=5)
    got = integrated(network, image, Target("8", 1), points=3, baseline=before).map
    want = torch.zeros_like(image)
    for place, weight in ((-(0.6**0.5), 5 / 9), (0.0, 8 / 9), (0.6**0.5, 5 / 9)):  # Gauss–Legendre of -1..1
        at = before + (place + 1) / 2 * (image - before)
        want += weight / 2 * gradient(network, at, Target("8", 1)).map
    torch.testing.assert_close(got, want * (image - before), rtol=0, atol=1e-12)


def test_smoothgrad_is_the_mean_of_noisy_gradients() -> None:
    network, image = wrap(seeded(chain()).double()), picture()
    draw = torch.Generator().manual_seed(3)
    spread = 0.2 * (image.max() - image.min())
    noise = [torch.randn(image.shape, generator=draw).double() for _ in range(5)]
    want = sum(gradient(network, image + spread * n, Target("8", 1)).map for n in noise) / 5
    for batch in (1, 2, 5):
        again = torch.Generator().manual_seed(3)
        got = smoothgrad(network, image, Target("8", 1), samples=5, sigma=0.2, generator=again, batch=batch)
        torch.testing.assert_close(got.map, want, rtol=0, atol=1e-12)


# --- guests of every kind, and what is given back ----------------------------------------------------


def clean(network: Network) -> None:
    for module in network.module.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks) and not module._backward_pre_hooks and "forward" not in vars(module)
    assert all(p.grad is None for p in network.module.parameters())


def in_training() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_module_in_training_is_given_back_as_it_was(method: str) -> None:
    network = wrap(in_training().train())
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    image = picture(8, torch.float32)
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    one, two = (attribute(network, image, Target(None, 1), method, generator=g).map for g in draws)
    assert one.any() and torch.equal(one, two), "dropout is off"
    assert all(m.training for m in network.module.modules())
    after = network.module.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "batch statistics are as they were"
    assert all(p.requires_grad for p in network.module.parameters())
    clean(network)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_does_not_matter(method: str, mode: Callable[[], object]) -> None:
    network, image = wrap(seeded(chain()).double()), picture()
    want = attribute(network, image, Target("8", 1), method, generator=torch.Generator().manual_seed(0))
    with mode():  # pyright: ignore[reportGeneralTypeIssues]
        got = attribute(
            network, image * 1, Target("8", 1), method, generator=torch.Generator().manual_seed(0)
        )
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(got.map, want.map)
    assert not got.map.requires_grad


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise OSError("in the middle")


@pytest.mark.parametrize("method", METHODS)
def test_hooks_are_gone_after_a_failure(method: str) -> None:
    network = wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), Fails()).train())
    for wanted in (Target(None, 0), Target("2", 0)):
        with pytest.raises(OSError, match="in the middle"):
            attribute(network, picture(4, torch.float32), wanted, method)
        clean(network)
        assert network.module.training


def test_a_network_of_grey_pictures_and_bfloat16() -> None:
    grey = wrap(seeded(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten())), mean=[0.5], std=[0.25])
    map = deconvnet(grey, picture(8, torch.float32), Target("1", 2)).map
    assert map.shape == (1, 3, 8, 8) and map.any()
    half = wrap(seeded(chain())).frozen(torch.bfloat16)
    image = picture(16, torch.float32)
    got, want = guided(half, image, Target("8", 1)), guided(wrap(seeded(chain())), image, Target("8", 1))
    assert got.map.dtype == torch.float32
    assert F.cosine_similarity(got.map.flatten(), want.map.flatten(), dim=0) > 0.98


def test_what_is_no_picture_target_or_gradient_is_refused() -> None:
    network, image = wrap(seeded(chain()).double()), picture()
    with pytest.raises(Invalid, match="one picture"):
        gradient(network, image.expand(2, -1, -1, -1), Target("8"))
    with pytest.raises(Invalid, match="divide by 255"):
        smoothgrad(network, (image * 255).to(torch.uint8), Target("8"))
    with pytest.raises(Invalid, match="no channel 9"):
        guided(network, image, Target("8", 9))
    with pytest.raises(Invalid, match="Did you mean 'guided'"):
        attribute(network, image, Target("8"), "guidet")
    with pytest.raises(Invalid, match="start"):
        deconvnet(network, image, Target("8"), start="two")
    with pytest.raises(Invalid, match="samples"):
        smoothgrad(network, image, Target("8"), samples=0)
    with pytest.raises(Invalid, match="points"):
        integrated(network, image, Target("8"), points=0)
    with pytest.raises(Invalid, match="baseline"):
        integrated(network, image, Target("8"), baseline=torch.zeros(1, 3, 2, 2))
    cut = wrap(Written(lambda x: x.detach().relu()))
    with pytest.raises(Invalid, match="no gradient leads"):
        gradient(cut, picture(16, torch.float32), Target("last", 0))
    broken = seeded(chain())
    broken[0].weight.data[:] = float("nan")  # pyright: ignore
    with pytest.raises(Diverged, match="not finite"):
        gradient(wrap(broken), picture(16, torch.float32), Target("8", 0))


# --- shown -------------------------------------------------------------------------------------------


def test_ways_to_show_a_map() -> None:
    map = torch.zeros(1, 3, 1, 3)
    map[0, :, 0, 0] = torch.tensor([3.0, 0.0, 0.0])
    map[0, :, 0, 1] = torch.tensor([0.0, -4.0, -4.0])
    raw = show(map)
    np.testing.assert_allclose(raw[0, :, 0, 0], [0.875, 0.5, 0.5])
    np.testing.assert_allclose(raw[0, :, 0, 1], [0.5, 0, 0])
    np.testing.assert_allclose(show(map, "grey")[0, 0, 0], [0.5 + 0.5 * 3 / 8, 0, 0.5])
    np.testing.assert_allclose(show(map, "norm")[0, 1, 0], [3 / 32**0.5, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(show(map, "raw", beyond=0.2)[0, :, 0, 0], [1, 0.5, 0.5])
    assert torch.equal(show(torch.zeros(1, 3, 2, 2)), torch.full((1, 3, 2, 2), 0.5))
    assert not show(torch.zeros(1, 3, 2, 2), "norm").any()
    one = torch.zeros(1, 3, 41, 41)
    one[..., 20, 20] = 1
    blurred = show(one, "blurred")[0, 0]
    assert blurred[20, 20] == 1
    np.testing.assert_allclose(blurred[20, 24] / blurred[20, 20], np.exp(-0.5), rtol=1e-5)  # one sigma
    with pytest.raises(Invalid, match="no way to show"):
        show(map, "loud")


def test_an_overlay_is_warm_where_the_map_is_strong() -> None:
    map = torch.zeros(1, 4, 4)
    map[0, 0, 0] = 2
    drawn = np.asarray(overlay(torch.full((1, 3, 4, 4), 0.5), map)).astype(int)
    assert drawn.shape == (4, 4, 3)
    assert (drawn[3, 3] == drawn[3, 3, 0]).all(), "grey where there is nothing"
    assert drawn[0, 0, 0] > drawn[3, 3, 0] + 50


# --- the command -------------------------------------------------------------------------------------

NET = """
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    start = nn.Conv2d(3, 8, 3), nn.{act}(), nn.MaxPool2d(2)
    return nn.Sequential(*start, nn.Conv2d(8, 8, 3), nn.{act}(), {tail})
"""
CLASSES = "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8)).save("photo.png")
    Path("classes.py").write_text(NET.format(act="ReLU", tail=CLASSES))
    Path("base.py").write_text(NET.format(act="ReLU", tail="nn.MaxPool2d(2)"))
    Path("gelu.py").write_text(NET.format(act="GELU", tail=CLASSES))
    return tmp_path


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, ("attribute", "photo.png", *args))


def result(*args: str) -> dict[str, object]:
    done = run("--json", *args)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def test_the_command_explains_the_class_predicted(files: Path) -> None:
    done = run("--net", "classes.py:net")
    assert done.exit_code == 0, done.output
    assert "gradient of class:" in done.output
    with Image.open("photo-gradient.png") as page:
        assert page.width > 3 * 300
    card = json.loads(Path("photo-gradient.png.run.json").read_text())
    assert card["command"] == "attribute" and card["options"]["target"].startswith("class:")


def test_the_command_explains_the_strongest_channel_of_a_base(files: Path) -> None:
    told = result("--net", "base.py:net", "--method", "integrated", "--points", "8", "-o", "out.png")
    assert str(told["target"]).startswith("4:")
    numbers = told["methods"]["integrated"]  # pyright: ignore
    assert abs(numbers["sum"] - numbers["change"] - numbers["gap"]) < 1e-3 * abs(numbers["change"])


def test_the_command_judges_trust(files: Path) -> None:
    told = result(
        "--net", "classes.py:net", "--target", "class:2", "--trust", "--method", "guided", "-o", "o.png"
    )
    trust = told["methods"]["guided"]["trust"]  # pyright: ignore
    assert [each["random"] for each in trust["layers"]] == [1, 2, 3]
    assert trust["layers"][0]["layer"] == "7"
    assert Path("o.png").is_file()


def test_all_methods_on_one_sheet_go_on_where_one_is_refused(files: Path) -> None:
    few = ("--samples", "2", "--points", "2")
    told = result("--net", "gelu.py:net", "--method", "all", "--trust", "-o", "o.png", *few)
    methods: dict[str, dict[str, object]] = told["methods"]  # pyright: ignore
    refused = {name for name, numbers in methods.items() if "refused" in numbers}
    assert refused == {"deconvnet", "guided"}
    assert len(methods) == 11
    assert all("trust" in numbers for name, numbers in methods.items() if name not in refused)


def test_bad_input_is_one_line_and_exit_2(files: Path) -> None:
    for args, reason in (
        (("--net", "gelu.py:net", "--method", "guided"), "GELU"),
        (("--net", "classes.py:net", "--target", "class:9"), "no channel 9"),
        (("--net", "classes.py:net", "--target", "9:1"), "no layer '9'"),
        (("--net", "classes.py:net", "--target", "?"), "no target|no layer"),
    ):
        done = run(*args)
        assert done.exit_code == 2, args
        assert len(done.stderr.strip().splitlines()) == 1
        assert any(part in done.stderr for part in reason.split("|")), done.stderr
