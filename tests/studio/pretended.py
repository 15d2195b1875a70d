"""A command that behaves as it is told: so that the queue is tried without waiting for a network.

Its steps are --steps, a 20th of a second each; --seed says how it ends:
0 well, 1 with an error, 2 by force, 3 deaf to Ctrl-C, 4 talking nonsense, 5 leaving a child, 6 with NaN,
7 as Python does that is broken off while it begins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

words = dict(word.lstrip("-").partition("=")[::2] for word in sys.argv[2:] if word.startswith("--"))
steps, seed = int(words.get("steps", "3")), int(words.get("seed", "0"))
output = Path(words["output"])
stopped: list[int] = []
signal.signal(signal.SIGINT, signal.SIG_IGN if seed == 3 else lambda number, _: stopped.append(number))


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


print("looking at", sys.argv[1], file=sys.stderr, flush=True)
if seed == 5:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 4:
    sys.stdout.buffer.write(b"\xff\xfe{\n[1]\n{}\n" + b'{"event": "step", "step": "x"}\n')
    print("x" * 3_000_000, flush=True)
    say(event="step", step=1, of=2**70, text="y" * 10_000, deep=[1], infinite=float("inf"))
for step in range(1, steps + 1):
    time.sleep(0.05)
    say(event="step", step=step, of=steps, text=f"step {step}", seconds=0.05 * step, loss=1 / step)
    if step == 2 and seed == 1:
        print("innervision: no layer 'conv9_9' in vgg19", file=sys.stderr)
        raise SystemExit(2)
    if step == 2 and seed == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if stopped and seed == 7:
        print("Traceback (most recent call last):\nKeyboardInterrupt", file=sys.stderr)
        raise SystemExit(1)
    if stopped:
        break
output.write_bytes(b"\x89PNG what there is")
say(event="result", output=str(output), finished=not stopped, value=float("nan") if seed == 6 else 1.0)
raise SystemExit(130 if stopped else 0)
