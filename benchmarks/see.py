"""How soon does each way of looking inside answer? innervision's, and its peers', in one table.

    python see.py --python PYTHON [--rounds 3] [--json FILE]   measure, then print the table
    python see.py --only layers occlusion                      some rows
    python see.py --report FILE                                print the table of an earlier measurement
    python see.py --quick                                      try the harness on tiny sizes

Functions are timed in processes that stay, one for innervision and one for each peer in an environment of its
own, in turn, round after round: start and weights do not count. Whole commands are timed with their start.
README.md tells the rest. This file needs no package; PYTHON, which runs innervision, does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import peers
import standings

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src"

TORCH = "torch==2.13.0"
PEERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "captum": ((TORCH, "numpy", "pillow", "matplotlib", "tqdm", "packaging"), ("captum==0.9.0",)),
    "lucent": (
        (TORCH, "numpy", "pillow", "tqdm", "packaging", "decorator", "ipython"),
        ("torch-lucent==0.1.8", "kornia==0.9.0", "kornia-rs==0.2.0"),
    ),
    "quiver": ((TORCH, "numpy", "pillow"), ()),  # restated
}
"""Packages with their dependencies, and those without: they ask for torchvision, or for older releases."""

Row = dict[str, Any]


class Worker:
    """A contestant's process: see see_worker.py."""

    def __init__(self, name: str, python: Path, threads: int, folder: Path) -> None:
        self.name = name
        log = (folder / f"{name}.log").open("w")
        paths = [str(HERE), str(SOURCE)] if name != "innervision" else [str(HERE)]
        environment = peers.threads(threads) | {"PYTHONPATH": os.pathsep.join(paths)}
        self.process = subprocess.Popen(
            [str(python), str(HERE / f"see_{name}.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        self.log = folder / f"{name}.log"

    def do(self, **job: Any) -> dict[str, Any]:
        """Have a job done; return its seconds and what else it answered."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            last = "\n".join(self.log.read_text().splitlines()[-15:])
            raise SystemExit(f"{self.name} ended at {job}; the end of {self.log}:\n{last}")
        return json.loads(answer)

    def end(self) -> None:
        """Let it go."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()


class Bench:
    """The rows, each a measurement that yields its results as it goes."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.quick = args, args.quick
        self.side = 64 if self.quick else 224
        self.folder: Path = args.out.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._workers: dict[str, Worker] = {}
        self.pythons: dict[str, Path] = {"innervision": args.python}

    def worker(self, name: str) -> Worker:
        """Return a contestant's process, begun when first asked for."""
        if name not in self._workers:
            if name not in self.pythons:
                self.pythons[name] = peers.environment(self.args.envs.resolve() / name, *PEERS[name])
            self._workers[name] = Worker(name, self.pythons[name], self.args.threads, self.folder)
        return self._workers[name]

    def end(self) -> None:
        """Let all processes go."""
        for worker in self._workers.values():
            worker.end()

    def in_turn(self, jobs: dict[str, tuple[str, dict[str, Any]]], rounds: int) -> dict[str, Row]:
        """Do jobs (name -> contestant, job) in turn, round after round; return each with all its seconds."""
        found: dict[str, Row] = {
            name: {"contestant": who, "seconds": [], "cpu": []} for name, (who, _) in jobs.items()
        }
        for number in range(rounds):
            for name, (who, job) in jobs.items():
                done = self.worker(who).do(**job)
                for key in ("seconds", "cpu"):
                    found[name][key].append(done.pop(key))
                found[name].update(done)
                note = f"{name}: {found[name]['seconds'][-1]:.3f} s (round {number + 1} of {rounds})"
                print(note, file=sys.stderr, flush=True)
        return found

    def command(self, *words: str) -> Row:
        """Run a command of innervision as a person does, with its start; return its seconds."""
        seconds, usage = peers.finish(
            f"innervision {' '.join(words)}",
            [self.args.python, "-m", "innervision", *words],
            cwd=self.folder,
            env=peers.threads(self.args.threads),
            output=self.folder / f"{words[0]}.log",
        )
        print(f"{words[0]}: {seconds:.1f} s", file=sys.stderr, flush=True)
        cpu = usage.ru_utime + usage.ru_stime
        return {"contestant": "innervision", "command": " ".join(words), "seconds": [seconds], "cpu": [cpu]}

    def layers(self) -> Iterator[Row]:
        """All 16 layers' maps of VGG19, computed and encoded."""
        job = {"job": "layers", "size": self.side}
        jobs = {"innervision": ("innervision", job), "quiver's way": ("quiver", job)}
        found = self.in_turn(jobs, 1 if self.quick else self.args.rounds)
        own = found["innervision"]
        what = f"maps of 16 layers of VGG19, {own['channels']:,} channels, {job['size']} px, in PNG"
        yield row("layers", what, own, found["quiver's way"], "quiver's way", bar=1.0)

    def units(self) -> Iterator[Row]:
        """The top nine of all units over CIFAR's test pictures, by the command."""
        count = 200 if self.quick else 10_000
        data = HERE.parents[1] / "shared/data/cifar10"
        mosaics = sorted(map(str, data.glob("test_*.webp")))
        file, output = self.folder / "cifar.npy", self.folder / f"units-{os.getpid()}"
        self.worker("innervision").do(job="pictures", file=str(file), count=count, mosaics=mosaics)
        # an index that is there would be gone on with
        own = self.command("units", str(file), "--sheet", "relu4_1", "-o", str(output), "--quiet")
        kind = "CIFAR-10's test pictures" if mosaics else "pictures drawn at random"
        yield row("units", f"`units`: top nine of all 5,504 units of VGG19, {count:,} of {kind}", own, bar=60)

    def excite(self) -> Iterator[Row]:
        """Unit-steps of Fourier maximisation."""
        few, layer, size = (2 if self.quick else 24), "conv5_4", 32
        batches = (1, 4) if self.quick else (1, 4, 16, 64)

        def steps(units: int) -> int:
            return max(2, few // (1 if units == 1 else units // 4))

        common = {"job": "excite", "layer": layer, "size": size}
        jobs: dict[str, tuple[str, dict[str, Any]]] = {}
        for units, frozen in ((1, False), (1, True), (4 if self.quick else 16, True)):
            kind = f"lucent, {units} at once{', weights frozen' if frozen else ''}"
            jobs[kind] = ("lucent", {**common, "units": units, "steps": steps(units), "frozen": frozen})
        for precision in ("float32", "bfloat16"):
            for units in batches:
                mine = {**common, "units": units, "steps": steps(units), "precision": precision}
                # Lucid's views cut what lucent's only move: 19 pixels around make the network see as many
                jobs[f"{precision}, {units} at once"] = ("innervision", {**mine, "padding": 19})
                if units == 1:
                    jobs[f"{precision}, 1 at once, Lucid's own views"] = (
                        "innervision",
                        {**mine, "padding": 12},
                    )
        found = self.in_turn(jobs, 1 if self.quick else self.args.rounds)
        for name, (_, job) in jobs.items():
            found[name]["work"] = job["units"] * job["steps"]
        peer = "lucent, 1 at once"
        also = {name: one for name, one in found.items() if one["contestant"] == "lucent" and name != peer}
        for name, own in found.items():
            if own["contestant"] == "innervision":
                what = f"a unit-step of Fourier maximisation, VGG19 {layer}, {size} px: {name}"
                yield row("excite", what, own, found[peer], peer, ratio=5.0, also=also)

    def occlusion(self) -> Iterator[Row]:
        """Occlusion maps of large networks, against captum's better way of two."""
        size, patch = self.side, 16 if self.quick else 32
        tasks = [("squeezenet1_0", None, 16), ("efficientnet_lite0", None, 16), ("vgg19", "relu5_1", 32)]
        tasks += [] if self.quick else [("squeezenet1_0", None, 8)]
        for net, layer, stride in tasks:
            stride = min(stride, patch)
            common = {"job": "occlusion", "net": net, "layer": layer, "channel": 7, "size": size}
            common |= {"patch": patch, "stride": stride}
            files = [str(self.folder / f"occlusion-{who}.pt") for who in ("own", "1", "16")]
            jobs: dict[str, tuple[str, dict[str, Any]]] = {
                "innervision": ("innervision", {**common, "file": files[0]})
            }
            for together, file in zip((1, 16), files[1:], strict=True):
                name = f"captum, {together} at once"
                jobs[name] = ("captum", {**common, "together": together, "file": file})
            if stride == 8:  # long: captum's own default is no better
                del jobs["captum, 16 at once"]
            rounds = 1 if self.quick or stride == 8 or net == "vgg19" else self.args.rounds
            found = self.in_turn(jobs, rounds)
            other = next(name for name in reversed(jobs) if name != "innervision")
            same = self.worker("innervision").do(job="alike", file=files[0], other=jobs[other][1]["file"])
            own = found.pop("innervision") | {"difference": same["difference"]}
            peer = min(found, key=lambda name: median(found[name]["seconds"]))
            where = layer or "a class"
            what = f"occlusion of {net}, {where}, {size} px, {own['windows']} squares of {patch}"
            yield row("occlusion", what, own, found[peer], peer, ratio=3.0)

    def look(self) -> Iterator[Row]:
        """The whole report."""
        words = ["look", self.args.picture, "-o", str(self.folder / "look.html"), "--quiet"]
        own = self.command(*words, "--size", str(self.side), *(["--quick"] if self.quick else []))
        yield row("look", f"`look {self.args.picture}`: the whole page, {self.side} px", own, bar=180)

    def invert(self) -> Iterator[Row]:
        """Inversion of all layers."""
        words = ["invert", self.args.picture, "--size", str(self.side), "--quiet"]
        words += ["-o", str(self.folder / "invert")] + (["--steps", "2"] if self.quick else [])
        own = self.command(*words)
        what = f"`invert {self.args.picture}`: all 16 layers of VGG19, {self.side} px"
        yield row("invert", what, own, bar=300)


def row(
    name: str,
    what: str,
    own: Row,
    peer: Row | None = None,
    rival: str = "",
    *,
    bar: float | None = None,
    ratio: float | None = None,
    also: dict[str, Row] | None = None,
) -> Row:
    """Return a row of the table: seconds at most (`bar`), or times as fast as a rival at least (`ratio`).

    also: other ways of the rival's, whose seconds are told.
    """
    kept = {"own": own, "peer": peer, "rival": rival, "bar": bar, "ratio": ratio, "also": also or {}}
    return {"row": name, "what": what, **kept}


ROWS = ("layers", "units", "excite", "occlusion", "look", "invert")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Take the rows asked for, keeping the results on disk as they come."""
    bench = Bench(args)
    results: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": standings.machine(),
        "threads": args.threads,
        "rounds": args.rounds,
        "quick": args.quick,
        "versions": {},
        "rows": [],
    }
    try:
        for name in args.only:
            for one in getattr(bench, name)():
                results["rows"].append(one)
                results["versions"] = {who: versions(python) for who, python in bench.pythons.items()}
                args.json.parent.mkdir(parents=True, exist_ok=True)
                args.json.write_text(json.dumps(results, indent=1))
    finally:
        bench.end()
    return results


def versions(python: Path) -> dict[str, str]:
    """The versions an interpreter has of what matters here."""
    code = "import importlib.metadata as m; print(*(d.name + '==' + d.version for d in m.distributions()))"
    said = subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    kept = ("torch", "numpy", "pillow", "captum", "torch-lucent", "kornia", "innervision")
    return {
        name: version for name, version in (each.lower().split("==") for each in said.split()) if name in kept
    }


def each_time(one: Row) -> float:
    """The median seconds, of one piece of the work where it has several."""
    return median(one["seconds"]) / one.get("work", 1)


def table(results: dict[str, Any]) -> str:
    """The table as Markdown, with what it was taken on."""
    lines = ["| | innervision, s | rival, s | times as fast | bar | n |", "|---|---|---|---|---|---|"]
    for one in results["rows"]:
        own, peer = each_time(one["own"]), one["peer"] and each_time(one["peer"])
        times = peer / own if peer else None
        if one["bar"]:
            bar = f"{one['bar']:g} s: {'met' if own <= one['bar'] else 'missed'}"
        elif one["ratio"]:
            bar = f"{one['ratio']:g} ×: {'met' if times and times >= one['ratio'] else 'missed'}"
        else:
            bar = ""
        rivals = {one["rival"]: one["peer"], **one["also"]} if peer else {}
        rival = "; ".join(f"{each_time(each):.3g} ({name})" for name, each in rivals.items())
        what = one["what"]
        if "difference" in one["own"]:
            what += f"; maps differ by {one['own']['difference']:.0e}"
        if "pixels" in one["own"]:
            sides = [one[who]["pixels"] ** 0.5 for who in ("own", "peer")]
            what += "; the network sees {:.0f} px, lucent's {:.0f}".format(*sides)
        count = len(one["own"]["seconds"])
        lines.append(
            f"| {what} | {own:.3g} | {rival} | {f'{times:.1f}' if times else ''} | {bar} | {count} |"
        )
    packages = "; ".join(
        f"{who}: {', '.join(f'{name} {version}' for name, version in sorted(found.items()))}"
        for who, found in results["versions"].items()
    )
    size = "tiny sizes, for trying the harness alone; " if results["quick"] else ""
    head = f"{results['date']}, {results['machine']}, {results['threads']} threads; {size}medians of n."
    return "\n".join([head, "", *lines, "", packages])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--rounds", type=int, default=3, help="of what takes seconds; commands run once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--picture", default="sample:astronaut", help="of the commands; default: a square one"
    )
    parser.add_argument(
        "--python", type=Path, default=sys.executable, help="interpreter that has innervision"
    )
    parser.add_argument("--envs", type=Path, default=peers.ENVIRONMENTS, help="where the peers are installed")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/see"), help="pictures and logs")
    parser.add_argument("--json", type=Path, help="raw results (default: results.json within --out)")
    parser.add_argument("--report", type=Path, help="print the table of these raw results; run nothing")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round")
    args = parser.parse_args()
    args.python = Path(args.python).absolute()  # not resolved: a virtual environment's Python is a link
    args.json = args.json or args.out / "results.json"
    return args


if __name__ == "__main__":
    options = arguments()
    print(table(json.loads(options.report.read_text()) if options.report else measure(options)))
