"""Receptive fields: tables worked by hand, and two ways that must agree."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import nets
from innervision.errors import Invalid
from innervision.network import Network, load, wrap
from innervision.see.receptive import Field, box, by_gradient, followed, receptive_fields


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def thin(monkeypatch: pytest.MonkeyPatch, batch_norm: bool = False) -> Network:
    """Return VGG19 with two channels a layer."""
    monkeypatch.setattr(nets.vgg, "WIDTHS", (2,) * 5)
    return wrap(nets.vgg.vgg(19, batch_norm=batch_norm, top=False))


def test_vgg19_sees_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found = receptive_fields(thin(monkeypatch))
    ends = {"conv1_2": 5, "conv2_2": 14, "conv3_4": 48, "conv4_4": 116, "conv5_4": 252, "pool5": 268}
    assert {name: found[name].size[0] for name in ends} == ends
    assert [found[f"pool{n}"].stride for n in range(1, 6)] == [(2**n,) * 2 for n in range(1, 6)]
    assert found["relu3_2"] == found["conv3_2"]
    assert set(found) == set(thin(monkeypatch).layers)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("name", ["conv1_1", "relu1_2", "pool2", "conv3_4", "pool4", "relu5_4"])
def test_both_ways_agree_on_vgg19(name: str, batch_norm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    network = thin(monkeypatch, batch_norm)
    assert by_gradient(network, name) == receptive_fields(network)[name]


def test_batch_normalisation_sees_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, normalised = (receptive_fields(thin(monkeypatch, batch_norm)) for batch_norm in (False, True))
    assert {name: field for name, field in normalised.items() if not name.startswith("bn")} == plain
    assert all(normalised[name.replace("conv", "bn")] == plain[name] for name in plain if "conv" in name)


@pytest.mark.parametrize(
    ("net", "layers", "size"),
    [
        ("lenet5", ["conv1", "pool1", "conv2", "pool2"], 64),  # smaller pictures are padded to 32 px
        ("lenet5_1998", ["C1", "S2", "tanh2", "C3", "S4"], 64),
        ("alexnet", ["conv1", "pool1", "conv2", "pool2", "relu5", "pool5"], 224),
        ("squeezenet1_0", ["conv1", "pool1", "fire2.squeeze", "fire4", "pool8", "fire9"], 224),
        ("squeezenet1_1", ["conv1", "fire3", "pool5"], 224),
        (
            "efficientnet_lite0",
            ["stem", "block2_1", "block2_2", "block3_2.expand", "block4_1.depthwise.conv", "block4_3"],
            224,
        ),
    ],
)
def test_both_ways_agree_on_nets_that_pad_pool_and_branch(net: str, layers: list[str], size: int) -> None:
    grey = nets.NETS[net].channels == 1
    network = wrap(
        nets.build(net, top=False), mean=[0.0] if grey else [0.0] * 3, std=[1.0] if grey else [1.0] * 3
    )
    # "SAME" padding depends on the picture's size: the gradient's is even, as 224 is
    found = receptive_fields(network, (size, size))
    assert {name: by_gradient(network, name) for name in layers} == {name: found[name] for name in layers}


class Residual(nn.Module):
    """A guest with shortcuts: as it is, and by a 1x1 convolution where the block strides."""

    def __init__(self, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem, self.pool = nn.Conv2d(3, 4, 7, 2, 3), nn.MaxPool2d(3, 2, 1)
        self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm1, self.sum1 = norm(4) if norm is nn.BatchNorm2d else norm(2, 4), nn.Identity()
        self.three, self.four = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.short, self.sum2 = nn.Conv2d(4, 8, 1, 2), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem(x)))
        x = self.sum1(F.relu(self.norm1(self.two(F.relu(self.one(x)))) + x))
        return self.sum2(F.relu(self.four(F.relu(self.three(x))) + self.short(x)))


def test_residual_connections_by_hand_and_by_gradient() -> None:
    network = wrap(Residual())
    found = receptive_fields(network)
    assert found["pool"] == Field((11, 11), (4, 4), (-5, -5))
    assert found["sum1"] == found["norm1"] == Field((27, 27), (4, 4), (-13, -13))
    assert found["short"] == Field((27, 27), (8, 8), (-13, -13))
    assert found["sum2"] == Field((51, 51), (8, 8), (-25, -25))
    for name in ("pool", "sum1", "short", "sum2"):
        assert by_gradient(network, name) == found[name]


NORMS = {
    nn.GroupNorm: "group normalisation",
    nn.InstanceNorm2d: "instance normalisation",
    nn.LayerNorm: "layer normalisation over places",
}


@pytest.mark.parametrize("kind", NORMS)
def test_normalisation_by_a_picture_s_own_numbers_sees_it_whole(kind: type[nn.Module]) -> None:
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            if kind is nn.GroupNorm:
                x = F.group_norm(x, 2)
            elif kind is nn.InstanceNorm2d:
                x = F.instance_norm(x)
            else:
                x = F.layer_norm(x, x.shape[1:])
            return self.after(x.relu())

    network = wrap(Normalised())
    seen = followed(network)
    assert seen["conv"] == Field((3, 3), (1, 1), (-1, -1))
    assert seen["after"] == NORMS[kind] and "after" not in receptive_fields(network)
    assert by_gradient(network, "after") == Field((5, 5), (1, 1), (-1, -1))
    assert by_gradient(network, "after", most=64, statistics=True) == Field((64, 64), (0, 0), (0, 0))


def test_channels_last_are_followed() -> None:
    """A block of ConvNeXt: normalised and mixed over the channels of each place alone."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.deep = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 7, padding=3, groups=8)
            self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
            self.out = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.norm(self.deep(x).permute(0, 2, 3, 1))
            return self.out(x + self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2))

    network = wrap(Last())
    found = receptive_fields(network)
    assert found["out"] == found["up"] == Field((28, 28), (4, 4), (-12, -12))
    for name in ("deep", "up", "out"):
        assert by_gradient(network, name) == found[name]


def test_a_layer_that_mixes_columns_is_no_layer_of_channels() -> None:
    network = wrap(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Linear(32, 32)))
    seen = followed(network, (32, 32))
    assert isinstance(seen["0"], Field) and seen["1"] == "a fully connected layer"


class Branching(nn.Module):
    """A guest with all that may happen to a field: dilation, branches, functional steps, a global gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, (3, 5), stride=2, padding=(1, 0))
        self.wide = nn.Conv2d(4, 4, 3, dilation=3, padding=3)
        self.even = nn.Conv2d(4, 4, 2)
        self.norm = nn.BatchNorm2d(8)
        self.after = nn.Conv2d(8, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.gated = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        one = self.wide(x) + x
        two = self.even(F.pad(x, (1, 0, 0, 1)))
        x = self.norm(torch.cat([one, two], 1))
        x = self.after(F.max_pool2d(F.gelu(x), 3, 2, ceil_mode=True))
        return self.gated(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))


def test_a_branching_guest_by_hand() -> None:
    guest = wrap(Branching())
    found = receptive_fields(guest)
    assert found["stem"] == Field((3, 5), (2, 2), (-1, 0))
    assert found["wide"] == Field((3 + 6 * 2, 5 + 6 * 2), (2, 2), (-1 - 3 * 2, -3 * 2))
    assert found["even"] == Field((5, 7), (2, 2), (-1, -2))  # padded above by none, left by one
    assert found["after"] == Field((19, 21), (4, 4), (-7, -6))
    assert "gated" not in found and followed(guest)["gated"] == "a mean over places"
    for name in ("stem", "wide", "even", "norm", "after"):
        assert by_gradient(guest, name) == found[name]


def test_what_is_global_sees_the_picture_whole() -> None:
    assert by_gradient(wrap(Branching()), "gated", most=256) == Field((256, 256), (0, 0), (0, 0))


def test_what_a_global_step_is_added_to_has_no_window() -> None:
    class Context(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.after = nn.Conv2d(3, 3, 3), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.after(x + F.interpolate(x.mean((2, 3), keepdim=True), x.shape[2:]))

    assert list(receptive_fields(wrap(Context()))) == ["conv"]


def test_a_unit_sees_its_box_and_nothing_else() -> None:
    """Brute force: change a pixel, and see which units change."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 1, 3, dilation=2)).double()
    network = wrap(module, mean=(0.0,), std=(1.0,))
    field = receptive_fields(network, (24, 24))["1"]
    image = torch.rand(1, 1, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        before = network(image)
        touched = torch.zeros(*before.shape[2:], 24, 24, dtype=torch.bool)
        for y in range(24):
            for x in range(24):
                other = image.clone()
                other[..., y, x] += 1
                touched[..., y, x] = (network(other) - before)[0, 0].abs() > 1e-12
    for y in range(touched.shape[0]):
        for x in range(touched.shape[1]):
            left, top, right, bottom = box(field, y, x, (24, 24))
            rows, columns = touched[y, x].any(1).nonzero(), touched[y, x].any(0).nonzero()
            assert (int(rows[0]), int(columns[0])) == (top, left)
            assert (int(rows[-1]) + 1, int(columns[-1]) + 1) == (bottom, right)


def test_nothing_of_the_network_is_touched() -> None:
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    receptive_fields(wrap(module))
    by_gradient(wrap(module), "2")
    assert module.training and all(p.requires_grad for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_shared_modules_give_their_first_call() -> None:
    conv = nn.Conv2d(3, 3, 3)
    network = wrap(nn.Sequential(conv, nn.ReLU(), conv))
    assert receptive_fields(network)["0"].size == (3, 3) == by_gradient(network, "0").size
    assert receptive_fields(network)["1"].size == (3, 3)


def test_a_pass_that_fails_keeps_what_came_before() -> None:
    class Fails(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            x = self[0](x)
            return self[1](x) if float(x.mean()) > 0 else x

    assert list(receptive_fields(wrap(Fails(nn.Conv2d(3, 3, 3), nn.ReLU())))) == ["0"]


def test_what_has_no_field_is_refused() -> None:
    flat = wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)))
    assert "1" not in receptive_fields(flat)
    with pytest.raises(Invalid, match="no map"):
        by_gradient(flat, "3")
    with pytest.raises(Invalid, match="no layer 'conv9'"):
        by_gradient(flat, "conv9")
    with pytest.raises(Invalid, match="has no answer to 64 px"):
        by_gradient(wrap(nn.Sequential(nn.Conv2d(3, 2, 99))), "0", most=64)


def test_the_vgg19_that_comes_along_is_followed_without_computing() -> None:
    assert str(receptive_fields(load("vgg19"), (2000, 3000))["conv5_1"]) == "156 px, stride 16"
