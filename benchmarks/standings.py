"""Turn the raw results of stylize.py into one table."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median

COLUMNS = (
    "contestant",
    "evaluations",
    "seconds",
    "s / evaluation",
    "× floor",
    "peak MiB",
    "J* of the file",
    "first J ≤ J*, s",
    "innervision J ≤ J*, s",
    "times sooner than its first",
    "than its end",
    "J* unsaved",
    "innervision's file there, s",
    "times sooner than its end",
)


def machine() -> str:
    """The processor and its cores."""
    model = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if file.exists():
        facts = dict(line.split(":", 1) for line in file.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in facts.items()}
        model = named.get("model name", model)
        flags = named.get("flags", "").split()
        model += "".join(f", {flag}" for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags)
    return f"{model}, {os.cpu_count()} cores"


def seconds_an_evaluation(run: dict, pixels: int) -> float:
    """Between the first and the last picture at full size: start-up and saving are left out."""
    full = [
        frame for frame in run["frames"] if frame.get("pixels", pixels) == pixels and frame["evaluations"]
    ]
    if len(full) < 2:
        return float("nan")
    evaluations = full[-1]["evaluations"] - full[0]["evaluations"]
    return (full[-1]["elapsed"] - full[0]["elapsed"]) / evaluations


def unsaved(run: dict) -> float:
    """J of the fp32 picture at the end, as the contestant itself reckons it."""
    return run["frames"][-1].get("loss") or (run["losses"][-1][1] if run["losses"] else float("nan"))


def time_to(run: dict, goal: float) -> float:
    """Seconds to the first saved picture with J no greater than the goal; infinite where none is."""
    return next((frame["elapsed"] for frame in run["frames"] if frame["J"] <= goal), float("inf"))


def against(run: dict, own: dict | None) -> dict[str, float]:
    """How much sooner innervision, in the same round, made as good a file; and one as good as the unsaved
    picture.

    A file as good as a peer's last: against the time of its first such file, and against that of its end,
    when it was done. The unsaved picture is the harder race: a peer's leaves the range 0..255 and loses by
    being clipped to it, so the file of one is held against the numbers the other never wrote.
    """
    end = run["frames"][-1]
    first = time_to(run, end["J"])
    found = {"first": first}
    if own:
        found["own"] = time_to(own, end["J"])
        found["sooner"] = first / found["own"]
        found["sooner_end"] = end["elapsed"] / found["own"]
        found["own_unsaved"] = time_to(own, unsaved(run))
        found["sooner_unsaved"] = end["elapsed"] / found["own_unsaved"]
    return found


def middle(values: list[float], form: str = ".2f", ends: bool = False) -> str:
    """The median, with the least and the greatest if wanted and there are several; NaN is no value."""
    values = sorted(value for value in values if value == value)
    if not any(values):  # a ratio to what was not reached is 0
        return "–"
    if median(values) == float("inf"):
        return "not reached"
    text = f"{median(values):{form}}"
    return f"{text} ({values[0]:{form}}–{values[-1]:{form}})" if ends and len(values) > 1 else text


def row(name: str, results: dict) -> list[str]:
    """One contestant's cells: medians over the rounds, ratios taken within each round."""
    runs = [run for run in results["runs"] if run["contestant"] == name]
    own = {run["round"]: run for run in results["runs"] if run["contestant"] == "innervision"}
    pixels = results["content"][0] * results["content"][1]
    floor = median(one["forward"] + one["backward"] for one in results["floor"])
    step = [seconds_an_evaluation(run, pixels) for run in runs]
    cells = [
        name,
        middle([run["frames"][-1]["evaluations"] for run in runs], ".0f"),
        middle([run["frames"][-1]["elapsed"] for run in runs], ".1f"),
        middle(step),
        middle([one / floor for one in step]),
        middle([run["peak_mib"] for run in runs], ".0f"),
        middle([run["frames"][-1]["J"] for run in runs], ".4g"),
    ]
    if name == "innervision":
        loss = middle([unsaved(run) for run in runs], ".4g")
        return [*cells, *"––––", loss, "–", "–"]
    races = [against(run, own.get(run["round"])) for run in runs]

    def of(key: str) -> str:
        return middle([race.get(key, float("nan")) for race in races], ".1f", ends=key.startswith("sooner"))

    loss = middle([unsaved(run) for run in runs], ".4g")
    sooner = of("sooner"), of("sooner_end")
    return [*cells, of("first"), of("own"), *sooner, loss, of("own_unsaved"), of("sooner_unsaved")]


def table(results: dict) -> str:
    """The table in Markdown, and below it what it was taken on."""
    names = list(dict.fromkeys(run["contestant"] for run in results["runs"]))
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row(name, results) for name in names)]
    text = ["| " + " | ".join(line) + " |" for line in lines]

    rounds = len({run["round"] for run in results["runs"]})
    named = zip(results.get("pictures", ("", "")), (results["content"], results["style"]), strict=True)
    content, style = (f"{name} {width}×{height}".strip() for name, (width, height) in named)
    said = f"{rounds} interleaved rounds: medians (least–greatest)" if rounds > 1 else "one round, in turn"
    floor = [median(one[key] for one in results["floor"]) for key in ("forward", "backward")]
    rate = 2e-9 * results["floor"][0]["multiply_adds"] / sum(floor)
    text += [
        "",
        f"{results['date']}; {results['machine']}; {results['threads']} threads;"
        f" content {content}, style {style}; {results['steps']} evaluations asked of each peer,"
        f" a picture every {results['every']}; {said}.",
        "",
        f"Floor: VGG19's direct convolutions to conv5_1 in {results['floor'][0]['dtype']} take"
        f" {floor[0]:.3f} s forward and {floor[1]:.3f} s for the gradient ({rate:.0f} GFLOP/s).",
        "",
        f"J of the content itself, where all start: {results['start']:.6g}."
        " A contestant's own loss there, over it: "
        + ", ".join(starts(results)) + ".",
        "",
        "Versions: " + "; ".join(
            f"{name}: " + ", ".join(f"{package} {version}" for package, version in found.items())
            for name, found in results["versions"].items()
        ) + ".",
    ]  # fmt: skip
    return "\n".join(text)


def starts(results: dict) -> list[str]:
    """Whether each contestant minimises J: its own loss at the start against the scorer's."""
    found = {run["contestant"]: run["losses"][0] for run in results["runs"] if run["losses"]}
    return [f"{name} {loss / results['start']:.5f}" for name, (number, loss) in found.items() if number <= 1]
