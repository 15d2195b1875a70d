"""Two processes by torchrun take the steps of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file

from innervision.cli import cli

GUEST = """
from torch import nn

def net():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_are_as_one_after_five_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GUEST)
    rng = np.random.default_rng(0)
    for n in range(66):
        where = tmp_path / "pictures" / "abc"[n % 3]
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(where / f"{n:02}.png")
    args = ["train", "--recipe", "vgg19-modern", "--data", "pictures", "--net", f"{tmp_path / 'mine.py'}:net"]
    args += [
        "--size",
        "8",
        "--batch",
        "12",
        "--epochs",
        "1",
        "--validation",
        "0.1",
        "--views",
        "1",
        "--lr",
        "0.01",
    ]
    args += ["--threads", "1", "--precision", "float32", "--no-report", "--json"]
    alone = CliRunner().invoke(cli, [*args, "-o", "one"])
    assert alone.exit_code == 0, alone.output
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "innervision"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [sys.executable, *launcher, *args, "-o", "two"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    one, two = (load_file(f"{name}/model.safetensors") for name in ("one", "two"))
    start = CliRunner().invoke(cli, [*args[:-1], "-o", "start", "--lr", "1e-12"])
    assert start.exit_code == 0, start.output
    before = load_file("start/model.safetensors")
    assert max(float((one[name] - before[name]).abs().max()) for name in one) > 1e-3  # they have moved
    for name, value in one.items():
        torch.testing.assert_close(
            two[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )
    card = json.loads(Path("two/run.json").read_text())
    assert card["result"]["count"] == 5 and card["machine"]["processes"] == 2

    def told(name: str) -> list[dict[str, float]]:
        events = [json.loads(line) for line in Path(f"{name}/events.jsonl").read_text().splitlines()]
        return [{k: v for k, v in e.items() if isinstance(v, int | float) and k != "seconds"} for e in events]

    assert len(told("two")) == len(told("one")) == 6  # one process alone writes
    for mine, theirs in zip(told("one"), told("two"), strict=True):
        assert theirs == pytest.approx(mine, abs=1e-5)  # what is counted is gathered: scores too
    lines = [json.loads(line) for line in found.stdout.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines].count("result") == 1
