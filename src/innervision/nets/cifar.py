"""Networks for pictures of 32 px: AlexNet's and VGG19's shapes brought to that size, and a fast net.

The fast net follows Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv:2404.00498): a
2×2 convolution that whitens its patches, set from the training pictures; three groups of two 3×3 convolutions
with batch normalisation and GELU, one max pooling in each; the largest of the last 3×3; a dense layer.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.nets.layers import he_normal, pool
from innervision.nets.vgg import vgg

_EPS, _MOMENTUM = 1e-3, 0.01  # Keras's batch normalisation: its momentum .99 is torch's .01


def alexnet_cifar(*, classes: int = 10, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return AlexNet for 32 px as one chain: image (n, 3, 32, 32) -> scores (n, classes).

    Layers as in `alexnet`. Departures from its 224 px form: conv1 is 5×5 with stride 2 (11×11 with stride 4
    would leave 7 px), poolings keep their last incomplete window, so that 2×2 are left after pool5, and the
    dense layers have 1024 units for 4096.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(3, 64, 5, stride=2, padding=2),
        relu1=nn.ReLU(inplace=True),
        pool1=pool(pooling, 3, 2, ceil=True),
        conv2=nn.Conv2d(64, 192, 5, padding=2),
        relu2=nn.ReLU(inplace=True),
        pool2=pool(pooling, 3, 2, ceil=True),
        conv3=nn.Conv2d(192, 384, 3, padding=1),
        relu3=nn.ReLU(inplace=True),
        conv4=nn.Conv2d(384, 256, 3, padding=1),
        relu4=nn.ReLU(inplace=True),
        conv5=nn.Conv2d(256, 256, 3, padding=1),
        relu5=nn.ReLU(inplace=True),
        pool5=pool(pooling, 3, 2, ceil=True),
    )
    if top:
        layers |= OrderedDict(
            flatten=nn.Flatten(),
            drop6=nn.Dropout(0.5),
            fc6=nn.Linear(256 * 2 * 2, 1024),
            relu6=nn.ReLU(inplace=True),
            drop7=nn.Dropout(0.5),
            fc7=nn.Linear(1024, 1024),
            relu7=nn.ReLU(inplace=True),
            fc8=nn.Linear(1024, classes),
        )
    return nn.Sequential(layers)


def _vgg19(pooling: str, *, batch_norm: bool = True) -> OrderedDict[str, nn.Module]:
    """Return VGG19's layers up to pool5."""
    base = vgg(19, batch_norm=batch_norm, pooling=pooling, top=False)
    return OrderedDict(base.named_children())


def vgg19_article(*, classes: int = 10, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return the VGG19 that BIGBALLON's cifar-10-cnn trains, as one chain: (n, 3, 32, 32) -> scores.

    Convolution, batch normalisation, ReLU sixteen times; four poolings (none after block 5, which leaves
    2×2); two dense layers of 4096 with batch normalisation, ReLU and dropout; a last one whose scores are
    normalised too: bn8 stands before the softmax, which is the loss's business here. Batch normalisation has
    Keras's ε and momentum.
    """
    layers = _vgg19(pooling)
    del layers["pool5"]
    for layer in layers.values():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps, layer.momentum = _EPS, _MOMENTUM
    if top:
        layers["flatten"] = nn.Flatten()
        for number, features in ((6, 512 * 2 * 2), (7, 4096)):
            layers[f"fc{number}"] = nn.Linear(features, 4096)
            layers[f"bn{number}"] = nn.BatchNorm1d(4096, eps=_EPS, momentum=_MOMENTUM)
            layers[f"relu{number}"] = nn.ReLU(inplace=True)
            layers[f"drop{number}"] = nn.Dropout(0.5)
        layers["fc8"] = nn.Linear(4096, classes)
        layers["bn8"] = nn.BatchNorm1d(classes, eps=_EPS, momentum=_MOMENTUM)
    return nn.Sequential(layers)


def vgg19_cifar(*, classes: int = 10, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return VGG19 for 32 px as it is mostly trained today: batch normalisation and one dense layer."""
    layers = _vgg19(pooling)
    if top:
        layers |= OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc6=nn.Linear(512, classes)
        )
    return nn.Sequential(layers)


def vgg19_small(*, classes: int = 10, pooling: str = "max", top: bool = True) -> nn.Sequential:
    """Return VGG19's own convolutions under one dense layer: (n, 3, h, w), 32 px at least -> (n, classes).

    Without batch normalisation among them, so that ImageNet's weights answer in it as they were trained; each
    channel of pool5 is averaged over the picture, of whatever size, and normalised: as it is, it reaches some
    tens, and a fresh dense layer would begin with losses as large.
    """
    layers = _vgg19(pooling, batch_norm=False)
    if top:
        layers |= OrderedDict(
            avgpool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            bn6=nn.BatchNorm1d(512),
            drop6=nn.Dropout(0.2),
            fc6=nn.Linear(512, classes),
        )
    return nn.Sequential(layers)


class Scale(nn.Module):
    """Multiply by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor:g}"


def cifar_fast(
    widths: tuple[int, int, int] = (64, 256, 256),
    *,
    classes: int = 10,
    pooling: str = "max",
    top: bool = True,
) -> nn.Sequential:
    """Return the fast net as one chain: image (n, 3, 32, 32) -> scores (n, classes).

    Layers: whiten act0, then in each group g conv{g}_1 pool{g} bn{g}_1 act{g}_1 conv{g}_2 bn{g}_2 act{g}_2,
    then pool4 flatten fc scale. The whitening filters and the scales of batch normalisation are no subject
    of training. Without `top` the chain ends at pool4: (n, w, 1, 1).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(whiten=nn.Conv2d(3, 2 * 3 * 2 * 2, 2), act0=nn.GELU())
    layers["whiten"].weight.requires_grad_(False)
    width_in = 2 * 3 * 2 * 2
    for group, width in enumerate(widths, start=1):
        for place in (1, 2):
            layers[f"conv{group}_{place}"] = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
            if place == 1:
                layers[f"pool{group}"] = pool(pooling, 2, 2)
            norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
            norm.weight.requires_grad_(False)
            layers[f"bn{group}_{place}"] = norm
            layers[f"act{group}_{place}"] = nn.GELU()
            width_in = width
    layers["pool4"] = pool(pooling, 3, 3, ceil=True)  # pictures of 24 px leave 2×2
    if top:
        layers |= OrderedDict(
            flatten=nn.Flatten(), fc=nn.Linear(width_in, classes, bias=False), scale=Scale(1 / 9)
        )
    return nn.Sequential(layers)


@torch.no_grad()
def start_normed(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw start weights as `he_normal` does; batch normalisation of vectors starts as the identity too."""
    he_normal(net, generator)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_parameters()


@torch.no_grad()
def start_fast(net: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw the fast net's start weights: uniform in ±1/√fan-in, and the first filters pass channels on.

    The first `in` filters of a 3×3 convolution are 1 in the middle of one channel each (Zagoruyko &
    Komodakis 2017, DiracNets); whitening is drawn at random until `whiten` is shown pictures.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.Conv2d) and module.padding != (0, 0):
                passed = min(module.in_channels, module.out_channels)
                nn.init.dirac_(module.weight[:passed])
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()


@torch.no_grad()
def whiten(layer: nn.Conv2d, images: Tensor, eps: float = 5e-4) -> None:
    """Set a convolution's filters so that its answers to these pictures' patches are white.

    images: (n, c, h, w) as the network sees them. The first half of the filters are the eigenvectors of the
    patches' second moments, each divided by √(eigenvalue + eps), the largest first; the other half are the
    same with the sign turned, for a GELU lets half of each pass. Biases become 0.
    """
    out, channels, high, wide = layer.weight.shape
    size = channels * high * wide
    if out != 2 * size or images.ndim != 4 or images.shape[1] != channels:
        raise Invalid(
            f"whitening {channels} channels in patches of {high}x{wide} takes {2 * size} filters and images "
            f"(n, {channels}, h, w), not {out} filters and {tuple(images.shape)}"
        )
    patches = nn.functional.unfold(images.double(), (high, wide)).permute(0, 2, 1).reshape(-1, size)
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (values + eps).sqrt()).T.flip(0)
    layer.weight.copy_(torch.cat([filters, -filters]).view_as(layer.weight))
    if layer.bias is not None:
        layer.bias.zero_()
