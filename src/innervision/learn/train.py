"""Training: a recipe carried out on a data set, step by step, from any checkpoint on."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from innervision import memory
from innervision.core.fit import Tick, fit
from innervision.errors import Diverged, Invalid, RunUnusable
from innervision.learn.averages import Averaging, Ema
from innervision.learn.batches import Batches
from innervision.learn.checkpoints import Checkpoint, differences, give_back, packed, tensors_of
from innervision.learn.data import DataSet
from innervision.learn.evaluate import logits
from innervision.learn.judge import Judge, Score, scored
from innervision.learn.recipe import Recipe, record
from innervision.learn.start import begin, calm_norms, check_data, near
from innervision.learn.together import Shares, agree, gathered
from innervision.machine import choose_precision, threads
from innervision.network import Network

_WHITEN_EPOCHS = 3  # of the bias of a layer "whiten", whose rate falls to 0 in them


@dataclass(frozen=True)
class Lesson:
    """One step of training, and at the end of an epoch what it came to."""

    tick: Tick
    training: Score | None = None
    """Over the epoch's pictures as they were augmented, while the weights moved; at its end."""
    validation: Score | None = None
    """On what is held out, at an epoch's end."""
    best: bool = False
    """Whether that is the best so far."""
    ends: bool = False
    """Whether this is the last step, by count or for want of patience."""


class Training:
    """A recipe carried out on a data set: iterate to train, cease to stop, go on from a `checkpoint()`.

    Between two lessons the network may be looked at. A part that is held out is evaluated at each epoch's
    end. All that is drawn comes from the seed and the position, so that (weights, optimiser, averages,
    position) is all that a checkpoint holds, and on a CPU the rest is the same to the bit, given the same
    number of threads and the same precision.

    rank, world: this process and how many there are (torch.distributed must be initialised): each takes its
    share of every batch, gradients are averaged, and what is counted is gathered.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        validation: DataSet | None = None,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        threads: int | None = None,
        every: int = 1,
        rank: int = 0,
        world: int = 1,
        resume: Checkpoint | None = None,
    ) -> None:
        self.recipe, self.seed = recipe, seed
        self.device = torch.device(device)
        self.threads = threads or torch.get_num_threads()
        self.dtype = choose_precision(recipe.precision, self.device)
        self.rank, self.world, self.every = rank, world, every
        self.data, self.validation = near(data, self.device), validation
        check_data(recipe, data, validation)
        drop = recipe.drop_last or world > 1  # shares of a smaller batch would not weigh alike
        self.batches = Batches(
            self.data,
            recipe.batch,
            recipe.augmentation,
            seed=seed,
            classes=len(data.classes),
            drop_last=drop,
            small=recipe.small and (recipe.small[0], recipe.small[1] * recipe.epochs),
        )
        if recipe.batch % world:
            raise Invalid(f"a batch of {recipe.batch} cannot be shared by {world} processes alike")
        self.steps = math.ceil(recipe.epochs * len(self.batches) - 1e-9)
        self.done = 0
        self.stopped = False
        """Whether patience has run out."""
        self.best: Score | None = None
        self.best_epoch = 0

        start, self.started_from = begin(recipe, data.classes, data.images, seed)
        self._network = start.to(self.device)
        self.module = start.module
        if (share := recipe.batch // world) > (part := recipe.micro or share):
            calm_norms(self.module, math.ceil(share / part))
        self.judge = Judge(recipe, data, self.device, self.dtype)
        self.optimiser = recipe.optimiser(self.module, dict(recipe.slow))
        self._averaging = Averaging(recipe.average, self.module) if recipe.average else None
        self._shown = copy.deepcopy(self.module) if isinstance(recipe.average, Ema) else self.module
        self._best_values: dict[str, Tensor] = {}
        if resume is not None:
            self._go_on(resume)
        self._parallel: nn.Module = self.module
        if world > 1:
            self._parallel = DistributedDataParallel(self.module, broadcast_buffers=False)

    def __iter__(self) -> Generator[Lesson]:
        """Take the steps that are left, yielding a Lesson a step. Raises Diverged."""
        if self.stopped or self.done >= self.steps:
            return
        recipe = self.recipe
        ticks = fit(
            self._parallel,
            Shares(self.batches, self.rank, self.world),
            self.judge,
            self.optimiser,
            self._factor,
            steps=self.steps,
            done=self.done,
            micro=recipe.micro,
            clip=recipe.clip,
            seed=(self.seed, self.rank),
            every=self.every,
        )
        with threads(self.threads), memory.kept():
            try:
                for tick in ticks:
                    self.done = tick.count
                    if self._averaging is not None:
                        self._averaging.update(self.module, tick.count, self.steps)
                    yield self._lesson(tick)
                    if self.stopped:
                        return
            except Diverged as error:
                rate = max(group["lr"] for group in self.optimiser.param_groups)
                raise Diverged(f"{error} (the greatest rate now was {rate:.3g})") from error
            finally:
                ticks.close()

    @property
    def epochs(self) -> float:
        """How many epochs there are, each of as many steps as there are batches."""
        return self.steps / len(self.batches)

    @property
    def network(self) -> Network:
        """The network as it is now, or its average where the recipe keeps one."""
        if isinstance(self.recipe.average, Ema):
            assert self._averaging is not None
            self._averaging.fill(self._shown)
        return self._network.around(self._shown)

    @property
    def kept(self) -> Network:
        """A copy of what the recipe keeps: the best on what is held out, or the last."""
        module = copy.deepcopy(self.network.module).eval()
        if self.recipe.keep == "best" and self._best_values:
            module.load_state_dict(self._best_values)
        return self._network.around(module)

    def evaluate(self, data: DataSet) -> Score:
        """Return how the network does on a data set, in the precision of the training."""
        share = data if self.world == 1 else data.subset(torch.arange(self.rank, len(data), self.world))
        with threads(self.threads), self.judge.precisely():
            found = logits(self.network, share).double()
        right = (found.argmax(1) == share.labels.cpu()).sum()
        loss = F.cross_entropy(found, share.labels.cpu(), reduction="sum")
        sums = torch.stack([loss, right.double(), loss.new_tensor(len(share))])
        return scored(sums.to(self.device) if self.world > 1 else sums, self.world)

    def checkpoint(self) -> Checkpoint:
        """Return where the training stands, between two lessons.

        Its tensors are the living ones: save it, or copy them, before the next step is taken.
        """
        tensors = tensors_of(self.module, self._averaging, self._best_values)
        state = {
            "optimiser": packed(self.optimiser.state_dict(), tensors, "optimiser"),
            "sums": self.judge.sums.tolist(),
            "best": None if self.best is None else vars(self.best),
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
        }
        epoch, batch = divmod(self.done, len(self.batches))
        return Checkpoint(self.done, epoch, batch, self.terms(), state, tensors)

    def terms(self) -> dict[str, Any]:
        """Return what must agree for the rest to be the same."""
        data = self.data
        return {
            "recipe": record(self.recipe),
            "seed": self.seed,
            "steps": self.steps,
            "data": {"pictures": len(data), "sha256": data.sha256, "classes": list(data.classes)},
            "precision": str(self.dtype).removeprefix("torch."),
            "threads": self.threads if self.device.type == "cpu" else None,
            "device": self.device.type,
            "processes": self.world,
        }

    def _go_on(self, saved: Checkpoint) -> None:
        if faults := differences(saved.terms, self.terms()):
            raise RunUnusable(f"the training cannot be gone on with: {'; '.join(faults)}; start it anew")
        self._best_values = give_back(saved, self.module, self._averaging, self.optimiser)
        sums = self.judge.sums
        self.judge.sums = torch.tensor(saved.state["sums"], dtype=sums.dtype, device=sums.device)
        self.best = None if saved.state["best"] is None else Score(**saved.state["best"])
        self.best_epoch, self.stopped = saved.state["best_epoch"], saved.state["stopped"]
        self.done = saved.count

    def _factor(self, done: int, group: str) -> float:
        epochs_done = done / len(self.batches)
        if group == "whiten":
            return max(0.0, 1 - epochs_done / _WHITEN_EPOCHS)
        return self.recipe.schedule(epochs_done, self.epochs)

    def _lesson(self, tick: Tick) -> Lesson:
        if tick.loss is not None and self.world > 1:
            mean = gathered(torch.tensor(tick.loss, device=self.device), self.world) / self.world
            tick = replace(tick, loss=float(mean))
        if not tick.last:
            return Lesson(tick)
        training = self.judge.take(self.world)
        agree(self.module, self.world)
        if self.validation is None:
            return Lesson(tick, training, ends=tick.count == self.steps)
        score = self.evaluate(self.validation)
        best = score.better(self.best)
        if best:
            self.best, self.best_epoch = score, tick.epoch
            if self.recipe.keep == "best":
                self._best_values = {n: v.clone() for n, v in self._shown.state_dict().items()}
        patience = self.recipe.patience
        self.stopped = patience is not None and tick.epoch - self.best_epoch >= patience
        return Lesson(tick, training, score, best, self.stopped or tick.count == self.steps)
