"""The layers' sheet, on a network whose answers are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from innervision.errors import Invalid
from innervision.network import Network, wrap
from innervision.see.activations import answers, nonlinearities, sheet


def known() -> Network:
    """Channels: red, twice red, and the left neighbour's red less one's own (a step from light to dark)."""
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1
        conv.weight[1, 0, 1, 1] = 2
        conv.weight[2, 0, 1, 0], conv.weight[2, 0, 1, 1] = 1, -1
    return wrap(nn.Sequential(conv, nn.ReLU()))


def light_left() -> torch.Tensor:
    image = torch.zeros(1, 3, 4, 8)
    image[..., :4] = 1
    return image


def test_the_strongest_channels_come_first_with_their_maps() -> None:
    (answer,) = answers(known(), light_left())
    assert (answer.layer, answer.channels, answer.of) == ("1", (1, 0, 2), 3)  # means 1, 1/2, 1/8
    edge = np.zeros((4, 8), np.float32)
    edge[:, 4] = 1
    np.testing.assert_array_equal(answer.maps[2], edge)
    assert answers(known(), light_left(), channels=2)[0].channels == (1, 0)


def test_a_row_has_one_scale() -> None:
    page = np.asarray(sheet(known(), light_left(), tile=80)).astype(int)
    pale = (page == (251, 252, 191)).all(-1)  # magma's end
    # only channel 1 reaches the row's greatest value: the left half of its tile of 80 x 40
    assert pale.sum() == 40 * 40


def test_without_relu_modules_every_layer_of_maps_is_shown() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = known().module[0], nn.AvgPool2d(2)  # type: ignore[index]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(self.conv(x).relu())

    network = wrap(Functional())
    conv, pool = answers(network, light_left())
    assert (conv.layer, conv.channels, pool.layer) == ("conv", (1, 0, 2), "pool")
    assert pool.maps.shape == (3, 2, 4)
    assert not any(m._forward_hooks for m in network.module.modules()) and network.module.training


def test_nothing_is_left_on_the_module() -> None:
    network = known()
    sheet(network, light_left())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.module.modules())
    assert network.module.training


def test_what_cannot_be_shown_is_refused() -> None:
    flat = wrap(nn.Sequential(nn.Flatten(), nn.Linear(96, 2), nn.ReLU()))
    with pytest.raises(Invalid, match="no layer 'conv9'"):
        answers(known(), light_left(), ["conv9"])
    with pytest.raises(Invalid, match="no layer of sequential answers maps"):
        answers(flat, light_left())
    with pytest.raises(Invalid, match="a sheet shows"):
        answers(flat, light_left(), ["1"])


def test_nonlinearities_stand_for_relus_where_there_are_none() -> None:
    def net(*kinds: nn.Module) -> tuple[str, ...]:
        return nonlinearities(wrap(nn.Sequential(*kinds)))

    conv, full = nn.Conv2d(3, 3, 1), nn.Linear(3, 3)
    assert net(conv, nn.GELU(), nn.ReLU(), full, nn.ReLU()) == ("2",)
    assert net(conv, nn.GELU(), nn.Sigmoid(), nn.SiLU(), full, nn.Tanh()) == ("1", "3")
    assert net(conv, nn.Sigmoid(), full) == ("1",)
    assert net(conv, full, nn.GELU(), nn.Linear(3, 3), nn.Tanh()) == ("2",)  # a transformer's blocks
    assert net(conv, nn.MaxPool2d(2), full) == ("0",)
    assert net(full) == ()
