"""Style transfer: recipes in step, numbers of the presets, and a painting that goes on bit for bit."""

from __future__ import annotations

import io
from typing import get_type_hints

import pytest
import torch

import innervision
from innervision.core import measures
from innervision.errors import Invalid
from innervision.paint import recipes
from innervision.paint.recipes import PRESETS, Options, Recipe, recipe

TINY = {"size": 64, "stages": None, "steps": 6, "every": 2, "precision": "float32", "threads": 1}


def paint(**options):
    return innervision.stylize("sample:chelsea", "sample:harvest", **(TINY | options))


def test_options_are_the_recipe_s_fields():
    assert get_type_hints(Options) == get_type_hints(Recipe)


def test_choices_are_those_of_the_measures():
    assert (recipes.DISTANCES, recipes.GRAM_NORMS) == (measures.DISTANCES, measures.GRAM_NORMS)


def test_the_article_s_numbers():
    article = PRESETS["article"].recipe
    assert (article.content_weight, article.style_layer_weights) == (6e-2, (300000.0, 1000.0, 15.0, 3.0))
    assert (article.tv_weight, article.steps, article.late_steps, article.clamp) == (2e-2, 200, 20, 1.5)
    assert (article.learning_rate, article.late_learning_rate, article.size) == (3.0, 0.1, 400)
    assert recipe("article", net="vgg19").style_layers == ("relu2_1", "relu3_2", "relu4_1", "relu4_2")


@pytest.mark.parametrize("wrong", [{"size": 0}, {"steps": -1}, {"style_weights": (0.0,)}, {"color": "blue"}])
def test_a_value_that_is_not_allowed_is_refused(wrong):
    with pytest.raises(Invalid, match=next(iter(wrong))):
        recipe(**wrong)


def test_painting_goes_on_bit_for_bit():
    whole = paint()
    frames = list(whole)
    part = paint()
    for _ in range(3):
        next(part)
    saved = io.BytesIO()
    torch.save(part.checkpoint(), saved)
    saved.seek(0)
    rest = list(paint(resume=torch.load(saved, weights_only=True)))
    assert [f.count for f in rest] == [4, 5, 6]
    assert torch.equal(rest[-1].image, frames[-1].image)
    assert rest[-1].total == frames[-1].total


def test_keep_leaves_the_content_s_chroma_where_nothing_is_clipped():
    painting = paint(color="keep", steps=2)
    image = list(painting)[-1].image
    content = painting.goals.content(painting.sitting.size)
    inside = ((image > 0.01) & (image < 0.99)).all(1)
    chroma = (image - image.mean(1, keepdim=True)) - (content - content.mean(1, keepdim=True))
    spread = (chroma[:, 0] - chroma[:, 2]).abs()[inside]  # red minus blue is chroma alone
    assert inside.float().mean() > 0.5
    assert float(spread.max()) < 1e-3


def test_it_stops_when_the_picture_has_stopped_changing():
    painting = paint(until=100.0, steps=6)
    assert [f.count for f in painting][-1] == 4  # the second snapshot is the first with a difference
    assert painting.settled
