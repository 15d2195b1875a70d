"""The package: a wheel holds all that the commands read, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import pytest

from innervision.samples import SAMPLES

ROOT = Path(__file__).parents[1]
NEEDED = (
    "weights/vgg19_features_rgb255_8bit.npz",
    "models/lenet5-mnist/model.safetensors",
    "models/cifar10-fast/model.json",
    "nets/imagenet.txt",
    "cli/look.html.jinja",
    *(f"samples/{file}" for file in SAMPLES.values()),
    *(f"{part}/SOURCES.md" for part in ("nets", "samples", "weights")),
)


def wheel() -> set[str]:
    """Return the paths that a wheel has, as hatchling would put them into one."""
    wheels = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling builds the package, and is not here"
    )
    return {
        PurePosixPath(file.distribution_path).as_posix()
        for file in wheels.WheelBuilder(str(ROOT)).recurse_included_files()
    }


def kinds(paths: Iterable[str]) -> set[str]:
    return {PurePosixPath(path).suffix for path in paths}


def test_a_wheel_holds_all_that_the_commands_read() -> None:
    found = wheel()
    assert not [name for name in NEEDED if f"innervision/{name}" not in found]
    source = ROOT / "src"
    modules = {file.relative_to(source).as_posix() for file in source.rglob("*.py")}
    assert modules <= found
    pages = {
        file.relative_to(source).as_posix()
        for file in source.glob("innervision/studio/static/**/*")
        if file.is_file()
    }
    assert pages <= found, "git ignores the studio's pages, but a wheel must not"


def test_a_wheel_holds_nothing_else() -> None:
    found = {path for path in wheel() if not path.startswith("innervision/studio/static/")}
    assert not [path for path in found if not path.startswith("innervision/")]
    known = {".py", ".md", ".jinja", ".txt", ".json", ".npz", ".safetensors", ".png", ".jpg"}
    assert kinds(found) == known, "a kind of file that no command reads"
