"""AlexNet: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS 2012, in the one-column form of Krizhevsky, "One weird trick for parallelizing convolutional neural
networks", 2014 (arXiv:1404.5997), with the sizes for which weights are published (torchvision).

Departures from 2012: one column of 64-192-384-256-256 channels where two graphics cards shared
96-256-384-384-256 in groups; no local response normalisation; conv1 pads by 2, so that 224 px fit (the
paper's arithmetic wants 227); an adaptive average pooling to 6×6 before fc6 lets the classifier take other
sizes and changes nothing at 224.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from innervision.nets.layers import pool


def alexnet(*, classes: int = 1000, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return AlexNet as one chain: image (n, 3, h, w), 63 px at least -> scores (n, classes).

    Layers: conv1 relu1 pool1, conv2 relu2 pool2, conv3 relu3, conv4 relu4, conv5 relu5 pool5, avgpool
    flatten, drop6 fc6 relu6, drop7 fc7 relu7, fc8. Pooling windows overlap: 3 px, stride 2. Without `top`
    the chain ends at pool5: (n, 256, 6, 6) at 224 px.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 64, 11, stride=4, padding=2),
        relu1=nn.ReLU(inplace=True),
        pool1=pool(pooling, 3, 2),
        conv2=nn.Conv2d(64, 192, 5, padding=2),
        relu2=nn.ReLU(inplace=True),
        pool2=pool(pooling, 3, 2),
        conv3=nn.Conv2d(192, 384, 3, padding=1),
        relu3=nn.ReLU(inplace=True),
        conv4=nn.Conv2d(384, 256, 3, padding=1),
        relu4=nn.ReLU(inplace=True),
        conv5=nn.Conv2d(256, 256, 3, padding=1),
        relu5=nn.ReLU(inplace=True),
        pool5=pool(pooling, 3, 2),
    )
    if top:
        layers |= OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(6),
            flatten=nn.Flatten(),
            drop6=nn.Dropout(0.5),
            fc6=nn.Linear(256 * 6 * 6, 4096),
            relu6=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(inplace=True),
            fc8=nn.Linear(4096, classes),
        )
    return nn.Sequential(layers)
