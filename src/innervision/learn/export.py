"""A network for other programs: ONNX, TorchScript or safetensors, checked against the network itself."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from innervision import weights
from innervision.errors import InnervisionError, Invalid, unknown
from innervision.files import atomic
from innervision.network import Network

Input = Literal["float", "uint8", "raw"]

FORMATS = MappingProxyType({"onnx": ".onnx", "torchscript": ".pt", "safetensors": ".safetensors"})
INPUTS = MappingProxyType(
    {
        "float": "sRGB in 0..1, float32",
        "uint8": "sRGB in 0..255, uint8",
        "raw": "what the preprocessing gives, float32",
    }
)
Run = Callable[[Path, Tensor], Tensor | None]

TOLERANCE = 1e-4
_COUNTS = (1, 3)  # pictures at once, with which an export is checked


@dataclass(frozen=True)
class Exported:
    """What was written, and how far its answers lie from the network's."""

    path: Path
    kind: str
    difference: float | None  # the greatest of all logits, relative where they exceed 1; None: not run
    text: str  # what was checked, for a person


class Whole(nn.Module):
    """A network with its preprocessing in it: (n, c, h, w) as `input` says -> logits."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: Network, input: Input) -> None:
        super().__init__()
        pre = network.preprocessing
        # the same arithmetic as Preprocessing's, with the numbers as constants of the graph
        std, mean = (torch.tensor(values).view(-1, 1, 1) for values in (pre.std, pre.mean))
        self.register_buffer("scale", pre.range / std, persistent=False)
        self.register_buffer("shift", mean / std, persistent=False)
        self.module, self.input, self.turned = network.module, input, pre.order == "BGR"

    def forward(self, image: Tensor) -> Tensor:
        if self.input == "raw":
            return self.module(image)
        if self.input == "uint8":
            image = image.to(torch.float32) / 255
        if self.turned:
            image = image.flip(1)
        return self.module(image * self.scale - self.shift)


def export(
    network: Network, path: Path | str, *, to: str, input: Input = "float", size: int | None = None
) -> Exported:
    """Write a network as "onnx", "torchscript" or "safetensors", and compare its answers with the network's.

    The graph takes any number of pictures at once, (n, channels, size, size), of as many channels as the
    preprocessing has; input: what of them (`INPUTS`), with the preprocessing in the graph unless "raw".
    size: of a picture, by default what the network was trained at, else 224. Classes, preprocessing and size
    go along as metadata. The check, with one picture and with three: at most 1e-4 off, else nothing is
    written; ONNX is run where onnxruntime is installed.
    Raises Invalid for what is not allowed or cannot be exported, and InnervisionError for a failed check.
    """
    if to not in FORMATS:
        raise unknown("format", to, FORMATS)
    if input not in INPUTS:
        raise unknown("input", input, INPUTS)
    path, side = Path(path), size or network.input_size or 224
    network = _copied(network)
    told = metadata(network, input, side)
    if to == "safetensors":
        weights.save(network.module, path, {name: _text(value) for name, value in told.items()})
        return Exported(path, to, 0.0, "the weights alone, under the layers' names")
    whole = Whole(network, input)
    example = pictures(max(_COUNTS), len(network.preprocessing.mean), side, input)
    with atomic(path) as draft, _still():
        write = _onnx if to == "onnx" else _torchscript
        try:
            write(whole, example, draft, told)
        except InnervisionError:
            raise
        except Exception as error:  # exporters raise almost anything at what they do not know
            why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise Invalid(f"{network.name} cannot be exported to {to}: {why}") from error
        run = _onnx_answers if to == "onnx" else _torchscript_answers
        difference = _check(network, input, example, run, draft)
    by = "onnxruntime" if to == "onnx" else "torch"
    what = (
        "not checked, for onnxruntime is not installed: pip install 'innervision[onnx]' brings it"
        if difference is None
        else f"checked with {by}, which gives the network's own answers"
    )
    return Exported(path, to, difference, what)


def _copied(network: Network) -> Network:
    """Return a network that may be changed: on the CPU, in float32, in evaluation mode."""
    module = copy.deepcopy(network.module).requires_grad_(False).eval().to("cpu", torch.float32)
    return network.around(module)


def _check(network: Network, input: Input, example: Tensor, run: Run, path: Path) -> float | None:
    """Return how far the file's answers lie from the network's own; InnervisionError beyond the tolerance."""
    greatest = 0.0
    for count in _COUNTS:
        images = example[:count]
        found = run(path, images)
        if found is None:
            return None
        if input == "raw":
            wanted = network.module(images)
        else:
            wanted = network(images / 255 if input == "uint8" else images)
        if found.shape != wanted.shape:
            shapes = f"{tuple(found.shape)} where the network answers {tuple(wanted.shape)}"
            raise InnervisionError(f"the export of {network.name} answers {count} pictures with {shapes}")
        off = ((found - wanted).abs() / wanted.abs().clamp(min=1)).max()
        greatest = max(greatest, float(off.nan_to_num(torch.inf)))
    if greatest > TOLERANCE:
        raise InnervisionError(
            f"the export of {network.name} answers otherwise than the network, by {greatest:.2g} where "
            f"{TOLERANCE:g} is allowed: nothing was written"
        )
    return greatest


def metadata(network: Network, input: Input, side: int) -> dict[str, Any]:
    """Return what goes along with an exported network, for whoever calls it."""
    pre = network.preprocessing
    return {
        "name": network.name,
        "classes": list(network.classes),
        "input": f"(n, {len(pre.mean)}, {side}, {side}) {INPUTS[input]}",
        "size": side,
        "preprocessing": {"mean": pre.mean, "std": pre.std, "range": pre.range, "order": pre.order},
        "preprocessing_in_graph": input != "raw",
    }


def pictures(count: int, channels: int, side: int, input: Input) -> Tensor:
    """Return example pictures, the same in every call."""
    drawn = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    return (drawn * 255).to(torch.uint8) if input == "uint8" else drawn


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """Keep the exporters' advice to themselves, and torch's grad mode off."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _onnx(whole: Whole, example: Tensor, path: Path, told: dict[str, Any]) -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise Invalid(f"ONNX needs {' and '.join(missing)}: pip install 'innervision[onnx]'")
    import onnx

    program: Any = torch.onnx.export(
        whole,
        (example,),
        dynamo=True,
        verbose=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
    )
    model = program.model_proto
    onnx.helper.set_model_props(model, {name: _text(value) for name, value in told.items()})
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def _onnx_answers(path: Path, images: Tensor) -> Tensor | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    answers: Any = session.run(["logits"], {"image": images.numpy()})
    return torch.from_numpy(np.asarray(answers[0]))


def _torchscript(whole: Whole, example: Tensor, path: Path, told: dict[str, Any]) -> None:
    traced = torch.jit.trace(whole, example)
    torch.jit.save(traced, path, _extra_files={f"{name}.txt": _text(value) for name, value in told.items()})


def _torchscript_answers(path: Path, images: Tensor) -> Tensor | None:
    return torch.jit.load(path)(images)
