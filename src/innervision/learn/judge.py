"""What a network is told in training: the loss of a batch; and what is counted meanwhile."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.core.fit import Batch
from innervision.learn.data import DataSet
from innervision.learn.recipe import Recipe
from innervision.learn.together import gathered


@dataclass(frozen=True)
class Score:
    """How a network does on some pictures."""

    accuracy: float
    loss: float
    """Mean cross-entropy, in nats."""
    n: int

    def better(self, other: Score | None) -> bool:
        """Whether more are right than in the other, or as many with a smaller loss."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class Judge:
    """A recipe's loss, as `fit` wants it; pictures seen, their loss and the right answers add up in it."""

    def __init__(
        self, recipe: Recipe, data: DataSet | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.recipe, self.device, self.dtype = recipe, device, dtype
        self.weights = class_weights(data).to(device) if recipe.class_weights and data else None
        precise = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        self.sums = torch.zeros(3, dtype=precise, device=device)  # loss, right answers, pictures

    def __call__(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of a batch: images in 0..1, and labels or shares of classes."""
        images, targets = (tensor.to(self.device, non_blocking=True) for tensor in batch)
        x = self.recipe.preprocessing(images)
        if self.recipe.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.precisely():
            scores = module(x)
        scores = scores.float()
        smoothing = self.recipe.label_smoothing
        total = F.cross_entropy(scores, targets, self.weights, reduction="sum", label_smoothing=smoothing)
        with torch.no_grad():
            truth = targets if targets.ndim == 1 else targets.argmax(1)
            right = (scores.argmax(1) == truth).sum()
            counted = (total.detach(), right, total.new_full((), len(images)))  # made there: no GPU waits
            self.sums += torch.stack([one.to(self.sums.dtype) for one in counted])
        return total / len(images)

    def precisely(self) -> contextlib.AbstractContextManager[Any]:
        """Compute in bfloat16 where that is wanted; weights, and what is summed over many, stay float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def take(self, world: int) -> Score:
        """Return what was counted, over all processes, and begin to count anew."""
        score = scored(self.sums, world)
        self.sums = torch.zeros_like(self.sums)
        return score


def scored(sums: Tensor, world: int) -> Score:
    """Make a score of (loss, right answers, pictures), added up over all processes."""
    loss, right, n = gathered(sums, world).tolist()
    return Score(right / n, loss / n, round(n))


def class_weights(data: DataSet) -> Tensor:
    """Return a weight a class: the mean count of a class by its own, so that a picture's mean weight is 1."""
    counts = torch.tensor(list(data.counts().values()), dtype=torch.float32)
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(data) / (present * counts.clamp_min(1)), 0.0)
