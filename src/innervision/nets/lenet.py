"""LeNet-5: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11), 1998, section II.B; once as it is written today, once as it stands in the
paper.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.nets.layers import pool

# Table I: the maps of S2 that each of C3's sixteen maps looks at
C3_SEES = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),  # three neighbours
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),  # four neighbours
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),  # two and two
    (0, 1, 2, 3, 4, 5),
)

# Targets of the ten outputs, 7 wide and 12 high: drawn for this project in the manner of the paper's figure 3
DIGITS = """
.#####. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
##...## ..###.. ##...## ##...## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. ##...## .....## ...###. ##..... ##..... .....## ##...## ##...##
##..### ...##.. .....## .....## ..####. ##..... ##..... ....##. ##...## ##...##
##.#### ...##.. .....## .....## .##.##. ######. ######. ....##. .##.##. ##...##
##.#.## ...##.. ....##. ..####. .##.##. ##...## ##...## ...##.. ..###.. ##..###
####.## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. .##.##. .###.##
###..## ...##.. ..##... .....## ####### .....## ##...## ..##... ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. ##...## ##...## ..##... ##...## .....##
##...## ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
.#####. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
"""


class Pad(nn.Module):
    """Put a picture smaller than `size` in the middle of a square of that size; leave a larger one alone.

    The paper centres 28 px digits in 32 px so that strokes reach the middle of the highest detectors' view.
    The edge goes on outwards: it is background whatever the normalisation, where zeros would paint a grey
    frame.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        tall, wide = (max(self.size - n, 0) for n in x.shape[-2:])
        sides = [wide // 2, wide - wide // 2, tall // 2, tall - tall // 2]
        return F.pad(x, sides, mode="replicate") if any(sides) else x


def lenet5(*, classes: int = 10, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return LeNet-5 as it is written today, one chain: image (n, 1, h, w), ≤ 32 px -> scores (n, classes).

    Layers: pad, conv1 relu1 pool1, conv2 relu2 pool2, flatten, fc3 relu3, fc4 relu4, fc5. Departures from
    the paper: ReLU for tanh, plain pooling for trainable subsampling, every map of conv2 sees all six of
    pool1, a linear output. Without `top` the chain ends at pool2: (n, 16, 5, 5).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        pad=Pad(32),
        conv1=nn.Conv2d(1, 6, 5),
        relu1=nn.ReLU(inplace=True),
        pool1=pool(pooling, 2, 2),
        conv2=nn.Conv2d(6, 16, 5),
        relu2=nn.ReLU(inplace=True),
        pool2=pool(pooling, 2, 2),
    )
    if top:
        layers |= OrderedDict(
            flatten=nn.Flatten(),
            fc3=nn.Linear(16 * 5 * 5, 120),
            relu3=nn.ReLU(inplace=True),
            fc4=nn.Linear(120, 84),
            relu4=nn.ReLU(inplace=True),
            fc5=nn.Linear(84, classes),
        )
    return nn.Sequential(layers)


class ScaledTanh(nn.Module):
    """Squash by 1.7159 · tanh(2x/3), which maps ±1 to ±1 (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * torch.tanh(x * (2 / 3))


class Subsample(nn.Module):
    """Sum each 2×2 window, times a trainable coefficient a map, plus a bias: (n, c, h, w) -> (n, c, h/2,
    w/2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return 4 * F.avg_pool2d(x, 2) * self.weight[:, None, None] + self.bias[:, None, None]


class PartialConv2d(nn.Module):
    """Convolve, each map out seeing only the maps in that `sees[out]` lists; one 5×5 kernel a connection."""

    def __init__(self, channels: int, sees: tuple[tuple[int, ...], ...], kernel: int = 5) -> None:
        super().__init__()
        self.channels, self.sees = channels, sees
        self.weight = nn.Parameter(torch.zeros(sum(map(len, sees)), kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(len(sees)))

    def dense(self) -> Tensor:
        """Return the equivalent full kernel (out, in, k, k), zero where nothing is connected."""
        outs = [out for out, seen in enumerate(self.sees) for _ in seen]
        ins = [one for seen in self.sees for one in seen]
        full = self.weight.new_zeros(len(self.sees), self.channels, *self.weight.shape[1:])
        return full.index_put((torch.tensor(outs), torch.tensor(ins)), self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.dense(), self.bias)


class RBF(nn.Module):
    """Score each class by minus the squared distance to its fixed code (eq. 7): (n, 84) -> (n, 10), all ≤ 0.

    The codes are pictures of the digits, ±1 a pixel (`DIGITS`): the paper shows its own in figure 3 but
    prints no table. Its outputs are distances, the least of which wins; the sign is turned here so that the
    largest score wins as in every other net, and cross-entropy over these scores is the paper's criterion
    (eq. 9 without its rubbish-class constant).
    """

    targets: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("targets", digit_codes())

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, None] - self.targets).square().sum(dim=2)


def digit_codes() -> Tensor:
    """Return the ten targets, (10, 84), ±1: each digit's rows of pixels one after the other, ink +1."""
    rows = [line.split() for line in DIGITS.split("\n") if line]
    return torch.tensor([[1.0 if ink == "#" else -1.0 for row in rows for ink in row[d]] for d in range(10)])


def lenet5_1998(*, classes: int = 10, top: bool = True) -> nn.Sequential:
    """Return the paper's LeNet-5, 60,000 trainable parameters: image (n, 1, 32, 32) -> scores (n, 10).

    Layers: pad, C1 tanh1, S2 tanh2, C3 tanh3, S4 tanh4, C5 tanh5, flatten, F6 tanh6, output. The pixels
    should have mean 0 and variance 1, about (the paper: background −0.1, ink 1.175). Without `top` the chain
    ends at tanh4: (n, 16, 5, 5). The ten codes allow no other number of classes. See RBF for the one
    departure.
    """
    if classes != 10:
        raise Invalid(f"lenet5_1998 has ten fixed output codes, not {classes}: take lenet5 for other classes")
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        pad=Pad(32),
        C1=nn.Conv2d(1, 6, 5),
        tanh1=ScaledTanh(),
        S2=Subsample(6),
        tanh2=ScaledTanh(),
        C3=PartialConv2d(6, C3_SEES),
        tanh3=ScaledTanh(),
        S4=Subsample(16),
        tanh4=ScaledTanh(),
    )
    if top:
        layers |= OrderedDict(
            C5=nn.Conv2d(16, 120, 5),
            tanh5=ScaledTanh(),
            flatten=nn.Flatten(),
            F6=nn.Linear(120, 84),
            tanh6=ScaledTanh(),
            output=RBF(),
        )
    return nn.Sequential(layers)


@torch.no_grad()
def lecun_uniform(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw start weights and biases as the paper does, uniform in ±2.4 / the unit's fan-in (section
    III.C)."""
    for module in net.modules():
        if isinstance(module, RBF):
            module.targets.copy_(digit_codes())
            continue
        if isinstance(module, PartialConv2d):
            area = module.weight[0].numel()
            per_map = torch.tensor([area * len(seen) for seen in module.sees], device=module.weight.device)
            fans = (per_map.repeat_interleave(per_map // area)[:, None, None], per_map)
        elif isinstance(module, Subsample):
            fans = (4, 4)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fans = (module.weight[0].numel(),) * 2
        else:
            continue
        for values, fan_in in zip((module.weight, module.bias), fans, strict=True):
            assert values is not None
            values.uniform_(-2.4, 2.4, generator=generator).div_(fan_in)
