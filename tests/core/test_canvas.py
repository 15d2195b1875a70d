"""Oracles: the photograph itself, numpy's FFT, and what resizing and repainting must not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.core import Detail, Pixels
from innervision.core.canvas import Canvas
from innervision.errors import Invalid

CANVASES = {
    "pixels": lambda image: Pixels(image, torch.tensor([0.25, 0.5, 2.0])),
    "detail": Detail,
    "carried": lambda image: Detail(image, carried=picture(*image.shape, seed=9) - 0.5, slope=-1.0, gain=0.1),
}


def picture(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape or (1, 3, 9, 8), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stir(canvas: Canvas) -> None:
    """Paint something on it."""
    with torch.no_grad():
        canvas.parameter += picture(*canvas.parameter.shape, seed=5).to(canvas.parameter) - 0.5


def slope(canvas: Canvas) -> Tensor:
    """The gradient of a fixed linear function of the image."""
    image = canvas.render()
    weight = picture(*image.shape, seed=6).to(image)
    return torch.autograd.grad((weight * image).sum(), canvas.parameter)[0]


@pytest.mark.parametrize("kind", ["pixels", "detail"])
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (1, 1), (1, 7), (6, 1)])
def test_a_fresh_canvas_shows_its_picture(kind: str, size: tuple[int, int]) -> None:
    image = picture(1, 3, *size)
    canvas = CANVASES[kind](image)
    torch.testing.assert_close(canvas.render(), image, rtol=0, atol=1e-15)
    assert canvas.parameter.is_leaf and canvas.parameter.requires_grad and canvas.parameter.is_contiguous()


@pytest.mark.parametrize("kind", CANVASES)
@pytest.mark.parametrize("size", [(9, 8), (8, 9), (1, 7), (5, 1)])
def test_repainted_shows_the_image_and_keeps_the_parameter_itself(kind: str, size: tuple[int, int]) -> None:
    canvas = CANVASES[kind](picture(1, 3, *size))
    parameter = canvas.parameter
    stir(canvas)
    image = 3 * picture(1, 3, *size, seed=2) - 1
    canvas.repainted(image)
    torch.testing.assert_close(canvas.render(), image, rtol=0, atol=1e-12)
    assert canvas.parameter is parameter and parameter.is_leaf and parameter.requires_grad


@pytest.mark.parametrize("kind", CANVASES)
def test_resized_shows_the_same_picture(kind: str) -> None:
    canvas = CANVASES[kind](picture(1, 3, 8, 12))
    stir(canvas)
    shown = canvas.render().detach()
    larger = canvas.resized((12, 18))
    expected = F.interpolate(shown, (12, 18), mode="bicubic", antialias=True)
    torch.testing.assert_close(larger.render(), expected, rtol=0, atol=1e-12)
    assert torch.equal(canvas.render(), shown), "the one before stays"
    same = canvas.resized((8, 12))
    torch.testing.assert_close(same.render(), shown, rtol=0, atol=1e-12)
    stir(same)
    assert torch.equal(canvas.render(), shown), "no memory is shared"


def test_pixels_keep_their_unit_and_detail_its_shape_when_resized() -> None:
    pixels = Pixels(picture(), torch.tensor([0.25, 0.5, 2.0])).resized((4, 4))
    assert pixels.unit.flatten().tolist() == [0.25, 0.5, 2.0]
    detail = Detail(picture(), slope=-1.0, gain=0.5).resized((4, 4))
    assert (detail.slope, detail.gain) == (-1.0, 0.5)
    torch.testing.assert_close(detail.shape, Detail(picture(1, 3, 4, 4), slope=-1.0, gain=0.5).shape)


@pytest.mark.parametrize("kind", CANVASES)
def test_a_state_brings_everything_back(kind: str) -> None:
    canvas = CANVASES[kind](picture(1, 3, 6, 10)).resized((9, 15))
    stir(canvas)
    shown, state = canvas.render().detach(), canvas.state()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    stir(canvas)
    other = CANVASES[kind](picture(1, 3, 6, 10, seed=4))  # as it was built, of another size
    other.restore(state)
    assert torch.equal(other.render(), shown)
    torch.testing.assert_close(slope(other), slope(canvas), rtol=0, atol=0)
    stir(other)
    other.repainted(picture(1, 3, 9, 15))
    assert all(torch.equal(state[name], tensor) for name, tensor in kept.items())


@pytest.mark.parametrize("kind", CANVASES)
def test_the_callers_picture_is_copied(kind: str) -> None:
    image = picture()
    canvas = CANVASES[kind](image)
    shown = canvas.render().detach().clone()
    image.zero_()
    assert torch.equal(canvas.render(), shown)
    stir(canvas)
    assert not image.any()


def test_pixels_are_measured_in_their_unit() -> None:
    unit = torch.tensor([0.25, 0.5, 2.0], dtype=torch.float64)
    canvas = Pixels(picture(), unit)
    torch.testing.assert_close(canvas.parameter * unit.view(1, 3, 1, 1), picture(), rtol=0, atol=1e-15)
    torch.testing.assert_close(slope(canvas), slope(Pixels(picture())) * unit.view(1, 3, 1, 1))
    before = canvas.render().detach()
    with torch.no_grad():
        canvas.parameter += 1
    moved = (canvas.render() - before).mean((0, 2, 3))
    torch.testing.assert_close(moved, unit)


def test_detail_without_a_slope_is_pixels() -> None:
    detail, pixels = Detail(picture(), slope=0.0, gain=0.125), Pixels(picture())
    torch.testing.assert_close(slope(detail), 0.125 * slope(pixels), rtol=0, atol=1e-14)
    with torch.no_grad():
        detail.parameter += picture(seed=2)
    torch.testing.assert_close(detail.render(), picture() + 0.125 * picture(seed=2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_detail_is_shaped_in_frequency(size: tuple[int, int]) -> None:
    h, w = size
    canvas = Detail(picture(1, 3, h, w), slope=-0.5, gain=3 / 255)
    stir(canvas)
    parameter = canvas.parameter.detach().numpy()
    r = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None, :])
    spectrum = 3 / 255 * ((r + 1 / 32) / (1 / 2 + 1 / 32)) ** -0.5
    expected = picture(1, 3, h, w).numpy() + np.fft.ifft2(np.fft.fft2(parameter) * spectrum).real
    np.testing.assert_allclose(canvas.render().detach().numpy(), expected, atol=1e-14)


def test_an_even_change_moves_farther_than_a_fine_one() -> None:
    """At r = 0 the spectrum is gain·17^½ for slope −½; at ½ along one axis it is the gain."""
    canvas = Detail(torch.zeros(1, 3, 8, 8, dtype=torch.float64), gain=1.0)
    assert float(canvas.shape[0, 0]) == pytest.approx(17**0.5)
    assert float(canvas.shape[4, 0]) == pytest.approx(1)


def test_detail_over_a_photograph_keeps_its_own_grain() -> None:
    photos = {size: picture(1, 3, *size, seed=size[0]) for size in ((8, 8), (16, 16), (32, 32))}
    canvas = Detail(photos[8, 8], photos=photos.__getitem__)
    assert torch.equal(canvas.resized((16, 16)).render(), photos[16, 16]), "nothing painted, nothing blurred"
    stir(canvas)
    added = (canvas.render() - photos[8, 8]).detach()
    larger = canvas.resized((16, 16))
    carried = F.interpolate(added, (16, 16), mode="bicubic", antialias=True)
    torch.testing.assert_close(larger.render(), photos[16, 16] + carried, rtol=0, atol=1e-12)
    stir(larger)
    added = (larger.render() - photos[16, 16]).detach()
    largest = larger.resized((32, 32))
    carried = F.interpolate(added, (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(largest.render(), photos[32, 32] + carried, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", CANVASES)
def test_a_canvas_made_under_inference_mode_can_be_painted_on(kind: str) -> None:
    with torch.inference_mode():
        canvas = CANVASES[kind](picture() * 1)
    assert slope(canvas).any()
    with torch.inference_mode():
        unit = torch.tensor([0.5] * 3, dtype=torch.float64) * 1
        canvas = Pixels(picture() * 1, unit.view(1, 3, 1, 1))
    assert slope(canvas).any()


@pytest.mark.usefixtures("unshaped")
def test_a_canvas_is_float32_at_least() -> None:
    for kind in (Pixels, Detail):
        assert kind(picture().bfloat16()).parameter.dtype == torch.float32
        assert kind(picture()).parameter.dtype == torch.float64
        canvas = kind(picture().to(memory_format=torch.channels_last))
        assert canvas.parameter.is_contiguous()
        (canvas.render().to(memory_format=torch.channels_last) ** 2).sum().backward()
        assert canvas.parameter.grad is not None and canvas.parameter.grad.is_contiguous()
        with pytest.raises(Invalid, match=r"not torch.uint8 \(1, 3, 4, 4\)"):
            kind(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
        with pytest.raises(Invalid, match=r"not torch.float32 \(3, 4, 4\)"):
            kind(torch.zeros(3, 4, 4))
