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

import pytest
import torch

import innervision
from innervision.cli.progress import duration, forecast
from innervision.errors import OutOfMemory
from innervision.paint import estimate as foretold
from innervision.paint.estimate import Estimate, check_memory, estimate, multiply_adds
from innervision.paint.gatys import Painting

CPU = torch.device("cpu")
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
@pytest.mark.parametrize("net", ["vgg19", "wide"])
def test_memory_is_that_of_a_real_run(
    net: str, wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    order = ["stylize", "sample:chelsea", "sample:pere-tanguy", "--steps", "3", "-o", str(tmp_path / "o.png")]
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
    # 10 and 50 pairs (the first evaluations make none), each two pictures of 3 channels of 4 bytes
    assert foretold._memories(few, 12) == 10 * 24
    assert foretold._memories(many, 62) == 50 * 24
    assert foretold._memories(paint(optimiser="adam"), 62) == 0


def test_the_limits_of_control_groups(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    (tmp_path / "memory/inner/mine").mkdir(parents=True)
    (tmp_path / "memory/inner/memory.limit_in_bytes").write_text("3000\n")
    (tmp_path / "memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory.max").write_text("max\n")
    groups.write_text("5:devices:/\n4:cpu,memory:/inner/mine\n0::/\n")
    assert sorted(foretold._limits(groups, tmp_path)) == [3000, 9223372036854771712]
    (tmp_path / "memory.max").write_text("2000\n")
    groups.write_text("0::/a/container/never/mounted\n")
    assert list(foretold._limits(groups, tmp_path)) == [2000]
    assert list(foretold._limits(tmp_path / "none", tmp_path)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be counted afresh")
def test_the_peak_counts_afresh() -> None:
    most = torch.ones(64 * 2**18)
    del most
    high = foretold.peak(CPU, afresh=True)
    before, room = foretold.peak(CPU), foretold.available(CPU)
    assert high is not None and before is not None and room is not None
    assert high >= before
    block = torch.ones(64 * 2**18)
    after = foretold.peak(CPU)
    assert after is not None
    assert after - before > block.nbytes / 2
    assert room > after


# too little memory


# In a process of its own: what one has used and freed is a start that no first run has.
LITTLE = """
import sys
from innervision.cli import main
from innervision.paint import estimate
estimate.available = lambda device: 600 * 2**20
main(sys.argv[1:])
"""


def test_where_memory_would_not_do_a_size_is_proposed_that_does(
    wide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    order = ["stylize", "blank", "sample:pere-tanguy", "-o", "o.png", "--steps", "2", "--net", wide]

    def run(size: str, way: str) -> subprocess.CompletedProcess[str]:
        more = [*order, *WIDE_LAYERS, "--stages", "auto", "--coarse-steps", "1", "--size", size, way]
        return subprocess.run([sys.executable, "-c", LITTLE, *more], capture_output=True, text=True)

    for way in ("--no-run", "--dry-run"):
        found = run("4000", way)
        assert found.returncode == 2, found.stderr
        assert ("multiply-adds" in found.stdout) == (way == "--dry-run")
        proposed = re.fullmatch(
            r"innervision: a painting of \d+x4000 px needs about .* and 600 MiB are available: "
            r"choose --size (\d+) or less, or free some\n",
            found.stderr,
        )
        assert proposed, found.stderr
        assert 100 < int(proposed[1]) < 1000
    done = run(proposed[1], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not Path("o.png").exists()


def test_no_size_is_proposed_where_none_would_do(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "available", lambda _: 2**20)
    with pytest.raises(OutOfMemory, match=r"1 MiB are available: free some$"):
        check_memory(paint())


def test_a_safe_painting_is_not_tried(
    paint: Callable[..., Painting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foretold, "available", lambda _: 2**50)
    monkeypatch.delattr(foretold, "estimate")
    check_memory(paint())


# time


def test_time_is_that_of_a_real_run(paint: Callable[..., Painting]) -> None:
    size, steps = 256, 30
    cost = estimate(paint(size=size, steps=steps))
    begun = time.perf_counter()
    paint(size=size, steps=steps).picture()
    real = time.perf_counter() - begun
    # a factor: other programs may take the processor during either
    assert real / 3 < cost.seconds < real * 3
    assert estimate(paint(size=size, steps=10 * steps)).seconds > 3 * cost.seconds
    assert estimate(paint(size=4 * size, steps=steps)).seconds > 3 * cost.seconds


def test_the_line_through_two_trials() -> None:
    small, large = (foretold._Trial(pixels, pixels + 50.0, 0.0, 1) for pixels in (100, 300))
    assert foretold._between(small, large, 200, "seconds") == 250
    assert foretold._between(small, large, 1000, "seconds") == 1050
    # a line that falls, or begins below 0, is the clock's error: then it is in proportion
    assert foretold._between(replace(small, seconds=400.0), large, 150, "seconds") == 175
    assert foretold._between(replace(small, seconds=1.0), large, 600, "seconds") == 700
    assert foretold._between(large, large, 600, "seconds") == 700


def test_an_estimate_leaves_the_painting_as_it_was(paint: Callable[..., Painting]) -> None:
    painting = paint(start="noise", seed=3)
    estimate(painting)
    assert painting.latest is None and painting.best is None and painting.changes == []
    assert painting.picture().tobytes() == paint(start="noise", seed=3).picture().tobytes()


def test_nothing_is_painted_for_colours_alone(paint: Callable[..., Painting]) -> None:
    cost = estimate(paint(color="transfer-only"))
    assert (cost.multiply_adds, cost.seconds, cost.fits) == (0, 0.0, True)


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
