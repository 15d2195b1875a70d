"""How soon does each program make an equally good picture? Neural style transfer, side by side.

    python stylize.py --python PYTHON [--rounds 3] [--json FILE]  measure, then print the table
    python stylize.py --report FILE                               print the table of an earlier measurement
    python stylize.py --quick [--only pastiche titu1994]          try the harness, 128 px and 20 evaluations

Every contestant gets the same resized pixels, the same VGG19 weights and the same objective J (see
scorer.py), starts from the content, and runs as a process of its own, in turn, round after round. Its
clock starts with the process. J is taken afterwards, by one fp32 scorer, from the 8-bit pictures it
saved. README.md tells the rest. This file needs Pillow only; PYTHON, which runs innervision, the scorer
and the floor, needs torch too.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

import peers
import standings

HERE = Path(__file__).parent


def prepare(photo: Path, painting: Path, side: int, folder: Path) -> tuple[Path, Path]:
    """Resize content to the longest side wanted, style to as many pixels, once for all; return both PNGs."""
    content, style = Image.open(photo).convert("RGB"), Image.open(painting).convert("RGB")
    scale = side / max(content.size)
    content = resize(content, scale)
    style = resize(style, (content.width * content.height / (style.width * style.height)) ** 0.5)
    files = folder / "content.png", folder / "style.png"
    for picture, file in zip((content, style), files, strict=True):
        picture.save(file)
    return files


def resize(picture: Image.Image, scale: float) -> Image.Image:
    """Lanczos, aspect kept to the pixel."""
    size = round(picture.width * scale), round(picture.height * scale)
    return picture.resize(size, Image.Resampling.LANCZOS)


def run(name: str, python: Path, task: peers.Task, threads: int) -> dict:
    """Run one contestant to its end; return its pictures with their times, its losses and its peak memory."""
    task.folder.mkdir(parents=True, exist_ok=True)
    log, output = task.folder / "frames.jsonl", task.folder / "output.txt"
    log.unlink(missing_ok=True)
    contestant = peers.CONTESTANTS[name]
    command = contestant.command(python, task)
    started = time.monotonic()
    env = peers.threads(threads) | {"BENCHMARK_STARTED": repr(started)}
    seconds, usage = peers.finish(name, command, cwd=task.folder, env=env, output=output)
    return {
        "contestant": name,
        "seconds": seconds,
        "peak_mib": usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        "frames": pictures(log, task),
        "losses": peers.losses(contestant, output.read_text()),
    }


def pictures(log: Path, task: peers.Task) -> list[dict]:
    """Read the pictures a contestant saved, one for each number of evaluations."""
    frames = {}
    for line in log.read_text().splitlines():
        frame = json.loads(line)
        frame["picture"] = str(task.folder / frame["picture"])
        # The peers number the files of their snapshots, and leave their last without a number.
        numbers = re.findall(r"\d+$", Path(frame["picture"]).stem)
        frame.setdefault("evaluations", int(numbers[0]) if numbers else task.steps)
        frames.setdefault(frame["evaluations"], frame)
    return list(frames.values())


def judge(pictures: list[str], task: peers.Task, python: Path, threads: int) -> dict[str, float]:
    """J of each picture."""
    options = ["--content", task.content, "--style", task.style, "--json", *pictures]
    return json.loads(ask(python, HERE / "scorer.py", *options, threads=threads))


def ask(python: Path, *arguments: object, threads: int = 1) -> str:
    """What a Python process prints."""
    command = [str(python), *map(str, arguments)]
    env = peers.threads(threads)
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def versions(python: Path) -> dict[str, str]:
    """The versions an interpreter has of what matters here."""
    code = "import importlib.metadata as m; print(*(d.name + '==' + d.version for d in m.distributions()))"
    kept = ("torch", "torchvision", "numpy", "scipy", "pillow", *peers.CONTESTANTS)
    found = [name.lower().split("==") for name in ask(python, "-c", code).split()]
    return {name: version for name, version in found if name in kept}


def measure(args: argparse.Namespace) -> dict:
    """Run every contestant in turn, round after round, keeping the results on disk as they come."""
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out.resolve()
    content, style = prepare(args.content, args.style, args.size, folder)
    sizes = [Image.open(file).size for file in (content, style)]
    installed = {name for name, contestant in peers.CONTESTANTS.items() if contestant.packages}
    pythons = {
        name: peers.interpreter(name, args.envs) if name in installed else args.python for name in args.only
    }
    results = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": standings.machine(),
        "threads": args.threads,
        "steps": args.steps,
        "every": args.every,
        "pictures": [args.content.name, args.style.name],
        "content": sizes[0],
        "style": sizes[1],
        "versions": {name: versions(python) for name, python in pythons.items()},
        "floor": [],
        "runs": [],
    }
    for number in range(args.rounds):
        floor = ask(args.python, HERE / "floor.py", *sizes[0], threads=args.threads)
        results["floor"].append(json.loads(floor))
        for name in args.only:
            where = folder / f"{number}-{name}"
            task = peers.Task(content, style, max(sizes[0]), max(sizes[1]), args.steps, args.every, where)
            done = run(name, pythons[name], task, args.threads)
            saved = [frame["picture"] for frame in done["frames"]]
            scores = judge([str(content), *saved], task, args.python, args.threads)
            results["start"] = scores[str(content)]
            for frame in done["frames"]:
                frame["J"] = scores[frame["picture"]]
            results["runs"].append({"round": number, **done})
            args.json.write_text(json.dumps(results, indent=1))
            last = done["frames"][-1]
            note = f"round {number}: {name}: J {last['J']:.4g} after {last['elapsed']:.1f} s"
            print(note, file=sys.stderr, flush=True)
    return results


def pictures_at_hand() -> tuple[Path, Path]:
    """Tübingen and Starry Night where shared/data lies beside the repository, else two samples."""
    data, samples = HERE.parents[1] / "shared/data", HERE.parent / "src/innervision/samples"
    wanted = data / "photos/tubingen.jpg", data / "paintings/starry_night.jpg"
    if all(picture.is_file() for picture in wanted):
        return wanted
    return samples / "skimage_coffee.png", samples / "van_gogh_harvest_at_la_crau_1888.jpg"


def arguments() -> argparse.Namespace:
    """Read the command line; --quick changes the defaults only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    content, style = pictures_at_hand()
    parser.add_argument("--content", type=Path, default=content, help=f"default: {content.name}")
    parser.add_argument("--style", type=Path, default=style, help=f"default: {style.name}")
    parser.add_argument("--size", type=int, default=512, help="longest side of the content, pixels")
    parser.add_argument("--steps", type=int, default=200, help="evaluations of each peer")
    parser.add_argument("--every", type=int, default=10, help="evaluations between two pictures")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=peers.CONTESTANTS, default=list(peers.CONTESTANTS))
    parser.add_argument(
        "--python", type=Path, default=sys.executable, help="interpreter that has innervision"
    )
    parser.add_argument("--envs", type=Path, default=peers.ENVIRONMENTS, help="where the peers are installed")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/stylize"), help="pictures and logs")
    parser.add_argument("--json", type=Path, help="raw results (default: results.json within --out)")
    parser.add_argument("--report", type=Path, help="print the table of these raw results; run nothing")
    parser.add_argument("--quick", action="store_true", help="128 px, 20 steps, every 5, one round")
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(size=128, steps=20, every=5, rounds=1)
    args = parser.parse_args()
    args.python = Path(args.python).absolute()  # not resolved: a virtual environment's Python is a link
    args.json = args.json or args.out / "results.json"
    return args


if __name__ == "__main__":
    options = arguments()
    print(standings.table(json.loads(options.report.read_text()) if options.report else measure(options)))
