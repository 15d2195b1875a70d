"""Oracles: tables worked by hand, scipy's Gaussian, and torch.roll of draws made again."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from innervision.core import (
    Objective,
    Pixels,
    Sgd,
    Stage,
    Term,
    blur,
    clamp,
    clip_contribution,
    clip_norm,
    crops,
    decay,
    descend,
    jitter,
    pad,
    roll,
    rotate,
    scale,
    sized,
    still,
)
from innervision.errors import Invalid
from innervision.network import wrap


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


def test_decay_towards_a_colour() -> None:
    image, colour = picture(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    expected = colour.view(3, 1, 1) + 0.75 * (image - colour.view(3, 1, 1))
    torch.testing.assert_close(decay(0.25, colour)(image, 1), expected)


@pytest.mark.parametrize("percentile", [0.0, 20.0, 50.0, 90.0, 100.0])
def test_clips_are_the_papers(percentile: float) -> None:
    """Yosinski's gradient_optimizer.py, restated in numpy, for each picture of a batch."""
    images, gradient = picture(2, 3, 7, 9), picture(2, 3, 7, 9).flip(-1) - 0.5
    mean = torch.tensor([0.3, 0.5, 0.6], dtype=torch.float64)
    by_norm = clip_norm(percentile, mean)(images, 1).numpy()
    by_share = clip_contribution(percentile, mean).edit(images, 1, gradient).numpy()
    for n, image in enumerate(images.numpy()):
        m = mean.numpy()[:, None, None]
        x, g = image - m, gradient[n].numpy()
        norms = np.linalg.norm(x, axis=0)
        x_by_norm = x - x * (norms < np.percentile(norms, percentile))
        shares = np.abs((g * -x).sum(0))
        x_by_share = x - x * (shares < np.percentile(shares, percentile))
        np.testing.assert_allclose(by_norm[n], x_by_norm + m, atol=1e-14)
        np.testing.assert_allclose(by_share[n], x_by_share + m, atol=1e-14)
    for clip in (clip_norm, clip_contribution):
        with pytest.raises(Invalid, match=r"must lie in 0\.\.100"):
            clip(101)


def test_an_informed_edit_is_told_the_gradient_to_the_image() -> None:
    network, start = wrap(nn.Sequential(nn.Conv2d(3, 2, 3))), picture(2, 3, 6, 6).float()
    weight, told = picture(2, 3, 6, 6).float(), []

    def note(image: Tensor, step: int, gradient: Tensor) -> Tensor:
        told.append(gradient)
        return image

    goal = Objective((Term("weighed", lambda found, image: (image.square() * weight).sum()),))
    edits = (type(clip_contribution(1.0))(note),)
    stage = Stage(goal, 2, optimiser=Sgd(0.01), edits=edits)
    frames = list(descend(network, Pixels(start, 0.25), [stage]))
    for frame, gradient in zip(frames, told, strict=True):
        torch.testing.assert_close(gradient, 2 * frame.image * weight)


# Plain descent


def test_steepest_descent_by_hand() -> None:
    """Each picture takes its own rate: min(lr, progress / |g|²)."""
    start = torch.zeros(2, 3, 2, 2, dtype=torch.float64)
    slopes = torch.tensor([1.0, 100.0], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    goal = Objective((Term("slope", lambda found, image: (image * slopes).sum()),))
    network = wrap(nn.Sequential(nn.Conv2d(3, 2, 1)).double())
    frames = list(descend(network, Pixels(start), [Stage(goal, 2, optimiser=Sgd(0.1))]))
    torch.testing.assert_close(frames[1].image, -0.1 * slopes)
    frames = list(descend(network, Pixels(start), [Stage(goal, 2, optimiser=Sgd(0.1, progress=6.0))]))
    # |g|² is 12 and 120 000: rates 0.1 (6 / 12 is more) and 6 / 120 000
    expected = torch.tensor([-0.1, -6 / 120_000 * 100], dtype=torch.float64).view(2, 1, 1, 1)
    torch.testing.assert_close(frames[1].image, expected.expand(2, 3, 2, 2))
    assert float((frames[1].image[1] * 100).sum()) == pytest.approx(-6), "as much progress as asked for"


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


def test_pad_and_sized_are_torchs() -> None:
    image = picture()
    assert torch.equal(pad(2)(image, None), F.pad(image, (2, 2, 2, 2), value=0.5))
    expected = F.interpolate(image, (4, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(sized((4, 5))(image, None), expected)
    assert sized((7, 9))(image, None) is image
    assert not (pad(1) | sized((3, 3))).moving


def test_jitter_cuts_windows_and_reaches_every_one() -> None:
    image, seen, generator = picture(1, 1, 7, 8), set(), drawn()
    for _ in range(200):
        looked = jitter(2)(image, generator)
        assert looked.shape == (1, 1, 5, 6)
        seen.add(
            next(
                (y, x)
                for y in range(3)
                for x in range(3)
                if torch.equal(looked, image[..., y : y + 5, x : x + 6])
            )
        )
    assert len(seen) == 9
    assert jitter(20)(image, generator).shape == (1, 1, 1, 1)


@pytest.mark.parametrize("shape", [(15, 15), (11, 17)])
def test_rotate_is_scipys(shape: tuple[int, int]) -> None:
    image = picture(1, 3, *shape)
    angle = 30 * (2 * float(torch.rand((), generator=drawn())) - 1)
    looked = rotate(30)(image, drawn())
    expected = [
        ndimage.rotate(channel - 0.5, angle, reshape=False, order=1, mode="grid-constant") + 0.5
        for channel in image[0].numpy()
    ]
    np.testing.assert_allclose(looked[0].numpy(), np.stack(expected), atol=1e-9)
    torch.testing.assert_close(rotate(0)(image, drawn()), image)
    angles = [float(rotate(10)(picture(), drawn(n))[0, 0, 0, 0]) for n in range(5)]
    assert len(set(angles)) == 5


def test_crops_show_all_images_through_the_same_boxes() -> None:
    image = picture(2, 3, 16, 16)
    looked = crops(4, 0.4, size=(6, 5))(image, drawn())
    assert looked.shape == (8, 3, 6, 5)
    alone = crops(4, 0.4, size=(6, 5))(image[1:], drawn())
    torch.testing.assert_close(looked[1::2], alone)
    noisy = crops(4, 0.4, size=(6, 5), noise=0.1)(image, drawn()) - looked
    torch.testing.assert_close(noisy[0::2], noisy[1::2])
    assert 0.05 < float(noisy.std()) < 0.15


def test_a_box_is_where_it_was_drawn() -> None:
    """On a picture of its own coordinates a box shows where it lies."""
    y, x = torch.meshgrid(*[(torch.arange(64.0) + 0.5) / 64] * 2, indexing="ij")
    ramp = torch.stack([y, x, torch.zeros_like(x)])[None]
    box = iter([0.5, 0.1])
    view = crops(1, lambda: next(box), size=(8, 8))
    for side in (0.5, 0.1):
        normal = torch.randn((1, 3), generator=drawn(7))
        looked = view(ramp, drawn(7))[0]
        wanted = side + 0.05 * float(normal[0, 0])
        centre = [0.5 + 0.15 * float(n) for n in normal[0, 1:]]
        # the picture's width is the first of a box's centre; spread over 8 samples, 7 steps of an eighth
        assert float(looked[1].mean()) == pytest.approx(centre[0], abs=0.02)
        assert float(looked[0].mean()) == pytest.approx(centre[1], abs=0.02)
        assert float(looked[1, 0, -1] - looked[1, 0, 0]) == pytest.approx(7 / 8 * wanted, abs=0.01)


@pytest.mark.parametrize("view", [jitter(2), rotate(20), pad(1), crops(2, 0.5, size=(3, 3), noise=0.1)])
def test_gradients_go_back_through_lucids_views(view) -> None:
    channels = picture(1, 3, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: view(x, drawn()), (channels,))
