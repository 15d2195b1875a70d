"""Forms come from the commands; what is filled in is checked, and no path comes from a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from innervision.cli import COMMANDS, cli
from innervision.errors import InnervisionError
from innervision.paint import recipes as painting
from innervision.studio import datasets
from innervision.studio.forms import Field, Form, form
from innervision.studio.orders import words
from innervision.studio.works import LEFT_OUT, WORKS, output_of


class Here:
    """Two networks, one with options, one trained; and one picture."""

    def __init__(self, trained: Path | None = None) -> None:
        self._known = {
            "vgg19": {"net": "vgg19"},
            "guest": {
                "net": "/srv/guest.py:build", "weights": "/srv/w.pth", "mean": "0.5,0.5,0.5",
                "classes": "/srv/names.txt",
            },
            **({"run-a": {"net": str(trained)}} if trained else {}),
        }  # fmt: skip

    def networks(self) -> list[str]:
        return list(self._known)

    def network(self, name: str) -> Mapping[str, str]:
        return self._known[name]


def line(command: str, here: Here | None = None, **options: Any) -> list[str]:
    return words(command, options, here or Here(), lambda option, id: Path(f"/pictures/{option}-{id}.png"))


def refused(command: str, **options: Any) -> str:
    with pytest.raises(InnervisionError) as error:
        line(command, **options)
    said = str(error.value)
    assert "\n" not in said and len(said) < 1500
    return said


@pytest.fixture(scope="module")
def forms() -> dict[str, Form]:
    return {name: form(name, Here()) for name in WORKS}


def fields(found: Form) -> dict[str, Field]:
    return {field.name: field for field in found.options}


def test_every_option_of_every_command_is_shown_or_left_out_on_purpose(forms: dict[str, Form]) -> None:
    """An option that a command gains is noticed here: is it a path?"""
    paths = {"index", "raw", "classes", "images"}
    for name, found in forms.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        typed = {
            max(p.opts, key=len).removeprefix("--").replace("-", "_")
            for p in command.params
            if isinstance(p, click.Option)
        }
        missing = typed - {field.name for field in found.options} - LEFT_OUT - paths
        assert not missing, f"{name} has {sorted(missing)}: show them, or leave them out on purpose"


def test_what_is_shown_can_be_typed(forms: dict[str, Form]) -> None:
    for name, found in forms.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and name in COMMANDS
        flags = {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)}
        for field in found.options:
            assert field.group in found.groups
            if field.flag:
                assert (field.flag in flags and field.help) or field.name in ("method", "channels"), field
            if field.kind == "choice":
                assert field.choices or (name == "units" and field.of == "data")  # no set at hand
                assert field.default is None or field.default in field.choices
        assert len({field.name for field in found.options}) == len(found.options)
        assert found.groups[0] == "First" and found.text


def test_paintings_defaults_and_groups_are_the_recipes(forms: dict[str, Form]) -> None:
    found, recipe = fields(forms["stylize"]), painting.Recipe()
    assert found["style_weight"].default == recipe.style_weight
    assert found["size"].default == 512 and found["size"].choices == ("content",)
    assert found["stages"].default == "auto"
    assert found["tv_weight"].group == "Weights" and found["optimiser"].group == "Descent"
    assert [field.name for field in forms["stylize"].options[:3]] == ["content", "styles", "preset"]
    article = next(preset for preset in forms["stylize"].presets if preset.name == "article")
    assert article.values["style_layer_weights"] == "300000.0,1000.0,15.0,3.0"
    assert article.values["stages"] == "none"


def test_pictures_networks_and_sets_are_named_and_never_located(forms: dict[str, Form]) -> None:
    found = fields(forms["stylize"])
    assert (found["content"].kind, found["content"].required) == ("picture", True)
    assert (found["styles"].kind, found["styles"].multiple) == ("pictures", True)
    assert found["start"].of == "picture" and found["net"].choices == ("vgg19", "guest")
    assert fields(forms["train"])["data"].choices[:2] == ("cifar10", "cifar100")
    for name, each in forms.items():
        assert not {"weights", "output", "json", "resume", "run"} & set(fields(each)), name
    assert {field.name for field in forms["look"].options}.isdisjoint({"classes", "images", "max_pixels"})


def test_values_become_words_of_the_command_line() -> None:
    made = line(
        "stylize", content="a", styles=["b", "c"], size="content", steps="7", style_weight=5, preset="gatys",
        color="keep", until=0.5, net="vgg19", start="a",
    )  # fmt: skip
    assert made == [
        "--preset=gatys", "--size=content", "--steps=7", "--style-weight=5.0", "--color=keep",
        "--start=/pictures/start-a.png", "--until=0.5", "--net=vgg19",
        "/pictures/content-a.png", "/pictures/styles-b.png", "/pictures/styles-c.png",
    ]  # fmt: skip


def test_flags_and_several_values() -> None:
    assert line("excite", target=["relu4_1:3", "class:2"], neuron="channel") == [
        "--target=relu4_1:3", "--target=class:2", "--channel",
    ]  # fmt: skip
    assert line("look", source="a", quick=True)[:1] == ["--quick"]
    assert line("look", source="a", quick=False) == ["/pictures/source-a.png"]
    assert line("train", class_weights=False) == ["--no-class-weights"]
    assert line("train", views="6", epochs=0.5) == ["--epochs=0.5", "--views=6"]


def test_a_film_is_pictures_or_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: True)
    options = {"source": "a", "pictures": 3, "mp4": True}
    assert line("dream", **options) == ["--pictures=3", "/pictures/source-a.png"]
    assert [output_of("dream", {**options, "mp4": flag}) for flag in (True, False)] == ["film.mp4", "film"]
    assert output_of("dream", {"source": "a", "mp4": True}) == "dream.png"
    assert "true or false" in refused("dream", **{**options, "mp4": "yes"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    assert "option" in refused("dream", **options)  # the extra `video` is not here


def test_a_network_brings_its_options() -> None:
    own = ["--net=/srv/guest.py:build", "--weights=/srv/w.pth", "--mean=0.5,0.5,0.5"]
    assert line("dream", source="a", net="guest")[:4] == [*own, "--classes=/srv/names.txt"]
    assert line("stylize", content="a", styles=["b"], net="guest")[:3] == own  # it calls no class by name
    assert "mean" in refused("compare", pictures=["a"], net2="guest")


def test_a_training_starts_from_what_a_run_has_trained(tmp_path: Path) -> None:
    assert line("train", Here(tmp_path), start="run-a") == [f"--start={tmp_path}"]
    assert line("train", start="none") == ["--start=none"]
    assert line("train", start="guest") == ["--start=/srv/w.pth"]
    refused("train", start="vgg19")


@pytest.mark.parametrize("command", ["train", "find-lr"])
def test_a_training_takes_a_network_of_one_s_own(command: str) -> None:
    assert line(command, net="guest") == ["--net=/srv/guest.py:build"]  # its input is the recipe's matter
    assert line(command, net="lenet5") == ["--net=lenet5"]


def test_own_folders_beside_the_published_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path))
    (tmp_path / "data" / "dots" / "red").mkdir(parents=True)
    (tmp_path / "data" / ".hidden").mkdir()
    assert [*datasets.known()][-1] == "dots"
    assert line("train", data="dots") == [f"--data={tmp_path / 'data' / 'dots'}"]
    assert line("train", data="mnist") == ["--data=mnist"]
    assert line("units", data="dots") == [str(tmp_path / "data" / "dots")]
    refused("units", data="mnist")  # not on this machine
    offered = fields(form("train", Here()))["data"]
    assert {*offered.fetched} == {*offered.choices} - {
        "dots"
    }  # what is not here is fetched first, and said so
    assert offered.fetched["mnist"] == 9_912_422 + 28_881 + 1_648_877 + 4_542


HOSTILE = [
    ("dream", {"source": "a", "output": "/etc/passwd"}, "option"),
    ("dream", {"source": "a", "-o": "x"}, "option"),
    ("dream", {"source": "a", "net": "../evil.py:run"}, "net"),
    ("dream", {"source": "a", "weights": "/etc/passwd"}, "option"),
    ("dream", {"source": "a", "layers": "relu1_1:/tmp/x.npy"}, "file"),
    ("dream", {"source": "a", "layers": "relu1_1:x.NPY"}, "file"),
    ("dream", {"source": "a", "layers": "a\x00b"}, "printed"),
    ("dream", {"source": "a", "layers": "a\nb"}, "printed"),
    ("dream", {"source": "a", "layers": "\ud800"}, "printed"),
    ("dream", {"source": "a", "layers": "x" * 5000}, "1000"),
    ("dream", {"source": "a", "layers": ["relu1_1"]}, "text"),
    ("dream", {"source": "a", "steps": "many"}, "whole number"),
    ("dream", {"source": "a", "steps": True}, "whole number"),
    ("dream", {"source": "a", "steps": 10**400}, "steps"),
    ("dream", {"source": "a", "steps": 1.5}, "whole number"),
    ("dream", {"source": "a", "steps": -1}, "steps"),
    ("dream", {"source": "a", "rate": float("nan")}, "number"),
    ("dream", {"source": "a", "rate": 10**400}, "number"),
    ("dream", {"source": "a", "size": 10**9}, "8192"),
    ("dream", {"source": {"id": "a"}}, "text"),
    ("dream", {}, "source"),
    ("excite", {"preset": "list"}, "preset"),
    ("excite", {"target": ["relu4_1:3"] * 1000}, "64"),
    ("look", {"source": "a", "quick": "yes"}, "true or false"),
    ("train", {"data": "../../etc"}, "data"),
    ("train", {"data": "/etc"}, "data"),
    ("train", {"net": "evil.py:run"}, "net"),
    ("train", {"batch": 0}, "batch"),
    ("stylize", {"content": "a", "styles": []}, "styles"),
    ("stylize", {"content": "a", "styles": ["b"], "clamp": 1.5}, "adam"),
    ("stylize", {"content": "a", "styles": ["b"], "stages": "64:x"}, "128:60"),
    ("compare", {"pictures": ["a"], "invariance": "a"}, "one question"),
    ("evaluate", {"data": "mnist"}, "net"),
    ("rm", {}, "command"),
    ("studio", {}, "command"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "options", "said"), HOSTILE)
def test_what_is_not_allowed_is_refused_in_a_sentence(command: str, options: Any, said: str) -> None:
    assert said in refused(command, **options)


def test_a_value_never_becomes_another_option() -> None:
    assert line("dream", source="a", layers="--output=/tmp/x")[0] == "--layers=--output=/tmp/x"
