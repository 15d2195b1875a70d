"""What a command says before its work, and what it keeps when it is ended: against what it then does."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from innervision import images
from innervision.cli import beforehand, cli, maps
from innervision.cli.excited import draw
from innervision.errors import Invalid
from innervision.learn import folders
from innervision.network import wrap
from innervision.see.compare import _by_chance, centred, cka
from innervision.see.excite import Excited
from innervision.see.target import Target

NET = """
import torch
from torch import nn
def net():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*first, nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    Path("many").mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(f"many/{number}.png")
    Path("photo.png").write_bytes(Path("many/0.png").read_bytes())


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, [*words, "--net", "net.py:net", "--device", "cpu", "--json"])


ALL = ("attribute", "photo.png", "--method", "all", "--samples", "2", "--points", "2")
COMMANDS: dict[str, tuple[str, ...]] = {
    "attribute": ("attribute", "photo.png"),
    "attribute all": ALL,
    "excite": ("excite", "--targets", "4:0-1", "--steps", "2", "--size", "24"),
    "invert": ("invert", "photo.png", "--steps", "2", "--layers", "1,4"),
    "dream": ("dream", "photo.png", "--layers", "4", "--steps", "1"),
    "units": ("units", "many", "--size", "32", "--top", "9"),
    "compare": ("compare", "many", "--size", "32"),
    "compare --biased": ("compare", "many", "--size", "32", "--biased", "--net2", "net.py:net"),
    "compare --invariance": ("compare", "--invariance", "photo.png", "--size", "32"),
    "compare --part": ("compare", "many/1.png", "many/2.png", "--size", "32")
    + 2 * ("--part", "2,2,9,9"),
}  # fmt: skip


def everything() -> set[str]:
    return {str(path) for path in Path.cwd().rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_dry_run_writes_nothing_and_foretells_what_is_written(command: str) -> None:
    words, before = COMMANDS[command], everything()
    told = run(*words, "--dry-run")
    assert told.exit_code == 0, told.output
    assert everything() == before
    event = json.loads(told.stdout)
    assert event["event"] == "estimate" and event["text"] and 0 < event["seconds"] + 0.1 < 60
    done = run(*words)
    assert done.exit_code == 0, done.output
    written = everything() - before
    named = {str(Path(name).absolute()) for name in event["files"]}
    within = [name for name in event["files"] if name.endswith("/")]
    assert named <= written, "all that was foretold is there"
    more = [path for path in written - named if Path(path).is_file()]
    assert all(any(path.startswith(str(Path(f).absolute())) for f in within) for path in more)


def test_a_plan_is_told_in_words() -> None:
    plan = beforehand.Plan(("what", "how"), 95.0, ("a.png", "b/"), memory=2**30, available=2**32)
    assert plan.said().splitlines() == [
        "what",
        "how",
        "about 2 min on this machine, once the network is read; "
        "peak memory about 1.0 GiB of 4.0 GiB available",
        "would write a.png, b/",
    ]


def test_methods_that_are_done_are_kept_when_the_command_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended by SIGTERM in its third method; the same command makes the others, and all is as if unbroken."""
    explain, asked = maps.explain, []

    def watched(method: str, *rest: Any) -> Any:
        asked.append(method)
        if ending and len(asked) == 3:
            signal.raise_signal(signal.SIGTERM)
        return explain(method, *rest)

    ending = True
    monkeypatch.setattr(maps, "explain", watched)
    usual = signal.getsignal(signal.SIGTERM)
    stopped = run(*ALL)
    assert stopped.exit_code == 130 and signal.getsignal(signal.SIGTERM) == usual
    event = json.loads(stopped.stdout.splitlines()[-1])
    assert event["finished"] is False and list(event["methods"]) == list(maps.METHODS[:2])
    assert Path("photo-all.png").is_file(), "a page of what there is"
    assert {path.suffix for path in Path("photo-all-methods").iterdir()} == {".png", ".safetensors"}
    asked, ending = [], False
    on = json.loads(run(*ALL).stdout.splitlines()[-1])
    assert on["finished"] and asked == list(maps.METHODS[2:])
    whole = json.loads(run(*ALL, "-o", "other.png").stdout.splitlines()[-1])
    assert on["methods"] == whole["methods"]
    assert Path("photo-all.png").read_bytes() == Path("other.png").read_bytes()
    asked = []
    run(*ALL, "--seed", "1")
    assert asked == list(maps.METHODS), "what another seed made is no part of it"


def test_a_single_picture_has_a_caption_below_it() -> None:
    drawn = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    network = wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), name="own")
    found = [Excited(Target("0", 2), drawn, 0.5, 1.5, torch.full((1, 1, 40, 48), 0.5))]
    plain, told = draw(found, None, network), draw(found, None, network, caption=True)
    assert plain.size == (48, 40) and told.mode == plain.mode == "RGBA"
    left = (told.width - 48) // 2
    assert np.array_equal(np.asarray(told.crop((left, 0, left + 48, 40))), np.asarray(plain))
    below = np.asarray(told.convert("RGB").crop((0, 41, told.width, told.height)))
    assert below.max() > 200, "words in pale ink"


def test_what_chance_makes_of_similarity_is_the_mean_over_orders() -> None:
    """The closed forms, against every layer's pictures put in 4,000 random orders."""
    draw = np.random.default_rng(0)
    one, two = (draw.normal(size=(7, width)) for width in (30, 3))
    own, other = (torch.from_numpy(x @ x.T) for x in (one, two))
    orders = [torch.from_numpy(draw.permutation(7)) for _ in range(4000)]
    for biased in (True, False):
        k, same = (centred(each, biased=biased) for each in (own, other))
        scale = k.norm() * same.norm()
        found = torch.stack([(k * same[p][:, p]).sum() / scale for p in orders])
        if biased:
            wanted = _by_chance(k[None], same[None])[0, 0]
            assert abs(float(found.mean()) - wanted) < 0.01
        else:
            assert abs(float(found.std()) - (2 / (7 * 4)) ** 0.5) < 0.02 and abs(float(found.mean())) < 0.01
    network = wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)))
    pictures = draw.integers(0, 256, (8, 9, 9, 3), np.uint8)
    *_, seen = cka(network, pictures, ["0"], batch_size=4)
    assert seen.noise == pytest.approx((2 / 4) ** 0.5 / 2**0.5) and seen.chance is None


def test_too_few_pictures_are_told() -> None:
    done = CliRunner().invoke(cli, [*COMMANDS["compare"], "--net", "net.py:net"])
    assert "only 5 pictures: by chance alone numbers may be off by 0.89" in done.stderr, "2 √(2 / (5·2))"
    done = CliRunner().invoke(cli, [*COMMANDS["compare --biased"], "--net", "net.py:net"])
    assert "with 5 pictures --biased brings layers that have nothing in common to" in done.stderr
    done = CliRunner().invoke(cli, [*COMMANDS["units"], "--net", "net.py:net"])
    assert "only 5 pictures: every unit shows all of them, where 9 of many were asked for" in done.stderr


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(Invalid, match="or did you mean sample:chelsea"):
        images.read("Chelsea.jpg")
    with pytest.raises(Invalid, match="or take sample:NAME, with NAME one of astronaut, chelsea"):
        images.read("my-holiday.jpg")
    with pytest.raises(Invalid, match=r"no class folders in 'many', but 5 pictures of 32x32 px: give each"):
        folders.listing(Path("many"), "train")
