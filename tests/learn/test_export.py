"""Exports: each is read back by the runtime it is for, and compared with the network's own answers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from innervision import nets, network, saved
from innervision.cli import cli
from innervision.errors import InnervisionError, Invalid
from innervision.learn import export as module
from innervision.learn.export import export
from innervision.network import Network
from innervision.weights import Preprocessing


class Residual(nn.Module):
    """What exporters meet: batch norm, functions, a residual sum, pooling to one pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.gelu(self.norm(self.conv1(x)))
        x = x + self.conv2(x).relu()
        return self.fc(x.mean((2, 3)))


def residual(order: str = "RGB", range_: float = 1) -> Network:
    torch.manual_seed(0)
    own = Residual()
    own.norm.running_mean.normal_()  # type: ignore[union-attr]
    own.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return network.wrap(
        own,
        mean=tuple(range_ * m for m in (0.5, 0.4, 0.3)),
        std=tuple(range_ * s for s in (0.2, 0.25, 0.3)),
        range=range_,
        order=order,  # type: ignore[arg-type]
        name="residual",
        classes=("a", "bé", "c", "d"),
        input_size=12,
    )


def images(n: int = 5, channels: int = 3, side: int = 12) -> Tensor:
    return torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(3)).byte()


def given(kind: str, own: Network, pixels: Tensor) -> np.ndarray[Any, Any]:
    """Return pictures as an export's input wants them, by its description."""
    unit = pixels.numpy().astype(np.float32) / 255
    if kind == "uint8":
        return pixels.numpy()
    return unit if kind == "float" else own.preprocessing(torch.from_numpy(unit)).numpy()


def loaded(path: Path, files: dict[str, str] | None = None) -> Any:
    with warnings.catch_warnings(
        action="ignore", category=DeprecationWarning
    ):  # torch would rather have its own
        return torch.jit.load(path, _extra_files=files)


CASES = [("float", "RGB", 1), ("uint8", "BGR", 255), ("raw", "BGR", 255)]


@pytest.mark.parametrize(("kind", "order", "range_"), CASES[1:])  # the first: see LeNet below
def test_onnx_answers_as_the_network_for_any_number_of_pictures(
    tmp_path: Path, kind: Any, order: str, range_: float
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'innervision[onnx]'")
    pytest.importorskip("onnxscript", reason="pip install 'innervision[onnx]'")
    own = residual(order, range_)
    own.module.train()
    made = export(own, tmp_path / "net.onnx", to="onnx", input=kind)
    assert own.module.training
    assert made.difference is not None
    assert made.difference <= 1e-4
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    for n in (1, 2, 7):
        (found,) = session.run(None, {"image": given(kind, own, images(n))})
        with torch.no_grad():
            assert np.abs(found - own(images(n) / 255).numpy()).max() < 1e-4
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["a", "bé", "c", "d"]
    assert json.loads(told["preprocessing"])["order"] == order
    assert json.loads(told["preprocessing_in_graph"]) is (kind != "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(("kind", "order", "range_"), CASES)
def test_torchscript_answers_as_the_network(tmp_path: Path, kind: Any, order: str, range_: float) -> None:
    own = residual(order, range_)
    made = export(own, tmp_path / "net.pt", to="torchscript", input=kind)
    assert made.difference == 0
    files = {"classes.txt": ""}
    program = loaded(made.path, files)
    with torch.no_grad():
        for n in (1, 6):
            found = program(torch.from_numpy(given(kind, own, images(n))))
            assert torch.allclose(found, own(images(n) / 255), atol=1e-5)
    assert json.loads(files["classes.txt"]) == ["a", "bé", "c", "d"]


def test_safetensors_hold_the_weights_and_say_what_they_are(tmp_path: Path) -> None:
    own = residual()
    made = export(own, tmp_path / "net.safetensors", to="safetensors")
    with safetensors.safe_open(made.path, "pt") as file:
        assert torch.equal(file.get_tensor("conv1.weight"), own.module.conv1.weight)  # type: ignore[union-attr, arg-type]
        assert json.loads(file.metadata()["preprocessing"])["mean"] == [0.5, 0.4, 0.3]


def test_lenet_of_greys_goes_out_with_its_own_padding(tmp_path: Path) -> None:
    grey = Preprocessing((0.13,), (0.3,))
    build = nets.build("lenet5", generator=torch.Generator().manual_seed(0))
    own = Network(build, name="digits", preprocessing=grey, input_size=28)
    made = export(own, tmp_path / "net.pt", to="torchscript", input="uint8")
    with torch.no_grad():
        found = loaded(made.path)(images(3, 1, 28))
        assert torch.allclose(found, own(images(3, 1, 28) / 255), atol=1e-5)
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    made = export(own, tmp_path / "net.onnx", to="onnx")
    assert made.difference is not None
    assert made.difference <= 1e-4


class Tossing(nn.Module):
    """A network that depends on how many pictures it is shown: a trace keeps the first number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4] * float(len(x))


def test_an_export_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InnervisionError, match=r"answers otherwise than the network.*nothing was written"):
        export(network.wrap(Tossing(), input_size=8), tmp_path / "net.pt", to="torchscript")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_a_line(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no format 'onxx'.*Did you mean 'onnx'"):
        export(residual(), tmp_path / "net", to="onxx")
    with pytest.raises(Invalid, match="no input 'bytes'"):
        export(residual(), tmp_path / "net", to="onnx", input="bytes")  # type: ignore[arg-type]
    flat = network.wrap(nn.Sequential(nn.Flatten(), nn.Linear(7, 2)), input_size=8)
    with pytest.raises(Invalid, match="cannot be exported to torchscript"):
        export(flat, tmp_path / "net.pt", to="torchscript")


def test_without_the_extra_onnx_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Invalid, match=r"ONNX needs onnx and onnxscript: pip install 'innervision\[onnx\]'"):
        export(residual(), tmp_path / "net.onnx", to="onnx")


def test_the_command_exports_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build = nets.build("lenet5", generator=torch.Generator().manual_seed(0))
    own = Network(build, name="digits", preprocessing=Preprocessing((0.13,), (0.3,)), input_size=28)
    saved.save(own, "runs/digits", net="lenet5")
    arguments = ["export", "--net", "runs/digits", "-o", "digits.pt", "--input", "uint8", "--json"]
    found = CliRunner().invoke(cli, arguments)
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert result["format"] == "torchscript"
    assert result["difference"] < 1e-5
    assert Path("digits.pt").is_file()
    assert json.loads(Path("digits.pt.run.json").read_text())["options"]["input"] == "uint8"
    found = CliRunner().invoke(cli, ["export", "--net", "runs/digits", "--to", "safetensors"])
    assert found.exit_code == 0, found.output
    assert Path("digits.safetensors").is_file()
