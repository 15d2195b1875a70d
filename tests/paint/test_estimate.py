"""What a painting is foretold to cost, against counts by hand, real runs, and too little memory."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import innervision
from innervision import memory
from innervision.cli.progress import duration, forecast
from innervision.errors import OutOfMemory
from innervision.paint import estimate as foretold
from innervision.paint import trial
from innervision.paint.estimate import Estimate, check_memory, estimate, refuse
from innervision.paint.gatys import Painting
from innervision.paint.trial import Trial, between
from innervision.paint.work import Tally, held, multiply_adds

WIDE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU())
"""
WIDE_LAYERS = ("--content-layers", "3", "--style-layers", "1,3", "--precision", "float32", "--stages", "none")

# Of a process so small that its child does not begin with a peak of its own, as this one's would.
PEAK = """
import os, resource, subprocess, sys
subprocess.run([sys.executable, "-m", "innervision", *sys.argv[1:]], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


FIXED = """
from torch import nn

class Numbers(nn.Flatten):
    def forward(self, x):
        assert float(x.mean()) < 9
        return super().forward(x)

def build(flat=nn.Flatten):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), flat(), nn.Linear(4 * 72 * 96, 5))

def numbers():
    return build(Numbers)
"""
FIXED_LAYERS: dict[str, Any] = {"content_layers": ("3",), "style_layers": ("1",), "size": 96}


@pytest.fixture
def fixed(tmp_path: Path) -> str:
    """Name a network that takes 96x72 px alone; its `numbers` tells nothing without computing."""
    (tmp_path / "fixed.py").write_text(FIXED)
    return f"{tmp_path / 'fixed.py'}:build"


@pytest.fixture
def wide(tmp_path: Path) -> str:
    """Name a network whose activations take far more memory than torch itself, at little work."""
    (tmp_path / "wide.py").write_text(WIDE)
    return f"{tmp_path / 'wide.py'}:build"


# work


def test_work_by_hand(paint: Callable[..., Painting]) -> None:
    first = 32 * 24 * 4 * 3 * 9  # conv1: 4 channels from 3 by 3x3, at every pixel
    second = 16 * 12 * 6 * 4 * 9  # conv2, after a pooling
    painting = paint()
    assert multiply_adds(painting, (24, 32)) == first + second
    assert estimate(painting).multiply_adds == (first + second) * 2 * 6  # forth and back, 6 evaluations
    shallow = paint(content_layers=("relu1",), style_layers=("relu1",))
    assert multiply_adds(shallow, (24, 32)) == first


def test_work_of_a_dense_layer(paint: Callable[..., Painting], guest: str) -> None:
    fixed = paint(net=guest.replace("build", "fixed"), content_layers=("fc",), style_layers=("relu1",))
    assert multiply_adds(fixed, (24, 32)) == 32 * 24 * 4 * 3 * 9 + 4 * 24 * 32 * 5


def test_work_of_vgg19(paint: Callable[..., Painting]) -> None:
    painting = paint(net="vgg19", size=64, content_layers=None, style_layers=None)
    # channels in and out, and pixels a position, as far as conv5_1: Simonyan & Zisserman's table 1
    table = [(3, 64, 1), (64, 64, 1), (64, 128, 4), (128, 128, 4), (128, 256, 16), *[(256, 256, 16)] * 3]
    table += [(256, 512, 64), *[(512, 512, 64)] * 3, (512, 512, 256)]
    assert sum(i * o * 9 // pixels for i, o, pixels in table) == 361_152
    assert multiply_adds(painting, (48, 64)) == 361_152 * 48 * 64


# memory


def spawn(*args: str) -> bytes:
    return subprocess.run([sys.executable, *args], check=True, capture_output=True).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not told")
@pytest.mark.parametrize("net", ["vgg19", pytest.param("wide", marks=pytest.mark.slow)])
def test_memory_is_that_of_a_real_run(
    net: str, wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    order = [
        "stylize",
        "sample:chelsea",
        "sample:pere-tanguy",
        "--steps",
        "3",
        "--device",
        "cpu",
        "-o",
        str(tmp_path / "o.png"),
    ]
    if net == "vgg19":  # tried at its own size
        order += ["--size", "128", "--precision", "float32"]
    else:  # tried at smaller ones
        order += ["--size", "640", "--net", wide, *WIDE_LAYERS]
    said = json.loads(spawn("-m", "innervision", *order, "--dry-run", "--json"))
    assert not (tmp_path / "o.png").exists()
    peak = int(spawn("-c", PEAK, *order, "--no-run", "--quiet"))
    assert said["memory"] == pytest.approx(peak, rel=0.15)


def test_pairs_of_lbfgs_are_counted(paint: Callable[..., Painting]) -> None:
    few, many = (paint(size=256, steps=steps, history=50) for steps in (12, 62))
    # 12 and 50 pairs and one more, each two pictures of 3 channels of 4 bytes; and three of the last step
    assert foretold._memories(few, 12) == (13 * 2 + 3) * 12
    assert foretold._memories(many, 62) == (51 * 2 + 3) * 12
    assert foretold._memories(paint(optimiser="adam"), 62) == 0


# too little memory


# In a process of its own: what one has used and freed is a start that no first run has.
LITTLE = """
import sys
import torch
from innervision.cli import main
from innervision import memory
memory.available = lambda device: 600 * 2**20
try:
    main(sys.argv[1:])
finally:
    print(memory.peak(torch.device("cpu")))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is not told")
def test_where_memory_would_not_do_a_size_is_proposed_that_does(
    wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    order = [
        "stylize",
        "blank",
        "sample:pere-tanguy",
        "-o",
        "o.png",
        "--steps",
        "2",
        "--net",
        wide,
        "--device",
        "cpu",
    ]

    def run(size: str, *more: str) -> subprocess.CompletedProcess[str]:
        args = [*order, *WIDE_LAYERS, "--stages", "auto", "--coarse-steps", "1", "--size", size, *more]
        return subprocess.run([sys.executable, "-c", LITTLE, *args], capture_output=True, text=True)

    found = run("4000", "--dry-run")
    assert found.returncode == 2, found.stderr
    assert "multiply-adds" in found.stdout
    proposed = re.fullmatch(
        r"innervision: a painting of \d+x4000 px needs about .* and 600 MiB are available: "
        r"choose --size (\d+) or less, or free some\n",
        found.stderr,
    )
    assert proposed, found.stderr
    assert 100 < int(proposed[1]) < 1000
    assert not Path("o.png").exists()
    done = run(proposed[1], "--no-run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 600 * 2**20
    assert Path("o.png").exists()


def test_no_size_is_proposed_where_none_would_do(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 2**20)
    with pytest.raises(OutOfMemory, match=r"1 MiB are available: free some$"):
        check_memory(paint())


def test_a_painting_is_refused_at_its_first_frame(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    painting = paint()
    monkeypatch.setattr(memory, "available", lambda _: 2**20)
    monkeypatch.setattr(painting.goals, "objective", lambda _: pytest.fail("looked at the pictures"))
    with pytest.raises(OutOfMemory, match=r"1 MiB are available: free some$"):
        painting.picture()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": 128}, r"--size (?P<size>\d+)"),
        ({"size": 128, "pixels": 10_000}, r"--pixels (?P<pixels>\d+)"),
        ({"stages": ((64, 2), (128, 2))}, r"no stage longer than (?P<size>\d+)"),
        ({"size": 128, "style_size": 256}, r"--size (?P<size>\d+) with --style-size (?P<style_size>\d+)"),
        ({"size": 128, "style_size": 64}, r"--size (?P<size>\d+)"),
    ],
)
def test_the_option_that_decides_is_named(
    paint: Callable[..., Painting], options: dict[str, Any], named: str
) -> None:
    painting = paint(**options)
    longest = max(painting.sitting.size) // 2
    with pytest.raises(OutOfMemory) as caught:
        refuse(painting, Estimate(None, 1.0, 2**31, 2**30, longest, fits=False))
    found = re.fullmatch(rf".* are available: choose {named} or less, or free some", str(caught.value))
    assert found, caught.value
    smaller = paint(**{name: int(value) for name, value in found.groupdict().items()})
    assert 0.95 * longest < max(smaller.sitting.size) <= longest
    if "style_size" in found.groupdict():
        assert max(smaller.goals.styles(smaller.sitting.size)[0].shape) == 128


def test_what_is_surely_enough_is_enough_for_a_large_style(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "in_use", lambda _: 0)
    for options in ({}, {"style_size": 640}):
        painting, tally = paint(size=128, **options), Tally()
        with tally:
            next(painting)
        assert tally.top < foretold._bound(painting) < 30 * tally.top


# networks of one's own


@pytest.mark.parametrize("largest", [trial.TRIAL, 64])  # tried at its own size at once, or after squares
def test_a_network_of_one_size_alone_is_tried_at_it(
    paint: Callable[..., Painting], fixed: str, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(trial, "TRIAL", largest)
    painting = paint(net=fixed, **FIXED_LAYERS)
    cost = estimate(painting)
    assert cost.multiply_adds == 2 * 6 * (72 * 96 * 4 * 3 * 9 + 4 * 72 * 96 * 5)
    assert cost.seconds and cost.fits and cost.longest == 96
    assert cost.memory is not None or sys.platform == "win32"
    # at least conv1's answer, its ReLU's and a gradient: 4 channels of 4 bytes each
    bytes_a_pixel = held(painting.network, (72, 96), ("3", "1"))
    assert bytes_a_pixel is not None and 3 * 16 <= bytes_a_pixel < 10 * 16
    assert len(list(painting)) == 6


def test_too_little_memory_for_a_network_of_one_size_alone(
    paint: Callable[..., Painting], fixed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 2**20)
    for net in (fixed, fixed.replace(":build", ":numbers")):
        with pytest.raises(OutOfMemory, match=r"a painting of 96x72 px needs about"):
            check_memory(paint(net=net, **FIXED_LAYERS))


def test_a_network_that_cannot_be_tried_is_painted_all_the_same(
    paint: Callable[..., Painting], fixed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("as it likes")

    monkeypatch.setattr(trial, "_evaluate", fails)
    painting = paint(net=fixed.replace(":build", ":numbers"), **FIXED_LAYERS)
    assert held(painting.network, (72, 96), ("3", "1")) is None
    cost = estimate(painting)
    assert (cost.multiply_adds, cost.seconds, cost.memory, cost.fits) == (None, None, None, True)
    assert len(list(painting)) == 6


def test_a_safe_painting_is_not_tried(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda _: 2**50)
    monkeypatch.delattr(foretold, "estimate")
    check_memory(paint())


# time


def test_time_is_that_of_a_real_run(paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch) -> None:
    # the processor's time, of one thread: what other programs take of it does not count
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=time.process_time))
    size, steps = 192, 30
    cost = estimate(paint(size=size, steps=steps))
    assert cost.seconds is not None
    begun = time.process_time()
    paint(size=size, steps=steps).picture()
    real = time.process_time() - begun
    assert real / 3 < cost.seconds < real * 3
    for more in ({"size": size, "steps": 10 * steps}, {"size": 4 * size, "steps": steps}):
        seconds = estimate(paint(**more)).seconds
        assert seconds is not None and seconds > 3 * cost.seconds


def test_the_line_through_two_trials() -> None:
    small, large = (Trial(pixels, pixels + 50.0, 0.0, 1) for pixels in (100, 300))
    assert between(small, large, 200, "seconds") == 250
    assert between(small, large, 1000, "seconds") == 1050
    # a line that falls, or begins below 0, is the clock's error: then it is in proportion
    assert between(replace(small, seconds=400.0), large, 150, "seconds") == 175
    assert between(replace(small, seconds=1.0), large, 600, "seconds") == 700
    assert between(large, large, 600, "seconds") == 700


def test_a_trial_without_memory_is_no_refusal(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(trial, "_evaluate", full)
    with pytest.raises(OutOfMemory, match=r"a trial at \d+x\d+ px ran out of memory: choose a"):
        estimate(paint())


def test_an_estimate_leaves_the_painting_as_it_was(paint: Callable[..., Painting]) -> None:
    painting = paint(start="noise", seed=3)
    estimate(painting)
    assert painting.latest is None and painting.best is None and painting.changes == []
    assert painting.picture().tobytes() == paint(start="noise", seed=3).picture().tobytes()


@pytest.mark.parametrize("style_size", [None, 64])
@pytest.mark.parametrize("way", ["covariance", "histogram"])
def test_colours_alone_need_memory_too(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch, way: str, style_size: int | None
) -> None:
    options = {"color": "transfer-only", "color_match": way, "size": 512, "style_size": style_size}
    tally = Tally()
    with tally:
        next(paint(**options))
    monkeypatch.setattr(memory, "in_use", lambda _: 0)
    monkeypatch.setattr(memory, "peak", lambda _: 0)
    monkeypatch.setattr(memory, "available", lambda _: 2**30)
    cost = estimate(paint(**options))
    assert (cost.multiply_adds, cost.seconds, cost.fits, cost.longest) == (0, 0.0, True, 512)
    assert cost.memory == pytest.approx(tally.top, rel=0.25)  # fewer values, as here, are sorted in less
    monkeypatch.setattr(memory, "available", lambda _: 2**23)
    monkeypatch.delattr(Painting, "network")  # none is opened
    with pytest.raises(OutOfMemory, match=r"a painting of 512x384 px needs about .*: choose --size \d+ or"):
        next(paint(**options))


# words


def test_the_forecast_in_words() -> None:
    cost = Estimate(31_000_000_000_000, 250.0, 1181116006, 20 * 2**30, longest=512, fits=True)
    assert forecast(cost) == (
        "about 3.1e13 multiply-adds, 4 min on this machine, peak memory about 1.1 GiB of 20.0 GiB available"
    )
    unknown = replace(cost, multiply_adds=None, memory=None)
    assert forecast(unknown) == "about 4 min on this machine, peak memory not known on this system"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.01, "1 s"), (89, "89 s"), (91, "2 min"), (5400, "1 h 30 min"), (3 * 3600 + 290, "3 h 05 min")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_memory_is_asked_for_once(paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Painting] = []
    monkeypatch.setattr("innervision.paint.gatys.check_memory", asked.append)
    painting = paint()
    painting.check_memory()
    assert asked == [painting]
    next(painting)
    assert asked == [painting]
