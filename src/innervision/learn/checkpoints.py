"""Checkpoints of training: all that is needed to go on bit for bit, in a pair of files that never disagree.

    checkpoint.json                   what was done, and which file holds the numbers
    checkpoint-COUNT.safetensors      weights, averages, the best so far, the optimiser's state

The numbers are written first, under a name of their own; then the JSON that names them, in one piece, takes
the place of the one before; then older numbers are removed. A process that is killed at any moment leaves the
old pair or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from innervision import weights
from innervision.errors import RunUnusable
from innervision.files import atomic
from innervision.learn.averages import Averaging

FILE = "checkpoint.json"
EPOCHS = "epochs"
"""The folder of a run that holds the weights after some of its epochs, where they are kept."""
FORMAT = 1
# older numbers, and what a process that was killed left half written
_OURS = re.compile(r"checkpoint-\d+\.safetensors|\.checkpoint(-\d+)?\.[0-9a-f]{8}\.(safetensors|json)")


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stands after so many steps."""

    count: int
    """Steps done."""
    epoch: int
    batch: int
    """The epoch and the batch that come next, counted from 0."""
    terms: Mapping[str, Any]
    """What must agree when it is gone on with: recipe, seed, data, classes, precision, processes …"""
    state: Mapping[str, Any]
    """Everything else that JSON can hold; `packed` values among it."""
    tensors: Mapping[str, Tensor] = field(repr=False)


def save(checkpoint: Checkpoint, folder: Path | str) -> None:
    """Write a checkpoint into a folder, in the place of the one before; whole or not at all.

    Raises InnervisionError where there is no room, or no permission: the one before is then still good.
    """
    folder = Path(folder)
    numbers = folder / f"checkpoint-{checkpoint.count:06}.safetensors"
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    data = safetensors.torch.save(_apart(whole))
    with atomic(numbers) as draft:
        draft.write_bytes(data)
    told = {
        "format": FORMAT,
        "count": checkpoint.count,
        "epoch": checkpoint.epoch,
        "batch": checkpoint.batch,
        "file": numbers.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "terms": checkpoint.terms,
        "state": checkpoint.state,
    }
    with atomic(folder / FILE) as draft:
        draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    remove(folder, but=numbers.name)


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy what shares memory with another, which safetensors refuses (tied weights)."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        tensors[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return tensors


def load(folder: Path | str) -> Checkpoint | None:
    """Read a folder's checkpoint; None where there is none. Raises RunUnusable for a damaged one."""
    path = Path(folder) / FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    try:
        if told["format"] != FORMAT:
            raise RunUnusable(
                f"'{path}' is of format {told['format']}, which this version does not read: "
                "go on with the version that wrote it"
            )
        numbers = path.with_name(told["file"])
        data = numbers.read_bytes()
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ValueError(f"{numbers.name} is cut short or altered")
        tensors = safetensors.torch.load(data)
        return Checkpoint(told["count"], told["epoch"], told["batch"], told["terms"], told["state"], tensors)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def keep(module: nn.Module, folder: Path | str, epoch: int) -> Path:
    """Keep a network's weights as they are after an epoch (0: at the start), for looking at its history."""
    return weights.save(
        module, Path(folder) / EPOCHS / f"epoch-{epoch:03}.safetensors", {"epoch": str(epoch)}
    )


def kept(folder: Path | str) -> dict[int, Path]:
    """Return epoch -> file of the weights that a run kept, in their order; {} where it kept none."""
    found = {
        int(p.stem.removeprefix("epoch-")): p for p in Path(folder).glob(f"{EPOCHS}/epoch-*.safetensors")
    }
    return dict(sorted(found.items()))


def _damaged(path: Path, error: Exception) -> RunUnusable:
    why = f"no {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0]
    return RunUnusable(f"'{path}' cannot be gone on from: {why}; train anew in another folder")


def remove(folder: Path | str, *, but: str = "") -> None:
    """Remove a folder's checkpoint, or older numbers but those of a name."""
    folder = Path(folder)
    with contextlib.suppress(OSError):
        if not but:
            (folder / FILE).unlink(missing_ok=True)
        for path in folder.iterdir():
            if path.name != but and _OURS.fullmatch(path.name):
                path.unlink(missing_ok=True)


def tensors_of(
    module: nn.Module, averaging: Averaging | None, best: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return a training's values by names that tell what they are; the living ones, not copies."""
    found = {f"module.{name}": value for name, value in module.state_dict().items()}
    if averaging is not None:
        found |= {f"average.{name}": value for name, value in averaging.values.items()}
    return found | {f"best.{name}": value for name, value in best.items()}


def give_back(
    saved: Checkpoint, module: nn.Module, averaging: Averaging | None, optimiser: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """Fill a training's module, averages and optimiser from a checkpoint; return the best values so far.

    Raises RunUnusable for the checkpoint of another network.
    """

    def part(name: str) -> dict[str, Tensor]:
        return {n.removeprefix(name): t for n, t in saved.tensors.items() if n.startswith(name)}

    try:
        module.load_state_dict(part("module."))
        if averaging is not None:
            averaging.restore(part("average."))
        optimiser.load_state_dict(unpacked(saved.state["optimiser"], saved.tensors))
    except (KeyError, RuntimeError, ValueError) as error:
        *_, why = str(error).strip().split("\n", 2)[:2]  # torch's second line names the first difference
        raise RunUnusable(f"the checkpoint is of another network: {why.strip()}") from error
    for parameter, values in optimiser.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = filled(parameter, value)
    device = next((value.device for value in module.state_dict().values()), torch.device("cpu"))
    return {name: value.to(device) for name, value in part("best.").items()}


def packed(value: Any, tensors: dict[str, Tensor], name: str) -> Any:
    """Return a nested value as JSON holds it, its tensors put under names that begin with `name`.

    Dictionaries may have numbers for keys, as an optimiser's state has; `unpacked` gives all back.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        pairs = [[key, packed(one, tensors, f"{name}.{key}")] for key, one in value.items()]
        return {"pairs": pairs}
    if isinstance(value, list | tuple):
        return [packed(one, tensors, f"{name}.{place}") for place, one in enumerate(value)]
    return value


def unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `packed` was given; tuples have become lists."""
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]].clone()
        return {key: unpacked(one, tensors) for key, one in value["pairs"]}
    return [unpacked(one, tensors) for one in value] if isinstance(value, list) else value


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """Say in what two sets of terms differ, each difference in a few words."""
    found: list[str] = []
    for name in dict.fromkeys([*before, *now]):
        was, new = before.get(name), now.get(name)
        if was == new:
            continue
        if isinstance(was, dict) and isinstance(new, dict):
            found += differences(was, new, f"{within}{name} ")
        else:
            found.append(f"{within}{name} is {_short(new)}, was {_short(was)}")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 80 else f"{text[:30]} … {text[-45:]}"


def filled(parameter: Tensor, values: Tensor) -> Tensor:
    """Return values laid out in memory as a parameter is: sums over another layout end in other bits."""
    if values.shape != parameter.shape:
        return values.to(parameter.device)
    return torch.empty_like(parameter, dtype=values.dtype, requires_grad=False).copy_(values)
