"""RECIPES: one read-only table of ways to train a network, name -> Recipe; recipe() changes some of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, TypedDict, Unpack

from innervision.errors import unknown
from innervision.learn.augment import Augmentation
from innervision.learn.averages import Ema
from innervision.learn.optimisers import AdamW, Muon, Sgd, with_lr
from innervision.learn.recipe import Precision, Recipe, explain, record
from innervision.learn.schedules import Cosine, OneCycle, Steps, Triangle, WarmUp
from innervision.weights import WEIGHTS, Preprocessing

__all__ = ["RECIPES", "Options", "Recipe", "explain", "recipe", "record"]


class Options(TypedDict, total=False):
    """What may be changed of a recipe by name."""

    net: str
    size: int
    epochs: float
    batch: int
    micro: int | None
    lr: float
    label_smoothing: float
    clip: float | None
    class_weights: bool
    start: str
    validation: float
    keep: Literal["last", "best"]
    patience: int | None
    views: Literal[1, 2, 6]
    precision: Precision


def recipe(name: str, **options: Unpack[Options]) -> Recipe:
    """Return a recipe by name with these options over it; raises Invalid for what is not allowed.

    With another network it starts from random weights, and trains all layers alike.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    chosen = RECIPES[name]
    changes: dict[str, Any] = dict(options)
    if "lr" in changes:
        changes["optimiser"] = with_lr(chosen.optimiser, changes.pop("lr"))
    if changes.get("net", chosen.net) != chosen.net:
        # what the recipe says of layers is said of its own network's
        changes = {"frozen": (), "slow": (), "whiten": 0, "start": "", **changes}
    if changes.get("validation") == 0 and chosen.keep == "best":
        changes.setdefault("keep", "last")  # there is nothing to choose by
        changes.setdefault("patience", None)
    start = str(changes.get("start"))
    if start in WEIGHTS:  # they answer as they were trained only to the input they were trained with
        changes["preprocessing"] = WEIGHTS[start].preprocessing
    return replace(chosen, **changes)


MNIST = Preprocessing((0.1307,), (0.3081,))
CIFAR10 = Preprocessing((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
ARTICLE = Preprocessing((123.680, 116.779, 103.939), (1.0, 1.0, 1.0), range=255)
# "the background level corresponds to −0.1 and the foreground to 1.175" (LeCun 1998, II.B)
LECUN = Preprocessing((0.1 / 1.275,), (1 / 1.275,))

_AIRBENCH = (
    "Jordan 2024 (airbench94, arXiv:2404.00498), restated from the paper in its Muon variant: filters that "
    "whiten 2×2 patches, identity start, biases of batch normalisation 62 times as fast, label smoothing .2, "
    "alternating flip, shifts of 2 px; updates of the filters are orthogonalised, and the learning rate "
    "falls in a straight line. Departures: batches of 1000; pictures of 24 px at first; 2 % of the pictures "
    "are held out, by which the temperature of its probabilities is found; batch normalisation sees parts of "
    "a batch."
)
# airbench states rates for a summed loss: × batch for the mean; and a dense layer scaled by 1/256 with
# weights of deviation 1, where here it is 1/9 with weights of 1/√(3·256): the same function, and this rate
_REST = Sgd(1.7, momentum=0.85, weight_decay=0.004 / 1.7, decay="all", norm_lr=106 / 1.7, whiten_lr=106 / 1.7)

_FAST = Recipe(
    name="fast94",
    text=_AIRBENCH,
    net="cifar_fast",
    data="cifar10",
    preprocessing=CIFAR10,
    epochs=11.8,
    batch=1000,
    micro=250,
    small=(24, 0.51),
    optimiser=Muon(0.17, momentum=0.6, iterations=3, rest=_REST),
    schedule=Triangle(1.0, 0.0, 0.0),
    label_smoothing=0.2,
    augmentation=Augmentation(flip="alternating", shift=2),
    whiten=5000,
    validation=0.02,
    views=6,
    expects="93.46 ± 0.21 %, by six views 94.35 ± 0.14 % (5 seeds, on a GPU)",
)

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        each.name: each
        for each in (
            Recipe(
                name="lenet5-1998",
                text="LeNet-5 in the shape of the paper (LeCun et al. 1998): digits in the middle of 32×32, "
                "squashing tanh, trainable subsampling, Table I's connections, scores by distance to codes. "
                "Departures: batches and momentum for single pictures and diagonal Levenberg-Marquardt, "
                "small shifts in place of none, cross-entropy without the rubbish class.",
                net="lenet5_1998",
                data="mnist",
                size=28,
                preprocessing=LECUN,
                epochs=20,
                batch=128,
                optimiser=Sgd(0.008),
                schedule=OneCycle(),
                augmentation=Augmentation(shift=1),
                validation=0.05,
                precision="float32",
                channels_last=False,
                expects="98.67 % after 8 epochs (one seed)",
            ),
            Recipe(
                name="lenet5-modern",
                text="LeNet-5 as it is written today: ReLU, max pooling, full connections, a linear output.",
                net="lenet5",
                data="mnist",
                size=28,
                preprocessing=MNIST,
                epochs=20,
                batch=128,
                optimiser=AdamW(4e-3, weight_decay=0.02),
                schedule=OneCycle(),
                augmentation=Augmentation(shift=2),
                validation=0.05,
                precision="float32",
                channels_last=False,
                expects="99.39 ± 0.05 % (5 seeds), 95 s on two cores",
            ),
            Recipe(
                name="alexnet-cifar",
                text="AlexNet's shape at 32 px, trained as in its time: ReLU, overlapping poolings, dropout, "
                "momentum, weight decay, no batch normalisation. Departure: the rate falls on a cosine.",
                net="alexnet_cifar",
                data="cifar10",
                preprocessing=CIFAR10,
                epochs=20,
                batch=128,
                optimiser=Sgd(0.02, weight_decay=5e-4),
                schedule=WarmUp(1.0, Cosine()),
                augmentation=Augmentation(flip="random", shift=4),
                keep="best",
                expects="56.2 % with --epochs 2 (one seed); all 20 epochs were not measured",
            ),
            Recipe(
                name="vgg19-article",
                text="The article's VGG19 (BIGBALLON's cifar-10-cnn, in Keras): He-normal start, with the "
                "convolutions of ImageNet's VGG19 put in by name; L2 of 5e-4 on kernels, which is a weight "
                "decay of 1e-3 here; batch normalisation up to the softmax; means subtracted, no deviation. "
                "What a shift leaves empty is 0 after the means are subtracted: their colour. Departures: "
                "the convolutions are the package's own 8-bit copy, for RGB; a tenth of the training "
                "pictures is held out to choose by, where the article looked at the test pictures.",
                net="vgg19_article",
                data="cifar10",
                preprocessing=ARTICLE,
                epochs=164,
                batch=128,
                drop_last=False,
                optimiser=Sgd(0.08, momentum=0.9, weight_decay=1e-3),
                schedule=Steps((81, 122), (0.01 / 0.08, 0.001 / 0.08)),
                augmentation=Augmentation(
                    flip="random",
                    shift=0.125,
                    fill=(123.680 / 255, 116.779 / 255, 103.939 / 255),
                ),
                start="vgg19-8bit",
                keep="best",
                expects="92.45 % (one seed, 164 epochs on a GPU); 93 to 94.14 % as published",
            ),
            Recipe(
                name="vgg19-modern",
                text="VGG19 as accurate as these means make it: one dense layer, started from ImageNet's "
                "convolutions, a warm-up and a cosine, label smoothing, cutout, an average of the weights.",
                net="vgg19_cifar",
                data="cifar10",
                preprocessing=ARTICLE,
                epochs=60,
                batch=128,
                optimiser=Sgd(0.05, weight_decay=5e-4),
                schedule=WarmUp(2.0, Cosine()),
                label_smoothing=0.1,
                augmentation=Augmentation(flip="alternating", shift=4, cutout=10),
                average=Ema(0.999),
                start="vgg19-8bit",
                validation=0.02,
                views=2,
                expects="94.13 %, by two views 94.42 % (one seed, on a GPU)",
            ),
            replace(
                _FAST,
                name="fast93",
                epochs=7.4,
                small=(24, 0.54),
                expects="92.83 ± 0.16 %, by six views 93.73 ± 0.10 % (5 seeds, on a GPU); "
                "10 minutes on two cores",
            ),
            _FAST,
            replace(
                _FAST,
                name="fast95",
                text=f"{_AIRBENCH} Wider, for longer, and with cutout.",
                net="cifar_fast_wide",
                epochs=20,
                small=(24, 0.5),
                augmentation=Augmentation(flip="alternating", shift=2, cutout=8),
                expects="94.58 ± 0.14 %, by six views 95.15 ± 0.21 % (3 seeds, on a GPU)",
            ),
            Recipe(
                name="folder",
                text="Your own pictures, a folder a class: VGG19's convolutions as ImageNet taught them, the "
                "later blocks taught on slowly, and one dense layer that is learned anew.",
                net="vgg19_small",
                size=64,
                preprocessing=ARTICLE,
                epochs=15,
                batch=32,
                optimiser=AdamW(1e-3, weight_decay=0.01),
                schedule=WarmUp(1.0, Cosine()),
                label_smoothing=0.1,
                clip=5.0,
                class_weights=True,
                augmentation=Augmentation(flip="random", shift=4, colour=0.2),
                start="vgg19-8bit",
                frozen=("conv1_", "conv2_"),
                slow=(("conv", 0.02),),
                validation=0.15,
                keep="best",
                patience=6,
                views=2,
                expects="a hundred pictures a class are a beginning",
            ),
        )
    }
)
