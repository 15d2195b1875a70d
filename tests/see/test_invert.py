"""Oracles: least squares solved densely, SSIM restated place by place and by scikit-image, 0 at a target."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision.cli import cli
from innervision.core import Frame
from innervision.errors import Invalid
from innervision.network import Network, wrap
from innervision.see.invert import UNIT, every_layer, goal, invert, inverting, judged, wanted
from innervision.see.similarity import psnr, ssim


def picture(h: int = 16, w: int = 14, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """A smooth picture within 0.2 .. 0.8."""
    grid = torch.rand((1, 3, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return 0.2 + 0.6 * nn.functional.interpolate(grid, (h, w), mode="bilinear", align_corners=True)


def linear(dtype: torch.dtype = torch.float64, *, channels: int = 5) -> Network:
    """A convolution alone: what it answers is linear in the picture, and tells it fully."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(3, channels, 3, padding=1)
    return wrap(nn.Sequential(conv).to(dtype)).frozen(dtype)


def small(dtype: torch.dtype = torch.float32) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = OrderedDict(
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            relu1=nn.ReLU(inplace=True),
            drop=nn.Dropout(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 8, 3, padding=1),
            relu2=nn.ReLU(inplace=True),
        )
    return wrap(nn.Sequential(layers).to(dtype), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def last(network: Network, image: Tensor, layer: str, steps: int, **options: float) -> Frame:
    *_, frame = inverting(network, image, layer, steps=steps, **options)
    return frame


# The objective


def test_the_error_is_0_at_the_picture_and_1_at_silence() -> None:
    network, image = small(torch.float64), picture()
    _, values = goal(network, image, "conv2")(network.features(image, ("conv2",)), image)
    assert float(values["error conv2"]) == 0
    nothing = {"conv2": torch.zeros_like(network.features(image, ("conv2",))["conv2"])}
    assert float(goal(network, image, "conv2")(nothing, image)[1]["error conv2"]) == pytest.approx(1)


def test_the_priors_by_hand() -> None:
    network, image = linear(), picture(11, 11)
    mark = torch.full_like(image, 0.5)
    mark[0, 0, 5, 5] += 2 * UNIT  # z = 2 at one number of 3·11·11
    _, values = goal(network, image, "0", norm=1e-3, variation=1e-2)(network.features(mark, ("0",)), mark)
    share = 3 * 224**2 / (3 * 11**2)
    assert float(values["norm"]) == pytest.approx(1e-3 * 2**6 * share)
    assert float(values["variation"]) == pytest.approx(1e-2 * 4 * 2**2 * share)  # four neighbours


def test_a_linear_networks_inversion_is_the_least_squares_answer() -> None:
    """‖Ax + b − Φ₀‖²/‖Φ₀‖² + norm·Σz² + variation·Σ(Δz)², solved densely, against the search."""
    network, image = linear(channels=2), picture(11, 12)  # fewer answers than pixels: the priors decide
    norm, variation, count = 1e-5, 1e-5, image.numel()
    units = torch.eye(count, dtype=torch.float64).view(count, *image.shape[1:])
    bias = network.features(torch.zeros_like(image), ("0",))["0"].flatten()
    a = (network.features(units, ("0",))["0"].flatten(1) - bias).T.numpy()
    wanted_answer = network.features(image, ("0",))["0"].flatten().numpy()
    across, down = units.diff(dim=-1).flatten(1).T.numpy(), units.diff(dim=-2).flatten(1).T.numpy()
    share = 3 * 224**2 / count / UNIT**2
    rows = np.concatenate(
        [
            a / np.linalg.norm(wanted_answer),
            np.sqrt(norm * share) * np.eye(count),
            np.sqrt(variation * share) * across,
            np.sqrt(variation * share) * down,
        ]
    )
    right = np.concatenate(
        [
            (wanted_answer - bias.numpy()) / np.linalg.norm(wanted_answer),
            np.sqrt(norm * share) * np.full(count, 0.5),
            np.zeros(len(across) + len(down)),
        ]
    )
    expected = np.linalg.lstsq(rows, right, rcond=None)[0]
    found = last(network, image, "0", 400, norm=norm, variation=variation, power=2.0)
    np.testing.assert_allclose(found.image.flatten().numpy(), expected, atol=1e-5)
    assert np.abs(expected - image.flatten().numpy()).max() > 0.01, "the priors decided nothing"


def test_a_layer_that_keeps_everything_gives_the_picture_back() -> None:
    image = picture()
    (found,) = invert(linear(), image, ["0"], steps=300, norm=0, variation=0)
    torch.testing.assert_close(found.image, image, atol=1e-4, rtol=0)
    assert found.error < 1e-7 and found.ssim > 0.9999 and found.psnr > 70


def test_a_layer_that_keeps_less_gives_less_back() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AvgPool2d(4), nn.Conv2d(8, 2, 1)).double()
    first, second, third = invert(wrap(net), picture(32, 32), ["0", "1", "2"], steps=80)
    assert first.psnr > second.psnr > third.psnr
    assert max(first.error, second.error, third.error) < 0.02  # each has an answer much like the picture's


def test_what_is_measured_is_what_is_shown() -> None:
    network, image = linear(), picture()
    beyond = image + 0.9
    result = judged(network, image, "0", beyond)
    assert float(result.image.max()) == 1
    want, have = (network.features(x, ("0",))["0"] for x in (image, beyond.clamp(0, 1)))
    assert result.error == pytest.approx(float((want - have).square().sum() / want.square().sum()))
    same = judged(network, image, "0", image)
    assert (same.error, same.ssim, same.psnr) == (0, pytest.approx(1), math.inf)
    assert same.numbers() == {"layer": "0", "error": 0, "ssim": same.ssim, "psnr": None}


def test_every_layer_begins_alike_and_a_seed_decides() -> None:
    network, image = small(), picture(dtype=torch.float32)
    begun = [next(inverting(network, image, layer, seed=3)).image for layer in ("conv1", "relu2")]
    assert torch.equal(*begun)
    assert float((begun[0] - 0.5).abs().max()) < 0.06  # grey: nothing of the picture is known
    assert not torch.equal(begun[0], next(inverting(network, image, "conv1", seed=4)).image)


def test_the_layers_meant() -> None:
    network = small()
    assert wanted(network, None) == ("relu1", "relu2")
    assert wanted(network, ["conv2", "conv1", "conv2"]) == ("conv2", "conv1")
    assert wanted(linear(), None) == ("0",)
    assert every_layer(network) == ("conv1", "relu1", "pool1", "conv2", "relu2")


def test_a_guest_is_given_back_as_it_was() -> None:
    network, image = small(), picture(dtype=torch.float32)
    network.module.train()
    with torch.no_grad():
        results = []
        for result in invert(network, image, steps=2):
            assert not torch.is_grad_enabled()
            results.append(result.layer)
    assert results == ["relu1", "relu2"]
    assert network.module.training and all(p.requires_grad for p in network.module.parameters())
    assert all(p.grad is None for p in network.module.parameters())
    assert not any(m._forward_hooks for m in network.module.modules())


def test_grey_networks_and_flat_layers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 14 * 12, 6))
    grey = wrap(net, mean=(0.5,), std=(0.3,))
    for found in invert(grey, picture(dtype=torch.float32), ["1", "3"], steps=10):
        assert found.image.shape == (1, 3, 16, 14) and found.error < 1


def test_what_cannot_be_inverted_is_refused_at_once() -> None:
    network, image = small(), picture(dtype=torch.float32)
    with pytest.raises(Invalid, match="no layer 'relu9'"):
        invert(network, image, ["relu9"])
    with pytest.raises(Invalid, match="at least 11 px"):
        invert(network, image[..., :8])
    with pytest.raises(Invalid, match="neither nonlinearities nor Conv2d"):
        invert(wrap(nn.Sequential(nn.Flatten(), nn.Linear(672, 2))), picture())
    silent = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(silent.weight)
    nn.init.constant_(silent.bias, -1.0)
    with pytest.raises(Invalid, match="answers nothing"):
        invert(wrap(nn.Sequential(silent, nn.ReLU())), image)


# Similarity


def restated(one: Tensor, other: Tensor) -> float:
    """Wang 2004, eq. 13, window by window: weighted means, deviations and covariance."""
    x, y = one[0].numpy(), other[0].numpy()
    at = np.arange(-5, 6)
    window = np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = 0.01**2, 0.03**2
    values: list[float] = []
    for c in range(x.shape[0]):
        for i in range(x.shape[1] - 10):
            for j in range(x.shape[2] - 10):
                p, q = x[c, i : i + 11, j : j + 11], y[c, i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                cov = (window * (p - mp) * (q - mq)).sum()
                above = (2 * mp * mq + c1) * (2 * cov + c2)
                values.append(above / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return float(np.mean(values))


def noisy(image: Tensor) -> Tensor:
    drawn = torch.randn(image.shape, generator=torch.Generator().manual_seed(5), dtype=image.dtype)
    return (image + 0.1 * drawn).clamp(0, 1)


def test_ssim_restated() -> None:
    image = picture(17, 15)
    assert ssim(image, noisy(image)) == pytest.approx(restated(image, noisy(image)), abs=1e-12)
    assert ssim(image, image) == pytest.approx(1)
    assert ssim(image, 1 - image) < 0.5


def test_psnr_by_hand() -> None:
    black = torch.zeros(1, 3, 2, 2)
    assert psnr(black, black + 0.1) == pytest.approx(20)
    assert psnr(black, black + 1) == pytest.approx(0)
    assert psnr(black, black) == math.inf


def test_pictures_that_cannot_be_compared() -> None:
    image = picture()
    with pytest.raises(Invalid, match="of one size"):
        ssim(image, image[..., :-1])
    with pytest.raises(Invalid, match="of one size"):
        psnr(image, image[0])
    with pytest.raises(Invalid, match="11 x 11"):
        ssim(image[..., :10], image[..., :10])


# The command

GUEST = """
from collections import OrderedDict
import torch
from torch import nn

def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(4, 6, 3, padding=1), relu2=nn.ReLU(),
        ))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GUEST)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC).save("photo.png")
    return tmp_path


def run(*args: str) -> Result:
    usual = ["--net", "mine.py:build", "--device", "cpu", "--steps", "4"]
    return CliRunner().invoke(cli, ["invert", "photo.png", *usual, *args])


def rows(folder: Path) -> dict[str, dict[str, float]]:
    kept = json.loads((folder / "inversion.json").read_text())
    return {row["layer"]: row for row in kept["layers"]}


def test_the_command_leaves_sheet_curve_and_numbers(here: Path) -> None:
    result = run("--json", "--steps", "10", "--run", "kept")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["layer"] for row in events[-1]["layers"]] == ["relu1", "relu2"]
    assert [e["step"] for e in events[:-1]] == [*range(1, 21)]
    assert [e["text"] for e in events[9:11]] == ["relu1, step 10 of 10", "relu2, step 1 of 10"]
    assert sorted(each.name for each in (here / "kept/snapshots").iterdir()) == ["0010.png", "0020.png"]
    folder = here / "photo-inversion"
    names = {"relu1.png", "relu2.png", "sheet.png", "curve.png", "inversion.json", "run.json"}
    assert {each.name for each in folder.iterdir()} == names
    assert set(rows(folder)["relu1"]) == {"layer", "error", "ssim", "psnr"}
    with Image.open(folder / "relu1.png") as kept:
        assert kept.size == (32, 24)


def test_no_layers_name_leads_out_of_the_folder(here: Path) -> None:
    """A guest may call its parts as it likes: "/…" and "../…" too."""
    names = ["../relu/1", str(here / "away"), "größe-2.b"]
    (here / "mine.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential()\n"
        f"    net._modules.update(zip({names!r}, (nn.ReLU(), nn.ReLU(), nn.ReLU())))\n"
        "    return net\n"
    )
    before = sorted(here.rglob("*"))
    assert run("-o", "kept/here").exit_code == 0
    assert list(rows(here / "kept/here")) == names
    made = {each.name for each in (here / "kept/here").iterdir()} - {"run.json", "inversion.json"}
    away = str(here / "away").replace("/", "%2F")
    assert made == {"..%2Frelu%2F1.png", f"{away}.png", "größe-2.b.png", "sheet.png", "curve.png"}
    assert {each for each in here.rglob("*") if here / "kept" not in (each, *each.parents)} <= {
        *before, here / "__pycache__", *(here / "__pycache__").glob("*")
    }  # fmt: skip
    again = run("-o", "kept/here")
    assert again.exit_code == 0 and "3 of 3 layers are there already" in again.output


def test_what_is_done_is_not_done_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[str] = []

    def spy(network: Network, image: Tensor, layer: str, **options: float) -> object:
        began.append(layer)
        return inverting(network, image, layer, **options)

    monkeypatch.setattr("innervision.see.invert.inverting", spy)
    assert run("--layers", "relu1").exit_code == 0
    before = rows(here / "photo-inversion")["relu1"]
    assert run("--layers", "relu2,relu1").exit_code == 0
    assert began == ["relu1", "relu2"]
    assert rows(here / "photo-inversion")["relu1"] == before
    assert run("--layers", "relu1", "--seed", "1").exit_code == 0  # another option: all anew
    assert began == ["relu1", "relu2", "relu1"]
    assert list(rows(here / "photo-inversion")) == ["relu1"]
    (here / "photo-inversion/inversion.json").write_text("{")
    assert run("--layers", "all", "--seed", "1").exit_code == 0  # nothing that can be gone on with
    assert began[3:] == ["conv1", "relu1", "pool1", "conv2", "relu2"]


def test_ctrl_c_keeps_the_layers_so_far(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tired(network: Network, image: Tensor, layer: str, **options: float) -> object:
        if layer == "relu2":
            raise KeyboardInterrupt
        return inverting(network, image, layer, **options)

    with monkeypatch.context() as patch:
        patch.setattr("innervision.see.invert.inverting", tired)
        result = run()
    assert result.exit_code == 130 and "Stopped" in result.output
    assert list(rows(here / "photo-inversion")) == ["relu1"]
    assert (here / "photo-inversion/sheet.png").is_file()
    result = run()
    assert result.exit_code == 0 and "1 of 2 layers are there already" in result.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--layers", "relu9"), "no layer 'relu9'"),
        (("--steps", "0"), "0 steps"),
        (("--size", "8"), "at least 11 px"),
        (("-o", "mine.py"), "mine.py"),
        (("--layers", "a/b"), "no layer 'a/b'"),
    ],
)
def test_bad_orders_get_one_line(here: Path, args: tuple[str, ...], said: str) -> None:
    result = run(*args)
    assert result.exit_code == 2 and said in result.output
    assert len(result.output.strip().splitlines()) == 1
