"""Oracles: the labelled photographs' own names for ImageNet's classes, directions worked by hand."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision import saved
from innervision.cli import cli
from innervision.cli.dream import read_wishes
from innervision.cli.excite import several
from innervision.cli.seeing import open_network
from innervision.errors import Invalid
from innervision.files import sha256
from innervision.nets import build, imagenet
from innervision.nets.efficientnet_lite import STAGES
from innervision.network import Network, load, wrap
from innervision.see.activations import rectified
from innervision.see.directions import unit
from innervision.see.target import Target, class_named, named, target
from innervision.see.together import Direction
from innervision.see.wishes import wished
from innervision.weights import save

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PHOTOGRAPHS = DATA / "imagenet_sample_600.tar"
SQUEEZENET = DATA / "weights" / "squeezenet1_0_deepcompressed_torchvision_f16.npz"


def small(classes: tuple[str, ...] = (), name: str = "small") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU())
        module.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
    return wrap(module, classes=classes, name=name)


# ImageNet's classes


def test_the_thousand_classes() -> None:
    names, numbers = imagenet.classes(), imagenet.numbers()
    assert len(names) == len(set(names)) == len(numbers) == 1000
    assert list(numbers) == sorted(numbers)  # the challenge's order is that of WordNet's numbers
    known = {  # as Caffe's, torchvision's and Keras's lists have them
        0: ("n01440764", "tench"),
        134: ("n02012849", "crane bird"),
        207: ("n02099601", "golden retriever"),
        281: ("n02123045", "tabby"),
        517: ("n03126707", "crane"),
        639: ("n03710721", "tank suit"),
        999: ("n15075141", "toilet tissue"),
    }
    assert {place: (list(numbers)[place], names[place]) for place in known} == known
    assert imagenet.synonyms()["tabby cat"] == (281,) and imagenet.synonyms()["crane"] == (134, 517)


@pytest.mark.skipif(not PHOTOGRAPHS.is_file(), reason="the labelled photographs are not beside this clone")
def test_the_names_are_those_of_the_photographs() -> None:
    with tarfile.open(PHOTOGRAPHS) as archive:
        files = [Path(m.name).stem for m in archive if m.isfile()]
    assert len(files) == 600
    for file in files:
        number, _, name = file.partition("_")
        place = imagenet.numbers()[number]
        assert place in imagenet.synonyms()[name.replace("_", " ").lower()], file


def test_a_net_of_a_thousand_classes_has_their_names(tmp_path: Path) -> None:
    for net, top, classes in (
        ("squeezenet1_1", True, imagenet.classes()),
        ("squeezenet1_1", False, ()),
    ):
        file = save(build(net, top=top), tmp_path / "net.safetensors")
        assert load(net, weights_file=file).classes == classes
    file = save(build("squeezenet1_1", classes=10), tmp_path / "ten.safetensors")
    assert load("squeezenet1_1", weights_file=file).classes == ()
    assert load("vgg19").classes == ()


@pytest.mark.skipif(not SQUEEZENET.is_file(), reason="the shared weights are not beside this clone")
def test_squeezenet_says_what_it_sees() -> None:
    assert load("squeezenet1_0", weights_file=SQUEEZENET).frozen().classes[281] == "tabby"


def test_efficientnet_is_taken_by_name_whatever_the_files_order(tmp_path: Path) -> None:
    net = build("efficientnet_lite0", generator=torch.Generator().manual_seed(0))
    blocks = [f"block{stage}_{place}" for stage, row in STAGES.items() for place in range(1, row[0] + 1)]
    inner = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    inner["project"] = ("_project_conv", "_bn2")
    ends = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    published: dict[str, Tensor] = {}
    for key, value in net.state_dict().items():
        first, *rest, leaf = key.split(".")
        if first in blocks:
            part, kind = rest
            name = f"_blocks.{blocks.index(first)}.{inner[part][kind == 'bn']}.{leaf}"
        else:
            name = f"{ends[first][rest == ['bn']]}.{leaf}" if rest else f"_{first}.{leaf}"
        published[name] = value
    classifier = {key: published.pop(key) for key in ("_fc.weight", "_fc.bias")}
    turned = dict(reversed(published.items())) | classifier  # where the order would be of no help
    torch.save(turned, tmp_path / "lite.pth")
    opened = load("efficientnet_lite0", weights_file=tmp_path / "lite.pth")
    assert opened.classes == imagenet.classes()
    found = opened.module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in net.state_dict().items())


# Classes by name


def test_a_class_is_found_by_its_name() -> None:
    pets = small(("cat", "Dog", "hot dog", "DOG", "fish", "crane"))
    assert target("class:cat", pets) == target(" class: CAT ", pets) == Target(None, 0)
    assert target("class:Dog", pets).channel == 1  # as it is written comes first
    assert target("class:hot dog", pets).channel == 2
    assert target("class:4", pets) == Target(None, 4)
    with pytest.raises(Invalid, match=r"'dog' may be 'Dog' \(1\) or 'DOG' \(3\)"):
        target("class:dog", pets)
    with pytest.raises(Invalid, match=r"no class 'fisch' in small, which has .* Did you mean 'fish'"):
        target("class:fisch", pets)
    with pytest.raises(Invalid, match="knows no names of classes: give class:N"):
        target("class:cat", small())
    assert named(Target(None, 4), pets) == "fish (class 4)"
    assert named(Target(None, 9), pets) == "class:9" and named(Target("1", 2), pets) == "1:2"


def test_synonyms_are_known_of_imagenets_classes_alone() -> None:
    thousand = wrap(nn.Flatten(), classes=imagenet.classes())
    assert class_named("Tabby Cat", thousand) == 281
    assert class_named("Cardigan", thousand) == 264 and class_named("cardigan", thousand) == 474
    assert class_named("missile", thousand) == 657  # a class of its own, and another name of projectile
    with pytest.raises(Invalid, match=r"may be 'cougar' \(286\) or 'jaguar' \(290\)"):
        class_named("panther", thousand)
    with pytest.raises(Invalid, match="no class 'tabby cat'"):
        class_named("tabby cat", small(("tabby",)))


# Directions


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("2:1+3", {1: 1.0, 3: 1.0}),
        ("2:0.5*1-2*4+3", {1: 0.5, 4: -2.0, 3: 1.0}),
        ("2: -1*2 + .25 * 0", {2: -1.0, 0: 0.25}),
        ("2:1+1", {1: 2.0}),
    ],
)
def test_a_sum_of_channels_by_hand(text: str, weights: dict[int, float]) -> None:
    found = unit(text, small(), 16)
    assert isinstance(found, Direction) and found.layer == "2" and found.place is None
    assert found.vector.tolist() == [weights.get(n, 0.0) for n in range(6)]


def test_a_direction_of_a_file_and_at_a_place(tmp_path: Path) -> None:
    numbers = np.arange(6.0)
    np.save(tmp_path / "warm.npy", numbers)
    found = unit(f"2:{tmp_path / 'warm.npy'}@1,2", small(), 16)
    assert isinstance(found, Direction) and found.place == (1, 2) and str(found) == "2:warm"
    assert found.vector.tolist() == numbers.tolist()
    assert unit("2:4@1,2", small(), 16) == Target("2", 4, (1, 2))
    assert unit("2", small(), 16) == Target("2")
    assert unit("class:hot-dog", small(("hot-dog",)), 16) == Target(None, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2:0-3", "may be a range or a difference"),
        ("2:1+6", "no channel 6 in 2, which has 0 … 5"),
        ("2:1+x", "is no sum of channels"),
        ("2:2*", "is no sum of channels"),
        ("2:1-1*1", "not all of them 0"),
        ("9:1+2", "no layer '9'"),
        ("2:none.npy", "cannot be read as numbers"),
        ("2:short.npy", "it takes 6 finite numbers"),
        ("2:words.npy", "not numbers"),
    ],
)
def test_bad_directions(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("short.npy", np.ones(5))
    np.save("words.npy", np.array(["a"] * 6))
    with pytest.raises(Invalid, match=said):
        unit(text, small(), 16)


def test_a_dream_climbs_what_lies_along_a_direction() -> None:
    network = small().frozen(torch.float64)
    image = torch.rand((1, 3, 12, 10), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ((asked, weight),) = read_wishes("2:2*1-3=0.5", network)
    assert weight == 0.5
    x = image.clone().requires_grad_()
    total, _ = wished(network, [(asked, weight)])(network.features(x, ("2",)), x)
    (found,) = torch.autograd.grad(total, x)
    y = image.clone().requires_grad_()
    a = network.module[2](network.module[1](network.module[0](y)))  # pyright: ignore[reportIndexIssue]
    along = (2 * a[:, 1] - a[:, 3]).relu()
    (wanted,) = torch.autograd.grad(-0.5 * 0.5 * (along**2).mean(), y)
    assert bool(along.any()) and torch.allclose(found, wanted, atol=1e-12)
    with pytest.raises(Invalid, match="matched by all channels"):
        wished(network, [(asked, 1.0)], guide=image)
    with pytest.raises(Invalid, match="holds 6 numbers"):
        wished(network, [(Direction("2", torch.ones(5)), 1.0)])(network.features(image, ("2",)), image)


# A network that ends in features


@pytest.mark.parametrize("text", ["class:1", "class:tabby", " class:9999"])
def test_a_base_has_no_classes(text: str) -> None:
    base = wrap(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2)), name="base")
    for read in (target, lambda text, network: unit(text, network, 16), read_wishes):
        with pytest.raises(Invalid, match=r"^base ends in features and has no classes: give LAYER:CHANN"):
            read(text, base)
    with pytest.raises(Invalid, match=r"^base ends in features"):
        several("class:0-3", base, 16)
    assert target("2:1", base) == Target("2", 1)


def test_a_guest_without_names_of_classes_is_looked_at_once_for_many() -> None:
    looked: list[object] = []
    network = small()
    network.module.register_forward_hook(lambda *_: looked.append(None))
    assert several("class:0-4", network, 16) == [Target(None, n) for n in range(5)]
    assert len(looked) == 1
    large = wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4)), name="of one size")
    assert target("class:3", large) == Target(None, 3)  # 224 pixels a side do not fit: it cannot be asked


# From the command line


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    module = build("lenet5", generator=torch.Generator().manual_seed(0)).eval()
    network = wrap(module, mean=(0.1,), std=(0.3,), name="digits", classes=names, input_size=28)
    saved.save(network, "digits", net="lenet5")


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, (*args, "--net", "digits", "--device", "cpu"))


def test_excite_takes_names_and_directions(digits: None) -> None:
    words = ("--target", "class:Seven", "--target", "relu1:0+2*3", "--steps", "2", "--json", "-o", "out.png")
    found = run("excite", *words)
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert [each["target"] for each in result["units"]] == ["class:7", "relu1:0+2*3"]
    single = run("excite", "--target", "class:seven", "--steps", "2", "-o", "seven.png")
    assert "seven (class 7) answers" in single.stderr
    assert run("excite", "--target", "class:7", "--steps", "2", "-o", "7.png").exit_code == 0
    assert sha256("seven.png") == sha256("7.png")


def test_dream_takes_names(digits: None) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
    Image.fromarray(picture).save("digit.png")
    for name in ("class:seven", "class:7"):
        words = ("dream", "digit.png", "--layers", name, "--steps", "1", "--octaves", "1", "-o")
        found = run(*words, f"{name[6:]}.png")
        assert found.exit_code == 0, found.output
    assert sha256("seven.png") == sha256("7.png") != sha256("digit.png")
    wrong = run("dream", "digit.png", "--layers", "class:eleven")
    assert wrong.exit_code == 2 and "no class 'eleven' in digits" in wrong.stderr


def test_relu6_counts_as_a_relu_by_default() -> None:
    lite = wrap(build("efficientnet_lite0", generator=torch.Generator().manual_seed(0)))
    names = rectified(lite)
    assert names[:3] == ("stem.relu", "block1_1.depthwise.relu", "block2_1.expand.relu")
    assert len(names) == 1 + 1 + 2 * 15 + 1 and names[-1] == "head.relu"  # a block has two, but the first


def test_the_classes_of_a_guest_are_called_as_a_file_has_them(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(192, 2))\n"
    )
    (tmp_path / "names.txt").write_text("ant\nbee\n")
    none = dict.fromkeys(("weights", "mean", "std", "range_", "order"))
    chosen = {**none, "net": f"{tmp_path / 'mine.py'}:build", "device": "cpu"}
    assert target("class:bee", open_network({**chosen, "classes": tmp_path / "names.txt"})) == Target(None, 1)
    with pytest.raises(Invalid, match="no names"):
        target("class:bee", open_network(chosen))
    (tmp_path / "names.txt").write_text("\n")
    with pytest.raises(Invalid, match="empty"):
        open_network({**chosen, "classes": tmp_path / "names.txt"})
