"""Whatever a form says in English, the studio's pages have in Chinese."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from innervision.studio.forms import OURS, Form, form
from innervision.studio.works import WORKS

FILE = Path(__file__).parents[2] / "web/src/locales/zh.json"
NETS = {"vgg19": {"net": "vgg19"}}


class Here:
    """One network."""

    def networks(self) -> list[str]:
        return [*NETS]

    def network(self, name: str) -> Mapping[str, str]:
        return NETS[name]


@pytest.fixture(scope="module")
def forms() -> list[Form]:
    return [form(name, Here()) for name in WORKS]


@pytest.fixture(scope="module")
def chinese() -> dict[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def told(help: str) -> str:
    """A help as the page shows it (lib/chinese.ts): without the default that ends it."""
    return re.sub(r"\s*\[default: [^\]]*\]\s*$", "", help)


def sentences(forms: list[Form]) -> Iterator[tuple[str, str, str]]:
    """Yield command, option ("" for the command itself) and what is said of it."""
    for each in forms:
        yield each.name, "", each.text
        own = {field.name: field.help for field in each.options}
        if each.name in OURS:  # shown only where films can be written
            own[OURS[each.name].name] = OURS[each.name].help
        yield from ((each.name, name, told(help)) for name, help in own.items())


def test_every_option_and_command_has_its_chinese(forms: list[Form], chinese: dict[str, Any]) -> None:
    """What is new, or is said otherwise by now, turns this red: write its Chinese in zh.json."""
    wanting = []
    for command, option, english in sentences(forms):
        own = chinese["commands"][command]
        pairs = [own["options"].get(option), chinese["options"].get(option)] if option else [own["text"]]
        said = next((pair[1] for pair in pairs if pair and pair[0] == english), "")
        if english and not said:
            wanting.append(f"{command} {option}: {english!r}")
        if option and option not in chinese["names"]:
            wanting.append(f"the name of {option}")
    wanting += [
        f"preset {preset.name}: {preset.text!r}"
        for each in forms
        for preset in each.presets
        if chinese["presets"].get(preset.name, [""])[0] != preset.text
    ]
    assert not wanting, "\n".join(wanting)


_NAMES = "lbfgs adam float32 bfloat16 hw chw onnx torchscript safetensors cpu cuda mps 1 2 6"
NAMES = {*_NAMES.split(), "grad-cam", "grad-cam++", "layer-cam", "score-cam"}
"""Values that are names and numbers: they are the same in every language."""


def choices(forms: list[Form]) -> Iterator[tuple[str, str]]:
    """Yield option and value, of what is chosen by a word; presets, networks and data sets have names."""
    for each in forms:
        for field in each.options:
            if field.kind != "choice" or field.of in ("network", "architecture", "data", "preset"):
                continue
            values = ("none",) if field.of == "start" else field.choices  # else names of weights
            yield from ((field.name, value) for value in values if value.partition(":")[0] not in NAMES)


def test_every_choice_has_its_chinese(forms: list[Form], chinese: dict[str, Any]) -> None:
    offered = {*choices(forms)}
    said = {(option, value) for option, values in chinese["choices"].items() for value in values}
    assert offered - said == set()
    assert said - offered == set()
    assert all(re.search(r"[\u4e00-\u9fff]", chinese["choices"][option][value]) for option, value in said)


def test_nothing_is_translated_that_nobody_says(forms: list[Form], chinese: dict[str, Any]) -> None:
    said = list(sentences(forms))
    for command, own in chinese["commands"].items():
        options = {option for name, option, english in said if name == command and english}
        assert {*own["options"]} <= options, command
        assert {*own.get("names", {})} <= {option for name, option, _ in said if name == command}, command
    assert {*chinese["names"]} <= {option for _, option, _ in said}
    for option, (english, _) in chinese["options"].items():
        assert any((name, text) == (option, english) for _, name, text in said), option
    assert {*chinese["presets"]} == {preset.name for each in forms for preset in each.presets}


def test_the_chinese_is_chinese_and_keeps_the_names_of_layers(chinese: dict[str, Any]) -> None:
    pairs = [
        *chinese["options"].values(),
        *chinese["presets"].values(),
        *(own["text"] for own in chinese["commands"].values()),
        *(pair for own in chinese["commands"].values() for pair in own["options"].values()),
    ]
    for english, said in pairs:
        han = re.search(r"[\u4e00-\u9fff]", said)
        assert han or not re.search(r"[a-z]{3,} [a-z]{3,}", english), said
        # Chinese stops, as the README has them
        assert not re.search(r"[\u4e00-\u9fff](?:[;?!]|[,:] )|\.\.\.", said), said
        layers = set(re.findall(r"(?:relu|conv)\d_\d", english))
        assert layers <= set(re.findall(r"(?:relu|conv)\d_\d", said)), said
