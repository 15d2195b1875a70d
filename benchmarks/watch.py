"""Run a peer's program as it stands, noting when it saves each picture.

    python watch.py LOG MODULE:FUNCTION PROGRAM [ARGUMENT...]

Runs `python -m PROGRAM ARGUMENT...` in this interpreter, with FUNCTION, by which the program saves a picture,
wrapped: each call appends a line of JSON to LOG, the picture's file and the seconds since the process was
started less those spent in saving so far. (pastiche takes two seconds to save a 512-pixel picture; a
measurement of its descent should not.) Nothing else of the program is touched.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import runpy
import sys
import time
from operator import attrgetter


def watch(log: str, target: str, started: float) -> None:
    """Wrap the function named by target, as in `PIL.Image:Image.save`."""
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = importlib.import_module(module)
    if owners:
        owner = attrgetter(".".join(owners))(owner)
    save = getattr(owner, name)
    saving = 0.0

    @functools.wraps(save)
    def timed(picture: object, file: str, *args: object) -> None:
        nonlocal saving
        before = time.monotonic()
        save(picture, file, *args)
        with open(log, "a") as lines:  # noqa: PTH123 (pathlib would be one more import in the peer's start-up)
            print(json.dumps({"elapsed": before - started - saving, "picture": str(file)}), file=lines)
        saving += time.monotonic() - before

    setattr(owner, name, timed)


if __name__ == "__main__":
    # The clock of the harness: monotonic time is one for all processes of a machine.
    started = float(os.environ.get("BENCHMARK_STARTED", time.monotonic()))
    log, target, program, *arguments = sys.argv[1:]
    del sys.path[0]  # this folder is no part of the program
    sys.argv = [program, *arguments]  # first of all: pastiche binds it while it is imported
    watch(log, target, started)
    runpy.run_module(program, run_name="__main__", alter_sys=True)
