"""NETS: one read-only table of the networks that come with innervision, name -> NetCard; build() makes one.

Each net is a flat chain of plain layers that carry its paper's names, as module names and state-dict keys
alike (`conv4_2`, `relu4_2`, `pool4`, `fire7.squeeze`). Preprocessing, features and weights are other
modules' business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from innervision.errors import Invalid, unknown
from innervision.nets import alexnet, cifar, efficientnet_lite, lenet, squeezenet, vgg
from innervision.nets.layers import POOLINGS, Undrawn, he_normal

__all__ = ["NETS", "POOLINGS", "NetCard", "build"]


@dataclass(frozen=True, kw_only=True)
class NetCard:
    """One network's entry: what it is, where it comes from, and how to construct it.

    `build(classes=, top=)`, and `pooling=` where `max_pooling` is true, constructs the module with torch's
    own start values; build() goes on to draw those that suit the net (`start`). `params` counts the
    trainable parameters, classifier included; `input_size` is the side in pixels it was designed for.
    """

    name: str
    title: str
    paper: str
    layers_doc: str
    params: int
    build: Callable[..., nn.Module]
    start: Callable[[nn.Module, torch.Generator | None], None] = he_normal
    input_size: int = 224
    channels: int = 3
    classes: int = 1000
    max_pooling: bool = True


LECUN = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
ALEX = "Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997, 2014"
VGG = "Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"
SQUEEZE = (
    "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, arXiv:1602.07360, 2016"
)
JORDAN = "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv:2404.00498, 2024"
FAST = "whiten act0 conv1_1 pool1 bn1_1 act1_1 conv1_2 bn1_2 act1_2 conv2_1 … act3_2 pool4 fc scale"
EFFICIENT = "Tan & Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019"


def _vgg(depth: int, params: int, *, batch_norm: bool = False) -> NetCard:
    return NetCard(
        name=f"vgg{depth}_bn" if batch_norm else f"vgg{depth}",
        title=f"VGG{depth} with batch normalisation" if batch_norm else f"VGG{depth}",
        paper=VGG,
        layers_doc=f"conv1_1{' bn1_1' if batch_norm else ''} relu1_1 … pool5 fc6 relu6 drop6 fc7 … fc8",
        params=params,
        build=partial(vgg.vgg, depth, batch_norm=batch_norm),
    )


def _small(
    name: str, title: str, paper: str, layers_doc: str, params: int, build: Callable[..., nn.Module]
) -> NetCard:
    """Return the card of a net for CIFAR's pictures."""
    return NetCard(
        name=name,
        title=title,
        paper=paper,
        layers_doc=layers_doc,
        params=params,
        build=build,
        start=cifar.start_fast if paper == JORDAN else cifar.start_normed,
        input_size=32,
        classes=10,
    )


NETS: Mapping[str, NetCard] = MappingProxyType(
    {
        card.name: card
        for card in (
            NetCard(
                name="lenet5",
                title="LeNet-5 as it is written today",
                paper=LECUN,
                layers_doc="pad conv1 relu1 pool1 conv2 relu2 pool2 fc3 relu3 fc4 relu4 fc5",
                params=61_706,
                build=lenet.lenet5,
                input_size=28,
                channels=1,
                classes=10,
            ),
            NetCard(
                name="lenet5_1998",
                title="LeNet-5 as in the paper",
                paper=LECUN,
                layers_doc="pad C1 tanh1 S2 tanh2 C3 tanh3 S4 tanh4 C5 tanh5 F6 tanh6 output",
                params=60_000,
                build=lenet.lenet5_1998,
                start=lenet.lecun_uniform,
                input_size=32,
                channels=1,
                classes=10,
                max_pooling=False,
            ),
            NetCard(
                name="alexnet",
                title="AlexNet, one column",
                paper=ALEX,
                layers_doc="conv1 relu1 pool1 … conv5 relu5 pool5 drop6 fc6 relu6 drop7 fc7 relu7 fc8",
                params=61_100_840,
                build=alexnet.alexnet,
            ),
            _vgg(11, 132_863_336),
            _vgg(13, 133_047_848),
            _vgg(16, 138_357_544),
            _vgg(19, 143_667_240),
            _vgg(11, 132_868_840, batch_norm=True),
            _vgg(13, 133_053_736, batch_norm=True),
            _vgg(16, 138_365_992, batch_norm=True),
            _vgg(19, 143_678_248, batch_norm=True),
            NetCard(
                name="squeezenet1_0",
                title="SqueezeNet 1.0",
                paper=SQUEEZE,
                layers_doc="conv1 relu1 pool1 fire2 … pool4 … pool8 fire9 drop9 conv10 relu10",
                params=1_248_424,
                build=partial(squeezenet.squeezenet, "1.0"),
            ),
            NetCard(
                name="squeezenet1_1",
                title="SqueezeNet 1.1",
                paper=SQUEEZE,
                layers_doc="conv1 relu1 pool1 fire2 fire3 pool3 … pool5 … fire9 drop9 conv10 relu10",
                params=1_235_496,
                build=partial(squeezenet.squeezenet, "1.1"),
            ),
            NetCard(
                name="efficientnet_lite0",
                title="EfficientNet-Lite0",
                paper=EFFICIENT,
                layers_doc="stem block1_1 block2_1 … block7_1 head drop fc",
                params=4_652_008,
                build=efficientnet_lite.efficientnet_lite0,
                max_pooling=False,
            ),
            _small(
                "alexnet_cifar",
                "AlexNet for 32 px",
                ALEX,
                "conv1 relu1 pool1 … conv5 relu5 pool5 drop6 fc6 relu6 drop7 fc7 relu7 fc8",
                4_560_714,
                cifar.alexnet_cifar,
            ),
            _small(
                "vgg19_article",
                "VGG19 for 32 px with two large dense layers, all normalised",
                VGG,
                "conv1_1 bn1_1 relu1_1 … pool4 conv5_1 … relu5_4 fc6 bn6 relu6 drop6 fc7 … fc8 bn8",
                45_266_782,
                cifar.vgg19_article,
            ),
            _small(
                "vgg19_cifar",
                "VGG19 for 32 px with batch normalisation and one dense layer",
                VGG,
                "conv1_1 bn1_1 relu1_1 … pool5 avgpool fc6",
                20_040_522,
                cifar.vgg19_cifar,
            ),
            replace(
                _small(
                    "vgg19_small",
                    "VGG19's convolutions under one dense layer",
                    VGG,
                    "conv1_1 relu1_1 … pool5 avgpool bn6 drop6 fc6",
                    20_030_538,
                    cifar.vgg19_small,
                ),
                input_size=64,
            ),
            _small(
                "cifar_fast",
                "A net that learns CIFAR-10 in minutes",
                JORDAN,
                FAST,
                1_972_792,
                cifar.cifar_fast,
            ),
            _small(
                "cifar_fast_wide",
                "The same, wider",
                JORDAN,
                FAST,
                4_606_520,
                partial(cifar.cifar_fast, (128, 384, 384)),
            ),
        )
    }
)


def build(
    name: str,
    *,
    classes: int | None = None,
    pooling: str = "max",
    top: bool = True,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    drawn: bool = True,
) -> nn.Module:
    """Build a network by name with random start weights, in training mode, downloading nothing.

    `classes` replaces the published number of outputs. `pooling` "average" replaces every max pooling by a
    mean, as Gatys suggests; activations shrink. `top=False` gives the convolutional base alone. Values are
    drawn from `generator` (torch's own if None) on `device` (torch's default if None; "meta" gives shapes
    without memory, to be filled by `load_state_dict(state, assign=True)`); not `drawn`, weights are whatever
    lies in memory, for a file to be loaded over them all. Raises Invalid for a value that is not allowed.
    """
    if name not in NETS:
        raise unknown("network", name, NETS)
    card = NETS[name]
    if classes is not None and classes < 1:
        raise Invalid(
            f"{name} was asked for {classes} classes: give 1 or more, or None for its own {card.classes}"
        )
    if pooling not in POOLINGS:
        raise unknown("pooling", pooling, POOLINGS)
    if pooling != "max" and not card.max_pooling:
        raise Invalid(f"{name} has no max pooling that {pooling!r} could replace: leave pooling at 'max'")
    options = {"pooling": pooling} if card.max_pooling else {}
    home = torch.get_default_device() if device is None else torch.device(device)
    with home, Undrawn():
        net = card.build(classes=classes or card.classes, top=top, **options)
    if drawn and home.type != "meta":
        card.start(net, generator)
    return net
