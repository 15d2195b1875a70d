"""Painting on a GPU: what the processor paints, and the memory that it takes."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import innervision
from innervision import memory, network
from innervision.errors import OutOfMemory
from innervision.paint import estimate as foretold
from innervision.paint.gatys import Painting

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CUDA = torch.device("cuda")
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")


def paint(**options: object) -> Painting:
    return innervision.stylize(
        "sample:coffee",
        "sample:harvest",
        **({"size": 256, "steps": 8} | options),
    )  # type: ignore[arg-type]


def test_auto_is_the_gpu_in_bfloat16(tmp_path: Path) -> None:
    painting = paint()
    frames = list(painting)
    assert painting.network.device.type == "cuda"
    assert painting.network.dtype == torch.bfloat16
    assert frames[-1].image.device.type == "cuda"
    last = [frame.total for frame in frames if frame.stage == frames[-1].stage]
    assert last[-1] < last[0]
    painting.save(tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as saved:
        assert max(saved.size) == 256


@pytest.mark.usefixtures("exact")
def test_a_gpu_sees_what_the_processor_sees() -> None:
    """Answers and the gradient to the picture, of the true weights, in float32."""
    seen: dict[str, tuple[dict[str, Tensor], Tensor]] = {}
    x = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    for device in ("cpu", "cuda"):
        own = network.load("vgg19").to(device).frozen(torch.float32)
        image = x.to(device).detach().requires_grad_()
        found = own.answers(image, LAYERS)
        sum(found[name].square().mean() for name in LAYERS).backward()  # type: ignore[union-attr]
        assert image.grad is not None
        seen[device] = {name: found[name].detach().cpu() for name in LAYERS}, image.grad.cpu()
    for name in LAYERS:
        ours, theirs = seen["cuda"][0][name], seen["cpu"][0][name]
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max(), name
    ours, theirs = seen["cuda"][1], seen["cpu"][1]
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()


@pytest.mark.usefixtures("exact")
def test_a_gpu_paints_what_the_processor_paints() -> None:
    losses = {}
    for device in ("cpu", "cuda"):
        frames = list(paint(size=96, stages=None, steps=5, precision="float32", device=device))
        losses[device] = [frame.total for frame in frames]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-2)
    assert losses["cuda"][:2] == pytest.approx(losses["cpu"][:2], rel=1e-4)


def test_a_painting_goes_on_where_it_stopped() -> None:
    whole = [frame.total for frame in paint()]
    first = paint()
    for _ in range(5):
        next(first)
    rest = [frame.total for frame in paint(resume=first.checkpoint())]
    assert rest == pytest.approx(whole[5:], rel=1e-2)  # cuDNN's sums are not in the same order each time
    assert len(rest) == len(whole) - 5


def test_a_finished_painting_leaves_nothing_on_the_gpu() -> None:
    paint().picture()
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        paint().picture()
    gc.collect()
    assert torch.cuda.memory_allocated() <= before


def test_the_forecast_of_gpu_memory_holds() -> None:
    for size in (512, 1024):
        torch.cuda.empty_cache()
        painting = paint(size=size, steps=30, stages=None)
        cost = foretold.estimate(painting)
        assert cost.memory is not None and cost.seconds is not None
        del painting
        gc.collect()
        torch.cuda.empty_cache()
        memory.peak(CUDA, afresh=True)
        paint(size=size, steps=30, stages=None).picture()
        true = memory.peak(CUDA)
        assert true is not None
        print(
            f"{size} px: foretold {cost.memory / 2**20:.0f} MiB, was {true / 2**20:.0f}; {cost.seconds:.1f} s"
        )
        assert cost.memory == pytest.approx(true, rel=0.15), size


def test_what_does_not_fit_is_refused_with_a_size() -> None:
    with pytest.raises(OutOfMemory, match=r"of GPU memory, and .* available: choose --size \d+ or less"):
        next(paint(size=24000, stages=None))
