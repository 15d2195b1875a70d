"""Train recipes with several seeds and print one table: accuracy, time, speed, calibration.

    python learn.py --only lenet5-modern,fast93 --seeds 5 --cifar10 DIR --mnist DIR

Each training is the command itself in a process of its own, so that what is measured is what a user gets. Its
run folder stays in --output: one that is done is not repeated, one that was broken off is gone on with.
An event is printed as each epoch ends. The machine should be idle.

The rate of the processor is that of a large matrix product in the precision of the recipe, measured before
each recipe with as many threads; a step's work is counted by torch's own counter (multiply-adds are two).
Time is that of training alone, evaluations of what is held out included; the test's, and Python's start, are
in the last column.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from innervision import nets
from innervision.learn.judge import Judge
from innervision.learn.recipes import RECIPES, Recipe
from innervision.machine import choose_precision

SHORT = {"lenet5": "lenet5-modern", "vgg19": "vgg19-modern"}


def product_rate(dtype: torch.dtype, threads: int, size: int = 2048, seconds: float = 3.0) -> float:
    """Return the operations a second of a square matrix product, the median of what fits the time."""
    torch.set_num_threads(threads)
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        begin = time.perf_counter()
        a @ b
        rates.append(2 * size**3 / (time.perf_counter() - begin))
    return statistics.median(rates[1:])


def work_per_picture(recipe: Recipe, classes: int = 10) -> float:
    """Return the operations of one picture's way through the network and back, the mean over the epochs."""
    if recipe.small is not None:
        side, share = recipe.small
        small, whole = (replace(recipe, small=None, size=size) for size in (side, recipe.size))
        return share * work_per_picture(small, classes) + (1 - share) * work_per_picture(whole, classes)
    net = nets.build(recipe.net, classes=classes)
    for name, weight in net.named_parameters():
        if name.startswith(recipe.frozen) and recipe.frozen:
            weight.requires_grad_(False)
    channels = len(recipe.preprocessing.mean)
    batch = (torch.rand(8, channels, recipe.size, recipe.size), torch.arange(8) % classes)
    counter = FlopCounterMode(display=False)
    with counter:
        Judge(recipe, None, torch.device("cpu"), torch.float32)(net.train(), batch).backward()
    return counter.get_total_flops() / 8


def train(
    name: str, seed: int, data: str | None, folder: Path, threads: int, more: Sequence[str]
) -> dict[str, Any]:
    """Train by the command, unless it was done; return the facts that it left, and the whole time."""
    times = folder / "benchmark.json"
    if not times.is_file():
        command = [sys.executable, "-m", "innervision", "train", "--json"]
        resumed = (folder / "run.json").is_file()
        if resumed:
            command += ["--resume", str(folder)]
        else:
            command += ["--recipe", name, "--seed", str(seed), "--threads", str(threads)]
            command += ["--run", str(folder), *(["--data", data] if data else []), *more]
        begin = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if "training_accuracy" in event or event["event"] == "result":
                    print(json.dumps({"recipe": name, "seed": seed, **event}), flush=True)
        if process.returncode:
            raise SystemExit(f"{name} with seed {seed} ended with {process.returncode}: see {folder}")
        whole = None if resumed else time.perf_counter() - begin
        times.write_text(json.dumps({"whole": whole}))
    facts = json.loads((folder / "model.json").read_text())["facts"]
    return {**facts, **json.loads(times.read_text())}


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 2) -> str:
    """Return mean ± standard deviation."""
    mean = f"{scale * statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {scale * statistics.stdev(values):.{digits}f}"


def row(recipe: Recipe, found: list[dict[str, Any]], rate: float) -> list[str]:
    """Return a recipe's line of the table."""
    views = [f[f"accuracy_{recipe.views}_views"] for f in found] if recipe.views > 1 else []
    seconds = statistics.median(f["seconds"] for f in found)
    speed = statistics.median(f["pictures"] * f["epochs"] / f["seconds"] for f in found)
    whole = [f["whole"] for f in found if f["whole"]]
    scaled = [f["ece_calibrated"] for f in found if "ece_calibrated" in f]
    return [
        recipe.name,
        str(len(found)),
        spread([f["accuracy"] for f in found], 100),
        f"{spread(views, 100)} ({recipe.views})" if views else "-",
        f"{seconds:.0f}",
        f"{speed:.0f}",
        f"{100 * speed * work_per_picture(recipe) / rate:.0f} %",
        spread([f["ece"] for f in found], 100),
        spread(scaled, 100) if scaled else "-",
        f"{statistics.median(whole):.0f}" if whole else "-",
    ]


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", default="lenet5-1998,lenet5-modern,fast93,fast94", help="recipes, by commas"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cifar10", help="folder or archive [default: fetched]")
    parser.add_argument("--mnist", help="folder or archive [default: fetched]")
    parser.add_argument("--output", type=Path, default=Path("out/benchmarks/learn"))
    parser.add_argument("more", nargs="*", help="after --: more options of innervision train")
    args = parser.parse_args()
    where = {"cifar10": args.cifar10, "mnist": args.mnist}
    rows: list[list[str]] = []
    rates: dict[str, float] = {}
    for name in (SHORT.get(n, n) for n in args.only.split(",")):
        recipe = RECIPES[name]
        dtype = choose_precision(recipe.precision, torch.device("cpu"))
        rate = rates.setdefault(str(dtype), product_rate(dtype, args.threads))
        found = [
            train(name, seed, where.get(recipe.data), args.output / f"{name}-{seed}", args.threads, args.more)
            for seed in range(args.first, args.first + args.seeds)
        ]
        rows.append(row(recipe, found, rate))
    date = time.strftime("%Y-%m-%d")
    print(f"\n{date}, {platform.machine()}, {args.threads} threads, torch {torch.__version__}")
    for kind, rate in rates.items():
        print(f"matrix product in {kind.removeprefix('torch.')}: {rate / 1e9:.0f} GFLOP/s")
    head = "recipe, seeds, accuracy %, by views %, train s, pictures/s, of product, ECE %, scaled %, whole s"
    print("\n| " + " | ".join(head.split(", ")) + " |")
    print("|" + "---|" * len(rows[0]))
    for one in rows:
        print("| " + " | ".join(one) + " |")


if __name__ == "__main__":
    main()
