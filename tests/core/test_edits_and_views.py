"""Oracles: tables worked by hand, scipy's Gaussian, and torch.roll of draws made again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from innervision.core import blur, clamp, decay, roll, scale, still
from innervision.errors import Invalid


def picture(*shape: int) -> Tensor:
    return torch.rand(shape or (1, 3, 7, 9), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def drawn(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Edits


def test_clamp_by_hand() -> None:
    image = torch.tensor([-2.0, 0.25, 3.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert clamp(0, 1)(image, 1)[0, :, 0].tolist() == [[0, 0.25, 1]] * 3
    edit = clamp(torch.tensor([-1.0, 0.0, 0.5]), torch.tensor([0.0, 1.0, 4.0]))
    assert edit(image, 1)[0, :, 0].tolist() == [[-1, 0, 0], [0, 0.25, 1], [0.5, 0.5, 3]]
    assert clamp(0.0, torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))(image, 1).dtype == image.dtype


def test_decay_by_hand() -> None:
    image = torch.tensor([0.5, 1.0, 0.0, -1.5]).view(1, 1, 1, 4)
    torch.testing.assert_close(decay(0.25)(image, 1).flatten(), torch.tensor([0.5, 0.875, 0.125, -1.0]))
    assert torch.equal(decay(0.0)(image, 1), image)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(1, 3, 7, 9), (1, 3, 1, 1), (1, 2, 1, 5)])
def test_blur_is_scipys(sigma: float, shape: tuple[int, ...]) -> None:
    image, radius = picture(*shape), max(1, round(3 * sigma))
    expected = [
        ndimage.gaussian_filter(channel, sigma, mode="nearest", radius=radius) for channel in image[0].numpy()
    ]
    np.testing.assert_allclose(blur(sigma)(image, 1)[0].numpy(), np.stack(expected), atol=1e-12)


def test_blur_by_hand() -> None:
    """sigma ½ reaches 2 px: e^-8, e^-2, 1, e^-2, e^-8; the edge is repeated outwards."""
    whole = 1 + 2 * math.exp(-2) + 2 * math.exp(-8)
    line = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).view(1, 1, 1, 4)
    got = blur(0.5)(line, 1).flatten() * whole
    expected = [1 + math.exp(-2) + math.exp(-8), math.exp(-2) + math.exp(-8), math.exp(-8), 0]
    assert got.tolist() == pytest.approx(expected)
    even = torch.full((1, 3, 5, 5), 0.3)
    torch.testing.assert_close(blur(2.0)(even, 1), even)


def test_blur_comes_every_so_many_steps() -> None:
    image, edit = picture(), blur(1.0, every=4)
    assert [step for step in range(1, 13) if edit(image, step) is not image] == [4, 8, 12]
    for sigma, every in ((0, 1), (-1, 1), (1, 0)):
        with pytest.raises(Invalid, match="sigma above 0 and every from 1"):
            blur(sigma, every)


# Views


def test_still_shows_the_image_itself() -> None:
    image = picture()
    assert still(image, None) is image and not still.moving
    assert not (still | still).moving and (still | roll(1)).moving and (roll(1) | still).moving


def test_roll_moves_every_pixel_and_loses_none() -> None:
    image, seen = picture(1, 1, 7, 7), set()
    generator = drawn()
    for _ in range(200):
        moved = roll(2)(image, generator)
        shifts = [
            (dy, dx)
            for dy in range(-3, 4)
            for dx in range(-3, 4)
            if torch.equal(torch.roll(image, (dy, dx), (-2, -1)), moved)
        ]
        seen.update(shifts)
        assert len(shifts) == 1
    assert seen == {(dy, dx) for dy in range(-2, 3) for dx in range(-2, 3)}
    assert torch.equal(roll(0)(image, generator), image)


def test_scale_draws_evenly_between_its_ends() -> None:
    image, sizes, generator = picture(1, 3, 40, 20), [], drawn()
    for _ in range(200):
        looked = scale(0.5, 1.5)(image, generator)
        h, w = looked.shape[-2:]
        torch.testing.assert_close(looked, F.interpolate(image, (h, w), mode="bilinear"))
        assert abs(w - h / 2) <= 1
        sizes.append(h)
    assert min(sizes) >= 20 and max(sizes) <= 60 and abs(np.mean(sizes) - 40) < 3
    assert scale(0.01, 0.01)(image, generator).shape == (1, 3, 1, 1)


def test_views_compose_from_left_to_right_on_one_generator() -> None:
    image, one, two = picture(), drawn(), drawn()
    looked = (roll(3) | scale(0.5, 2) | roll(1))(image, one)
    expected = roll(1)(scale(0.5, 2)(roll(3)(image, two), two), two)
    assert torch.equal(looked, expected)
    assert torch.equal(one.get_state(), two.get_state())


def test_the_same_seed_looks_the_same_and_torchs_own_is_left_alone() -> None:
    image, view, before = picture(), roll(3) | scale(0.5, 2), torch.get_rng_state()
    assert torch.equal(view(image, drawn(5)), view(image, drawn(5)))
    assert not torch.equal(roll(3)(image, drawn(5)), roll(3)(image, drawn(6)))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        view(image)
        assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("view", [roll(2), scale(0.5, 2), roll(2) | scale(0.5, 2)])
def test_gradients_go_back_through_views(view) -> None:
    assert torch.autograd.gradcheck(lambda x: view(x, drawn()), (picture(1, 1, 4, 5).requires_grad_(),))
