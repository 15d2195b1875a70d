"""Measure how often ImageNet's classifiers are right: top-1 and top-5 on labelled photographs.

    python benchmarks/imagenet.py PHOTOGRAPHS [--net NAME[=WEIGHTS]]... [--every N] [--json]

PHOTOGRAPHS is a folder, or a .tar, of files called WNID_anything.jpg (n02123045_tabby.jpg), or in folders
called WNID; the default is the sample of 600, one of a class, where shared/data lies beside the repository.
--net: by default efficientnet_lite0 (extra `imagenet`), and squeezenet1_0 with the sample's weights. A name
that is no WordNet number of the thousand classes is counted and left out. Each network sees every photograph
in two ways: "crop", its shorter side resized to 256 and the middle 224 square cut out, as such figures are
usually made; and "whole", its shorter side resized to 224, nothing cut away, as `innervision look` shows it.
The intervals are Wilson's, of 95 %. Class and index are matched by WordNet number alone.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import innervision
from innervision.errors import InnervisionError
from innervision.images import Picture, read
from innervision.nets import imagenet

DATA = Path(__file__).parents[1].parent / "shared/data"
SQUEEZENET = DATA / "weights/squeezenet1_0_deepcompressed_torchvision_f16.npz"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
VIEWS = ("crop", "whole")


def photographs(source: Path) -> Iterator[tuple[str, Picture]]:
    """Yield each photograph's name within its folder or archive, in order, and its pixels."""
    if source.is_dir():
        for path in sorted(p for p in source.rglob("*") if p.suffix.lower() in SUFFIXES):
            yield str(path.relative_to(source)), read(path)
        return
    with tarfile.open(source) as archive:
        members = (m for m in archive if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES)
        for member in sorted(members, key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None
            yield member.name, read(file.read())


def class_of(name: str) -> int | None:
    """Return the class that a file's name, or its folder's, gives by WordNet number."""
    numbers = imagenet.numbers()
    found = (numbers.get(number) for number in re.findall(r"n\d{8}", name)[::-1])
    return next((place for place in found if place is not None), None)


def view(picture: Picture, how: str, side: int) -> Tensor:
    """Return a photograph as a network sees it: (1, 3, h, w), sRGB 0..1."""
    short = round(side * 256 / 224) if how == "crop" else side
    scale = short / min(picture.height, picture.width)
    image = picture.tensor((round(picture.height * scale), round(picture.width * scale)))
    if how == "whole":
        return image
    top, left = ((whole - side) // 2 for whole in image.shape[-2:])
    return image[:, :, top : top + side, left : left + side]


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a share, in percent (Wilson 1927)."""
    z = 1.959964
    centre = (right + z * z / 2) / (n + z * z)
    half = z * math.sqrt(right * (n - right) / n + z * z / 4) / (n + z * z)
    return 100 * (centre - half), 100 * (centre + half)


@torch.inference_mode()
def measure(name: str, weights: str | None, source: Path, every: int) -> dict[str, Any]:
    """Return a network's counts of right answers on every so many of the photographs."""
    network = innervision.load(name, weights_file=weights)
    if len(network.classes) != 1000:
        raise SystemExit(
            f"{name} has no classifier of ImageNet's thousand classes in {weights or 'its weights'}"
        )
    first, five, n, unknown = dict.fromkeys(VIEWS, 0), dict.fromkeys(VIEWS, 0), 0, []
    began = time.process_time()
    for number, (file, picture) in enumerate(photographs(source)):
        if number % every:
            continue
        place = class_of(file)
        if place is None:
            unknown.append(file)
            continue
        n += 1
        for how in VIEWS:
            best = network(view(picture, how, network.input_size or 224))[0].topk(5).indices.tolist()
            first[how] += best[0] == place
            five[how] += place in best
    return {
        "net": name,
        "weights": weights or "published",
        "n": n,
        "unmapped": unknown,
        "top1": first,
        "top5": five,
        "processor_seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?", default=DATA / "imagenet_sample_600.tar")
    parser.add_argument("--net", action="append", metavar="NAME[=WEIGHTS]")
    parser.add_argument("--every", type=int, default=1, help="take only every so many")
    parser.add_argument("--json", action="store_true", help="print one JSON object a network")
    args = parser.parse_args()
    if not args.photographs.exists():
        raise SystemExit(f"no photographs at {args.photographs}: name a folder or a .tar of WNID_name.jpg")
    usual = ["efficientnet_lite0", *([f"squeezenet1_0={SQUEEZENET}"] if SQUEEZENET.is_file() else [])]
    if not args.json:
        print(f"{'net':20} {'view':6} {'n':>4} {'top-1 %':>8} {'95 % interval':>14} {'top-5 %':>8}")
    for text in args.net or usual:
        name, _, weights = text.partition("=")
        try:
            found = measure(name, weights or None, args.photographs, args.every)
        except InnervisionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        if args.json:
            print(json.dumps(found))
            continue
        n = found["n"]
        for how in VIEWS:
            first, five = found["top1"][how], found["top5"][how]
            low, high = wilson(first, n)
            print(
                f"{name:20} {how:6} {n:4} {100 * first / n:8.1f} {f'{low:.1f} to {high:.1f}':>14} "
                f"{100 * five / n:8.1f}"
            )
        if found["unmapped"]:
            print(f"left out, no class of the thousand: {len(found['unmapped'])}: {found['unmapped'][:5]}")


if __name__ == "__main__":
    main()
