"""The demo, tiny: everything its page shows is there, and is a picture."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner
from PIL import Image

from innervision.cli.demo import STYLES, demo


def test_the_page_shows_what_was_made(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    result = CliRunner().invoke(demo, ["-o", str(out), "--quick"], catch_exceptions=False)
    assert result.exit_code == 0
    assert str(out / "index.html") in result.output and "innervision stylize YOURPHOTO" in result.output
    page = (out / "index.html").read_text("utf-8")
    shown = set(re.findall(r'src="([^"]+)"', page))
    assert shown == {file.name for file in out.iterdir()} - {"index.html"}
    for name in shown:
        with Image.open(out / name) as picture:
            picture.load()
    painted = [(out / f"painted-{style}.jpg").read_bytes() for style in STYLES]
    assert len({*painted, (out / "photograph.jpg").read_bytes()}) == 3
    assert all(f"sample:chelsea sample:{style} --size 96 --steps 6 --every 2" in page for style in STYLES)
