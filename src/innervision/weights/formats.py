"""Read weights files of any make into named tensors laid out as torch lays them out.

The first bytes decide what a file is, not its name. No format read here can run code: torch files are loaded
with weights_only=True, npz without pickles.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

import h5py
import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from innervision import store
from innervision.errors import WeightsMissing, WeightsUnfit
from innervision.weights.cards import WeightCard, identify

Kind = Literal["safetensors", "torch", "keras", "clustered", "npz"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params")
_DAMAGED = (  # what the readers raise at bytes that make no sense
    *(OSError, EOFError, LookupError, ValueError, TypeError, RuntimeError, ArithmeticError),
    *(AttributeError, AssertionError, struct.error, zlib.error),
    *(pickle.UnpicklingError, safetensors.SafetensorError, zipfile.BadZipFile),
)
_NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")  # what batch norm counts for itself


@dataclass(frozen=True)
class State:
    """Tensors by name, in the file's order, and what was done to them on the way."""

    kind: Kind
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a weights file holds."""

    path: Path
    kind: Kind
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]  # name, shape, dtype
    parameters: int  # as networks are counted: without batch norm's running means, variances and counters
    metadata: Mapping[str, str]
    card: WeightCard | None
    sha256: str


def inspect(path: Path | str) -> Inspection:
    """Read a weights file and say what is in it, and which published file it is."""
    path = Path(path)
    state = read_state(path)
    return Inspection(
        path=path,
        kind=state.kind,
        tensors=tuple((name, tuple(t.shape), f"{t.dtype}"[6:]) for name, t in state.tensors.items()),
        parameters=sum(
            tensor.numel()
            for name, tensor in state.tensors.items()
            if name.rpartition(".")[2] not in _NO_PARAMETERS
        ),
        metadata=state.metadata,
        card=identify(path),
        sha256=store.sha256(path),
    )


def save(
    weights: nn.Module | Mapping[str, Tensor], path: Path | str, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a module's weights, or named tensors, as safetensors; whole or not at all."""
    state = weights.state_dict() if isinstance(weights, nn.Module) else weights
    # Copies, for safetensors refuses tensors that share memory, as tied weights do.
    whole = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    with store.atomic(path) as draft:
        draft.write_bytes(safetensors.torch.save(whole, metadata=dict(metadata or {})))
    return Path(path)


def read_state(path: Path | str) -> State:
    """Read a weights file: safetensors, torch .pth/.pt, Keras .h5, clustered or plain npz.

    Raises WeightsMissing when there is no such file, and WeightsUnfit when it is damaged, is something else,
    or would run code on being loaded.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsMissing(f"no weights file {path}" + ("; it is a folder" if path.is_dir() else ""))
    readers = {"safetensors": _safetensors, "torch": _torch, "keras": _keras, "npz": _npz}
    try:
        state = readers[_recognise(path)](path)
    except PermissionError as error:
        raise WeightsUnfit(f"{path} may not be read: {error.strerror}") from error
    except _DAMAGED as error:
        why = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsUnfit(f"{path} cannot be read: damaged or cut off? ({why}) Fetch it again") from error
    if not state.tensors:
        raise WeightsUnfit(f"{path} holds no tensors")
    return state


def _recognise(path: Path) -> Literal["safetensors", "torch", "keras", "npz"]:
    """Return a file's kind by its first bytes."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(_HDF5):
        return "keras"
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(path)
    if head[:1] == b"\x80":  # a pickle: torch before 1.6, torchvision's older files among them
        return "torch"
    if len(head) > 8 and head[8:9] == b"{":
        return "safetensors"
    if not head:
        what = "empty"
    elif head[257:262] == b"ustar" or head.startswith(b"\x1f\x8b"):
        what = "a tar or gzip archive: unpack it (what torch wrote as tar before 2017 must be saved anew)"
    elif head.startswith(b"version https://git-lfs"):
        what = "a Git LFS pointer, not the file itself: run git lfs pull"
    elif re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        what = "a web page, saved in place of the file: fetch it again"
    else:
        what = "none of safetensors, torch .pth, Keras .h5, npz"
    raise WeightsUnfit(f"{path} is no weights file: it is {what}")


def _recognise_zip(path: Path) -> Literal["torch", "npz"]:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("constants.pkl") for name in names):
        raise WeightsUnfit(f"{path} is a TorchScript program, not weights: save its state_dict() instead")
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise WeightsUnfit(f"{path} is a zip archive of something else: {', '.join(names[:3])}")


def _safetensors(path: Path) -> State:
    with safetensors.safe_open(path, "pt") as file:
        return State("safetensors", {n: file.get_tensor(n) for n in file.keys()}, file.metadata() or {})  # noqa: SIM118


def _torch(path: Path) -> State:
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # pickles of another protocol
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own advice is to load it unsafely
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        calls = f"a pickle that calls {asked[1]}" if asked else "a pickle, but no plain state dict"
        raise WeightsUnfit(
            f"{path} is {calls}: loading it could run whatever code it holds, so it is refused; "
            "save the module's state_dict(), or safetensors, from the program that made it"
        ) from error
    return State("torch", _unwrap(content))


def _unwrap(content: object) -> dict[str, Tensor]:
    """Return the tensors of a state dict, out of a checkpoint that wraps it."""
    if not isinstance(content, Mapping):
        return {}
    for key in _WRAPPERS:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key])
    return {str(name): value.detach() for name, value in content.items() if isinstance(value, Tensor)}


def _npz(path: Path) -> State:
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files
        if not any(name.endswith(".codes") for name in names):
            return State("npz", {name: torch.from_numpy(arrays[name]) for name in names})
        tensors = {}
        for name in names:
            layer, _, part = name.rpartition(".")
            if part == "codes":  # weight = table[codes]: Han et al. 2016, Deep Compression, section 3
                tensors[f"{layer}.weight"] = torch.from_numpy(arrays[f"{layer}.table"][arrays[name]])
            elif part != "table":
                tensors[name] = torch.from_numpy(arrays[name])
        return State("clustered", tensors)


_NUMBERED = ("layers", "_layer_checkpoint_dependencies")  # Keras 3, and 2.12 on: variables without names
_KERAS = {
    "kernel": "weight",
    "W": "weight",
    "gamma": "weight",
    "bias": "bias",
    "b": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "running_mean": "running_mean",
    "moving_variance": "running_var",
    "running_std": "running_var",  # Keras 1 called the variance std
}


def _keras(path: Path) -> State:
    """Read a Keras .h5, weights alone or a whole model: kernels H·W·I·O to O·I·H·W, dense ones turned over.

    The first dense layer after a convolution takes a flattened picture, H·W·C in Keras and C·H·W in torch:
    its inputs are put in torch's order, unless the model says that it kept the channels first.
    """
    with h5py.File(path, "r") as file:
        root = cast(h5py.Group, file.get("model_weights", file))
        layers = _names(root, "layer_names")
        if not layers and any(str(name).startswith(_NUMBERED) for name in root):
            raise WeightsUnfit(f"{path} is a Keras .weights.h5, which is not read: model.save('model.h5') is")
        layers = layers or sorted(root, key=_natural)
        arrays = {name: np.asarray(data) for layer in layers for name, data in _datasets(root, layer)}
        channels_first = '"data_format": "channels_first"' in _text(file.attrs.get("model_config", ""))
    tensors: dict[str, Tensor] = {}
    notes: list[str] = []
    channels = 0  # of the last convolution, while no dense layer has come
    for name, array in arrays.items():
        if array.ndim == 4:
            array, channels = array.transpose(3, 2, 0, 1), array.shape[3]
        elif array.ndim == 2:
            inputs, outputs = array.shape
            if channels and inputs % channels == 0 and inputs > channels and not channels_first:
                array = array.reshape(-1, channels, outputs).transpose(1, 0, 2).reshape(inputs, outputs)
                notes.append(f"{name}: inputs put from H·W·C into C·H·W order")
            array, channels = array.T, 0
        tensors[name] = torch.from_numpy(np.ascontiguousarray(array))
    return State("keras", tensors, notes=tuple(notes))


def _datasets(root: h5py.Group, layer: str) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield a layer's arrays under torch's names: 'block1_conv1.weight'; none for a layer without weights."""
    group = root[layer]
    if not isinstance(group, h5py.Group):
        return
    names = _names(group, "weight_names")
    if not names:
        group.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    inner = {name.rpartition("/")[0] for name in names}  # several where the layer is a model itself
    for name in names:
        path, _, part = name.partition(":")[0].rpartition("/")
        owner = layer if len(inner) == 1 else f"{layer}/{path}"
        part = re.sub(r"_\d+$", "", part.removeprefix(f"{layer}_"))  # Keras 1: block1_conv1_W_1
        yield f"{owner}.{_KERAS.get(part, part)}", cast(h5py.Dataset, group[name])


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names kept as an attribute, which Keras cuts in pieces (…0, …1) when it is long."""
    cut = (name for name in group.attrs if re.fullmatch(rf"{attribute}\d+", name))
    pieces = [attribute, *sorted(cut, key=_natural)]
    return [_text(name) for piece in pieces for name in cast(np.ndarray, group.attrs.get(piece, ()))]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort key: conv2 before conv10."""
    return [(int(digits or 0), rest) for digits, rest in re.findall(r"(\d+)|(\D+)", name)]
