"""Oracles: each module called by hand, out of place, and a count of the modules that ran."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import models, nets, network, weights
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit
from innervision.network import wrap

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "weights"


class Named(nn.Sequential):
    """conv1 relu1 pool1 conv2 relu2 conv3 norm drop: names, ReLU in place, train and evaluation differ."""

    def __init__(self, *, in_place: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=in_place)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=in_place)
        self.conv3 = nn.Conv2d(5, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)


class Branching(nn.Module):
    """A residual block written as users write them: in-place functions, and what modules cannot see."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Conv2d(4, 4, 1)
        self.skip = nn.Identity()
        self.unused = nn.Linear(2, 2)
        self.parts = nn.ModuleList([nn.Conv2d(4, 2, 1)])

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu_(self.entry(x))
        z = self.left(y)
        z += self.right(y)
        F.relu(z, inplace=True)
        s = self.skip(z)
        z *= 2  # overwrites what skip gave: it gave z itself
        return self.parts[0](z + s)

    def by_hand(self, x: Tensor) -> dict[str, Tensor]:
        entry = self.entry(x)
        y = entry.relu()
        left, right = self.left(y), self.right(y)
        return {"entry": entry, "left": left, "right": right, "skip": (left + right).relu()}


class Patches(nn.Module):
    """A small vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(tokens, tokens, tokens)[0]
        return self.head(self.norm(tokens).mean(1))


class Careful(nn.Module):
    """Catches what goes wrong in a part, as some guests do, and shares one ReLU among two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()
        self.second = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        try:
            y = self.act(self.first(x))
        except Exception:
            y = torch.zeros_like(x)
        return self.act(self.second(y))


class Keeping(nn.Module):
    """Keeps what it has answered, and a table of five sides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("table", torch.ones(1, 1, 1, 1, 2))

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x)
        return self.last


class Closed(nn.Module):
    """Looks in inference mode of its own, and overwrites there."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.after = nn.Identity()

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        return self.after(F.relu_(self.conv(x)))


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def picture(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape or (1, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=dtype)


@contextmanager
def ran(module: nn.Module) -> Iterator[list[str]]:
    """Note the name of every part that begins a forward pass."""
    calls: list[str] = []
    handles = [
        part.register_forward_pre_hook(lambda _m, _x, name=name: calls.append(name))
        for name, part in module.named_modules()
        if name
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def hooks_of(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


# Stopping early


@pytest.mark.parametrize(
    ("wanted", "last"),
    [(["relu1"], "relu1"), (["relu2", "conv1"], "relu2"), (["conv2", "conv2"], "conv2"), (["norm"], "norm")],
)
def test_nothing_runs_past_the_deepest_layer_wanted(wanted: list[str], last: str) -> None:
    net = wrap(Named(in_place=False))
    with ran(net.module) as calls:
        found = net.features(picture(), wanted)
    assert tuple(calls) == net.layers[: net.layers.index(last) + 1]
    assert list(found) == list(dict.fromkeys(wanted))


def test_no_layers_run_nothing() -> None:
    net = wrap(Named())
    with ran(net.module) as calls:
        assert net.features(picture(), []) == {}
    assert calls == []


@pytest.mark.parametrize(("layer", "convolutions"), [("relu1", 1), ("pool1", 1), ("relu2", 2), ("conv3", 3)])
def test_the_frozen_chain_runs_no_convolution_past_it(
    layer: str, convolutions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = wrap(Named()).frozen()
    plain, calls = F.conv2d, []

    def counted(*args: object, **options: object) -> Tensor:
        calls.append(args[1].shape)
        return plain(*args, **options)

    monkeypatch.setattr(F, "conv2d", counted)
    net.features(picture(), [layer])
    assert len(calls) == convolutions
    image = picture().requires_grad_()
    net.features(image, [layer])[layer].sum().backward()
    assert len(calls) == 3 * convolutions  # one forth and one back each


def test_a_real_vgg_stops_at_its_layer() -> None:
    net = wrap(nets.build("vgg19", top=False))
    with ran(net.module) as calls:
        net.features(picture(1, 3, 16, 16), ("relu2_1", "relu1_2"))
    assert calls == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1", "relu2_1"]


# What is kept is what the layer answered


@pytest.mark.parametrize("frozen", [False, True])
def test_relu_in_place_does_not_overwrite_the_convolution(frozen: bool) -> None:
    net = wrap(Named()).frozen() if frozen else wrap(Named())
    m = net.module
    x = picture()
    conv1 = m.conv1(x)
    relu1 = conv1.relu()
    conv2 = m.conv2(F.max_pool2d(relu1, 2))
    conv3 = m.conv3(conv2.relu())
    expected = {"conv1": conv1, "relu1": relu1, "conv2": conv2, "relu2": conv2.relu(), "conv3": conv3}
    assert (conv1 < 0).any() and (conv2 < 0).any()
    for _ in range(2):  # the second time it is known which layers are overwritten
        found = net.features(x, expected)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_an_overwritten_layer_is_found_out_once() -> None:
    net = wrap(Named())
    counts = []
    for _ in range(3):
        with ran(net.module) as calls:
            net.features(picture(), ["conv1", "conv3"])
        counts.append(len(calls))
    assert counts == [12, 6, 6]  # six parts as far as conv3, and once again


def test_gradients_pass_through_what_was_copied() -> None:
    """d score / d conv1 exists, as Grad-CAM needs it: the copy goes on, the kept answer is on the way."""
    net = wrap(Named())
    found = net.features(picture(), ["conv1", "conv3"])
    (gradient,) = torch.autograd.grad(found["conv3"].square().sum(), found["conv1"])
    plain = net.module
    conv1 = plain.conv1(picture()).detach().requires_grad_()
    conv3 = plain.conv3(plain.conv2(F.max_pool2d(conv1.relu(), 2)).relu())
    torch.testing.assert_close(gradient, torch.autograd.grad(conv3.square().sum(), conv1)[0])


def test_guests_with_in_place_functions() -> None:
    net = wrap(Branching())
    assert isinstance(net.module, Branching)
    expected = net.module.by_hand(picture())
    for layers in (list(expected), ["skip"], ["parts.0", "skip", "entry"]):
        found = net.features(picture(), layers)
        for name in layers:
            if name in expected:
                torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-6)


def test_inference_mode_does_not_hide_an_overwrite() -> None:
    net = wrap(Branching())
    assert isinstance(net.module, Branching)
    expected = net.module.by_hand(picture())
    with torch.inference_mode():
        found = net.features(picture(), expected)
        assert torch.is_inference_mode_enabled()
    assert not any(value.requires_grad for value in found.values())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


def test_a_guest_in_inference_mode_of_its_own() -> None:
    net = wrap(Closed())
    assert isinstance(net.module, Closed)
    conv = net.module.conv(picture()).detach()
    for _ in range(2):
        found = net.features(picture().requires_grad_(), ["conv", "after"])
        torch.testing.assert_close(found, {"conv": conv, "after": conv.relu()}, rtol=0, atol=1e-6)
        assert not any(value.is_inference() or value.requires_grad for value in found.values())


def test_a_shared_module_gives_its_first_call_whatever_else_is_wanted() -> None:
    net = wrap(Careful())
    m, x = net.module, picture()
    first = m.first(x).relu()
    torch.testing.assert_close(net.features(x, ["act"])["act"], first)
    torch.testing.assert_close(net.features(x, ["act", "second"])["act"], first)


@pytest.mark.parametrize("frozen", [False, True])
def test_one_relu_in_many_places_of_a_sequence(frozen: bool) -> None:
    relu = nn.ReLU(inplace=True)
    conv = nn.Conv2d(3, 3, 3, padding=1)
    net = wrap(nn.Sequential(conv, relu, conv, relu, nn.AvgPool2d(2)))
    net = net.frozen() if frozen else net
    conv = net.module[0]
    expected = F.avg_pool2d(conv(conv(picture()).relu()).relu(), 2)
    torch.testing.assert_close(net.features(picture(), ["4"])["4"], expected)
    torch.testing.assert_close(net.features(picture(), ["3", "4"])["3"], conv(picture()).relu())


def test_what_was_compiled_and_run_hears_the_hooks_all_the_same() -> None:
    part = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1))
    net = wrap(nn.Sequential(torch.compile(part, backend="eager"), nn.Flatten()))
    image = picture()
    whole = net(image)
    with ran(part) as calls:
        found = net.features(image, ["0._orig_mod.1"])["0._orig_mod.1"]
    assert calls == ["0", "1"]
    torch.testing.assert_close(found, part[0](image).relu())
    torch.testing.assert_close(net(image), whole)


def test_a_guest_that_catches_everything_still_ends_early() -> None:
    net = wrap(Careful())
    with ran(net.module) as calls:
        found = net.features(picture(), ["first"])
    torch.testing.assert_close(found["first"], net.module.first(picture()))
    assert calls == ["first"]


def test_a_vision_transformer() -> None:
    net = wrap(Patches())
    x = picture()
    found = net.features(x, ["norm", "embed"])
    assert found["embed"].shape == (1, 8, 2, 2) and found["norm"].shape == (1, 4, 8)
    torch.testing.assert_close(net.module.head(found["norm"].mean(1)), net(x))
    with pytest.raises(
        Invalid, match=r"layer 'attention' answers tuple, no tensor: take one within or after"
    ):
        net.features(x, ["attention"])


def test_a_module_that_is_never_called() -> None:
    net = wrap(Branching())
    for layer in ("unused", "parts"):
        with pytest.raises(Invalid, match=f"never calls layer '{layer}' as a module"):
            net.features(picture(), [layer, "entry"])
    assert hooks_of(net.module) == 0


def test_float64() -> None:
    net = wrap(Named(in_place=False).double(), mean=(0.1, 0.2, 0.3))
    image = picture(2, 3, 7, 9, dtype=torch.float64)
    expected = net.module.conv1(image - torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64).view(3, 1, 1))
    for each in (net, net.frozen(torch.float64)):
        found = each.features(image, ["conv1"])["conv1"]
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
        assert each.features(image.float(), ["conv1"])["conv1"].dtype == torch.float64


# Borrowed state is given back


def test_evaluation_mode_is_borrowed() -> None:
    module = Named(in_place=False)
    module.norm.eval()
    flags = [m.training for m in module.modules()]
    net = wrap(module)
    expected = module.eval()(picture())
    for part, training in zip(module.modules(), flags, strict=True):
        part.training = training
    torch.testing.assert_close(net.features(picture(), ["drop"])["drop"], expected)
    torch.testing.assert_close(net(picture()), expected)
    assert [m.training for m in module.modules()] == flags
    assert module.norm.num_batches_tracked == 0


def test_hooks_and_flags_are_given_back_after_a_failure() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("the guest's own")

    module = nn.Sequential(nn.Conv2d(3, 3, 1), Fails()).train()
    net = wrap(module)
    for call in (lambda: net.features(picture(), ["0", "1"]), lambda: net(picture())):
        with pytest.raises(RuntimeError, match="the guest's own"):
            call()
        assert hooks_of(module) == 0
        assert all(m.training for m in module.modules())
    with pytest.raises(Invalid):
        net.features(picture(), ["0", "2"])
    assert hooks_of(module) == 0


def test_the_callers_hooks_stay_and_are_heard() -> None:
    for net in (wrap(Named()), wrap(Named()).frozen()):
        net.features(picture(), ["relu1"])  # the frozen one has made its chain ready
        heard: list[str] = []
        net.module.conv1.register_forward_hook(lambda _m, _x, y, heard=heard: heard.append("conv1") or y * 0)
        found = net.features(picture(), ["relu1"])["relu1"]
        assert heard == ["conv1"] and not found.any()
        assert hooks_of(net.module) == 1


def test_the_callers_grad_mode_is_followed() -> None:
    for net in (wrap(Named()), wrap(Named()).frozen()):
        image = picture().requires_grad_()
        assert net.features(image, ["relu2"])["relu2"].requires_grad
        with torch.no_grad():
            assert not net.features(image, ["relu2"])["relu2"].requires_grad
            assert not torch.is_grad_enabled()
        with torch.inference_mode():
            assert not net.features(image, ["relu2"])["relu2"].requires_grad
            assert not torch.is_grad_enabled()
    assert not wrap(Named()).frozen().features(picture(), ["relu2"])["relu2"].requires_grad


def test_autocast_is_followed() -> None:
    plain, frozen = wrap(Named()), wrap(Named()).frozen()
    frozen.module.load_state_dict(plain.module.state_dict())
    slopes = []
    for net in (plain, frozen):
        image = picture().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            found = net.features(image, ["conv3"])["conv3"]
        assert found.dtype == torch.bfloat16
        slopes.append(torch.autograd.grad(found.float().sum(), image)[0])
    torch.testing.assert_close(*slopes, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("frozen", [False, True])
def test_answers_die_when_released(frozen: bool) -> None:
    """No reference cycle: with the collector off, memory goes back at once."""
    net = wrap(Named()).frozen() if frozen else wrap(Named())
    net.features(picture(), ["conv1", "conv3"])
    gc.collect()
    gc.disable()
    try:
        alive: list[weakref.ref[Tensor]] = []
        for _ in range(3):
            image = picture().requires_grad_()
            found = net.features(image, ["conv1", "conv3"])
            alive += [weakref.ref(value) for value in found.values()] + [weakref.ref(image)]
            found["conv3"].sum().backward()
            del found, image
        assert [ref() for ref in alive] == [None] * 9
        with pytest.raises(Invalid):
            net.features(picture(), ["norm", "nothing"])
        before = len(gc.get_objects())
        for _ in range(5):
            net.features(picture(), ["conv1", "relu2"])
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()


def test_several_threads_look_at_once() -> None:
    net = wrap(Named(), mean=(0.5, 0.5, 0.5))
    pairs = [
        (["conv1", "conv3"], picture(1, 3, 8, 8)),
        (["relu1"], picture(2, 3, 10, 6)),
        (["norm"], picture(1, 3, 6, 6)),
    ]
    expected = [net.features(image, layers) for layers, image in pairs]
    faults: list[object] = []

    def look(number: int) -> None:
        layers, image = pairs[number % len(pairs)]
        for _ in range(10):
            try:
                found = net.features(image, layers)
                if any(not torch.equal(found[n], expected[number % 3][n]) for n in layers):
                    faults.append(layers)
            except BaseException as error:
                faults.append(error)

    threads = [threading.Thread(target=look, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert net.module.training and hooks_of(net.module) == 0


# What lies behind


def test_a_chain_ends_with_the_deepest_layer_wanted() -> None:
    module = nn.Sequential(OrderedDict(Named().named_children())).train()
    module.drop.eval()
    net = wrap(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2), input_size=8)
    short = net.upto(["relu2", "conv1"])
    assert short.layers == ("conv1", "relu1", "pool1", "conv2", "relu2")
    assert short.module.conv2 is module.conv2
    assert (short.name, short.preprocessing, short.input_size) == (net.name, net.preprocessing, 8)
    assert module.training and module.conv1.training and not module.drop.training
    wanted = ["conv1", "relu2"]
    for mine, theirs in ((short, net), (short.frozen(), net.frozen())):
        for one, other in zip(*(n.features(picture(), wanted).values() for n in (mine, theirs)), strict=True):
            assert torch.equal(one, other)
    with pytest.raises(Invalid, match="Did you mean 'relu2'"):
        net.upto(["relu_2"])


def test_what_is_no_plain_chain_is_left_whole() -> None:
    for module in (Named(), Branching()):
        net = wrap(module)
        assert net.upto(net.layers[:1]) is net
    heard = wrap(nn.Sequential(nn.ReLU(), nn.ReLU()))
    heard.module.register_forward_hook(lambda *_: None)
    assert heard.upto(["0"]) is heard


# Names


def test_an_unknown_layer_suggests_near_ones() -> None:
    net = wrap(Named(), name="mine")
    with pytest.raises(Invalid, match=r"no layer 'conv_2' in mine, which has conv1, .*Did you mean 'conv2'"):
        net.features(picture(), ["conv_2"])
    assert net.check(["conv1", "norm"]) == ("conv1", "norm")
    assert net.check("conv1") == ("conv1",)
    with pytest.raises(Invalid, match=r"no layer 1 in sequential, which has 0, 1\. Did you mean '1'"):
        wrap(nn.Sequential(nn.ReLU(), nn.ReLU())).check([1])  # type: ignore[list-item]


def test_the_network_says_what_it_is() -> None:
    assert repr(wrap(Named())) == "Network('named', 8 layers, torch.float32, cpu)"
    assert repr(wrap(nn.ReLU())) == "Network('relu', 0 layers, torch.float32, cpu)"
    only_buffers = nn.Sequential(nn.BatchNorm2d(3, affine=False).double())
    assert wrap(only_buffers).dtype == torch.float64


# wrap()


@pytest.mark.parametrize(
    ("options", "by_hand"),
    [
        ({}, lambda r, g, b: (r, g, b)),
        (
            {"mean": (0.1, 0.2, 0.3), "std": (0.5, 2, 4)},
            lambda r, g, b: ((r - 0.1) / 0.5, (g - 0.2) / 2, (b - 0.3) / 4),
        ),
        (
            {"mean": (10, 20, 30), "range": 255, "order": "BGR"},
            lambda r, g, b: (255 * b - 10, 255 * g - 20, 255 * r - 30),
        ),
        (
            {"mean": (0.5,), "std": (0.25,)},
            lambda r, g, b: ((0.299 * r + 0.587 * g + 0.114 * b - 0.5) / 0.25,),
        ),
    ],
)
def test_wrap_prepares_the_picture(options: dict, by_hand) -> None:
    net = wrap(nn.Sequential(nn.Identity()), **options)
    image = picture(2, 3, 2, 2)
    expected = torch.stack(by_hand(*image.unbind(1)), 1)
    torch.testing.assert_close(net.features(image, ["0"])["0"], expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(net(image), expected, rtol=1e-6, atol=1e-5)


def test_wrap_and_features_refuse_what_they_cannot_use() -> None:
    with pytest.raises(Invalid, match=r"wrap\(\) takes a torch.nn.Module, not function"):
        wrap(F.relu)
    with pytest.raises(Invalid, match="a value a channel"):
        wrap(Named(), mean=(0.5,))
    with pytest.raises(Invalid, match="a mean and a std above 0"):
        wrap(Named(), std=(0.5, 0.5, float("nan")))
    assert wrap(Named(), std=torch.full((3,), 0.5)).preprocessing.std == (0.5,) * 3  # type: ignore[arg-type]
    with pytest.raises(Invalid, match=r"sRGB in 0..1, not torch.uint8: divide by 255"):
        wrap(Named()).features(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ["conv1"])
    with pytest.raises(Invalid, match=r"shape \(n, 3, height, width\), not \(3, 8, 8\)"):
        wrap(Named()).features(torch.zeros(3, 8, 8), ["conv1"])


def test_a_grey_network_sees_luma() -> None:
    lenet = nets.build("lenet5", generator=torch.Generator().manual_seed(0))
    net = wrap(lenet, mean=(0.5,), std=(0.5,))
    image = picture(1, 3, 28, 28)
    luma = (image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(net(image), lenet.eval()((luma - 0.5) / 0.5))
    torch.testing.assert_close(net.features(image, ["pool1"]), net.features(luma, ["pool1"]))


# frozen() and to()


def test_frozen_is_a_copy_without_gradients() -> None:
    net = wrap(Named(), mean=(0.5, 0.5, 0.5))
    cold = net.frozen(torch.bfloat16)
    assert cold.dtype == torch.bfloat16 and net.dtype == torch.float32
    assert not any(p.requires_grad for p in cold.module.parameters())
    assert all(p.requires_grad for p in net.module.parameters()) and net.module.training
    assert cold.module.conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert cold.preprocessing == net.preprocessing and cold.name == net.name
    image = picture().requires_grad_()
    cold.features(image, ["conv3"])["conv3"].float().sum().backward()
    assert image.grad is not None and image.grad.dtype == torch.float32 and image.grad.any()


def test_frozen_takes_guests_that_keep_what_they_computed() -> None:
    net = wrap(Keeping())
    found = net.features(picture().requires_grad_(), ["conv"])["conv"]
    net(picture().requires_grad_())
    assert isinstance(net.module, Keeping) and net.module.last.grad_fn
    cold = net.frozen()
    torch.testing.assert_close(cold.features(picture(), ["conv"])["conv"], found)
    assert cold.module.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert net.module.last.grad_fn
    lazy = nn.LazyConv2d(2, 1)
    with pytest.raises(Invalid, match="size is not known yet: show it a picture once"):
        wrap(lazy).frozen()
    lazy(picture())
    assert not wrap(lazy).frozen().module.weight.requires_grad


def test_new_weights_are_seen_by_a_chain_made_before() -> None:
    net = wrap(Named()).frozen()

    def gradient() -> Tensor:
        image = picture().requires_grad_()
        value = net.features(image, ["conv2"])["conv2"].sum()
        return torch.cat([value.detach().view(1), torch.autograd.grad(value, image)[0].flatten()])

    before = gradient()
    with torch.no_grad():
        net.module.conv1.weight.mul_(2)
        net.module.conv1.bias.mul_(2)
        net.module.conv2.bias.zero_()
    doubled = gradient()
    torch.testing.assert_close(doubled[1:], 2 * before[1:])
    net.module.load_state_dict({n: t * 0 for n, t in net.module.state_dict().items()})
    assert not gradient().any()
    net.module.conv2.weight = nn.Parameter(torch.ones_like(net.module.conv2.weight), requires_grad=False)
    net.module.conv1.weight.data = torch.ones_like(net.module.conv1.weight)
    assert gradient()[1:].any()
    net.module.to(torch.float64)
    assert net.features(picture(), ["conv2"])["conv2"].dtype == torch.float64


def test_to_returns_the_network_itself() -> None:
    net = wrap(Named()).frozen()
    net.features(picture(), ["conv1"])
    assert net.to("cpu") is net and net.device == torch.device("cpu")


# load()


def test_load_takes_the_embedded_vgg19() -> None:
    net = network.load("vgg19")
    assert net.name == "vgg19" and not net.module.training and net.dtype == torch.float32
    assert net.preprocessing == weights.WEIGHTS["vgg19-8bit"].preprocessing
    assert "fc6" not in net.layers and "pool5" in net.layers
    state = weights.read_state(weights.locate(weights.WEIGHTS["vgg19-8bit"])).tensors
    x = picture(1, 3, 16, 16)
    bias = state["conv1_1.bias"]
    centred = 255 * x - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)
    expected = F.conv2d(centred, state["conv1_1.weight"], bias, padding=1)
    torch.testing.assert_close(net.features(x, ["conv1_1"])["conv1_1"], expected, rtol=1e-5, atol=1e-2)


def test_load_draws_nothing_and_imports_no_algebra() -> None:
    code = (
        "import sys, torch; from innervision import network; before = torch.get_rng_state(); "
        "network.load('vgg19'); network.load('lenet5-mnist'); "
        "assert torch.equal(before, torch.get_rng_state()); "
        "sys.exit(3 if 'sympy' in sys.modules else 0)"  # 40 MiB and a second
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_load_refuses_the_weights_of_another_net() -> None:
    file = weights.locate(weights.WEIGHTS["vgg19-8bit"])
    with pytest.raises(WeightsUnfit, match=r"holds the weights of vgg19, not of vgg16: load 'vgg19'"):
        network.load("vgg16", weights_file=file)


@pytest.mark.parametrize("name", ["lenet5", "squeezenet1_1"])
@pytest.mark.parametrize("classes", [None, 7])
def test_load_takes_a_file_of_its_own(tmp_path: Path, name: str, classes: int | None) -> None:
    module = nets.build(name, classes=classes, generator=torch.Generator().manual_seed(3))
    file = weights.save(module, tmp_path / "mine.safetensors")
    net = network.load(name, weights_file=file)
    torch.testing.assert_close(net.module.state_dict(), module.state_dict(), rtol=0, atol=0)
    side = 28 if name == "lenet5" else 64
    assert net(picture(1, 3, side, side)).shape == (1, classes or (10 if name == "lenet5" else 1000))


@pytest.mark.parametrize("classes", [None, 7])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_takes_torchvisions_names_in_whatever_order(
    tmp_path: Path, classes: int | None, prefix: str
) -> None:
    """safetensors sorts names: classifier.1 comes first, and features.9 after features.12."""
    module = nets.build("squeezenet1_1", classes=classes, generator=torch.Generator().manual_seed(3))
    state = {}
    for place, (_, layer) in enumerate(module.named_children()):
        where = f"features.{place}" if place < 13 else f"classifier.{place - 13}"
        state |= {f"{prefix}{where}.{part}": t for part, t in layer.state_dict().items()}
    net = network.load("squeezenet1_1", weights_file=weights.save(state, tmp_path / "theirs"))
    torch.testing.assert_close(net.module.state_dict(), module.state_dict(), rtol=0, atol=0)


def test_load_takes_a_base_and_refuses_a_part(tmp_path: Path) -> None:
    base = nets.build("lenet5", top=False)
    net = network.load("lenet5", weights_file=weights.save(base, tmp_path / "base.safetensors"))
    assert net.layers == tuple(n for n, _ in base.named_modules() if n)
    part = {n: t for n, t in base.state_dict().items() if "conv2" not in n}
    with pytest.raises(WeightsUnfit, match=r"conv2\.weight: not in the file"):
        network.load("lenet5", weights_file=weights.save(part, tmp_path / "part.safetensors"))
    more = {**base.state_dict(), "conv9.bias": torch.zeros(2)}
    with pytest.raises(WeightsUnfit, match=r"conv9\.bias: no such layer"):
        network.load("lenet5", weights_file=weights.save(more, tmp_path / "more.safetensors"))


def test_load_overrides_preprocessing(tmp_path: Path) -> None:
    file = weights.save(nets.build("lenet5"), tmp_path / "lenet.safetensors")
    net = network.load("lenet5", weights_file=file, mean=(0.1307,), std=(0.3081,))
    assert net.preprocessing == weights.Preprocessing((0.1307,), (0.3081,))
    assert network.load("lenet5", weights_file=file).preprocessing == weights.Preprocessing((0.0,), (1.0,))
    assert network.load("lenet5", weights_file=file, std=(0.5,)).preprocessing.std == (0.5,)
    bgr = network.load("vgg19", order="BGR", mean=(1, 2, 3)).preprocessing
    assert bgr == weights.Preprocessing((1, 2, 3), (1.0, 1.0, 1.0), range=255, order="BGR")


def test_load_says_how_to_get_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innervision.store.home", lambda: tmp_path)
    with pytest.raises(WeightsMissing, match="innervision weights fetch squeezenet1_1-torchvision"):
        network.load("squeezenet1_1")
    with pytest.raises(WeightsMissing, match=r"lenet5 has no published weights: name a file"):
        network.load("lenet5")
    with pytest.raises(WeightsMissing, match="no weights file"):
        network.load("vgg19", weights_file=tmp_path / "nowhere.pth")
    with pytest.raises(Invalid, match=r"no net 'vgg91'.*Did you mean"):
        network.load("vgg91")


def test_a_home_that_may_not_be_looked_into_holds_no_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = Path.glob

    def refuse(place: Path, pattern: str) -> Iterator[Path]:
        if place.is_relative_to(tmp_path):
            raise PermissionError("Permission denied")
        return find(place, pattern)

    monkeypatch.setattr("innervision.models.home", lambda: tmp_path)
    monkeypatch.setattr(Path, "glob", refuse)
    assert "lenet5-mnist" in models.shipped()


GUEST = """
from __future__ import annotations
from dataclasses import dataclass
from torch import nn

@dataclass
class Plan:
    width: int = 4

def build():
    return nn.Sequential(nn.Conv2d(3, Plan().width, 3), nn.ReLU())

class Whole(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 2, 1))

ready = nn.Sequential(nn.Conv2d(3, 5, 1))
number = 3

def wrong():
    return "text"

def fails():
    raise KeyError("inside")
"""


def test_load_takes_a_users_file(tmp_path: Path) -> None:
    file = tmp_path / "guest.py"
    file.write_text(GUEST)
    for function, channels in (("build", 4), ("Whole", 2), ("ready", 5)):
        net = network.load(f"{file}:{function}", mean=(0.5, 0.5, 0.5))
        assert net.features(picture(), ["0"])["0"].shape[1] == channels
        assert not net.module.training and net.preprocessing.mean == (0.5, 0.5, 0.5)
    saved = weights.save(network.load(f"{file}:build").module, tmp_path / "guest.safetensors")
    one, two = (network.load(f"{file}:build", weights_file=saved) for _ in range(2))
    assert torch.equal(one.module[0].weight, two.module[0].weight)
    assert network.load(f"{file}:build", mean=(0.5,)).preprocessing == weights.Preprocessing((0.5,), (1.0,))
    with pytest.raises(WeightsUnfit):
        network.load(f"{file}:Whole", weights_file=saved)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("number", "number in .* gives int, not a torch.nn.Module"),
        ("wrong", "wrong in .* gives str, not a torch.nn.Module"),
        ("nothing", "no 'nothing' in"),
        ("fails", "fails: KeyError: 'inside'"),
    ],
)
def test_load_says_what_is_wrong_with_a_users_file(tmp_path: Path, function: str, said: str) -> None:
    file = tmp_path / "guest.py"
    file.write_text(GUEST)
    with pytest.raises(Invalid, match=said):
        network.load(f"{file}:{function}")


def test_load_says_what_is_wrong_before_a_users_function(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("import no_such_module_anywhere")
    with pytest.raises(Invalid, match="ModuleNotFoundError"):
        network.load(f"{file}:build")
    with pytest.raises(Invalid, match="no file"):
        network.load(f"{tmp_path / 'none.py'}:build")
    text = tmp_path / "net.txt"
    text.write_text("x = 1")
    with pytest.raises(Invalid, match="no Python file"):
        network.load(f"{text}:build")
    file.write_text(GUEST)
    with pytest.raises(Invalid, match="pooling 'average' is for the nets that come with innervision"):
        network.load(f"{file}:build", pooling="average")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared weights are not beside this clone")
def test_load_takes_files_of_other_formats() -> None:
    net = network.load(
        "squeezenet1_0", weights_file=SHARED / "squeezenet1_0_deepcompressed_torchvision_f16.npz"
    )
    assert net(picture(1, 3, 64, 64)).shape == (1, 1000)
    vgg16 = network.load("vgg16", weights_file=SHARED / "vgg16_features_rgb255_fp16.pth", pooling="average")
    assert "fc6" not in vgg16.layers and isinstance(vgg16.module.pool1, nn.AvgPool2d)
    with pytest.raises(WeightsUnfit):
        network.load("vgg13", weights_file=SHARED / "vgg16_features_rgb255_fp16.pth")


def test_layers_may_come_one_by_one() -> None:
    net = wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
    found = net.features(torch.rand(1, 3, 4, 4), (name for name in ("1", "0")))
    assert list(found) == ["1", "0"]
