"""The papers say what the code does: the command reference, the links, the examples."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from innervision.cli import cli
from innervision.nets import NETS
from innervision.paint.recipes import PRESETS, options
from innervision.samples import SAMPLES

ROOT = Path(__file__).parents[1]
PAPERS = sorted(
    paper for where in ("", "docs/**/", "benchmarks/", "web/") for paper in ROOT.glob(f"{where}*.md")
)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_commands", ROOT / "docs/generate_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands(command: click.Command, path: str = "innervision") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None, f"{path} lists {name}, which is not there"
            yield from commands(child, f"{path} {name}")


ALL = dict(commands(cli))


def section(text: str, title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is no section '{title}'"
    return found[1]


def examples(language: str) -> Iterator[tuple[Path, str]]:
    for paper in PAPERS:
        for kind, body in FENCE.findall(paper.read_text(encoding="utf-8")):
            if kind == language:
                yield paper, body


def lines() -> Iterator[tuple[Path, list[str]]]:
    """Yield every `innervision …` line of the papers' shell examples, as words."""
    for paper, body in examples("sh"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["innervision"]:
                yield paper, words[1:]


def test_the_command_reference_is_up_to_date() -> None:
    committed = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert committed == generator().page(), "run: python docs/generate_commands.py"


@pytest.mark.parametrize("name", ALL)
def test_every_command_and_option_is_in_the_reference(name: str) -> None:
    text = section((ROOT / "docs/commands.md").read_text(encoding="utf-8"), name)
    assert ALL[name].help, f"{name} --help does not say what it does"
    for param in ALL[name].params:
        if isinstance(param, click.Option):
            assert param.help, f"{name} --help says nothing of {param.opts[0]}"
            for flag in (*param.opts, *param.secondary_opts):
                assert f"| `{flag}`" in text or f", `{flag}`" in text, f"{name} {flag} is not documented"


def test_every_recipe_option_is_one_of_stylize() -> None:
    flags = {flag for param in ALL["innervision stylize"].params for flag in param.opts}
    assert {"--" + each.name.replace("_", "-") for each in options()} <= flags


def test_the_papers_examples_can_be_typed() -> None:
    found = list(lines())
    assert len(found) > 10, "the examples were not found"
    for paper, words in found:
        command: click.Command = cli
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            child = command.get_command(click.Context(command), words[0])
            assert child is not None, f"{paper.name}: no command '{words[0]}'"
            command, words = child, words[1:]
        with click.Context(command) as ctx, contextlib.suppress(click.exceptions.Exit):  # --help ends there
            command.parse_args(ctx, list(words))  # raises UsageError for an unknown option or a bad value


def there(module: ModuleType, name: str) -> bool:
    """Tell whether `from module import name` would do: a part of a package counts before it is imported."""
    return hasattr(module, name) or importlib.util.find_spec(f"{module.__name__}.{name}") is not None


def test_the_papers_python_is_python() -> None:
    found = list(examples("python"))
    assert found
    for paper, body in found:
        for node in ast.walk(ast.parse(body, str(paper))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("innervision"):
                module = importlib.import_module(node.module)
                missing = [alias.name for alias in node.names if not there(module, alias.name)]
                assert not missing, f"{paper.name}: {node.module} has no {missing}"


def test_samples_named_in_the_papers_are_there() -> None:
    for paper in PAPERS:
        for name in re.findall(r"sample:([a-z-]+)", paper.read_text(encoding="utf-8")):
            assert name in SAMPLES, f"{paper.name}: no sample '{name}'"


def test_scripts_and_targets_named_in_the_papers_are_there() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    for paper in PAPERS:
        text = paper.read_text(encoding="utf-8")
        for script in re.findall(r"python ((?:benchmarks|docs)/\S+\.py)", text):
            assert (ROOT / script).is_file(), f"{paper.name}: {script} is not there"
        made = set(re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE))
        assert made <= targets, f"{paper.name}: make has no {sorted(made - targets)}"


def prose(paper: Path) -> str:
    return FENCE.sub("", paper.read_text(encoding="utf-8"))


def links(text: str) -> list[str]:
    return [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|href)="([^"]+)"', text)]


def anchors(paper: Path) -> set[str]:
    """Return what a link may name after "#": headings as MkDocs and GitHub both write them, own anchors."""
    text = prose(paper)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\s-]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.name)
def test_links_lead_somewhere(paper: Path) -> None:
    for target in links(prose(paper)):
        path, _, anchor = target.partition("#")
        if "://" not in target:
            page = paper.parent / path if path else paper
            assert page.exists(), f"{paper.name} links to {target}, which is not there"
            assert not anchor or anchor in anchors(page), f"{page.name} has no heading for {target}"


def test_tables_name_every_net_and_preset() -> None:
    networks = (ROOT / "docs/networks.md").read_text(encoding="utf-8")
    styles = (ROOT / "docs/style-transfer.md").read_text(encoding="utf-8")
    assert not [name for name in NETS if f"`{name}`" not in networks]
    assert not [name for name in PRESETS if f"`{name}`" not in styles]


def test_both_readmes_show_the_same() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert FENCE.findall(english) == FENCE.findall(chinese), "they differ in their examples"
    # a sentence may be built otherwise, and what it names come in another order
    assert sorted(links(english)[1:]) == sorted(links(chinese)[1:]), "they differ in their links"
    assert english.count("\n## ") == chinese.count("\n## ")
    tables = [[row for row in text.splitlines() if row.startswith("| ")] for text in (english, chinese)]
    for rows in zip(*tables, strict=True):
        figures = [sorted(re.findall(r"\d+(?:\.\d+)?", row)) for row in rows]
        assert figures[0] == figures[1], f"they differ in their figures:\n{rows[0]}\n{rows[1]}"


def test_the_architecture_names_every_file() -> None:
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    source = ROOT / "src/innervision"
    named: set[str] = set()
    for row in re.findall(r"^\|.*\|$", section(text, "Floors"), re.MULTILINE):
        folder = ""
        for name in re.findall(r"`([^`]+)`", row.split("|")[2]):
            known = name if "/" in name or not folder else folder + name
            folder = f"{known.rpartition('/')[0]}/" if "/" in known else ""
            assert (source / known).exists() or (ROOT / known).exists(), f"the table has {known}: not there"
            named.add(known)
    whole = tuple(name for name in named if name.endswith("/"))
    files = [
        file.relative_to(source).as_posix() for file in source.rglob("*.py") if file.name != "__init__.py"
    ]
    missing = sorted(file for file in files if file not in named and not file.startswith(whole))
    assert not missing, f"the table has no row for {missing}"
