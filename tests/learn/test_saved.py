"""Folders of trained networks: oracles are the module that was saved, and files broken by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from innervision import models, nets, network, saved
from innervision.cli import cli
from innervision.errors import Invalid, WeightsMissing, WeightsUnfit
from innervision.network import Network
from innervision.weights import Preprocessing

GREY = Preprocessing((0.13,), (0.3,))
OWN = """
import torch
from torch import nn

def small():
    base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    return nn.Sequential(base, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))


def lenet(seed: int = 0) -> Network:
    module = nets.build("lenet5", classes=3, generator=torch.Generator().manual_seed(seed)).eval()
    return Network(module, name="mine", preprocessing=GREY, classes=("a", "bé", "c"), input_size=28)


def save(trained: Network | None = None, folder: str = "runs/one", **more: object) -> Path:
    return saved.save(trained or lenet(), folder, **{"net": "lenet5", "options": {"classes": 3}, **more})  # type: ignore[arg-type]


def pictures(channels: int = 1) -> Tensor:
    return torch.rand(2, channels, 28, 28, generator=torch.Generator().manual_seed(1))


def test_a_folder_gives_back_the_network_by_name_and_by_path() -> None:
    trained = lenet()
    folder = save(trained, facts={"accuracy": 0.5, "temperature": 1.5})
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    want = trained(pictures())
    for opened in (saved.open_saved(folder), network.load("runs/one"), network.load("runs/one/model.json")):
        assert torch.equal(opened(pictures()), want)
        assert (opened.name, opened.classes, opened.input_size) == ("mine", ("a", "bé", "c"), 28)
        assert opened.preprocessing == GREY
        assert not opened.module.training
    card = saved.card_of("runs/one")
    assert card is not None
    assert card.facts == {"accuracy": 0.5, "temperature": 1.5}
    assert saved.card_of("vgg19") is None


def test_the_callers_preprocessing_and_weights_come_before_the_folders() -> None:
    folder = save()
    other = save(lenet(1), "runs/two")
    opened = network.load("runs/one", mean=(0.5,), std=(0.25,), weights_file=other / "model.safetensors")
    assert opened.preprocessing == Preprocessing((0.5,), (0.25,))
    wanted = lenet(1).module((pictures() - 0.5) / 0.25)
    assert torch.allclose(opened(pictures()), wanted, atol=1e-6)
    average = network.load(str(folder), pooling="average").module
    assert any(isinstance(m, nn.AvgPool2d) for m in average.modules())


def test_opening_draws_nothing_from_torchs_generator() -> None:
    save()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    network.load("runs/one")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_saved_half_precision_file_opens_in_float32() -> None:
    folder = save(dtype=torch.float16)
    assert (folder / "model.safetensors").stat().st_size < 1.1 * 2 * 61_000
    opened = network.load(str(folder))
    assert opened.dtype == torch.float32
    assert torch.allclose(opened(pictures()), lenet()(pictures()), atol=1e-2)


def test_a_users_module_is_built_by_its_file_wherever_that_is_now(tmp_path: Path) -> None:
    Path("own.py").write_text(OWN)
    opened = network.load("own.py:small", mean=(0.5,) * 3, std=(0.5,) * 3)
    folder = saved.save(opened, "runs/own", net="own.py:small")
    want = opened(pictures(3))
    assert torch.equal(network.load(str(folder))(pictures(3)), want)
    shutil.move("own.py", folder / "own.py")  # the folder is taken along with it
    shutil.move(folder, tmp_path / "moved")
    assert torch.equal(network.load(str(tmp_path / "moved"))(pictures(3)), want)
    (tmp_path / "moved" / "own.py").unlink()
    with pytest.raises(WeightsMissing, match=r"own\.py' is gone: put it back"):
        network.load(str(tmp_path / "moved"))


def test_a_module_that_no_file_builds_is_opened_with_it() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2))
    trained = network.wrap(module, mean=(0.0,), std=(1.0,), classes=("a", "b"))
    folder = saved.save(trained, "runs/bare", net="")
    with pytest.raises(WeightsMissing, match=r"open_saved\(folder, module"):
        network.load(str(folder))
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 2))
    assert torch.equal(saved.open_saved(folder, module=fresh)(pictures()), trained(pictures()))


def test_what_is_not_the_net_it_is_said_to_be_is_not_written() -> None:
    with pytest.raises(
        Invalid, match=r"not the net 'lenet5'.*fc5\.weight is \(3, 84\) where that has \(10, 84\)"
    ):
        save(options={})
    with pytest.raises(Invalid, match="no network 'lenet7'"):
        save(net="lenet7")
    with pytest.raises(Invalid, match="without NaN"):
        save(facts={"loss": float("nan")})
    assert not Path("runs/one/model.json").exists()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"format": 2}, WeightsUnfit, "has format 2; this innervision reads 1"),
        ({"format": None}, WeightsUnfit, "has format None"),
        ({"net": "lenet7"}, WeightsUnfit, "no network 'lenet7'"),
        ({"options": {"classes": 3, "wings": 2}}, WeightsUnfit, "wings"),
        ({"options": {"classes": 4}}, WeightsUnfit, r"does not fit exactly: .*fc5\.weight: shape"),
        ({"net": "alexnet", "options": {"classes": 3}}, WeightsUnfit, "does not fit|belongs to another"),
        ({"preprocessing": {"mean": [0.1]}}, WeightsUnfit, "no model card"),
        (
            {"preprocessing": {"mean": [0], "std": [0], "range": 1, "order": "RGB"}},
            WeightsUnfit,
            "std above 0",
        ),
        ({"classes": 3}, WeightsUnfit, "no model card"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(
    change: dict[str, object], error: type[Exception], words: str
) -> None:
    path = save() / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(error, match=words):
        network.load("runs/one")


@pytest.mark.parametrize("text", ["", "{", "[]", '"model"', '{"format": 1}', '{"format": 1, "name"'])
def test_a_card_cut_short_is_refused(text: str) -> None:
    path = save() / "model.json"
    path.write_text(text)
    with pytest.raises(WeightsUnfit, match=r"model\.json"):
        network.load("runs/one")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.999])
def test_weights_cut_short_are_refused_in_a_line(kept: float) -> None:
    path = save() / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(WeightsUnfit, match="copy the folder again, or train again"):
        network.load("runs/one")
    found = CliRunner().invoke(cli, ["export", "--net", "runs/one", "--to", "safetensors"])
    assert found.exit_code == 2
    assert len(found.stderr.splitlines()) == 1


def test_other_weights_missing_ones_and_nan_are_refused() -> None:
    path = save() / "model.safetensors"
    state = safetensors.torch.load_file(path)
    for broken, words in (
        ({n: t for n, t in state.items() if n != "conv2.bias"}, "conv2.bias: not in the file"),
        ({**state, "extra.weight": torch.ones(1)}, "extra.weight: no such layer"),
        ({**state, "fc4.bias": torch.full((84,), torch.nan)}, "NaN or infinite values in fc4.bias"),
    ):
        safetensors.torch.save_file(broken, path)
        with pytest.raises(WeightsUnfit, match=words):
            network.load("runs/one")
    path.unlink()
    with pytest.raises(WeightsMissing, match=r"lacks model\.safetensors"):
        network.load("runs/one")


def test_a_run_that_is_not_there_is_a_clear_line() -> None:
    with pytest.raises(Invalid, match=r"no folder 'runs/none' with a trained network"):
        network.load("runs/none")
    Path("runs/empty").mkdir(parents=True)
    with pytest.raises(WeightsMissing, match=r"'runs/empty' holds no trained network \(no model\.json\)"):
        network.load("runs/empty")
    with pytest.raises(Invalid, match="no net 'vgg99'"):
        network.load("vgg99")


def test_putting_a_folder_among_the_models_is_all_that_is_needed() -> None:
    home = Path("home/models")
    save(folder=str(home / "tiny-digits"), facts={"accuracy": 0.991, "text": "digits, three of them"})
    assert models.shipped()["tiny-digits"] == home.absolute() / "tiny-digits"
    assert torch.equal(network.load("tiny-digits")(pictures()), lenet()(pictures()))
    with pytest.raises(Invalid, match=r"Did you mean 'tiny-digits'"):
        network.load("tiny-digit")
    found = CliRunner().invoke(cli, ["nets"])
    assert found.exit_code == 0, found.output
    line = next(line for line in found.stdout.splitlines() if line.startswith("tiny-digits"))
    assert "99.1 %" in line
    assert "digits, three of them" in line


def test_every_model_that_comes_with_innervision_opens_and_says_what_it_is() -> None:
    for name, folder in models.shipped().items():
        opened = network.load(name)
        card = models.read_card(folder)
        assert card.name == name
        assert len(opened.classes) > 1
        assert opened.input_size
        readme = (folder / "README.md").read_text("utf-8")
        for heading in ("Intended use", "Training", "Confusion"):
            assert heading in readme, f"{name}: its README tells no {heading!r}"


def test_look_opens_a_run() -> None:
    Path("own.py").write_text(OWN)
    opened = network.load("own.py:small")
    opened.classes = ("tabby", "rocket")
    saved.save(opened, "runs/own", net="own.py:small")
    asked = [
        "look",
        "sample:chelsea",
        "--net",
        "runs/own",
        "--size",
        "32",
        "--quick",
        "--json",
        "-o",
        "p.html",
    ]
    found = CliRunner().invoke(cli, [*asked, "--device", "cpu"])
    assert found.exit_code == 0, found.output
    page = Path("p.html").read_text("utf-8")
    assert "tabby" in page
    assert "rocket" in page
