"""Receptive fields: tables worked by hand, and two ways that must agree."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import nets
from innervision.errors import Invalid
from innervision.network import Network, load, wrap
from innervision.see.receptive import Field, box, by_gradient, receptive_fields


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def thin(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Return VGG19 with two channels a layer."""
    monkeypatch.setattr(nets.vgg, "WIDTHS", (2,) * 5)
    return wrap(nets.vgg.vgg(19, top=False))


def test_vgg19_sees_what_the_table_says(monkeypatch: pytest.MonkeyPatch) -> None:
    found = receptive_fields(thin(monkeypatch))
    ends = {"conv1_2": 5, "conv2_2": 14, "conv3_4": 48, "conv4_4": 116, "conv5_4": 252, "pool5": 268}
    assert {name: found[name].size[0] for name in ends} == ends
    assert [found[f"pool{n}"].stride for n in range(1, 6)] == [(2**n,) * 2 for n in range(1, 6)]
    assert found["relu3_2"] == found["conv3_2"]
    assert set(found) == set(thin(monkeypatch).layers)


@pytest.mark.parametrize("name", ["conv1_1", "relu1_2", "pool2", "conv3_4", "pool4", "conv5_4"])
def test_both_ways_agree_on_vgg19(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = thin(monkeypatch)
    assert by_gradient(network, name) == receptive_fields(network)[name]


@pytest.mark.parametrize(
    ("net", "layers"),
    [
        ("alexnet", ["conv1", "pool1", "conv2", "pool2", "relu5"]),
        ("squeezenet1_0", ["conv1", "pool1", "fire2.squeeze", "fire4", "pool8"]),
        (
            "efficientnet_lite0",
            ["stem", "block2_1", "block2_2", "block3_2.expand", "block4_1.depthwise.conv"],
        ),
    ],
)
def test_both_ways_agree_on_nets_that_pad_pool_and_branch(net: str, layers: list[str]) -> None:
    network = wrap(nets.build(net, top=False))
    # "SAME" padding depends on the picture's size: the gradient's is even, as 224 is
    found = receptive_fields(network)
    assert {name: by_gradient(network, name) for name in layers} == {name: found[name] for name in layers}


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
    assert "gated" not in found
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
