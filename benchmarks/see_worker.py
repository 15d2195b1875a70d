"""What every contestant of see.py is: a process that reads jobs as lines of JSON and answers with seconds.

A job is a function that makes ready, and returns what is to be timed. A line `{"job": NAME, option: value …}`
makes it ready if the same line has not come before, does the work, and is answered by a line
`{"seconds": …, "cpu": …, …}`: by the clock, and of the processor's time, and what the work returns besides.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

Work = Callable[[], dict[str, Any] | None]


def serve(jobs: Mapping[str, Callable[..., Work]]) -> None:
    """Do the jobs asked for until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    ready: dict[str, Work] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if line not in ready:
            ready[line] = jobs[asked.pop("job")](**asked)
        work = ready[line]
        began, cpu = time.perf_counter(), time.process_time()
        found = work() or {}
        spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        print(json.dumps({**spent, **found}), file=answers, flush=True)


def module(net: str, last: str | None = None) -> nn.Module:
    """Return a net of innervision's with weights drawn from seed 0, up to a layer of it; in evaluation mode.

    The same numbers for all contestants. Time does not depend on them, and what comes of them is compared.
    """
    from innervision import nets

    top = last is None
    whole = nets.build(net, top=top, generator=torch.Generator().manual_seed(0), device="cpu").eval()
    if last is None:
        return whole
    names = [name for name, _ in whole.named_children()]
    children = dict(whole.named_children())
    part = nn.Sequential()
    for name in names[: names.index(last) + 1]:
        part.add_module(name, children[name])
    return part.eval()


def picture(size: int) -> torch.Tensor:
    """Return a picture (1, 3, size, size) of even numbers in 0..1, the same for all."""
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
