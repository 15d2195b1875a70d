"""VGG 11, 13, 16 and 19: Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015 (arXiv:1409.1556), table 1, configurations A, B, D and E.

Departures: the `_bn` nets add batch normalisation after each convolution, which the paper (older than it)
lacks; the paper's local response normalisation (A-LRN) is left out, as its authors found it of no use;
an adaptive average pooling to 7×7 before fc6 lets the classifier take other sizes and changes nothing at 224.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from innervision.nets.layers import pool

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}  # convolutions a stage


def vgg(
    depth: int, *, batch_norm: bool = False, classes: int = 1000, pooling: str = "max", top: bool = True
) -> nn.Sequential:
    """Return the VGG of so many weight layers, as one chain: image (n, 3, h, w) -> scores (n, classes).

    Layers: conv1_1 (bn1_1) relu1_1 … conv5_4 relu5_4 pool5, avgpool flatten, fc6 relu6 drop6, fc7 relu7
    drop7, fc8. Without `top` the chain ends at pool5, (n, 512, h/32, w/32), and any size from 32 px will do.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width_in = 3
    for stage, (width, count) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), start=1):
        for place in range(1, count + 1):
            layers[f"conv{stage}_{place}"] = nn.Conv2d(width_in, width, 3, padding=1)
            if batch_norm:
                layers[f"bn{stage}_{place}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}_{place}"] = nn.ReLU(inplace=True)
            width_in = width
        layers[f"pool{stage}"] = pool(pooling, 2, 2)
    if top:
        layers["avgpool"] = nn.AdaptiveAvgPool2d(7)
        layers["flatten"] = nn.Flatten()
        for number, features in ((6, 512 * 7 * 7), (7, 4096)):
            layers[f"fc{number}"] = nn.Linear(features, 4096)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            layers[f"drop{number}"] = nn.Dropout(0.5)
        layers["fc8"] = nn.Linear(4096, classes)
    return nn.Sequential(layers)
