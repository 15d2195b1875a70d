"""The command line: every option, exit codes, bad input, and a run that is interrupted for real."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

import innervision
from innervision import record
from innervision.cli import COMMANDS, cli
from innervision.cli.options import flag
from innervision.errors import InnervisionError
from innervision.files import sha256
from innervision.paint.recipes import PRESETS, options

SMALL = ("--size", "64", "--steps", "2", "--stages", "none", "--precision", "float32", "--no-run")


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
        assert name in text
        assert preset.text in text
    assert "net='squeezenet1_1'" in text


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


def test_options_reach_the_recipe() -> None:
    found = stylize(
        *("--preset", "titu1994", "--style-layers", "relu1_1,relu2_1", "--style-layer-weights", "1,0.5"),
        *("--stages", "32:1,64:2", "--until", "0.5%", "--size", "content", "--run", "r"),
    )
    assert found.exit_code == 0, found.output
    assert "32x24 x 1, 64x48 x 2" in found.stderr  # --no-run wins over --run: no card to read
    assert not Path("r").exists()


def test_a_dry_run_paints_nothing() -> None:
    found = stylize("--dry-run")
    assert found.exit_code == 0, found.output
    assert "2 evaluations: 64x48 x 2" in found.stdout
    assert not Path("out.png").exists()


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
    refused(stylize("--weights", "other.safetensors"), "other.safetensors")
    Path("bad.safetensors").write_bytes(b"\x00" * 99)
    refused(stylize("--weights", "bad.safetensors"), "bad.safetensors")
    for file in ("other.safetensors", "bad.safetensors", "nope.pth"):
        assert run("weights", "inspect", file).exit_code == (0 if file == "other.safetensors" else 2)


def test_an_output_that_cannot_be_written_shows_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    refused(stylize("-o", "out.xyz"), "'.xyz' is none of")
    Path("folder.png").mkdir()
    refused(stylize("-o", "folder.png"), "it is a folder")
    monkeypatch.setattr("innervision.images.os.access", lambda *_: False)  # root may write anywhere
    found = stylize()
    refused(found, "no permission")
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
    assert [event["count"] for event in record.read_events("r")] == [1, 2, 3, 3, 4, 5]


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


def test_two_runs_into_one_folder() -> None:
    args = ("stylize", "content.png", "style.png", "-o", "out.png", *SMALL[:-1], "--run", "r")
    assert run(*args).exit_code == 0
    Path("out.png").unlink()
    refused(run(*args), "holds a run already")
    refused(run("stylize", "--resume", "r"), "is done")
    refused(run("stylize", "--resume", "nowhere"), "holds no run")


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
    whole = run(*common, "-o", "whole.png", "--run", "whole")
    assert whole.exit_code == 0, whole.output
    assert Path("cut.png").read_bytes() == Path("whole.png").read_bytes()
    cut, uncut = ([(e["count"], e.get("total")) for e in record.read_events(f)] for f in ("cut", "whole"))
    assert cut == uncut


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


def test_no_runs_is_said() -> None:
    found = run("runs", "nowhere")
    assert (found.exit_code, found.stderr) == (0, "no runs in 'nowhere'\n")
