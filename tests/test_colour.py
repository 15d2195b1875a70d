from __future__ import annotations

import numpy as np
import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from PIL import Image
from torch import Tensor

from innervision import colour
from innervision.errors import Invalid


@pytest.mark.parametrize(
    "image", [torch.rand(3, 4, 4), torch.rand(1, 2, 4, 4), torch.zeros(1, 3, 4, 4, dtype=int)]
)
def test_while_tests_run_shapes_in_signatures_are_checked(image: Tensor):
    with pytest.raises(BeartypeCallHintViolation, match="1 3 h w"):
        colour.to_ycc(image)


def noise(height: int, width: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Correlated colours, so that a covariance is more than a diagonal."""
    drawn = torch.rand(
        1, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    mix = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.1], [0.1, 0.1 * seed, 0.4]], dtype=torch.float64)
    return torch.einsum("ij,njhw->nihw", mix, drawn).to(dtype)


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    flat = image[0].flatten(1)
    return flat.mean(1), torch.cov(flat, correction=0)


def grey(value: float = 0.4) -> Tensor:
    return torch.full((1, 3, 5, 7), value, dtype=torch.float64)


def test_linear_light_agrees_with_the_standard():
    # hand-computed from IEC 61966-2-1: ((x + .055) / 1.055)^2.4 and x / 12.92
    srgb = torch.tensor([0.0, 0.04, 0.5, 1.0], dtype=torch.float64)
    light = torch.tensor([0.0, 0.04 / 12.92, (0.555 / 1.055) ** 2.4, 1.0], dtype=torch.float64)
    assert colour.to_linear(srgb).allclose(light, rtol=1e-12)
    assert colour.to_srgb(light).allclose(srgb, rtol=1e-12)
    assert light[2].item() == pytest.approx(0.21404, abs=1e-5)  # the published middle


def test_linear_light_is_undone_and_goes_on_outside():
    x = torch.linspace(-0.5, 1.5, 401, dtype=torch.float64, requires_grad=True)
    back = colour.to_srgb(colour.to_linear(x))
    assert back.allclose(x, atol=1e-6)  # the standard's own two pieces meet within 1e-7
    back.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_luma_and_chroma_agree_with_pillow_within_rounding():
    rgb = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(rgb).convert("YCbCr")).astype(float)
    ours = colour.to_ycc(torch.from_numpy(rgb).permute(2, 0, 1)[None] / 255)[0].permute(1, 2, 0).numpy() * 255
    # Pillow's centre of chroma is 128 of 255, ours is .5: half a level apart; its tables have 6 bits
    assert np.abs(ours + np.array([0, 0.5, 0.5]) - theirs).max() < 1.01


def test_luma_and_chroma_are_undone():
    image = noise(9, 11, 1) * 3 - 1
    assert colour.from_ycc(colour.to_ycc(image)).allclose(image, atol=1e-12)


def test_keep_colour_takes_luma_from_one_and_chroma_from_the_other():
    painted, content = (0.4 + 0.2 * noise(6, 5, seed) for seed in (1, 2))
    ycc = colour.to_ycc(colour.keep_colour(painted, content))
    assert ycc[:, :1].allclose(colour.to_ycc(painted)[:, :1], atol=1e-12)
    assert ycc[:, 1:].allclose(colour.to_ycc(content)[:, 1:], atol=1e-12)
    assert colour.keep_colour(content, content).allclose(content, atol=1e-12)


def test_keep_colour_clamps_and_refuses_unequal_sizes():
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    # white's luma 1 with red's chroma is (1.701, .701, .701)
    clamped = torch.tensor([1.0, 0.701, 0.701]).view(1, 3, 1, 1)
    assert colour.keep_colour(torch.ones(1, 3, 1, 1), red).allclose(clamped)
    with pytest.raises(Invalid, match=r"painted is 1x3x2x2 and content 1x3x2x3"):
        colour.keep_colour(torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 3))


def test_covariance_is_matched_between_different_sizes():
    source, target = noise(40, 30, 1), noise(20, 50, 4)
    for ours, wanted in zip(moments(colour.match_covariance(source, target)), moments(target), strict=True):
        assert ours.allclose(wanted, atol=1e-12)


def test_covariance_map_is_the_least_of_all():
    # between Gaussians the mean squared way is |m - m'|² + tr(S + T - 2 (S^½ T S^½)^½); T^½ S^-½ goes farther
    source, target = noise(40, 30, 1), noise(40, 30, 4)
    moved = colour.match_covariance(source, target)
    (m, S), (n, T) = moments(source), moments(target)

    def root(matrix: Tensor) -> Tensor:
        values, axes = torch.linalg.eigh(matrix)
        return axes @ values.clamp(min=0).sqrt().diag() @ axes.T

    least = (m - n).square().sum() + (S + T - 2 * root(root(S) @ T @ root(S))).trace()
    assert (moved - source).square().sum(1).mean().allclose(least, rtol=1e-9)


@pytest.mark.parametrize(
    "image",
    [
        noise(8, 8, 3),
        grey(),
        noise(1, 1, 2),
        noise(8, 8, 3)[:, :1].expand(1, 3, 8, 8),
        noise(8, 8, 3)[:, :1] + 1e-4 * noise(8, 8, 1),
    ],
    ids=["colour", "constant", "1x1", "grey", "faint"],
)
def test_matching_an_image_with_itself_changes_nothing(image: Tensor):
    assert colour.match_covariance(image, image).allclose(image, atol=1e-12)
    assert colour.match_histogram(image, image).allclose(image, atol=1e-12)


def test_covariance_of_flat_sources():
    target = noise(9, 9, 2)
    mean, cov = moments(target)
    assert colour.match_covariance(grey(), target).allclose(
        mean.view(1, 3, 1, 1).expand(1, 3, 5, 7), atol=1e-12
    )
    # a grey source varies along (1 1 1)/√3 only: there it gets the target's variance, its hue is the mean's
    shades = noise(8, 8, 3)[:, :1].expand(1, 3, 8, 8)
    moved = colour.match_covariance(shades, target)
    axis = torch.full((3,), 3**-0.5, dtype=torch.float64)
    assert moments(moved)[0].allclose(mean, atol=1e-12)
    assert (axis @ moments(moved)[1] @ axis).allclose(axis @ cov @ axis, atol=1e-12)
    # rounding noise is no colour: chroma of less than a level is not blown up
    faint = shades + 1e-4 * noise(8, 8, 1)
    assert (colour.match_covariance(faint, target) - moved).abs().max() < 2e-3


def test_covariance_with_a_constant_target_is_its_colour():
    assert colour.match_covariance(noise(8, 8, 1), grey(0.3)).allclose(grey(0.3)[..., :1, :1], atol=1e-12)


def test_histogram_equals_the_targets():
    source, target = noise(12, 10, 1), noise(10, 12, 2)
    matched = colour.match_histogram(source, target)
    assert matched.flatten(2).sort(2).values.allclose(target.flatten(2).sort(2).values, atol=1e-12)
    assert matched.flatten(2).argsort(2).equal(source.flatten(2).argsort(2))  # the order of the pixels stays


def test_histogram_between_sizes_by_brute_force():
    source, target = noise(3, 4, 1), noise(5, 7, 2)
    matched = colour.match_histogram(source, target)
    for ours, theirs in zip(matched.flatten(2)[0], target.flatten(2)[0], strict=True):
        # 12 and 35 values: repeat each target value 12 times, then each quantile is the mean of 35 of the 420
        quantiles = theirs.sort().values.repeat_interleave(12).view(12, 35).mean(1)
        assert ours.sort().values.allclose(quantiles, atol=1e-12)


def test_histogram_keeps_equal_values_equal():
    source = torch.tensor([0.1, 0.5, 0.5, 0.9]).expand(1, 3, 1, 4)
    target = torch.tensor([0.4, 0.2, 0.0, 0.8]).expand(1, 3, 1, 4)
    wanted = torch.tensor([0.0, 0.3, 0.3, 0.8]).expand(1, 3, 1, 4)
    assert colour.match_histogram(source, target).allclose(wanted)
    assert colour.match_histogram(grey(), noise(4, 4, 2))[0, :, 0, 0].allclose(moments(noise(4, 4, 2))[0])


@pytest.mark.usefixtures("unshaped")
@pytest.mark.parametrize("match", [colour.match_covariance, colour.match_histogram])
def test_matching_keeps_dtype_and_shape_and_names_a_bad_shape(match):
    matched = match(noise(3, 5, 1, torch.float32), noise(4, 4, 2))
    assert matched.dtype == torch.float32 and matched.shape == (1, 3, 3, 5)
    with pytest.raises(Invalid, match=r"\(1, 3, height, width\), not \(3, 4, 4\)"):
        match(torch.rand(3, 4, 4), torch.rand(1, 3, 4, 4))
