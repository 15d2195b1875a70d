"""Contact sheets: patches and their deconvolutions at places known by hand; the command that draws them."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

import innervision
from innervision.cli import cli
from innervision.errors import Invalid
from innervision.network import Network, wrap
from innervision.see import evolution as growth
from innervision.see.contact import contact_sheet, field_of, strongest, window
from innervision.see.evolution import evolution
from innervision.see.target import Target
from innervision.see.units import TopImages, top_images


def noise(count: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def small() -> Network:
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(8, 12, 3, stride=2),
            relu2=nn.ReLU(inplace=True),
        )
    )
    return wrap(net, name="small")


def whole(network: Network, pictures: np.ndarray, k: int = 9) -> TopImages:
    *_, found = top_images(network, pictures, k=k)
    return found


# sheets


def spots() -> tuple[Network, np.ndarray]:
    """A unit that answers to a bright middle of 3x3 pixels; pictures with one bright pixel each."""
    conv = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, :, 1, 1] = 1
    pictures = np.zeros((4, 16, 16, 3), np.uint8)
    for number, (row, column) in enumerate(((5, 9), (0, 0), (15, 3), (8, 8))):
        pictures[number, row, column] = 250 - number
    return wrap(nn.Sequential(conv, nn.ReLU())), pictures


def test_a_patch_is_the_receptive_field_at_the_maximum() -> None:
    network, pictures = spots()
    found = whole(network, pictures, k=4)
    (unit,) = strongest(network, found, pictures, "1", deconv=True)
    assert [tuple(place) for place in found["1"].places[0]] == [(5, 9), (0, 0), (15, 3), (8, 8)]
    assert unit.names == ("pictures 0", "pictures 1", "pictures 2", "pictures 3")
    for number, (patch, projected) in enumerate(zip(unit.patches, unit.deconvolutions, strict=True)):
        assert patch.size == projected.size == (3, 3)
        assert patch.getpixel((1, 1)) == (250 - number,) * 3
        # its own filter, on its own scale
        assert projected.getpixel((1, 1)) == (255, 255, 255)
        assert projected.getpixel((0, 1)) == (128, 128, 128)
    assert unit.patches[1].getpixel((0, 0)) == (17, 17, 20)  # beyond the corner
    assert unit.patches[1].getpixel((2, 2)) == (0, 0, 0)


def test_a_field_larger_than_the_picture_shows_the_picture() -> None:
    network = wrap(nn.Sequential(nn.AvgPool2d(4), nn.Conv2d(3, 2, 5, padding=2), nn.ReLU()))
    pictures = noise(5, side=16)
    found = whole(network, pictures, k=2)
    unit = next(strongest(network, found, pictures, "2"))
    np.testing.assert_array_equal(np.asarray(unit.patches[0]), pictures[found["2"].pictures[0, 0]])


@pytest.mark.parametrize("layer", ["c1", "r1", "p1", "c2", "c3"])
def test_fields_are_those_that_changing_single_pixels_shows(layer: str) -> None:
    """Brute force: every pixel is changed in turn; monotone weights and means let every change through."""
    net = nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(3, 2, (3, 5), padding=(1, 2)),
            r1=nn.ReLU(inplace=True),
            p1=nn.AvgPool2d(2),
            c2=nn.Conv2d(2, 2, 3, stride=2, dilation=2, padding=1),
            c3=nn.Conv2d(2, 1, 3, padding="same"),
        )
    ).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.fill_(0.1)
    network = wrap(net)
    size = (36, 40)
    field = field_of(network, layer, size)
    flat = torch.full((1, 3, *size), 0.5, dtype=torch.float64)
    base = network.features(flat, (layer,))[layer].detach()
    seen = torch.zeros(*base.shape[2:], *size, dtype=torch.bool)
    for row in range(size[0]):
        changed = flat.repeat(size[1], 1, 1, 1)
        changed[range(size[1]), :, row, range(size[1])] = 1
        moved = (network.features(changed, (layer,))[layer].detach() - base).abs().sum(1) > 1e-9
        seen[:, :, row] = moved.permute(1, 2, 0)
    inside = 0
    for place in np.ndindex(*base.shape[2:]):
        rows, columns = seen[place].any(1).nonzero(), seen[place].any(0).nonzero()
        left, top, right, bottom = window(field, size, place)
        if min(left, top) < 0 or right > size[1] or bottom > size[0]:
            continue  # a dilated kernel's first tap within the picture may come later than the field
        inside += 1
        assert (left, top, right, bottom) == (
            *(int(columns[0]), int(rows[0])),
            *(int(columns[-1]) + 1, int(rows[-1]) + 1),
        )
    assert inside > 9


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


def test_beyond_a_global_step_the_whole_picture_is_seen() -> None:
    network = wrap(
        nn.Sequential(Residual(), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    )
    assert window(field_of(network, "1", (8, 8)), (8, 9), (2, 0)) == (-1, 1, 2, 4)
    for layer in ("2", "4"):
        field = field_of(network, layer, (8, 8))
        assert field is None
        assert window(field, (8, 9), (1, 1)) == (0, 0, 9, 8)


def test_a_contact_sheet_has_a_place_for_each_unit() -> None:
    network, pictures = small(), noise(20)
    found = whole(network, pictures)
    units = list(strongest(network, found, pictures, "relu2", range(4)))
    page = contact_sheet(units, tile=20, columns=2)
    block = 3 * 22 - 2
    assert page.size == (48 + 2 * (block + 18) - 18, 48 + 2 * (block + 20 + 18) - 18)
    tile = np.asarray(page)[24 + 20 : 24 + 40, 24 : 24 + 20]
    assert (tile != (17, 17, 20)).any()
    with pytest.raises(Invalid, match="no unit 12 in relu2"):
        list(strongest(network, found, pictures, "relu2", [12]))
    with pytest.raises(Invalid, match="no layer 'conv1' in the index"):
        list(strongest(network, found, pictures, "conv1"))


# checkpoints


def test_a_unit_is_followed_through_its_checkpoints() -> None:
    pictures = np.zeros((2, 8, 8, 3), np.uint8)
    pictures[0, 2, 3, 0], pictures[1, 5, 6, 1] = 255, 255  # one red, one green pixel
    stages = []
    for label, weight in (("early", (1.0, 0.5, 0.0)), ("late", (0.5, 2.0, 0.0))):
        conv = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor([(0.0, 0.0, 1.0), weight]).view(2, 3, 1, 1))
        stages.append((label, wrap(nn.Sequential(conv, nn.ReLU()))))
    found = list(evolution(stages, pictures, Target("1", 1)))
    assert [(one.label, one.value, one.picture, one.place) for one in found] == [
        ("early", 1.0, 0, (2, 3)),
        ("late", 2.0, 1, (5, 6)),
    ]
    assert found[0].unit.patches[0].getpixel((0, 0)) == (255, 0, 0)
    assert found[0].unit.deconvolutions[0].getpixel((0, 0)) == (255, 191, 128)  # its weights, 0 as grey
    growth.draw(found, title="a unit")
    with pytest.raises(Invalid, match="give LAYER:CHANNEL"):
        evolution(stages, pictures, Target("1"))


# the command


GUEST = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                               torch.nn.Conv2d(6, 20, 3), torch.nn.ReLU())
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))
    (tmp_path / "guest.py").write_text(GUEST)
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for number, pixels in enumerate(noise(12, side=40)):
        Image.fromarray(pixels).save((folder / "inner" if number % 2 else folder) / f"{number:02}.png")
    return folder


def units(*args: str) -> Result:
    return CliRunner().invoke(cli, ["units", "photos", "--net", "guest.py:net", "--size", "32", *args])


def test_the_command_ranks_draws_and_goes_on(data: Path) -> None:
    (data / "bad.jpg").write_text("no picture")
    found = units("--json", "--deconv")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert (result["units"], result["pictures"]) == (26, 12)
    assert result["skipped"][0][1] == "bad.jpg"
    assert [Path(sheet).name for sheet in result["sheets"]] == ["1.png", "4.png"]
    for sheet in result["sheets"]:
        Image.open(sheet).load()
    assert json.loads(Path("units-photos/run.json").read_text())["command"] == "units"
    before = Path("units-photos/index.safetensors").read_bytes()
    again = units("--sheet", "4:3-5", "-o", "more", "--index", "units-photos/index.safetensors")
    assert again.exit_code == 0, again.output
    assert "1 skipped" in again.stderr
    assert Path("more/4-3-5.png").is_file()
    assert Path("units-photos/index.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--sheet", "9"), "no layer '9'"),
        (("--sheet", "4:5-3"), "ends before it begins"),
        (("--sheet", "4:a"), "names no sheet"),
        (("--sheet", "4:99"), "no unit 99 in 4"),
        (("--layers", "relu9"), "no layer 'relu9'"),
        (("--top", "0"), "k is 0"),
        (("--size", "0"), "size is 0"),
    ],
)
@pytest.mark.usefixtures("data")
def test_bad_input_is_one_line(args: tuple[str, ...], said: str) -> None:
    found = units(*args)
    assert found.exit_code == 2
    assert said in found.stderr
    assert found.stderr.splitlines()[-1].startswith("innervision: ")


def test_no_folder_is_one_line() -> None:
    found = CliRunner().invoke(cli, ["units", "nowhere"])
    assert found.exit_code == 2
    assert "no file or folder 'nowhere'" in found.stderr
