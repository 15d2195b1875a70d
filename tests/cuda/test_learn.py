"""A GPU learns what the processor learns: batches, first steps, measures and checkpoints, in float32.

Batches are the same to the byte: what happens to a picture is drawn on the processor. The first loss differs
by the order of its sums. Then every step starts from the rounding of those before: a few are compared, and
how many pictures are right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from innervision import network, saved
from innervision.errors import RunUnusable
from innervision.learn import checkpoints
from innervision.learn.augment import Augmentation
from innervision.learn.averages import Ema
from innervision.learn.batches import Batches
from innervision.learn.checkpoints import Checkpoint
from innervision.learn.data import DataSet
from innervision.learn.evaluate import evaluate, logits
from innervision.learn.predict import predict
from innervision.learn.recipe import Recipe
from innervision.learn.recipes import RECIPES
from innervision.learn.start import near as nearby
from innervision.learn.train import Training
from innervision.network import Network

pytestmark = pytest.mark.usefixtures("exact")

CPU = torch.device("cpu")

Both = Callable[[str], tuple[Network, Network]]
Near = Callable[..., None]


@pytest.fixture(scope="session")
def squares(crops: tuple[Tensor, Tensor]) -> DataSet:
    """Squares of four photographs, each photograph a class."""
    return DataSet(*crops, ("astronaut", "chelsea", "coffee", "rocket"), "squares", "squares")


@pytest.fixture(scope="session")
def greys(squares: DataSet) -> DataSet:
    images = squares.images[:, 1:2, 2:30, 2:30].contiguous()
    return replace(squares, images=images, name="greys", sha256="greys")


def short(name: str, *, steps: int = 3, **changes: Any) -> Recipe:
    """Return a recipe of so many steps of 64 of 256 pictures, in float32."""
    usual: dict[str, Any] = {"batch": 64, "epochs": steps / 4, "precision": "float32", "keep": "last"}
    if RECIPES[name].micro:
        usual["micro"] = 32
    return replace(RECIPES[name], **(usual | changes))


@pytest.mark.parametrize(
    "kind",
    [
        Augmentation(flip="alternating", shift=2, cutout=8),
        Augmentation(flip="random", shift=0.125, fill=(0.5, 0.4, 0.3)),
        Augmentation(flip="random", shift=4, colour=0.2),
        Augmentation(shift=2, mixup=0.4),
        Augmentation(shift=2, cutmix=1.0),
    ],
    ids=str,
)
def test_batches(squares: DataSet, gpu: torch.device, kind: Augmentation) -> None:
    there = nearby(squares, gpu)
    assert there.images.device.type == gpu.type
    for small in (None, (24, 1.0)):
        ours, theirs = (Batches(data, 64, kind, seed=3, small=small).epoch(1) for data in (there, squares))
        for (mine, marks), (other, labels) in zip(ours, theirs, strict=True):
            assert mine.device.type == marks.device.type == gpu.type
            assert torch.allclose(marks.cpu().double(), labels.double(), rtol=0, atol=1e-7)
            # a GPU divides by 255 by multiplying: a last bit, or a few where it is interpolated
            assert torch.allclose(mine.cpu(), other, rtol=0, atol=1e-5)
            if small is None and not (isinstance(kind.shift, float) or kind.colour or kind.mixup):
                assert torch.equal((mine.cpu() * 255).round(), (other * 255).round())


@pytest.mark.parametrize("name", ["fast94", "vgg19-modern", "lenet5-modern"])
def test_three_steps(squares: DataSet, greys: DataSet, gpu: torch.device, near: Near, name: str) -> None:
    data = greys if name == "lenet5-modern" else squares
    recipe = short(name, **({"whiten": 64} if RECIPES[name].whiten else {}))
    losses: dict[str, list[float | None]] = {}
    scores = {}
    for where, device in (("ours", gpu), ("theirs", CPU)):
        training = Training(recipe, data, seed=1, device=device)
        losses[where] = [lesson.tick.loss for lesson in training]
        assert {value.device.type for value in training.module.state_dict().values()} == {device.type}
        scores[where] = training.evaluate(data)
    near([losses["ours"][0]], [losses["theirs"][0]], 1e-5, f"{name}: the first loss")
    near(losses["ours"], losses["theirs"], 2e-3, f"{name}: three losses")
    near([scores["ours"].loss], [scores["theirs"].loss], 2e-2, f"{name}: the loss of all pictures")
    assert abs(scores["ours"].accuracy - scores["theirs"].accuracy) <= 0.02


@pytest.mark.parametrize("name", ["cifar10-fast", "lenet5-mnist"])
def test_logits_and_all_that_is_measured(
    both: Both, near: Near, squares: DataSet, greys: DataSet, name: str
) -> None:
    processor, graphics = both(name)
    data = replace(greys if name == "lenet5-mnist" else squares, classes=processor.classes)
    for views in (1, 6):
        ours, theirs = (logits(each, data, views=views, batch=100) for each in (graphics, processor))
        assert ours.device.type == "cpu"
        near(ours, theirs, 1e-4, f"{name}, {views} views")
    found, wanted = evaluate(ours, data.labels, data.classes), evaluate(theirs, data.labels, data.classes)
    assert (found.confusion == wanted.confusion).all()
    assert (found.accuracy, found.top5) == (wanted.accuracy, wanted.top5)
    near([found.loss], [wanted.loss], 1e-4, "loss")
    near([found.ece], [wanted.ece], 1e-3, "calibration error")
    names = ["sample:chelsea", "sample:rocket"]
    for mine, other in zip(predict(graphics, names), predict(processor, names), strict=True):
        assert mine.numbers == other.numbers
        near(mine.probabilities, other.probabilities, 1e-4, f"{name} {mine.name}")


@pytest.mark.parametrize(
    ("name", "changes"),
    [("fast94", {"whiten": 64}), ("lenet5-modern", {"average": Ema(0.9)}), ("alexnet-cifar", {})],
)
def test_a_checkpoint_of_the_gpu_is_gone_on_with(
    squares: DataSet,
    greys: DataSet,
    gpu: torch.device,
    near: Near,
    tmp_path: Path,
    name: str,
    changes: dict[str, Any],
) -> None:
    """Muon; AdamW with an average of the weights; momentum and dropout, which is drawn on the GPU."""
    recipe = short(name, steps=6, **changes)
    data = greys if name == "lenet5-modern" else squares

    def begun(device: torch.device = gpu, resume: Checkpoint | None = None) -> Training:
        return Training(recipe, data, data, seed=1, device=device, resume=resume)

    whole = begun()
    unbroken = [lesson.tick.loss for lesson in whole]
    first = begun()
    steps = iter(first)
    for _ in range(3):
        next(steps)
    checkpoints.save(first.checkpoint(), tmp_path)
    steps.close()
    stored = checkpoints.load(tmp_path)
    assert stored is not None
    assert {value.device.type for value in stored.tensors.values()} == {"cpu"}
    second = begun(resume=stored)
    rest = [lesson.tick.loss for lesson in second]
    assert len(rest) == 3
    near(rest, unbroken[3:], 1e-4, f"{name}: the last losses")  # some of CUDA's sums have no fixed order
    ends = [each.module.state_dict() for each in (second, whole)]
    same = all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    print(f"{name}: the end is {'the same to the bit' if same else 'not the same to the bit'}")

    # its weights are read without a GPU; its training goes on where it was begun
    module = begun(CPU).module
    module.load_state_dict(
        {n.removeprefix("module."): v for n, v in stored.tensors.items() if n.startswith("module.")}
    )
    answered = [
        logits(Network(each, name=name, preprocessing=recipe.preprocessing), data)
        for each in (module, begun(resume=stored).module)
    ]
    near(answered[0], answered[1], 1e-3, f"{name}: what the checkpoint answers on the processor")
    if gpu.type != "cpu":
        with pytest.raises(RunUnusable, match='device is "cpu", was "cuda"'):
            begun(CPU, stored)


def test_what_a_gpu_trained_is_opened_anywhere(
    squares: DataSet, gpu: torch.device, near: Near, tmp_path: Path
) -> None:
    training = Training(short("fast94", whiten=64), squares, squares, seed=1, device=gpu)
    for _ in training:
        pass
    saved.save(training.kept, tmp_path / "run", net="cifar_fast", options={"classes": 4})
    opened = network.load(str(tmp_path / "run"))
    assert opened.device.type == "cpu"
    near(logits(opened, squares), logits(training.kept, squares), 1e-4, "logits")


def test_auto_is_bfloat16_and_learns(squares: DataSet, gpu: torch.device) -> None:
    """What is trained by default, where CUDA has it: three epochs tell the photographs apart."""
    recipe = short("fast94", steps=12, whiten=64, precision="auto")
    training = Training(recipe, squares, seed=1, device=gpu)
    if gpu.type == "cuda":
        assert training.dtype == torch.bfloat16
    losses = [lesson.tick.loss for lesson in training]
    assert {value.dtype for value in training.module.parameters()} == {torch.float32}
    assert losses[-1] is not None and losses[0] is not None and losses[-1] < 0.8 * losses[0]
    assert training.evaluate(squares).accuracy > 0.9
