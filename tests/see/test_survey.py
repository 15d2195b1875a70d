"""The layers' survey and its sheets, on networks whose answers are known by hand; and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from innervision import images
from innervision.cli import cli
from innervision.errors import Invalid
from innervision.network import Network, load, wrap
from innervision.see import survey as survey_module
from innervision.see.receptive import Field
from innervision.see.survey import Layer, layer_sheet, save_raw, survey


def known(*after: nn.Module) -> Network:
    """Channels: red, twice red, its negative, and the left neighbour's red less one's own."""
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 1, 1] = 1
        conv.weight[1, 0, 1, 1] = 2
        conv.weight[2, 0, 1, 1] = -1
        conv.weight[3, 0, 1, 0], conv.weight[3, 0, 1, 1] = 1, -1
    return wrap(nn.Sequential(conv, *(after or (nn.ReLU(inplace=True),))))


def light_left() -> Tensor:
    image = torch.zeros(1, 3, 4, 8)
    image[..., :4] = 1
    return image


def test_a_survey_gives_every_layer_as_it_answered() -> None:
    conv, relu = survey(known(), light_left(), ["0", "1"])
    assert (conv.name, conv.shape, conv.dead, conv.saturated) == ("0", (4, 4, 8), 0, None)
    assert (relu.name, relu.shape, relu.dead, relu.saturated) == ("1", (4, 4, 8), 1, None)  # the negative
    assert conv.field == relu.field == Field((3, 3), (1, 1), (-1, -1))
    assert float(conv.maps[2].min()) == -1  # as it was before the ReLU wrote over it
    torch.testing.assert_close(relu.maps, conv.maps.relu(), rtol=0, atol=0)
    assert relu.strongest(2) == [1, 0] and relu.strongest(None) == [0, 1, 2, 3]
    assert [layer.name for layer in survey(known(), light_left())] == ["1"]


def test_all_of_vgg19_agrees_with_layer_by_layer() -> None:
    network = load("vgg19").frozen()
    image = images.read("sample:chelsea").tensor((40, 56))
    module = network.module
    x = network.preprocessing(image)
    with torch.no_grad():
        found = {layer.name: layer.maps for layer in survey(network, image)}
        assert len(found) == 16
        for name, part in module.named_children():
            x = F.relu(x) if isinstance(part, nn.ReLU) else part(x)
            if name in found:
                torch.testing.assert_close(found[name], x[0], rtol=1e-4, atol=1e-2)  # of values to 2,000


@pytest.mark.parametrize(
    ("module", "scale", "saturated"),
    [(nn.ReLU6(), 3.0, 1), (nn.Hardtanh(), 1.0, 3), (nn.Sigmoid(), 9.0, 3), (nn.Tanh(), 9.0, 3)],
)
def test_saturated_channels_are_counted(module: nn.Module, scale: float, saturated: int) -> None:
    (layer,) = survey(known(module), torch.full((1, 3, 4, 8), scale), ["1"])
    # channels at 3, 6, -3, 0; 1, 2, -1, 0; 9, 18, -9, 0, but for the last one's left edge
    assert layer.saturated == saturated


def test_a_network_without_relu_modules_shows_all_its_maps() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))

    network = wrap(Functional().double())
    assert [layer.name for layer in survey(network, torch.rand(1, 3, 12, 12))] == ["one", "two"]
    assert not any(m._forward_hooks for m in network.module.modules()) and network.module.training


def test_a_global_step_has_no_field() -> None:
    (layer,) = survey(known(nn.AdaptiveAvgPool2d(2)), light_left(), ["1"])
    assert layer.field is None and layer.through == "pooling to a fixed size"
    layer_sheet(layer)
    _, text = survey_module._heading(layer, 4, "shared")
    assert "no fixed window: pooling to a fixed size" in text


def of(*values: float) -> Layer:
    """Return a layer of 1 x 2 maps, each of a value and its half."""
    maps = torch.tensor([[[v, v / 2]] for v in values])
    return Layer("it", maps, None, 0, None)


def colours(picture: Image.Image, channel: int, columns: int) -> list[tuple[int, ...]]:
    """Return the colours of a channel's two pixels."""
    w, h, gap, caption = 40, 20, 4, 15  # tiles of 40 px
    x, y = 16 + channel % columns * (w + gap), 48 + 16 + channel // columns * (h + gap + caption)
    rgb = picture.convert("RGB")
    return [rgb.getpixel((x + dx, y + h // 2)) for dx in (5, 35)]  # type: ignore[misc]


BLACK, PALE, WHITE, RED, BLUE = (0, 0, 3), (251, 252, 191), (246, 247, 247), (103, 0, 31), (5, 48, 97)


def test_scales_are_told_apart() -> None:
    layer = of(4.0, 2.0)
    own = layer_sheet(layer, scale="channel", channels=None, tile=40)
    assert own.mode == "P"
    assert colours(own, 0, 2) == colours(own, 1, 2) == [PALE, BLACK]  # each from its least to its greatest
    shared = layer_sheet(layer, scale="shared", channels=None, tile=40)
    assert colours(shared, 0, 2)[0] == PALE
    assert colours(shared, 0, 2)[1] == colours(shared, 1, 2)[0]  # 2 is one colour everywhere
    assert colours(shared, 1, 2)[1] != BLACK  # black is 0, not the least
    red, _, blue = colours(layer_sheet(layer, scale="centred", channels=None, tile=40), 1, 2)[1]
    assert red > blue  # all above 0
    centred = layer_sheet(of(4.0, -4.0, 0.0), scale="centred", channels=None, tile=40)
    assert colours(centred, 0, 2)[0] == RED
    assert colours(centred, 1, 2)[0] == BLUE
    assert all(min(c) > 240 for c in colours(centred, 2, 2))


def test_an_even_layer_and_nan_are_drawn() -> None:
    for scale in ("channel", "shared", "centred"):
        even = colours(layer_sheet(of(0.0), scale=scale, channels=None, tile=40), 0, 1)
        assert even[0] == even[1]
        assert min(even[0]) > 240 if scale == "centred" else even[0] == BLACK
        odd = layer_sheet(of(float("nan"), 1.0), scale=scale)
        assert odd.mode == "P" and len(odd.getcolors() or ()) > 1


def test_large_maps_are_averaged_down() -> None:
    page = layer_sheet(Layer("it", torch.rand(2, 300, 600), None, 0, None))
    assert page.width < 2 * 256 + 60


def test_raw_numbers_come_back(tmp_path: Path) -> None:
    layers = survey(known(), light_left(), ["0", "1"])
    save_raw(tmp_path / "n.npz", layers)
    save_raw(tmp_path / "n.safetensors", layers)
    with np.load(tmp_path / "n.npz") as packed:
        tensors = load_file(tmp_path / "n.safetensors")
        for layer in layers:
            np.testing.assert_array_equal(packed[layer.name], layer.maps.numpy())
            assert torch.equal(tensors[layer.name], layer.maps)
    with pytest.raises(Invalid, match=r"must end in \.npz or \.safetensors"):
        save_raw(tmp_path / "n.csv", layers)


def test_a_layer_may_bear_the_name_of_an_argument(tmp_path: Path) -> None:
    guest = nn.Sequential()
    guest.add_module("file", nn.Conv2d(3, 2, 1))
    layers = survey(wrap(guest), light_left(), ["file"])
    for name in ("a.npz", "b.npz"):
        save_raw(tmp_path / name, layers)
    with np.load(tmp_path / "a.npz") as packed:
        np.testing.assert_array_equal(packed["file"], layers[0].maps.numpy())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_what_cannot_be_surveyed_is_refused() -> None:
    flat = wrap(nn.Sequential(nn.Flatten(), nn.Linear(96, 2)))
    for network, layers, said in (
        (known(), ["conv9"], "no layer 'conv9'"),
        (flat, ["1"], "a sheet shows"),
        (flat, None, "answers maps"),
    ):
        with pytest.raises(Invalid, match=said):
            survey(network, light_left(), layers)
    with pytest.raises(Invalid, match="one picture"):
        survey(known(), light_left().repeat(2, 1, 1, 1))
    with pytest.raises(Invalid, match="no scale 'own'"):
        layer_sheet(of(1.0), scale="own")


# the command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli, ["activations", "sample:chelsea", "--size", "48", *args])


def test_the_command_leaves_sheets_overview_index_card_and_numbers() -> None:
    found = run("--layers", "relu1_1,pool2,relu3_1", "--raw", "n.npz", "-o", "o")
    assert found.exit_code == 0, found.output
    names = ["1-relu1_1.png", "2-pool2.png", "3-relu3_1.png"]
    assert {p.name for p in Path("o").iterdir()} == {*names, "overview.png", "layers.json", "run.json"}
    for name in names:
        with Image.open(Path("o", name)) as picture:
            picture.load()
    index = json.loads(Path("o/layers.json").read_text())
    assert [(e["layer"], e["size"], e["stride"]) for e in index][1] == ("pool2", [16, 16], [4, 4])
    assert json.loads(Path("o/run.json").read_text())["command"] == "activations"
    with np.load("n.npz") as packed:
        assert packed["relu3_1"].shape == tuple(index[2]["shape"])
        assert float(packed["relu1_1"].max()) == pytest.approx(index[0]["greatest"])
    rows = [line.split() for line in found.stdout.splitlines()]
    assert rows[0][:3] == ["layer", "shape", "receptive"]
    assert [row[0] for row in rows[1:]] == ["relu1_1", "pool2", "relu3_1"]
    assert rows[3][2:5] == ["24", "4", "-10"]


def test_the_command_tells_json_or_nothing() -> None:
    found = run("--layers", "relu1_1", "--channels", "all", "--scale", "shared", "--json")
    events = [json.loads(line) for line in found.stdout.splitlines()]
    assert events[-1]["event"] == "result" and events[-1]["layers"][0]["dead"] == 0
    assert (run("--layers", "relu1_1", "--quiet").output, Path("out/activations/run.json").exists()) == (
        "",
        True,
    )


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--layers", "relu9_1"), "no layer 'relu9_1'"),
        (("--raw", "n.csv"), "must end in"),
        (("--channels", "none"), "no number of channels"),
        (("--channels", "0"), "no number of channels"),
        (("--net", "nowhere.py:build"), "no file"),
    ],
)
def test_the_command_refuses_in_one_line(args: tuple[str, ...], said: str) -> None:
    found = run(*args)
    assert found.exit_code == 2 and said in found.stderr and "Traceback" not in found.stderr
