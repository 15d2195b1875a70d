"""SqueezeNet 1.0 and 1.1: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and
<0.5MB model size", 2016 (arXiv:1602.07360), table 1; 1.1 is its authors' later release: a smaller first
convolution and earlier pooling, 2.4 × less arithmetic for the same accuracy.

Departure: pooling keeps incomplete windows (`ceil_mode`), as Caffe and the published weights do.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from innervision.nets.layers import pool

# squeeze width, width of each of the two expansions (fire2 … fire9: the same in both versions)
FIRES = {
    2: (16, 64),
    3: (16, 64),
    4: (32, 128),
    5: (32, 128),
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}


class Fire(nn.Module):
    """Squeeze to few channels by 1×1, expand by 1×1 and by 3×3, and put both expansions one after the other.

    (n, channels, h, w) -> (n, 2 · expand, h, w): first the 1×1 channels, then the 3×3 ones.
    """

    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.squeeze_relu = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand1x1_relu = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.expand3x3_relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze_relu(self.squeeze(x))
        ones = self.expand1x1_relu(self.expand1x1(x))
        threes = self.expand3x3_relu(self.expand3x3(x))
        return torch.cat([ones, threes], dim=1)


def squeezenet(version: str, *, classes: int = 1000, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return SqueezeNet "1.0" or "1.1" as one chain: image (n, 3, h, w) -> scores (n, classes).

    Layers: conv1 relu1 pool1, fire2 … fire9 with pool4 and pool8 (1.0) or pool3 and pool5 (1.1) after the
    fires of those numbers, drop9 conv10 relu10 avgpool flatten. Scores are never negative: a ReLU follows
    conv10. Without `top` the chain ends at fire9: (n, 512, h/16, w/16), about.
    """
    first, pooled = {
        "1.0": (nn.Conv2d(3, 96, 7, stride=2), (4, 8)),
        "1.1": (nn.Conv2d(3, 64, 3, stride=2), (3, 5)),
    }[version]
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv1=first, relu1=nn.ReLU(inplace=True))
    layers["pool1"] = pool(pooling, 3, 2, ceil=True)
    channels = first.out_channels
    for number, (squeeze, expand) in FIRES.items():
        layers[f"fire{number}"] = Fire(channels, squeeze, expand)
        channels = 2 * expand
        if number in pooled:
            layers[f"pool{number}"] = pool(pooling, 3, 2, ceil=True)
    if top:
        layers["drop9"] = nn.Dropout(0.5)
        layers["conv10"] = nn.Conv2d(channels, classes, 1)
        layers["relu10"] = nn.ReLU(inplace=True)
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)
