"""Run innervision's style transfer as one contestant of stylize.py.

    python innervision_driver.py --content C.png --style S.png --folder OUT --log LOG

`innervision.stylize(content, style)` with the defaults of the preset `gatys`, whose objective is J, at the
sizes the two pictures come in. At every `--every` evaluations at the content's size, and at the last, the
best picture so far is saved as a PNG by `Painting.save`: what a person who stopped there would get. A line of
JSON for each goes to LOG:

    {"elapsed": seconds since BENCHMARK_STARTED (time.monotonic() of the harness: imports and weights count)
                less those spent in saving pictures,
     "evaluations": of any size so far,
     "picture": file name, relative to the working directory}

Pictures of the smaller stages are not saved: the scorer takes the content's size alone. The J of each picture
at that size, as innervision reckons it, is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from PIL import Image

import innervision


def main() -> None:
    """Save the pictures wanted and say when each was there."""
    started = float(os.environ.get("BENCHMARK_STARTED", time.monotonic()))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="unused: the preset has its own number")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--log", type=Path, required=True)
    args = parser.parse_args()

    saving = 0.0
    with Image.open(args.content) as content, Image.open(args.style) as style:
        sides = max(content.size), max(style.size)
    painting = innervision.stylize(args.content, args.style, size=sides[0], style_size=sides[1])
    for frame in painting:
        if frame.image.shape[-2:] != painting.sitting.size:
            continue
        loss = sum(value for name, value in frame.values.items() if name != "gamut")
        print(frame.count, loss, flush=True)
        if frame.step % args.every and not frame.last:
            continue
        before = time.monotonic()
        file = args.folder / f"{frame.count:04d}.png"
        painting.save(file)
        line = {"elapsed": before - started - saving, "evaluations": frame.count, "picture": str(file)}
        with args.log.open("a") as log:
            print(json.dumps(line), file=log)
        saving += time.monotonic() - before


if __name__ == "__main__":
    main()
