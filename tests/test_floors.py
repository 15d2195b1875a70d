"""The floors: a file imports from floors below it and from neighbours, but works never from works."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/innervision"

# A part is a module or package directly in innervision; the top-level package itself is "__init__".
FLOORS = (
    # 0 ground
    {
        "errors",
        "shapes",
        "files",
        "machine",
        "memory",
        "images",
        "_decode",
        "_encode",
        "colour",
        "sheets",
        "store",
        "_transfer",
        "samples",
    },
    {"nets", "network", "listen", "chain", "winograd", "weights", "models", "saved"},  # 1 nets
    {"core"},  # 2 core
    {"learn", "see", "paint"},  # 3 work
    {"record"},  # 4 record
    {"__init__", "__main__", "cli", "studio"},  # 5 faces
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
STRANGERS = 3  # the floor whose parts never import one another; other neighbours may, but not in circles


def part_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(source: str, package: str) -> Iterator[tuple[str, bool]]:
    """Yield the part each import in a `package` file asks for, and whether Python can do without it at first.

    That is so of what the type checker alone sees, and of what is asked for by its name (`import_module`).
    """
    tree = ast.parse(source)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body
        for inner in ast.walk(child)
    }
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            targets = [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            name = node.args[0]  # only a name that stands there can be read
            targets = [str(name.value)] if isinstance(name, ast.Constant) else []
            late.add(id(node))
        for target in targets:
            top, *rest = target.split(".")
            if top == "innervision":
                # `from innervision import x`: x is a part, or else a name of the top-level package
                known = len(rest) > 1 or (rest and rest[0] in FLOOR)
                yield (rest[0] if known else "__init__"), id(node) in late


def broken(part: str, asked: str) -> str | None:
    """Say which rule an import breaks, if any."""
    if asked not in FLOOR:
        return f"{asked} is on no floor"
    if FLOOR[asked] > FLOOR[part]:
        return f"{part} (floor {FLOOR[part]}) imports {asked} from floor {FLOOR[asked]}, above it"
    if FLOOR[asked] == FLOOR[part] == STRANGERS and asked != part:
        return f"{part} imports {asked}: learn, see and paint never import one another"
    return None


@cache
def asked_for() -> tuple[tuple[Path, str, str, bool], ...]:
    return tuple(read())


def read() -> Iterator[tuple[Path, str, str, bool]]:
    for file in sorted(SOURCE.rglob("*.py")):
        package = ".".join(("innervision", *file.relative_to(SOURCE).parts[:-1]))
        for asked, late in imports(file.read_text(encoding="utf-8"), package):
            yield file, part_of(file), asked, late


def test_every_module_is_on_the_map() -> None:
    parts = {part_of(file) for file in SOURCE.rglob("*.py")}
    assert len(parts) > 3, f"found almost no source below {SOURCE}"
    assert parts <= FLOOR.keys(), f"put {sorted(parts - FLOOR.keys())} on a floor in FLOORS"
    assert parts >= FLOOR.keys(), f"FLOORS has {sorted(FLOOR.keys() - parts)}, which is not there"
    assert len(FLOOR) == sum(map(len, FLOORS)), "a part is on two floors"


def test_files_import_only_from_below() -> None:
    faults = [
        f"{file.relative_to(SOURCE)}: {fault}"
        for file, part, asked, _ in asked_for()
        if part in FLOOR and (fault := broken(part, asked))
    ]
    assert not faults, "\n".join(faults)


def test_neighbours_do_not_import_in_circles() -> None:
    graph: dict[str, set[str]] = {}
    for _, part, asked, late in asked_for():
        if asked != part and not late:
            graph.setdefault(part, set()).add(asked)
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize(
    ("source", "package", "want"),
    [
        ("import os, innervision.core.canvas as c", "innervision", ["core"]),
        ("from innervision.nets.vgg import vgg", "innervision.core", ["nets"]),
        ("from innervision import nets, __version__", "innervision", ["nets", "__init__"]),
        ("from . import vgg\nfrom .lenet import Pad", "innervision.nets", ["nets", "nets"]),
        ("from ..errors import Invalid\nfrom .. import core", "innervision.nets", ["errors", "core"]),
        ("def late():\n    from innervision.see import dream", "innervision.paint", ["see"]),
        ("def late():\n    importlib.import_module('innervision.cli')", "innervision.see", ["cli"]),
        ("from innervision.utils import clamp", "innervision.core", ["utils"]),
        ("import innervisionary", "innervision", []),
    ],
)
def test_imports_are_read_in_every_form(source: str, package: str, want: list[str]) -> None:
    assert [part for part, _ in imports(source, package)] == want


def test_the_type_checkers_imports_are_told_apart() -> None:
    source = (
        "if TYPE_CHECKING:\n    from innervision.core import Frame\nfrom innervision.errors import Invalid"
    )
    assert sorted(imports(source, "innervision")) == [("core", True), ("errors", False)]


def test_what_is_asked_for_by_name_is_told_apart() -> None:
    source = "import importlib\nimportlib.import_module('innervision.cli')\nimportlib.import_module(name)"
    assert list(imports(source, "innervision.studio")) == [("cli", True)]


@pytest.mark.parametrize(
    ("part", "asked", "fault"),
    [
        ("core", "nets", None),
        ("network", "nets", None),
        ("cli", "record", None),
        ("paint", "paint", None),
        ("nets", "core", "above"),
        ("see", "paint", "never"),
        ("errors", "__init__", "above"),
        ("record", "studio", "above"),
        ("core", "utils", "on no floor"),
    ],
)
def test_what_the_rules_forbid(part: str, asked: str, fault: str | None) -> None:
    said = broken(part, asked)
    assert said is None if fault is None else fault in (said or "")
