"""Copy a weights file into a module, whatever names the file gives its layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from innervision.errors import WeightsUnfit
from innervision.nets import efficientnet_lite
from innervision.weights.cards import Order, identify
from innervision.weights.formats import Kind, State, read_state

_KERAS_VGG = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
_COUNTER = "num_batches_tracked"  # of batch norm; absent from many files and never wanted
_PREFIXES = ("module.", "_orig_mod.")  # put before every name by DataParallel and by torch.compile
_FIRST = 3  # names shown of a list


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor: names are the module's, in `skipped` the file's."""

    path: Path
    kind: Kind
    matched: tuple[str, ...]
    skipped: Mapping[str, str]  # name in the file -> why
    missing: tuple[str, ...]  # left as they were
    notes: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return the report for a person, a fact a line."""
        head = f"{self.path.name} ({self.kind}): {len(self.matched)} tensors loaded"
        left = (f"not in it, left as it was: {name}" for name in self.missing)
        unused = (f"not used: {name}: {why}" for name, why in self.skipped.items())
        return (head, *left, *unused, *self.notes)

    def __str__(self) -> str:
        return "\n".join(self.lines())


def load(
    module: nn.Module,
    path: Path | str,
    *,
    by_name: bool = True,
    strict: bool = False,
    order: Order | None = None,
) -> LoadReport:
    """Copy a weights file of any format into a module and report what was copied.

    Layers are found by name: their own, or for a Keras VGG the paper's (block1_conv1 is conv1_1, fc1 is fc6),
    or for a published EfficientNet-Lite0 ours (_blocks.1._expand_conv is block2_1.expand.conv).
    Where no name agrees, as with torchvision's features.N, or with `by_name=False`, they are taken in order,
    which holds only if every layer before the classifier has the same shape. `order` says how the file
    expects an image's channels; BGR is turned, so that the module takes RGB. None: as the file's card says
    if it is a published Keras file, and RGB otherwise.

    The module is changed only when all is well; values are cast to its dtype and device. Raises WeightsUnfit
    when nothing matches, when a value to be copied is NaN or infinite (or becomes so in the module's dtype),
    and with `strict` when anything in the file is left over or anything in the module is left out. See
    `read_state` for damaged files.
    """
    path = Path(path)
    state = read_state(path)
    target = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    pairs = _by_name(state.tensors, target) if by_name else {}
    pairs = pairs or _by_short_name(state, target, path, by_name=by_name)

    skipped = {
        name: "no such layer" for name in state.tensors if name not in pairs and not name.endswith(_COUNTER)
    }
    found: dict[str, Tensor] = {}
    for source, name in pairs.items():
        tensor, shape = state.tensors[source], tuple(target[name].shape)
        if tuple(tensor.shape) == shape:
            found[name] = tensor
        else:
            skipped[source] = f"shape {tuple(tensor.shape)} where the layer has {shape}"
    missing = tuple(name for name in target if name not in found and not name.endswith(_COUNTER))
    _accept(path, state, found, target, skipped, missing, strict=strict)

    notes = _turn(found, target, state, path, order)
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    return LoadReport(path, state.kind, tuple(n for n in target if n in found), skipped, missing, notes)


def _accept(
    path: Path,
    state: State,
    found: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    skipped: Mapping[str, str],
    missing: tuple[str, ...],
    *,
    strict: bool,
) -> None:
    """Raise unless what was found may be copied."""
    if not found:
        raise _unfit(path, state, target, "no layer agrees")
    if strict and (skipped or missing):
        faults = [f"{name}: {why}" for name, why in skipped.items()] + [
            f"{name}: not in the file" for name in missing
        ]
        raise WeightsUnfit(f"{path} does not fit exactly: {_some(faults, '; ')}")
    for name, tensor in found.items():
        kind = target[name].dtype
        if not torch.isfinite(tensor.to(kind)).all():
            here = torch.isfinite(tensor.double()).all()
            what = f"values too large for {kind}" if here else "NaN or infinite values"
            raise WeightsUnfit(f"{path} holds {what} in {name}: fetch it again, or another file")


def _unfit(path: Path, state: State, target: Mapping[str, Tensor], why: str) -> WeightsUnfit:
    def shown(tensors: Mapping[str, Tensor]) -> str:
        return _some([f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items()])

    return WeightsUnfit(
        f"{path} belongs to another network: {why}; "
        f"the file has {shown(state.tensors)}; the network has {shown(target)}"
    )


def _some(names: list[str], mark: str = ", ") -> str:
    return mark.join(names[:_FIRST]) + (f"{mark}… ({len(names)} in all)" if len(names) > _FIRST else "")


def _by_short_name(
    state: State, target: Mapping[str, Tensor], path: Path, *, by_name: bool
) -> dict[str, str]:
    """Pair names without what stands before all of them, in the file or the module; else layers in order."""
    theirs, ours = _short(state.tensors), _short(target)
    file = {name: state.tensors[full] for name, full in theirs.items()}
    own = {name: target[full] for name, full in ours.items()}
    pairs = _by_name(file, own) if by_name else {}
    pairs = pairs or _in_order(replace(state, tensors=file), own, path)
    return {theirs[name]: ours[other] for name, other in pairs.items()}


def _short(names: Iterable[str]) -> dict[str, str]:
    """Return short name -> full name: without what a wrapper has put before every one."""
    found = {name: name for name in names}
    while prefix := next((p for p in _PREFIXES if found and all(name.startswith(p) for name in found)), ""):
        found = {name.removeprefix(prefix): full for name, full in found.items()}
    return found


def _by_name(tensors: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, str]:
    """Pair the file's names with the module's: the same, or those its publisher's stand for."""
    if "_conv_stem.weight" in tensors and "stem.conv.weight" in target:
        ours = zip(tensors, efficientnet_lite.from_published(tensors), strict=True)
        return {theirs: name for theirs, name in ours if name in target}
    pairs = {}
    for name in tensors:
        layer, _, part = name.rpartition(".")
        last = layer.rpartition("/")[2]
        block = re.fullmatch(r"block(\d+)_conv(\d+)", last)
        paper = f"conv{block[1]}_{block[2]}" if block else _KERAS_VGG.get(last, last)
        for candidate in (name, f"{last}.{part}", f"{paper}.{part}"):
            if candidate in target:
                pairs[name] = candidate
                break
    return pairs


def _in_order(state: State, target: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Pair the n-th layer of the file with the module's n-th; shapes may differ in the classifier only."""
    theirs, ours = _layers(ordered(state.tensors)), _layers(target)
    if state.kind == "safetensors" and not _numbered(state.tensors):  # it sorts its names
        raise _unfit(path, state, target, "no name agrees, and safetensors keeps no order")
    flat = [any(target[name].ndim == 2 for name in parts.values()) for parts in ours.values()]
    head = flat.index(True) if True in flat else len(ours) - 1  # a network without dense layers: its last
    pairs = {}
    for place, ((layer, parts), (name, wanted)) in enumerate(zip(theirs.items(), ours.items(), strict=False)):
        shapes = [
            {part: tuple(tensors[n].shape) for part, n in names.items()}
            for tensors, names in ((state.tensors, parts), (target, wanted))
        ]
        if shapes[0] != shapes[1] and (place < head or shapes[0].keys() != shapes[1].keys()):
            raise _unfit(path, state, target, f"its layer {layer} comes where {name} has another shape")
        pairs |= {parts[part]: wanted[part] for part in parts}
    return pairs


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return layer -> part ('weight', 'bias', …) -> full name, in order."""
    layers: dict[str, dict[str, str]] = {}
    for name in tensors:
        layer, _, part = name.rpartition(".")
        if part != _COUNTER:
            layers.setdefault(layer, {})[part] = name
    return layers


def ordered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a file's tensors by short names, in their layers' order where torchvision's numbers tell it."""
    short = {name: tensors[full] for name, full in _short(tensors).items()}
    return dict(sorted(short.items(), key=_torchvision_place)) if _numbered(short) else short


def _numbered(names: Iterable[str]) -> bool:
    return all(re.match(r"(features|classifier)\.\d+\.", name) for name in names)


def _torchvision_place(item: tuple[str, Tensor]) -> tuple[bool, int, bool, str]:
    """Sort key: features.3.squeeze.bias, features.3.expand1x1.bias, …, features.10.bias, classifier.1.…"""
    section, number, *rest = item[0].split(".")
    return section == "classifier", int(number), rest[0] != "squeeze", ".".join(rest)


def _turn(
    found: dict[str, Tensor], target: Mapping[str, Tensor], state: State, path: Path, order: Order | None
) -> tuple[str, ...]:
    """Let the first convolution take RGB if the file is for BGR; return notes for the report."""
    notes = state.notes
    if order is None and state.kind == "keras":
        card = identify(path)
        order = card.order if card else "RGB"
        if card is None:
            notes += ("taken to expect RGB; for a file made from Keras's VGG weights say order='BGR'",)
    first = next((name for name, value in target.items() if value.ndim == 4), "")
    if order == "BGR" and first in found and found[first].shape[1] == 3:
        found[first] = found[first].flip(1)
        notes += (f"{first}: input channels turned from BGR to RGB",)
    return notes
