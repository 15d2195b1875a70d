"""The command line: every option, exit codes, bad input, and a run that is interrupted for real."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

import innervision
from innervision import images, record, saved, weights
from innervision.cli import COMMANDS, cli
from innervision.cli.options import flag
from innervision.cli.painting import interrupts
from innervision.cli.progress import Plain, clock, listener, time_left
from innervision.cli.seeing import telling
from innervision.errors import InnervisionError
from innervision.files import claim, sha256
from innervision.nets import build
from innervision.network import Network
from innervision.paint.recipes import PRESETS, options
from innervision.record.card import write_card
from innervision.weights import Preprocessing

SMALL = ("--size", "64", "--steps", "2", "--stages", "none", "--precision", "float32", "--no-run")
SEEN = ("--steps", "4", "--every", "2", "--threads", "1")  # two snapshots


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(Path(innervision.__file__).parents[1]))  # for processes of our own
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("INNERVISION_DEBUG", raising=False)
    draw = np.random.default_rng(0)
    for name in ("content", "style"):
        Image.fromarray(draw.integers(0, 256, (48, 64, 3), np.uint8)).save(f"{name}.png")


def run(*args: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli, args, input=stdin)


def stylize(*args: str) -> Result:
    return run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL, *args)


def card_of(**changes: Any) -> record.RunCard:
    """A card of a painting, as bare as can be."""
    bare: dict[str, Any] = {"options": {}, "inputs": (), "versions": {}, "machine": {}, "output": "out"}
    return record.RunCard(command="stylize", line="", preset="gatys", seed=0, **(bare | changes))


def pixels(source: str | io.BytesIO) -> np.ndarray:
    with Image.open(source) as picture:
        return np.asarray(picture, int)


def refused(found: Result, said: str) -> None:
    """Check that a command failed with one line and code 2, and that no picture was written."""
    assert found.exit_code == 2, found.output
    assert said in found.stderr
    assert found.stderr.splitlines()[-1].startswith("innervision: ")
    assert "Traceback" not in found.stderr
    assert not Path("out.png").exists()


def spawn(*args: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "innervision", *args], capture_output=True, **more)  # type: ignore[call-overload]


# help


def test_every_option_of_a_recipe_is_in_the_help() -> None:
    text = " ".join(run("stylize", "--help").output.split())
    for each in options():
        assert f"{flag(each.name)} " in text
        assert all(choice in text for choice in each.metadata["choices"])
    for group in {each.metadata["group"] for each in options()}:
        assert f"{group}:" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_in_the_list_is_there_and_says_the_same(name: str) -> None:
    found = run(name, "--help")
    assert found.exit_code == 0, found.output
    assert name in run("--help").output


def test_help_does_not_load_torch() -> None:
    code = (
        "import sys, innervision.cli as c\n"
        "try: c.cli.main(['stylize', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if {'torch', 'rich', 'PIL', 'numpy'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_presets_are_explained() -> None:
    text = run("stylize", "--preset", "list").output
    for name, preset in PRESETS.items():
        assert f"{name}\n" in text
        assert preset.text in " ".join(text.split())
    plain = " ".join(text.split())
    assert "--size 400 --stages none --steps 200 --optimiser adam --learning-rate 3" in plain
    assert "--net squeezenet1_1 --content-weight 0.06 --content-distance sum" in plain
    assert "on vgg…: --content-layers relu3_1 --style-layers relu2_1,relu3_2,relu4_1,relu4_2" in plain
    assert max(map(len, text.splitlines())) <= 80


# what works


def test_a_picture_is_painted_and_the_run_recorded() -> None:
    found = run("stylize", "content.png", "style.png", "-o", "out.jpg", *SMALL[:-1], "--every", "1")
    assert found.exit_code == 0, found.output
    assert found.stdout == ""
    assert "64x48" in found.stderr
    assert "float32 (as asked)" in found.stderr
    assert pixels("out.jpg").shape == (48, 64, 3)
    ((folder, card),) = record.list_runs()
    assert (card.status, card.preset, card.options["steps"]) == ("done", "gatys", 2)
    assert card.result is not None
    assert card.result.sha256 == sha256("out.jpg")
    assert [each.role for each in card.inputs] == ["content", "style", "weights"]
    assert card.inputs[0].sha256 == sha256("content.png")
    assert len(list((folder / "snapshots").iterdir())) == 2
    listed = run("runs").output
    assert folder.name in listed
    assert "2/2" in listed


def test_json_lines_end_with_the_result() -> None:
    events = [json.loads(line) for line in stylize("--json").stdout.splitlines()]
    assert [event["event"] for event in events] == ["start", "frame", "frame", "snapshot", "result"]
    assert events[-1]["sha256"] == sha256("out.png")
    assert sum(events[1]["values"].values()) == pytest.approx(events[1]["total"], rel=1e-4)


def test_the_time_left_is_told_once_enough_is_done() -> None:
    assert time_left(1, 100, 54.0) is time_left(50, 100, 1.0) is time_left(0, 9, 0.0) is None
    assert time_left(3, 100, 30.0) == 970.0 and time_left(1, 2, 8.0) == 8.0
    assert time_left(4, 4, 0.1) == 0.0


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_shows_a_bar_and_each_snapshot_s_difference(
    monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    events = [json.loads(line) for line in stylize("--json", *SEEN).stdout.splitlines()]
    (change,) = (event["change"] for event in events if event.get("change") is not None)
    total = next(event["total"] for event in events if event.get("count") == 4)
    for name, value in (("COLUMNS", str(columns)), ("TERM", "xterm"), ("TTY_COMPATIBLE", "1")):
        monkeypatch.setenv(name, value)  # rich then takes the captured stream for a terminal
    heard = re.sub(r"\x1b\[[\d;]*m", "", stylize(*SEEN).stderr)  # colours
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\n", heard).splitlines()
    bars = [" ".join(line.split()) for line in lines if "4/4" in line and "step" not in line]
    assert bars
    assert bars[-1].startswith(f"{'━' * 16} 4/4 0:00 left 64x48 total {total:.4g}")
    assert max(len(line) for line in lines if "wrote" not in line) <= columns
    said = " ".join(" ".join(lines).split())
    assert f"step 4/4 at 64x48: total {total:.4g} (" in said
    assert f"; {change:.2f} % changed" in said


@pytest.mark.parametrize("environ", [{"TERM": "dumb", "TTY_COMPATIBLE": "1"}, {"FORCE_COLOR": "1"}])
def test_where_no_bar_can_be_drawn_there_are_plain_lines(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    found = stylize(*SEEN)
    assert "\x1b" not in found.stderr and "\r" not in found.stderr
    lines = [line for line in found.stderr.splitlines() if line.startswith("step ")]
    assert [re.search(r"^step (\d)/4 at 64x48: total .*; (\d+) s$", line) is not None for line in lines] == [
        *(True, True)
    ]


def test_a_clock_never_shows_sixty_seconds() -> None:
    assert [clock(seconds) for seconds in (0, 5.2, 59.4, 59.6, 119.7, 3661)] == [
        *("0:00", "0:05", "0:59", "1:00", "2:00", "61:01")
    ]


@pytest.mark.parametrize("terminal", ["0", "1"])
def test_colours_alone_tell_of_no_evaluations(monkeypatch: pytest.MonkeyPatch, terminal: str) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", terminal)
    found = stylize("--color", "transfer-only")
    assert found.exit_code == 0, found.output
    assert re.search(r"wrote .*out\.png: recoloured in \d+\.\d s\n$", found.stderr)
    for word in ("evaluations", "total", "step", "0:00"):
        assert word not in found.stderr


def test_quiet_is_silent() -> None:
    found = stylize("--quiet")
    assert (found.exit_code, found.output) == (0, "")


def test_content_by_standard_input_and_picture_by_standard_output() -> None:
    data = Path("content.png").read_bytes()
    # CliRunner's standard output has no buffer of its own, as a real one has
    done = spawn("stylize", "-", "blank", "-o", "-", *SMALL[:-1], "--run", "r", input=data)
    assert done.returncode == 0, done.stderr
    assert pixels(io.BytesIO(done.stdout)).shape == (48, 64, 3)
    assert Path("r/stdin").read_bytes() == data
    assert record.read_card("r").inputs[0].source == str(Path("r/stdin").absolute())


TYPED: dict[str, tuple[str, object]] = {  # every option, none at its default: as typed, and as meant
    "size": ("content", None),
    "pixels": ("2000", 2000),
    "style_size": ("48", 48),
    "stages": ("32:1,64:3", [[32, 1], [64, 3]]),
    "steps": ("7", 7),
    "coarse_steps": ("3", 3),
    "optimiser": ("adam", "adam"),
    "learning_rate": ("0.5", 0.5),
    "late_steps": ("1", 1),
    "late_learning_rate": ("0.25", 0.25),
    "clamp": ("1.5", 1.5),
    "history": ("9", 9),
    "canvas": ("pixels", "pixels"),
    "until": ("0.5%", 0.5),
    "every": ("2", 2),
    "start": ("noise", "noise"),
    "seed": ("3", 3),
    "color": ("match", "match"),
    "color_match": ("histogram", "histogram"),
    "net": ("squeezenet1_1", "squeezenet1_1"),
    "weights": ("mine.safetensors", "{here}/mine.safetensors"),
    "pooling": ("average", "average"),
    "mean": ("0.5,0.4,0.3", [0.5, 0.4, 0.3]),
    "std": ("0.2,0.3,0.25", [0.2, 0.3, 0.25]),
    "range": ("255", 255.0),
    "order": ("BGR", "BGR"),
    "content_layers": ("fire2", ["fire2"]),
    "content_layer_weights": ("2", [2.0]),
    "content_weight": ("0.5", 0.5),
    "content_distance": ("half-root", "half-root"),
    "style_layers": ("relu1,fire3", ["relu1", "fire3"]),
    "style_layer_weights": ("1,0.5", [1.0, 0.5]),
    "style_weight": ("10", 10.0),
    "style_weights": ("2", [2.0]),
    "style_distance": ("sum", "sum"),
    "gram_norm": ("chw", "chw"),
    "units": ("normalised", "normalised"),
    "tv_weight": ("0.1", 0.1),
    "tv_form": ("pairs", "pairs"),
    "tv_power": ("1.25", 1.25),
    "gamut_weight": ("5", 5.0),
    "precision": ("float32", "float32"),
    "threads": ("1", 1),
    "device": ("cpu", "cpu"),
}


def test_every_option_reaches_the_recipe() -> None:
    assert TYPED.keys() == {each.name for each in options()}
    torch.manual_seed(0)
    safetensors.torch.save_file(build("squeezenet1_1", device="cpu").state_dict(), "mine.safetensors")
    typed = [word for name, (text, _) in TYPED.items() for word in (flag(name), text)]
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *typed, "--run", "r")
    assert found.exit_code == 0, found.output
    want = json.loads(json.dumps({n: v for n, (_, v) in TYPED.items()}).replace("{here}", str(Path.cwd())))
    assert record.read_card("r").options == want
    usual = {each.name: each.default for each in options()}
    assert not [name for name in want if want[name] == usual[name]]


def test_options_go_over_those_of_the_preset() -> None:
    typed = ("--preset", "titu1994", "--tv-weight", "0.5", "--run", "r")
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], *typed)
    assert found.exit_code == 0, found.output
    mine = PRESETS["titu1994"].recipe
    want = replace(mine, size=64, steps=2, stages=None, precision="float32", tv_weight=0.5)
    assert record.read_card("r").options == json.loads(json.dumps(asdict(want)))


def test_no_run_wins_over_run() -> None:
    assert stylize("--run", "r").exit_code == 0
    assert not Path("r").exists()


def test_a_dry_run_paints_nothing() -> None:
    found = stylize("--dry-run")
    assert found.exit_code == 0, found.output
    assert "2 evaluations: 64x48 x 2" in found.stdout and "would write out.png\n" in found.stdout
    assert not Path("out.png").exists() and not Path("runs").exists()
    assert run("stylize", "content.png", "style.png", *SMALL, "--dry-run").exit_code == 0  # to nowhere yet
    for name in ("out.gif", "out.xyz"):  # what the run would refuse
        refused(stylize("-o", name, "--dry-run"), f"'{Path(name).suffix}' is none of")


@pytest.mark.parametrize("name", ["same", "black"])
def test_style_that_is_the_content_and_black_pictures(name: str) -> None:
    Image.new("RGB", (64, 64)).save("black.png")
    pair = ("content.png", "content.png") if name == "same" else ("black.png", "black.png")
    found = run("stylize", *pair, "-o", "out.png", *SMALL)
    assert found.exit_code == 0, found.output
    want = pixels(pair[0])
    assert np.abs(pixels("out.png") - want).max() <= 1  # it is its own optimum


# bad input


def test_a_missing_a_broken_and_an_empty_picture() -> None:
    refused(run("stylize", "nope.png", "style.png", "-o", "out.png", *SMALL), "no file 'nope.png'")
    refused(run("stylize", ".", "style.png", "-o", "out.png", *SMALL), "is a folder")
    whole = Path("content.png").read_bytes()
    for data, said in (
        (whole[: len(whole) // 2], "damaged"),
        (b"", "empty"),
        (b"text, no picture", "not a picture"),
    ):
        Path("bad.png").write_bytes(data)
        refused(run("stylize", "bad.png", "style.png", "-o", "out.png", *SMALL), said)
        refused(run("stylize", "content.png", "bad.png", "-o", "out.png", *SMALL), said)
    refused(run("stylize", "-", "style.png", "-o", "out.png", *SMALL, stdin=b""), "standard input' is empty")
    refused(stylize("--start", "nope.png"), "nope.png")
    refused(stylize("--start", "nosie"), "no start 'nosie'; there are content, noise")


def test_a_start_picture_is_read_once_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (80, 50)).save("start.png")  # 4,000 px; content and style have fewer
    reads: list[object] = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda source, **more: reads.append(source) or read(source, **more))
    assert stylize("--start", "start.png").exit_code == 0
    assert sum("start.png" in str(source) for source in reads) == 1
    Path("out.png").unlink()
    refused(stylize("--start", "start.png", "--max-pixels", "3999"), "80x50 = 4,000 pixels")


def test_colours_alone_ask_for_no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "empty"))
    args = ("stylize", "content.png", "style.png", "-o", "out.png", "--net", "squeezenet1_1")
    refused(run(*args), "innervision weights fetch squeezenet1_1")
    assert run(*args, "--color", "transfer-only").exit_code == 0


@pytest.mark.parametrize(("size", "longest"), [((1, 1), "content"), ((5000, 1), "64"), ((1, 5000), "64")])
def test_pictures_too_narrow_for_the_network(size: tuple[int, int], longest: str) -> None:
    Image.new("RGB", size, "red").save("thin.png")
    refused(run("stylize", "thin.png", "style.png", "-o", "out.png", *SMALL, "--size", longest), "too narrow")


def test_a_style_too_narrow_for_the_network() -> None:
    Image.new("RGB", (1, 5000), "red").save("thin.png")
    refused(run("stylize", "content.png", "thin.png", "-o", "out.png", *SMALL), "1x3072 px is too narrow")
    refused(stylize("--style-size", "4"), "4x3 px is too narrow for relu5_1")
    found = run("stylize", "thin.png", "style.png", "-o", "out.png", "--color", "transfer-only", *SMALL)
    assert found.exit_code == 0, found.output  # nothing looks at it
    assert pixels("out.png").shape == (64, 1, 3)


def test_a_single_pixel_is_enough_of_a_content() -> None:
    Image.new("RGB", (1, 1), "red").save("dot.png")
    assert run("stylize", "dot.png", "style.png", "-o", "out.png", *SMALL).exit_code == 0
    assert pixels("out.png").shape == (64, 64, 3)


def test_a_picture_over_the_limit_names_the_flag() -> None:
    refused(stylize("--max-pixels", "1000"), "raise --max-pixels")


def test_a_picture_of_a_hundred_million_pixels() -> None:
    solid = Image.new("P", (12000, 9000), 0)
    solid.putpalette([200, 100, 50])
    solid.save("large.png")
    args = ("stylize", "large.png", "style.png", "-o", "out.png", *SMALL, "--steps", "1")
    refused(run(*args, "--max-pixels", "100000000"), "12000x9000 = 108,000,000 pixels")
    assert run(*args).exit_code == 0
    assert (pixels("out.png") == np.broadcast_to((200, 100, 50), (48, 64, 3))).all()  # step 1 is the start


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--size", "0"), "size is 0; it must be more than 0"),
        (("--size", "-5"), "size is -5"),
        (("--steps", "0"), "steps is 0"),
        (("--style-weights", "1,2"), "2 style weights for 1 style pictures"),
        (("--style-layer-weights", "1,2"), "2 style layer weights for 5 layers"),
        (("--style-layers", "relu6_1"), "Did you mean 'relu5_1'"),
        (("--content-layers", "conv4-2"), "Did you mean 'conv4_2'"),
        (("--content-layer-weights", "1,2"), "2 content layer weights for 1 layers"),
        (("--style-weights", "nan"), "weights are 0 or more, and not all 0"),
        (("--style-weight", "nan"), "style_weight is nan"),
        (("--seed", str(2**64)), "it must fit into 64 bits"),
        (("--threads", "100000"), "it can be 1 to 1024"),
        (("--clamp", "1.5"), "go with --optimiser adam"),
        (("--optimiser", "adam", "--late-steps", "5", "--stages", "64:5"), "the last size has 5 steps"),
        (("--tv-weight", "1", "--tv-power", "0.5"), "give 1 or more"),
        (("--content-weight", "0", "--style-weight", "0", "--gamut-weight", "0"), "are all 0"),
        (("--net", "mine.py:build"), "mine.py' in --net"),
        (("--net", "vgg20"), "Did you mean 'vgg"),
        (("--preset", "gatis"), "Did you mean 'gatys'"),
        (("--preset", "article", "--steps", "30"), "innervision weights fetch squeezenet1_1-torchvision"),
        (("--weights", "nope.pth"), "no weights file"),
        (("--device", "abacus"), "device 'abacus' cannot be used"),
        (("--device", "meta"), "device 'meta' cannot be used"),
        (("--style-weight", "1e38"), "no longer a number"),
        (("--resume", "nowhere"), "--resume takes"),
    ],
)
def test_bad_options_are_one_line(args: tuple[str, ...], said: str) -> None:
    found = stylize(*args)
    if args[0] == "--resume":
        assert found.exit_code == 2
        assert said in found.stderr
    else:
        refused(found, said)


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("content.png",),
        ("content.png", "style.png"),
        ("content.png", "style.png", "-o", "-", "--json"),
        ("-", "-", "-o", "out.png"),
        ("content.png", "style.png", "--size", "big"),
        ("content.png", "style.png", "--stages", "1:2:3"),
        ("content.png", "style.png", "--until", "some"),
        ("content.png", "style.png", "--style-weights", "a,b"),
        ("content.png", "style.png", "--pooling", "min"),
    ],
)
def test_usage_errors_exit_2(args: tuple[str, ...]) -> None:
    found = run("stylize", *args)
    assert found.exit_code == 2
    assert "Error: " in found.stderr


def test_weights_of_another_net_and_corrupted_ones() -> None:
    safetensors.torch.save_file({"conv1.weight": torch.zeros(6, 1, 5, 5)}, "other.safetensors")
    refused(stylize("--weights", "other.safetensors"), "other.safetensors belongs to another network")
    whole = Path("other.safetensors").read_bytes()
    for data, said in ((whole[:-9], "damaged or cut off?"), (b"\x00" * 99, "none of safetensors, torch")):
        Path("bad.safetensors").write_bytes(data)
        refused(stylize("--weights", "bad.safetensors"), said)
    known = str(weights.locate(weights.default("vgg19")))
    refused(stylize("--net", "vgg16", "--weights", known), "holds the weights of vgg19, not of vgg16")
    for file in ("other.safetensors", "bad.safetensors", "nope.pth"):
        assert run("weights", "inspect", file).exit_code == (0 if file == "other.safetensors" else 2)
    assert "vgg19-8bit, for vgg19" in run("weights", "inspect", "vgg19-8bit").stdout


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (("nope.png", "style.png"), "innervision: no file 'nope.png': check its name and folder"),
        (("nope.png", "neither.png"), "innervision: no file 'nope.png': check its name and folder"),
        (("content.png", "nope.png"), "innervision: no file 'nope.png': check its name and folder"),
        (("sample:chelsy", "style.png"), "innervision: no sample picture 'chelsy'"),
        (("content.png", "style.png"), "Error: say where to write the picture: -o painted.png"),
    ],
)
def test_the_first_mistake_is_told_first(pictures: tuple[str, ...], said: str) -> None:
    found = run("stylize", *pictures, *SMALL)
    assert found.exit_code == 2 and found.stderr.splitlines()[-1].startswith(said)


def test_an_output_that_cannot_be_written_shows_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(stylize("-o", "out.xyz"), "'.xyz' is none of")
    Path("folder.png").mkdir()
    refused(stylize("-o", "folder.png"), "it is a folder")
    monkeypatch.setattr("innervision.images.os.access", lambda *_: False)  # root may write anywhere
    found = stylize()
    refused(found, "no permission")
    assert "evaluations" not in found.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("stylize", "content.png", "style.png", "-o", "content.png"),
        ("stylize", "content.png", "style.png", "-o", "./style.png", "--dry-run"),
        ("stylize", "content.png", "style.png", "-o", "start.png", "--start", "start.png"),
        ("attribute", "content.png", "--net", "squeezenet1_0", "-o", "content.png"),
        ("dream", "content.png", "-o", "content.png"),
        ("dream", "content.png", "--guide", "style.png", "-o", "style.png"),
    ],
)
def test_a_picture_that_is_read_is_not_written_over(command: tuple[str, ...]) -> None:
    shutil.copy("style.png", "start.png")
    name = Path(command[command.index("-o") + 1])
    before = name.read_bytes()
    result = run(*command)
    assert result.exit_code == 2 and f"'{name}' is read" in result.stderr, result.output
    assert name.read_bytes() == before


def test_a_mistyped_command_suggests_one() -> None:
    result = run("stylise", "content.png", "style.png")
    assert result.exit_code == 2 and "Did you mean 'stylize'?" in result.stderr


def test_a_folder_of_runs_that_cannot_be_made_names_the_flags() -> None:
    Path("runs").touch()
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1])
    refused(found, "name another folder by --run, or keep none by --no-run")
    assert "evaluations" not in found.stderr


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("innervision.files.os.fsync", full)
    refused(stylize(), "no room to write")
    assert not list(Path().glob(".out*"))


def test_a_disk_that_fills_in_the_middle_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        if Path("r/snapshots/0003.png").exists():
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("innervision.files.os.fsync", full)
    args = (*SMALL[:-1], "--steps", "9", "--every", "3", "--run", "r")
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *args)
    refused(found, "no room to write")
    assert str(Path("r/snapshots/0006.png")) in found.stderr
    assert [each.name for each in Path("r/snapshots").iterdir()] == ["0003.png"]  # no half of a picture
    assert pixels("r/snapshots/0003.png").shape == (48, 64, 3)
    assert [event["count"] for event in record.read_events("r")] == [1, 2, 3, 3, 4, 5, 6]


OWN = """
import time
from pathlib import Path
from torch import nn

class Slow(nn.Conv2d):
    def forward(self, x):
        if Path("slow").exists():
            Path("slow").unlink()
            time.sleep(600)
        return super().forward(x)

def build():
    return nn.Sequential(Slow(3, 4, 3), nn.ReLU())

def fixed():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(9, 2))
"""
OWN_LAYERS = ("--content-layers", "1", "--style-layers", "1")


def test_a_network_of_one_s_own() -> None:
    Path("vgg_of_mine.py").write_text(OWN)
    net = ("--net", "vgg_of_mine.py:build")
    refused(stylize(*net), "name them with --content-layers and --style-layers")
    refused(stylize(*net, *OWN_LAYERS[:2], "--style-layers", "2"), "no layer '2'")
    fixed = ("--net", "vgg_of_mine.py:fixed", "--content-layers", "3", "--style-layers", "1")
    refused(stylize(*fixed), "fails at a picture of 64x48 px")
    refused(stylize("--net", "vgg_of_mine.py:none", *OWN_LAYERS), "no 'none' in")
    found = stylize(*net, *OWN_LAYERS)
    assert found.exit_code == 0, found.output
    assert pixels("out.png").shape == (48, 64, 3)


def test_a_run_on_a_network_of_one_s_own_goes_on_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine.py").write_text(OWN)
    args = ("content.png", "style.png", "--net", "mine.py:build", *OWN_LAYERS, *SMALL[:-1], "--steps", "9")

    def full(_: int) -> None:
        if Path("r/snapshots/0006.png").exists():
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("innervision.files.os.fsync", full)
        refused(
            run("stylize", *args, "-o", "out.png", "--every", "3", "--checkpoints", "--run", "r"), "no room"
        )
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    found = run("stylize", "--resume", "../r")
    assert found.exit_code == 0, found.output
    assert pixels("../out.png").shape == (48, 64, 3)


def test_a_run_on_a_trained_network_keeps_its_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    made = Network(
        build("squeezenet1_1", device="cpu"), name="mine", preprocessing=Preprocessing((0.5,) * 3, (0.2,) * 3)
    )
    saved.save(made, "trained", net="squeezenet1_1")

    def full(*_: object, **__: object) -> None:
        raise InnervisionError("no room to write out.png")

    layers = ("--content-layers", "fire2", "--style-layers", "relu1")
    with monkeypatch.context() as patch:
        patch.setattr("innervision.images.write", full)
        args = ("content.png", "style.png", "-o", "out.png", "--net", "trained", *layers, *SMALL[:-1])
        refused(run("stylize", *args, "--run", "r"), "no room to write out.png")
    files = {each.role: (each.source, each.sha256) for each in record.read_card("r").inputs}
    for role, name in (("weights", "model.safetensors"), ("net", "model.json")):
        assert files[role] == (str(Path("trained", name).absolute()), sha256(f"trained/{name}"))
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    whole = Path("../trained/model.safetensors").read_bytes()
    saved.save(made.frozen(), "../trained", net="squeezenet1_1", dtype=torch.bfloat16)
    refused(run("stylize", "--resume", "../r"), "model.safetensors is not the same file any more")
    Path("../trained/model.safetensors").write_bytes(whole)
    found = run("stylize", "--resume", "../r")
    assert found.exit_code == 0, found.output
    assert pixels("../out.png").shape == (48, 64, 3)


def test_a_picture_that_cannot_be_written_at_the_end_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise InnervisionError("no room to write out.png")

    args = ("stylize", "content.png", "style.png", *SMALL[:-1], "--every", "1", "--threads", "1")
    for typed in ((*args, "-o", "out.png", "--run", "my run"), ("stylize", "--resume", "my run")):
        with monkeypatch.context() as patch:
            patch.setattr("innervision.images.write", full)
            found = run(*typed)
        refused(found, "no room to write out.png")
        assert "go on by: innervision stylize --resume 'my run'\n" in found.stderr
        assert "best picture" not in found.stderr
        assert record.read_card("my run").status == "failed"
    for typed in (("stylize", "--resume", "my run"), (*args, "-o", "whole.png", "--run", "whole")):
        found = run(*typed)
        assert found.exit_code == 0, found.output
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()
    cut, whole = ([(e["event"], e["count"]) for e in record.read_events(f)] for f in ("my run", "whole"))
    assert cut == whole


@pytest.mark.parametrize(
    ("error", "output"), [(MemoryError(), "out.png"), (RuntimeError("[cpu] can't allocate memory"), "-")]
)
def test_memory_that_runs_out_at_the_last_size(
    monkeypatch: pytest.MonkeyPatch, error: Exception, output: str
) -> None:
    answers = Network.answers

    def short(self: Network, image: torch.Tensor, *args: object) -> object:
        if Path("r/snapshots/0002.png").exists():
            raise error
        return answers(self, image, *args)  # type: ignore[arg-type]

    args = ("stylize", "content.png", "style.png", "--stages", "32:2,64:2")
    args = (*args, "--precision", "float32", "--threads", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Network, "answers", short)
        found = run(*args, "-o", output, "--run", "r")
    assert found.exit_code == 2, found.output
    assert found.stderr.splitlines()[-1].startswith("innervision: out of memory: choose a smaller --size")
    where = "standard output" if output == "-" else output
    assert f"the best picture so far is in {where}, at 32x24\n" in found.stderr
    painted = io.BytesIO(found.stdout_bytes if output == "-" else Path(output).read_bytes())
    assert pixels(painted).shape == (24, 32, 3)
    assert run("stylize", "--resume", "r", "-o", "out.png").exit_code == 0
    assert run(*args, "-o", "whole.png", "--no-run").exit_code == 0
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()


@pytest.mark.parametrize("stopped", [True, False])
def test_a_run_s_folder_that_is_full_at_the_end_does_not_hide_the_picture(
    monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    def full(*_: object) -> None:
        raise InnervisionError("no room to write in r")

    if stopped:
        monkeypatch.setattr(Plain, "frame", lambda *_: signal.raise_signal(signal.SIGINT))
        monkeypatch.setattr(record.Run, "save_checkpoint", full)
    else:
        monkeypatch.setattr("innervision.record.run.draw_curve", full)
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert found.exit_code == 2, found.output
    what = "best picture so far" if stopped else "picture"
    said = [f"the {what} is in {Path('out.png').absolute()}", "innervision: no room to write in r"]
    assert found.stderr.splitlines()[-2:] == said
    assert pixels("out.png").shape == (48, 64, 3)
    assert record.read_card("r").status == ("failed" if stopped else "done")


def test_two_runs_into_one_folder() -> None:
    args = ("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert run(*args).exit_code == 0
    found = run("stylize", "--resume", "r")
    assert (found.exit_code, found.stderr) == (0, f"already done: {Path('out.png').absolute()}\n")
    event = json.loads(run("stylize", "--resume", "r", "--json").stdout)
    assert (event["status"], event["sha256"]) == ("done", sha256("out.png"))
    assert run("stylize", "--resume", "r", "--steps", "9").exit_code == 2  # that is more than was done
    assert run("stylize", "--resume", "r", "-o", "other.png").exit_code == 2
    Path("out.png").unlink()
    refused(run(*args), "holds a run already")
    refused(run("stylize", "--resume", "r"), "is done")
    refused(run("stylize", "--resume", "nowhere"), "holds no run")


def test_a_run_to_standard_output_is_not_resumed_with_json() -> None:
    assert (
        run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r").exit_code == 0
    )
    card = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps({**card, "status": "stopped", "output": "-"}))
    found = run("stylize", "--resume", "r", "--json")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "--json and -o - both write to standard output" in found.stderr


def test_a_run_of_another_command_is_not_gone_on_with() -> None:
    assert (
        run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r").exit_code == 0
    )
    Path("out.png").unlink()
    card = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps({**card, "command": "train", "inputs": []}))
    for more in ((), ("--dry-run",)):
        refused(run("stylize", "--resume", "r", *more), "one of innervision train, not of stylize")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"size": "large"}}, "no card of a painting: '>' not supported"),
        ({"options": {"style_layers": 3, "stages": [[1]]}}, "no card of a painting: not enough values"),
        ({"machine": {"cores": 2}}, "no card of a painting: no device, precision, threads of the machine"),
        ({"versions": {"innervision": "99"}}, "innervision is "),
    ],
)
def test_a_card_that_cannot_be_gone_on_with(change: dict[str, object], said: str) -> None:
    done = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert done.exit_code == 0, done.output
    Path("out.png").unlink()
    card = json.loads(Path("r/run.json").read_text())
    Path("r/run.json").write_text(json.dumps({**card, "status": "stopped", **change}))
    Path("r/checkpoint.pt").touch()
    refused(run("stylize", "--resume", "r"), said)


def test_a_picture_that_came_by_standard_input_moves_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise InnervisionError("no room to write out.png")

    args = ("--threads", "1", *SMALL[:-1])
    with monkeypatch.context() as patch:
        patch.setattr("innervision.images.write", full)
        typed = ("stylize", "-", "style.png", "-o", "out.png", *args, "--run", "r")
        refused(run(*typed, stdin=Path("content.png").read_bytes()), "no room to write out.png")
    Path("r").rename("moved [here]")
    found = run("stylize", "--resume", "moved [here]")
    assert found.exit_code == 0, found.output
    assert run("stylize", "content.png", "style.png", "-o", "whole.png", *args, "--no-run").exit_code == 0
    assert Path("out.png").read_bytes() == Path("whole.png").read_bytes()


def test_an_error_s_line_keeps_the_spaces_of_a_name() -> None:
    assert stylize("--no-run").exit_code == 0
    Path("out.png").unlink()
    Path("two  spaces").mkdir()
    Path("two  spaces/run.json").touch()
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "two  spaces")
    refused(found, "--resume 'two  spaces'")
    refused(run("stylize", "no\nsuch.png", "style.png", "-o", "out.png", *SMALL), "no file 'no such.png'")


def test_debug_shows_where_an_error_arose() -> None:
    found = run("--debug", "stylize", "content.png", "style.png", "-o", "out.png", "--size", "0")
    assert isinstance(found.exception, InnervisionError)


def test_diverging_marks_the_run_failed() -> None:
    args = (*SMALL[:-1], "--run", "r", "--style-weight", "1e38")
    refused(run("stylize", "content.png", "style.png", "-o", "out.png", *args), "no longer a number")
    assert record.read_card("r").status == "failed"


# Ctrl-C


def test_an_interrupted_run_goes_on_bit_for_bit() -> None:
    common = ("stylize", "content.png", "style.png", "--size", "64", "--steps", "40", "--stages", "none")
    common = (*common, "--every", "10", "--threads", "1")
    command = [sys.executable, "-m", "innervision", *common, "-o", "cut.png", "--run", "cut", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line).get("count") == 7:
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    last = json.loads(out.splitlines()[-1])
    assert (last["event"], last["status"]) == ("result", "stopped")
    assert 7 <= last["count"] < 40
    assert sha256("cut.png") == last["sha256"]
    assert record.read_card("cut").status == "stopped"
    assert (
        "style_weight is 2.0, was 1000.0" in run("stylize", "--resume", "cut", "--style-weight", "2").stderr
    )
    went_on = run("stylize", "--resume", "cut")
    assert went_on.exit_code == 0, went_on.output
    assert " (as before), " in went_on.stderr and "as asked" not in went_on.stderr  # nobody named a precision
    whole = run(*common, "-o", "whole.png", "--run", "whole")
    assert whole.exit_code == 0, whole.output
    assert Path("cut.png").read_bytes() == Path("whole.png").read_bytes()
    cut, uncut = ([(e["count"], e.get("total")) for e in record.read_events(f)] for f in ("cut", "whole"))
    assert cut == uncut


def test_stopped_at_a_coarse_stage_it_says_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "frame", lambda *_: signal.raise_signal(signal.SIGINT))
    found = stylize("--stages", "32:4,64:2")
    assert found.exit_code == 130, found.output
    assert pixels("out.png").shape == (24, 32, 3)
    assert "stopped; the best picture so far is in " in found.stderr
    assert "out.png, at 32x24: 1 of 6 evaluations" in found.stderr
    assert "there is no run to go on with" in found.stderr
    found = stylize("--stages", "32:4")
    assert "out.png: 1 of 4 evaluations" in found.stderr  # of the size that was ordered


def test_the_first_ctrl_c_may_come_as_the_picture_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    write = images.write

    def slow(*args: object, **more: object) -> None:
        signal.raise_signal(signal.SIGINT)
        write(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("innervision.images.write", slow)
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert found.exit_code == 0, found.output
    assert sha256("out.png") == json.loads(Path("r/run.json").read_text())["result"]["sha256"]
    assert record.read_card("r").status == "done"


def test_what_systems_end_a_run_with_is_as_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "frame", lambda *_: signal.raise_signal(signal.SIGTERM))
    found = run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert found.exit_code == 130, found.output
    assert found.stderr.endswith("\ngo on by: innervision stylize --resume r\n")
    assert record.read_card("r").status == "stopped" and Path("r/checkpoint.pt").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_second_ctrl_c_stops_at_once() -> None:
    Path("mine.py").write_text(OWN)  # a step of it takes ten minutes while there is a file "slow"
    common = ("stylize", "content.png", "style.png", "-o", "out.png", "--run", "r", "--size", "64")
    common = (
        *common,
        "--stages",
        "none",
        "--steps",
        "100000",
        "--net",
        "mine.py:build",
        *OWN_LAYERS,
        "--json",
    )
    command = [sys.executable, "-u", "-m", "innervision", *common]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in process.stdout:
                if json.loads(line).get("count") == 2:
                    break
            Path("slow").touch()
            while Path("slow").exists():  # until it sleeps
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            assert b"Ctrl-C again stops at once" in process.stderr.readline()
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, err) == (130, b"innervision: interrupted\n")
    assert not Path("out.png").exists()
    assert record.read_card("r").status == "stopped"


def test_ctrl_c_before_the_first_step_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("innervision.images.read", interrupt)
    found = stylize()
    assert (found.exit_code, found.stderr) == (130, "innervision: interrupted\n")
    assert not Path("out.png").exists()


# tables


def test_nets_and_weights_are_listed() -> None:
    nets, weights = run("nets").output, run("weights", "list").output
    assert "143,667,240" in nets
    assert "at hand (vgg19-8bit)" in nets
    assert "innervision weights fetch vgg16-torchvision" in nets
    assert "squeezenet1_1-torchvision" in weights
    refused(run("weights", "fetch", "vgg16-torchvison"), "Did you mean 'vgg16-torchvision'")


def test_weights_are_fetched_offline_says_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    refused(run("weights", "fetch", "squeezenet1_1-torchvision"), "by hand and save it as")


def test_a_run_at_work_is_told_from_one_that_was_broken_off() -> None:
    assert (
        run("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "runs/r").exit_code
        == 0
    )
    card = json.loads(Path("runs/r/run.json").read_text())
    Path("runs/r/run.json").write_text(json.dumps({**card, "status": "running", "result": None}))
    with Path("runs/r/.lock").open("ab") as lock:
        claim(lock)
        assert run("runs").stdout.splitlines()[1].split()[:5] == ["r", "stylize", "running", "gatys", "2/2"]
    found = run("runs")
    assert found.stdout.splitlines()[1].split()[:6] == ["r", "stylize", "broken", "off", "gatys", "2/2"]
    assert found.stderr.startswith("r left no checkpoint") and "--checkpoints" in found.stderr
    torch.save({"seconds": 1.0, "count": 1, "work": {"image": torch.ones(3)}}, "runs/r/checkpoint.pt")
    assert run("runs").stderr == "r goes on from step 1 by: innervision stylize --resume runs/r\n"
    Path("runs/r/checkpoint.pt").write_bytes(b"cut")
    with Path("runs/r/events.jsonl").open("a") as events:
        events.write('{"event": "frame", "cou')  # as a crash leaves it
    found = run("runs")
    assert "2/2" in found.stdout and "start it anew" in found.stderr


def test_where_nobody_reads_the_events_it_is_as_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """A studio that died leaves its job so: what is done is to be kept, and nothing to fail over."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as out, telling(quiet=False, as_json=True) as told:  # noqa: PTH123
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(KeyboardInterrupt):
            told.step(1, 2)
        told.step(2, 2)
        told.end("done")


def test_who_no_longer_reads_stops_a_painting_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipeline Ctrl-C ends the reader, too: that is no second Ctrl-C, which would stop at once."""
    for pressed in (False, True):
        reader, writer = os.pipe()
        os.close(reader)
        with (
            open(writer, "w") as out,  # noqa: PTH123
            listener(quiet=False, as_json=True) as told,
            interrupts() as wanted,
        ):
            monkeypatch.setattr("sys.stdout", out)
            if pressed:
                signal.raise_signal(signal.SIGINT)
            told.end({"event": "result"}, "")
            assert wanted == [signal.SIGINT]
            told.end({"event": "result"}, "")


def test_lines_that_nobody_reads_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    Plain().end({}, "done")
    with telling(quiet=False, as_json=False) as told:
        told.say("a line")
        told.step(2, 2)
        told.end("done")


def test_strange_names_of_runs_are_a_line_each(tmp_path: Path) -> None:
    names = {"a\nb": "a?b", "\x1b[2Jc": "?[2Jc", "图片 [red]": "图片 [red]", os.fsdecode(b"\xff"): "?"}
    card = card_of(status="stopped", output="/图/out.png")
    for hour, name in enumerate(names):
        Path("runs", name).mkdir(parents=True)
        write_card(replace(card, started=f"2030-01-01T0{hour}"), Path("runs", name))
    found = run("runs")
    head, *rows = found.stdout.splitlines()
    assert found.exit_code == 0 and len(rows) == len(names)
    for row, shown in zip(rows, names.values(), strict=True):
        assert row.startswith(f"{shown}  ")
        wide = sum(ord(sign) > 0x2E80 for sign in row[: row.index("stylize")])  # two columns each
        assert row.index("stylize") + wide == head.index("command")
    assert "?[2Jc left no checkpoint" in found.stderr
    printed = spawn("runs", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert printed.returncode == 0, printed.stderr
    assert rb"\u56fe\u7247 [red]" in printed.stdout


def test_a_run_that_goes_on_is_told_by_its_last_event() -> None:
    done = record.Result("out", "", 3, 9, 1.0, {}, 1.0)
    card = card_of(result=done)
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/events.jsonl").write_text('{"event": "frame", "count": 7, "steps": 9}\n')
    for status, steps in (("running", "7/9"), ("stopped", "3/9")):
        write_card(replace(card, status=status), Path("runs/r"))
        assert f" {steps} " in run("runs").stdout


def test_each_run_is_told_in_its_own_terms() -> None:
    result = record.Result("out", "", 3, 4, 12345.0, {"content": 1.0}, 1.0)
    card = card_of(result=result)
    trained = replace(card, command="train", preset="lenet5")
    told = {
        "1": (card, ("gatys", "3/4", "total", "1.234e+04")),
        "2": (
            replace(trained, result=replace(result, values={"accuracy": 0.98765})),
            ("lenet5", "3/4", "accuracy", "98.77"),
        ),
        "3": (replace(trained, result=replace(result, total=0.25)), ("lenet5", "3/4", "loss", "0.25")),
        "4": (replace(trained, result=replace(result, total=float("nan"))), ("lenet5", "3/4", "-")),
        "5": (replace(card, command="units", preset="", result=None), ("-", "-", "-")),
    }
    for name, (each, _) in told.items():
        Path("runs", name).mkdir(parents=True)
        write_card(replace(each, status="done"), Path("runs", name))
    head, *rows = run("runs").stdout.splitlines()
    assert head.split() == ["run", "command", "status", "recipe", "steps", "result", "output"]
    for row, (name, (each, said)) in zip(rows, told.items(), strict=True):
        assert row.split()[: 3 + len(said)] == [name, each.command, "done", *said]


def test_no_runs_is_said() -> None:
    found = run("runs")
    assert (found.exit_code, found.stderr) == (0, "no runs in 'runs'\n")
    for name in ("nowhere", "content.png"):
        refused(run("runs", name), f"no folder '{name}'")
