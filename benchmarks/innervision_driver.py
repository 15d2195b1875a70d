"""Run innervision's style transfer as one contestant of stylize.py.

    python innervision_driver.py --content C.png --style S.png --folder OUT --steps 200 --every 10 --log LOG

The protocol, the same for every contestant:

- the working directory is OUT; the process was started at BENCHMARK_STARTED, an environment variable that
  holds time.monotonic() of the harness (one clock for all processes), so that imports and weights count;
- at every `--every` evaluations (a forward and backward pass of the network), and at the last, a picture is
  saved as an 8-bit PNG of the content's size, and a line of JSON is appended to LOG:
    {"elapsed": seconds since BENCHMARK_STARTED less those spent in saving pictures,
     "evaluations": evaluations so far, of any size,
     "picture": file name, relative to the working directory,
     "pixels": width * height of the canvas now descended (left out: the content's own),
     "loss": J of the unsaved picture (may be left out)};
- no picture from a stage below the content's size needs saving: the scorer takes only that size. Enlarge
  it if an early stage is to count;
- a line `EVALUATION LOSS` on standard output for each evaluation at full size is welcome, not needed;
- `--steps` is the peers' number of evaluations; how they are spent over the stages is innervision's affair.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image


def frames(content: Path, style: Path, steps: int) -> Iterator[tuple[int, int, Image.Image]]:
    """Yield (evaluations so far, pixels of the canvas, picture at full size) after each evaluation."""
    raise SystemExit("innervision_driver.frames is a stub: write it over innervision.stylize(content, style)")
    yield


def main() -> None:
    """Save the pictures wanted and say when each was there."""
    started = float(os.environ.get("BENCHMARK_STARTED", time.monotonic()))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--log", type=Path, required=True)
    args = parser.parse_args()

    saving = 0.0
    for evaluations, pixels, picture in frames(args.content, args.style, args.steps):
        if evaluations % args.every and evaluations != args.steps:
            continue
        before = time.monotonic()
        file = args.folder / f"{evaluations:04d}.png"
        picture.save(file)
        frame = {
            "elapsed": before - started - saving,
            "evaluations": evaluations,
            "picture": str(file),
            "pixels": pixels,
        }
        with args.log.open("a") as log:
            print(json.dumps(frame), file=log)
        saving += time.monotonic() - before


if __name__ == "__main__":
    main()
