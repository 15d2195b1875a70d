"""Measure what reading and augmenting a picture costs, of one core's time, and print one table.

    python augmentation.py --data cifar-10-batches-bin

Batches of 500 are taken from the set in memory to floats in 0..1, as training takes them; process_time, one
thread, the median of --epochs epochs of --pictures pictures each.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time

import torch

from innervision.learn.augment import Augmentation
from innervision.learn.batches import Batches
from innervision.learn.data import DataSet, read

KINDS = {
    "nothing": Augmentation(),
    "flip": Augmentation(flip="random"),
    "flip, shift by 2 pixels": Augmentation(flip="alternating", shift=2),
    "flip, shift, cutout": Augmentation(flip="random", shift=4, cutout=10),
    "flip, shift, mixup or CutMix": Augmentation(flip="random", shift=4, mixup=0.2, cutmix=1.0),
    "flip, shift, colour": Augmentation(flip="random", shift=4, colour=0.2),
    "the article's: flip, fractional shift": Augmentation(flip="random", shift=0.125, fill=(0.5, 0.5, 0.5)),
}


def cost(data: DataSet, kind: Augmentation, epochs: int) -> float:
    """Return the microseconds that a picture takes, the median over epochs; one more is taken first."""
    batches = Batches(data, 500, kind)
    times: list[float] = []
    for number in range(epochs + 1):
        begin = time.process_time()
        for _ in batches.epoch(number):
            pass
        times.append((time.process_time() - begin) / (len(batches) * 500))
    return 1e6 * statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="as innervision train takes it")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = read(args.data)
    data = data.subset(range(min(args.pictures, len(data))))
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, 1 thread, torch {torch.__version__}, {data.size}"
    )
    print("\n| augmentation | µs a picture |\n|---|---|")
    for name, kind in KINDS.items():
        print(f"| {name} | {cost(data, kind, args.epochs):.0f} |")


if __name__ == "__main__":
    main()
