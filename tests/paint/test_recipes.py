"""Recipes: options in step, the presets' numbers from their sources, and values that are refused."""

from __future__ import annotations

import math
import re
from dataclasses import fields, replace
from typing import get_type_hints

import pytest

from innervision.core import measures
from innervision.errors import Invalid
from innervision.paint import recipes
from innervision.paint.recipes import PRESETS, Options, Recipe, options, recipe


def test_options_are_the_recipe_s_fields():
    assert get_type_hints(Options) == get_type_hints(Recipe)
    assert [each.name for each in options()] == [each.name for each in fields(Recipe)]


def test_choices_are_those_of_the_measures():
    assert (recipes.DISTANCES, recipes.GRAM_NORMS) == (measures.DISTANCES, measures.GRAM_NORMS)
    forms = next(each for each in options() if each.name == "tv_form")
    assert forms.metadata["choices"] == measures.FORMS


def test_gatys_is_the_default():
    assert PRESETS["gatys"].recipe == Recipe() == recipe()


def test_the_article_s_numbers():
    article = PRESETS["article"].recipe
    assert (article.content_weight, article.style_layer_weights) == (6e-2, (300000.0, 1000.0, 15.0, 3.0))
    assert (article.tv_weight, article.steps, article.late_steps, article.clamp) == (2e-2, 200, 20, 1.5)
    assert (article.learning_rate, article.late_learning_rate, article.size) == (3.0, 0.1, 400)
    assert recipe("article", net="vgg19").style_layers == ("relu2_1", "relu3_2", "relu4_1", "relu4_2")


def test_titu1994_s_numbers():
    titu = PRESETS["titu1994"].recipe
    assert (titu.content_weight, titu.style_weight, titu.tv_weight, titu.tv_power) == (
        0.025,
        1.0,
        8.5e-5,
        1.25,
    )
    assert titu.style_layer_weights == pytest.approx([1 / 180, 1 / 2880, 1 / 46080, 1 / 737280, 1 / 11796480])


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_typed_goes_over_a_preset_and_the_rest_stays(preset):
    changed = recipe(preset, steps=77, tv_weight=0.5)
    assert changed == replace(PRESETS[preset].recipe, steps=77, tv_weight=0.5)
    typed = recipe("article", net="vgg16", content_layers=("relu1_1",))  # over what a net changes, too
    assert (typed.content_layers, typed.style_layers[0]) == (("relu1_1",), "relu2_1")


def test_another_optimiser_takes_the_place_of_what_a_preset_has_for_adam():
    other = recipe("article", optimiser="lbfgs")
    assert other == replace(PRESETS["article"].recipe, optimiser="lbfgs", clamp=None, late_steps=0)
    with pytest.raises(Invalid, match="go with --optimiser adam"):  # but what is typed is taken as it is
        recipe("article", optimiser="lbfgs", clamp=1.5)


def test_a_file_of_one_s_own_is_no_vgg_whatever_it_is_called():
    assert recipe("article", net="vgg_of_mine.py:build").style_layers is None


@pytest.mark.parametrize("name", ["gatis", "Gatys", ""])
def test_an_unknown_preset_is_refused_with_those_there_are(name):
    with pytest.raises(Invalid, match=rf"no preset '{name}'; there are gatys, article, titu1994"):
        recipe(name)


ABOVE_0 = "size pixels style_size steps coarse_steps every history threads learning_rate late_learning_rate"
ABOVE_0 += " until clamp tv_power"
FROM_0 = "late_steps content_weight style_weight tv_weight gamut_weight"


@pytest.mark.parametrize("name", [*ABOVE_0.split(), *FROM_0.split()])
def test_numbers_out_of_range_are_refused(name):
    for wrong in (-1, -math.inf, math.nan, *([0] if name in ABOVE_0.split() else [])):
        with pytest.raises(Invalid, match=rf"{name} is {re.escape(str(wrong))}; it must be"):
            recipe(**{name: wrong})
    if name in FROM_0.split():
        assert getattr(recipe(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", [each.name for each in options() if each.metadata["choices"]])
def test_a_choice_that_is_not_there_is_refused_with_those_there_are(name):
    choices = next(each for each in options() if each.name == name).metadata["choices"]
    with pytest.raises(Invalid, match=f"{name} is 'plaid'; it can be {', '.join(choices)}"):
        recipe(**{name: "plaid"})


@pytest.mark.parametrize("name", ["style_weights", "style_layer_weights", "content_layer_weights"])
@pytest.mark.parametrize("wrong", [(), (0.0,), (0.0, 0.0), (2.0, -1.0), (math.nan,), (1.0, math.nan)])
def test_weights_are_0_or_more_and_not_all_0(name, wrong):
    with pytest.raises(Invalid, match=f"{name} .*not all 0"):
        recipe(**{name: wrong})
    assert getattr(recipe(**{name: (0.0, 1.0)}), name) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stages": ()}, "give SIZE:STEPS pairs"),
        ({"stages": ((64, 0),)}, "each at least 1"),
        ({"stages": ((0, 5),)}, "each at least 1"),
        ({"stages": "none"}, "it can be 'auto', None, or a tuple of (SIZE, STEPS)"),
        ({"stages": [(64, 5)]}, "a tuple of (SIZE, STEPS)"),
        ({"clamp": 1.5}, "go with --optimiser adam"),
        ({"late_steps": 5}, "go with --optimiser adam"),
        (
            {"optimiser": "adam", "late_steps": 9, "steps": 9},
            "late_steps is 9; the last size has 9 steps, of which they are a part: give fewer of them",
        ),
        ({"optimiser": "adam", "late_steps": 9, "stages": ((32, 50), (64, 8))}, "the last size has 8 steps"),
        ({"threads": 100_000}, "it can be 1 to 1024"),  # beyond what the system has, torch crashes
        ({"seed": 2**64}, "it must fit into 64 bits"),
        ({"seed": -(2**63) - 1}, "it must fit into 64 bits"),
    ],
)
def test_what_does_not_go_together_is_refused(options, said):
    with pytest.raises(Invalid, match=re.escape(said)):
        recipe(**options)


def test_no_weights_at_all_are_refused():
    none = {"content_weight": 0, "style_weight": 0, "gamut_weight": 0}
    with pytest.raises(
        Invalid, match="content, style, tv and gamut weights are all 0: there is nothing to paint"
    ):
        recipe(**none)
    assert recipe(**none, tv_weight=1).tv_weight == 1
    assert recipe(**none, color="transfer-only").color == "transfer-only"  # nothing is weighed


def test_late_steps_are_counted_against_the_last_size():
    assert recipe(optimiser="adam", late_steps=9, steps=5, stages=((64, 10),)).late_steps == 9


def test_an_option_that_there_is_not_suggests_one() -> None:
    for make in (lambda: recipe(sice=96), lambda: recipe("gatys", Recipe(), sice=96)):  # pyright: ignore
        with pytest.raises(Invalid, match=r"no option 'sice' in a recipe.*Did you mean 'size'"):
            make()
