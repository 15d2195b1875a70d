"""fit(): the one loop that moves weights."""

# pyright: reportUnknownMemberType=false
# (torch's own annotations are partial)

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from innervision.errors import Diverged, Invalid
from innervision.listen import train_flags

Batch = tuple[Tensor, ...]
"""Tensors of one length: examples, and whatever belongs to each."""

Loss = Callable[[nn.Module, Batch], Tensor]
"""(module, batch) -> the mean loss of the batch's examples, a scalar."""

Schedule = Callable[[int, str], float]
"""(steps done, name of a group of weights) -> what the group's own learning rate is multiplied by."""


@runtime_checkable
class Epochs(Protocol):
    """Where batches come from: so many an epoch, and each epoch from any of its batches on."""

    def __len__(self) -> int: ...
    def epoch(self, number: int, start: int = 0) -> Iterable[Batch]: ...


@runtime_checkable
class Optimiser(Protocol):
    """What is asked of an optimiser; torch's own have it."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self) -> None: ...
    def step(self) -> Any: ...


@dataclass(frozen=True)
class Tick:
    """One step that was taken. Epochs, steps and counts begin with 1."""

    epoch: int
    step: int
    """Of the epoch."""
    count: int
    """Of all epochs."""
    steps: int
    """How many are planned."""
    lr: float
    """The learning rate of the first group."""
    loss: float | None
    """The mean since it was last told; None in between (see `every`)."""
    last: bool
    """Whether this is the epoch's last step, or the last of all."""


def fit(
    module: nn.Module,
    batches: Epochs,
    loss: Loss,
    optimiser: Optimiser,
    schedule: Schedule | None = None,
    *,
    steps: int,
    done: int = 0,
    micro: int | None = None,
    clip: float | None = None,
    seed: int | Sequence[int] = 0,
    every: int = 1,
) -> Generator[Tick]:
    """Move a module's weights downhill, yielding a Tick a step.

    schedule: multiplies the rates that the groups have now (None: by 1 always). steps: where it ends. done:
    where it begins, for a run that is gone on with; the optimiser then has its state from there. micro: how
    many examples go through the module at once; the gradient is that of the whole batch, but batch
    normalisation sees each part alone, and memory is a part's. clip: the greatest norm of a gradient. seed:
    what the module itself draws (dropout) comes from it and from the step, not from torch's own generators,
    which are left as they were. every: how often the loss is fetched, for which a GPU must wait.

    Stopping is ceasing to iterate. Between two Ticks the module may be looked at and changed, and gradient
    mode is the caller's own; at the end each part has its own train flag again. Raises Invalid for a plan
    that cannot work, and Diverged when a loss is no longer a number.
    """
    if len(batches) < 1:
        raise Invalid("there is not one batch in an epoch: choose a smaller batch, or more examples")
    for name, value in (("steps", steps), ("micro", micro), ("every", every)):
        if value is not None and value < 1:
            raise Invalid(f"{name} is {value}; it must be at least 1")
    if clip is not None and not clip > 0:
        raise Invalid(f"clip is {clip}; it must be above 0: a gradient's greatest norm")
    return _ticks(_Fit(module, loss, optimiser, schedule, micro, clip, seed), batches, steps, done, every)


def _ticks(fit: _Fit, batches: Epochs, steps: int, done: int, every: int) -> Generator[Tick]:
    length = len(batches)
    losses: list[Tensor] = []
    with train_flags(fit.module):
        while done < steps:
            epoch, place = divmod(done, length)
            before = done
            for batch in batches.epoch(epoch, place):
                lr, value = fit.step(batch, done)
                done += 1
                losses.append(value)
                last = done % length == 0 or done == steps
                told = _mean(losses, done) if done % every == 0 or last else None
                yield Tick(epoch + 1, done - epoch * length, done, steps, lr, told, last)
                if last:
                    break
            if done == before:
                raise Invalid(f"epoch {epoch + 1} gave no batch from its batch {place + 1} on")


def _mean(losses: list[Tensor], done: int) -> float:
    """Return the mean of what was gathered, and begin to gather anew; one transfer from a GPU."""
    value = float(torch.stack(losses).mean())
    losses.clear()
    if not math.isfinite(value):
        raise Diverged(
            f"the loss is {value}, no longer a number, at step {done}: give a smaller learning rate, a "
            "warm-up, or clip gradients; in bfloat16 try float32"
        )
    return value


@dataclass
class _Fit:
    """What a step needs."""

    module: nn.Module
    loss: Loss
    optimiser: Optimiser
    schedule: Schedule | None
    micro: int | None
    clip: float | None
    seed: int | Sequence[int]

    def __post_init__(self) -> None:
        for group in self.optimiser.param_groups:
            group.setdefault("initial_lr", group["lr"])

    # The caller may be under no_grad() or inference_mode(); what is done here is not.
    @torch.inference_mode(False)
    @torch.enable_grad()
    def step(self, batch: Batch, done: int) -> tuple[float, Tensor]:
        """Take one step; return the first group's rate, and the batch's loss before it."""
        groups = self.optimiser.param_groups
        for group in groups:
            factor = 1.0 if self.schedule is None else self.schedule(done, group.get("name", ""))
            group["lr"] = group["initial_lr"] * factor
        batch = tuple(one.clone() if one.is_inference() else one for one in batch)  # made under the caller's
        self.module.train()
        self.optimiser.zero_grad()
        parts = [batch] if self.micro is None else _parts(batch, self.micro)
        count, losses = len(batch[0]), list[Tensor]()
        with drawing_from(_seed(self.seed, done), batch[0].device):
            for number, part in enumerate(parts, 1):
                # processes exchange gradients once a step, with the last part's
                alone = getattr(self.module, "no_sync", None) if number < len(parts) else None
                with alone() if alone is not None else contextlib.nullcontext():
                    value = self.loss(self.module, part) * (len(part[0]) / count)
                    value.backward()
                losses.append(value.detach())
        if self.clip is not None:
            every = [p for group in groups for p in group["params"] if p.grad is not None]
            nn.utils.clip_grad_norm_(every, self.clip)
        self.optimiser.step()
        return cast(float, groups[0]["lr"]), losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _parts(batch: Batch, size: int) -> list[Batch]:
    starts = range(0, len(batch[0]), size)
    return [tuple(tensor[start : start + size] for tensor in batch) for start in starts]


def _seed(key: int | Sequence[int], step: int) -> int:
    """Return a seed for a step; hashed, so that those of neighbouring seeds and steps never meet."""
    text = f"{key if isinstance(key, int) else ' '.join(map(str, key))} step {step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def drawing_from(seed: int, device: torch.device) -> Generator[None]:
    """Let torch's own generators draw from this seed, and give their states back."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
