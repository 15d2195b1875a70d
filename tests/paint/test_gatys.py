"""A painting at work: bit for bit after a stop, and colours kept."""

from __future__ import annotations

import io

import torch

import innervision

TINY = {"size": 64, "stages": None, "steps": 6, "every": 2, "precision": "float32", "threads": 1}


def paint(**options):
    return innervision.stylize("sample:chelsea", "sample:harvest", **(TINY | options))


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
