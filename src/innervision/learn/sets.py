"""The published data sets that are known by name: where they come from and how they are recognised."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from innervision import store
from innervision.errors import DownloadFailed, WeightsMissing
from innervision.learn.raw import Reading

Kind = Literal["cifar", "idx"]


@dataclass(frozen=True)
class SetFile:
    """A file as its publisher distributes it: name, checksum (sha256, or md5 where no other is published)."""

    name: str
    size: int  # bytes
    sha256: str = ""
    md5: str = ""


@dataclass(frozen=True)
class SetCard:
    """A published set: its files, the addresses of their folder, and what is in them."""

    name: str
    title: str
    kind: Kind
    classes: tuple[str, ...]
    shape: tuple[int, int, int]  # channels, height, width
    counts: Mapping[str, int]  # pictures of the training and of the test part
    files: tuple[SetFile, ...]
    urls: tuple[str, ...]  # of the folder: the publisher's first, then copies
    unpacked: Mapping[str, str]  # name of a file inside or unpacked -> md5
    licence: str
    source: str

    @property
    def folder(self) -> Path:
        """Where its files are, or go."""
        return store.home() / "data" / self.name


_CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile "
    "cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp "
    "lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree "
    "orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum "
    "rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider "
    "squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train "
    "trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_TORONTO = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
_KRIZHEVSKY = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"

SETS: Mapping[str, SetCard] = MappingProxyType(
    {
        card.name: card
        for card in (
            SetCard(
                name="cifar10",
                title="CIFAR-10: small colour photographs of ten kinds of things",
                kind="cifar",
                classes=tuple(_CIFAR10.split()),
                shape=(3, 32, 32),
                counts={"train": 50_000, "test": 10_000},
                files=(
                    SetFile("cifar-10-binary.tar.gz", 170_052_171, md5="c32a1d4ab5d03f1284b67883e8d87530"),
                ),
                urls=_TORONTO,
                unpacked={
                    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
                    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
                    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
                    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
                    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
                    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                    "test_batch": "40351d587109b95175f43aff81a1287e",
                },
                licence="none stated; free for research, to be cited",
                source=_KRIZHEVSKY,
            ),
            SetCard(
                name="cifar100",
                title="CIFAR-100: small colour photographs of a hundred kinds of things",
                kind="cifar",
                classes=tuple(_CIFAR100.split()),
                shape=(3, 32, 32),
                counts={"train": 50_000, "test": 10_000},
                files=(
                    SetFile("cifar-100-binary.tar.gz", 168_513_733, md5="03b5dce01913d631647c71ecec9e9cb8"),
                ),
                urls=_TORONTO,
                unpacked={
                    "train.bin": "6172c7755cfe09b2fe270c85cebc1b15",
                    "test.bin": "4499cfba6c016c1be1438163640a0898",
                    "train": "16019d7e3df5f24257cddd939b257f8d",
                    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
                },
                licence="none stated; free for research, to be cited",
                source=_KRIZHEVSKY,
            ),
            SetCard(
                name="mnist",
                title="MNIST: handwritten digits",
                kind="idx",
                classes=tuple("0123456789"),
                shape=(1, 28, 28),
                counts={"train": 60_000, "test": 10_000},
                files=(
                    SetFile(
                        "train-images-idx3-ubyte.gz",
                        9_912_422,
                        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    ),
                    SetFile(
                        "train-labels-idx1-ubyte.gz",
                        28_881,
                        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    ),
                    SetFile(
                        "t10k-images-idx3-ubyte.gz",
                        1_648_877,
                        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                    ),
                    SetFile(
                        "t10k-labels-idx1-ubyte.gz",
                        4_542,
                        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                    ),
                ),
                # the publisher's own address has long refused programs: the copies come first
                urls=(
                    "https://ossci-datasets.s3.amazonaws.com/mnist/",
                    "https://storage.googleapis.com/cvdf-datasets/mnist/",
                    "http://yann.lecun.com/exdb/mnist/",
                ),
                unpacked={
                    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
                    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
                    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
                    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
                },
                licence="CC BY-SA 3.0",
                source="LeCun, Cortes and Burges, The MNIST database of handwritten digits, 1998",
            ),
            SetCard(
                name="fashion-mnist",
                title="Fashion-MNIST: grey pictures of clothes",
                kind="idx",
                classes=(
                    "T-shirt/top",
                    "Trouser",
                    "Pullover",
                    "Dress",
                    "Coat",
                    "Sandal",
                    "Shirt",
                    "Sneaker",
                    "Bag",
                    "Ankle boot",
                ),
                shape=(1, 28, 28),
                counts={"train": 60_000, "test": 10_000},
                files=(
                    SetFile(
                        "train-images-idx3-ubyte.gz",
                        26_421_880,
                        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    ),
                    SetFile(
                        "train-labels-idx1-ubyte.gz",
                        29_515,
                        sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    ),
                    SetFile(
                        "t10k-images-idx3-ubyte.gz",
                        4_422_102,
                        sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    ),
                    SetFile(
                        "t10k-labels-idx1-ubyte.gz",
                        5_148,
                        sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    ),
                ),
                urls=(
                    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
                    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                ),
                unpacked={
                    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
                    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
                    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
                },
                licence="MIT",
                source="Xiao, Rasul and Vollgraf, Fashion-MNIST, 2017 (arXiv 1708.07747)",
            ),
        )
    }
)


def fetching(card: SetCard) -> Generator[Reading, None, Path]:
    """Fetch what is lacking of a set, checked by its checksum; return its archive, or the files' folder.

    Each address is tried in turn. Raises WeightsMissing where there is no network, saying which file to put
    where, and DownloadFailed where no address has the file.
    """
    for file in card.files:
        yield from _fetching(card, file)
    return card.folder / card.files[0].name if card.kind == "cifar" else card.folder


def _fetching(card: SetCard, file: SetFile) -> Generator[Reading, None, None]:
    first: WeightsMissing | DownloadFailed | None = None
    for url in card.urls:
        try:
            transfer = store.download(
                url + file.name, card.folder / file.name, sha256=file.sha256, md5=file.md5, size=file.size
            )
            for progress in transfer:
                yield Reading(progress.done, progress.total, file.name)
            return
        except (WeightsMissing, DownloadFailed) as error:
            first = first or error  # which names the address to fetch by hand from
            if store.offline():
                break
    assert first is not None
    raise first


def at_hand(card: SetCard) -> bool:
    """Whether all files of a set are on this machine, by their sizes."""
    places = [(card.folder / file.name, file.size) for file in card.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in places)
