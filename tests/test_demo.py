"""The demo, tiny: everything its page shows is there, and is a picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from innervision.cli import demo

COUNTS = (2, 4, 6)


def run(out: Path, *options: str) -> Result:
    return CliRunner().invoke(demo.demo, ["-o", str(out), "--quick", *options], catch_exceptions=False)


def test_the_page_shows_what_was_made(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = run(out)
    assert result.exit_code == 0
    page = (out / "index.html").read_text("utf-8")
    shown = set(re.findall(r'(?:src|href)="([^"]+)"', page))
    made = {file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file()}
    assert shown == made - {"index.html"}
    for name in shown:
        with Image.open(out / name) as picture:
            picture.load()
    painted = [(out / f"painted-{style}.jpg").read_bytes() for style in demo.STYLES]
    assert len({*painted, (out / "photograph.jpg").read_bytes()}) == 3
    for style in demo.STYLES:
        assert {f"snapshots/{style}-{count:04d}.jpg" for count in COUNTS} <= shown
        assert f"sample:chelsea sample:{style} --size 96 --steps 6 --every 2" in page
    # said at the end: what was made, where, and what next; on the way, a line a snapshot and no bar
    said = result.stdout
    assert str(out) in said and "innervision stylize YOURPHOTO" in said
    named = [line.split()[0].replace("STYLE", "tarascon") for line in said.splitlines() if line[:2] == "  "]
    assert len(named) == 4 and all((out / name).is_file() for name in named)
    assert [f"step {count}/6" in result.stderr for count in range(1, 7)] == [False, True] * 3
    assert "\x1b" not in result.stderr


@pytest.fixture
def one_style(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STYLES", {"tarascon": "The Painter on the Road to Tarascon, 1888"})


@pytest.mark.usefixtures("one_style")
def test_a_terminal_gets_a_bar_and_quiet_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich then takes the captured stream for a terminal
    heard = run(tmp_path / "bar").stderr
    assert "\x1b" in heard and " 6/6" in heard and "0:00 left" in heard
    assert all(f"step {count}/6 at 96x64: " in heard for count in COUNTS) and "% changed" in heard
    assert "painted-tarascon.jpg: after The Painter" in heard
    quiet = run(tmp_path / "quiet", "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert (tmp_path / "quiet/index.html").is_file()


@pytest.mark.parametrize("typed", [".venv/bin/innervision", "/usr/bin/pytest"])
@pytest.mark.parametrize("found", [True, False])
def test_what_to_try_next_can_be_typed_as_it_stands(
    typed: str, found: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if found:
        (tmp_path / "innervision").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.argv", [typed, "demo"])
    by_path = not found and typed.endswith("innervision")  # where make has left it, no shell finds the name
    assert demo.onward().startswith(f"{typed if by_path else 'innervision'} stylize YOURPHOTO ")


def test_a_folder_that_cannot_be_written_to_is_said_before_any_work(tmp_path: Path) -> None:
    from innervision.errors import InnervisionError

    (tmp_path / "file").touch()
    with pytest.raises(InnervisionError, match="cannot write"):
        run(tmp_path / "file")
