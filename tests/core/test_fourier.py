"""Oracles: Lucid's parametrisation in plain numpy, and numpy's FFT (lucent's own: oracles)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from innervision.core import Adam, Fourier, Phases, Stage, blur, descend, excite
from innervision.core.fourier import correlate, decorrelate, drawn, frequencies, magnitude
from innervision.errors import Invalid
from innervision.network import wrap

SIZES = [(8, 8), (9, 12), (12, 9), (7, 7), (1, 1), (1, 6)]
COLOURS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def spectrum(h: int, w: int, n: int = 2) -> Tensor:
    draw = torch.Generator().manual_seed(4)
    return torch.randn(n, 3, h, w // 2 + 1, 2, generator=draw, dtype=torch.float64)


def lucids(parts: np.ndarray, h: int, w: int) -> np.ndarray:
    """Lucid's fft_image and to_valid_rgb, restated; at odd widths it cuts off one frequency more."""
    fy, fx = np.fft.fftfreq(h)[:, None], np.abs(np.fft.fftfreq(w)[: w // 2 + 1])
    scale = np.sqrt(w * h) / np.maximum(np.sqrt(fx**2 + fy**2), 1 / max(w, h))
    flat = np.fft.irfft2((parts[..., 0] + 1j * parts[..., 1]) * scale, s=(h, w)) / 4
    colours = COLOURS / np.linalg.norm(COLOURS, axis=0).max()
    linear = np.einsum("nchw,rc->nrhw", flat, colours)
    return 1 / (1 + np.exp(-linear))


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_is_lucids(size: tuple[int, int]) -> None:
    parts = spectrum(*size)
    canvas = Fourier(size, spectrum=parts)
    np.testing.assert_allclose(canvas.render().detach().numpy(), lucids(parts.numpy(), *size), atol=1e-12)
    assert canvas.parameter.is_leaf and canvas.parameter.is_contiguous() and canvas.parameter is not parts


def test_what_is_drawn() -> None:
    one, three = Fourier((6, 8)), Fourier((6, 8), pictures=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(three.parameter[:1], one.parameter), "more pictures do not change those before"
    assert not torch.equal(three.parameter[1], three.parameter[0])
    many = Fourier((64, 64)).parameter.detach()
    assert float(many.std()) == pytest.approx(0.01, rel=0.05) and abs(float(many.mean())) < 3e-4
    assert abs(float(Fourier((64, 64)).render().detach().mean()) - 0.5) < 0.1, "about mid-grey"


@pytest.mark.parametrize("size", SIZES)
def test_repainted_shows_the_image_and_keeps_the_parameter_itself(size: tuple[int, int]) -> None:
    canvas = Fourier(size, spectrum=spectrum(*size))
    parameter = canvas.parameter
    image = 0.02 + 0.96 * torch.rand(2, 3, *size, dtype=torch.float64)
    canvas.repainted(image)
    torch.testing.assert_close(canvas.render(), image, rtol=0, atol=1e-12)
    assert canvas.parameter is parameter and parameter.requires_grad
    canvas.repainted(torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1).expand(2, 3, *size))
    shown = torch.tensor([1e-4, 0.5, 1 - 1e-4], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, *size)
    torch.testing.assert_close(canvas.render(), shown, rtol=0, atol=1e-9)


def test_resized_shows_the_same_picture() -> None:
    canvas = Fourier((8, 12), spectrum=0.05 * spectrum(8, 12))
    shown = canvas.render().detach()
    larger = canvas.resized((12, 18))
    expected = torch.nn.functional.interpolate(shown, (12, 18), mode="bicubic", antialias=True)
    torch.testing.assert_close(larger.render(), expected.clamp(1e-4, 1 - 1e-4), rtol=0, atol=1e-9)
    torch.testing.assert_close(canvas.resized((8, 12)).render(), shown, rtol=0, atol=1e-12)
    assert torch.equal(canvas.render(), shown), "the one before stays"


def test_a_state_brings_everything_back() -> None:
    canvas = Fourier((8, 12), spectrum=spectrum(8, 12))
    shown, state = canvas.render().detach(), canvas.state()
    with torch.no_grad():
        canvas.parameter += 1
    other = Fourier((5, 5))
    other.restore(state)
    assert torch.equal(other.render(), shown) and other.parameter.requires_grad
    phases = Phases((8, 12), torch.rand(3, 8, 7), pictures=2)
    shown, state = phases.render().detach(), phases.state()
    other = Phases((8, 12), torch.rand(3, 8, 7))
    other.restore(state)
    assert torch.equal(other.render(), shown)
    with pytest.raises(Invalid, match="another size"):
        Phases((8, 8), torch.rand(3, 8, 5)).restore(state)


def test_gradients_go_back_to_the_frequencies() -> None:
    for size in ((4, 5), (3, 4)):
        canvas = Fourier(size, spectrum=0.1 * spectrum(*size, n=1))
        weight = torch.rand(1, 3, *size, dtype=torch.float64)

        def weighed(parts: Tensor, size=size, weight=weight, canvas=canvas) -> Tensor:
            canvas.parameter = parts
            return (canvas.render() * weight).sum()

        assert torch.autograd.gradcheck(weighed, (canvas.parameter,))


def test_colours_there_and_back() -> None:
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(decorrelate(correlate(image)), image, rtol=0, atol=1e-12)
    grey = correlate(torch.tensor([1.0, 0, 0], dtype=torch.float64).view(1, 3, 1, 1)).flatten()
    assert grey.tolist() == pytest.approx((COLOURS[:, 0] / np.linalg.norm(COLOURS[:, 0])).tolist())


def test_frequencies_are_numpys() -> None:
    for h, w in SIZES:
        expected = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None])
        np.testing.assert_allclose(frequencies((h, w)).numpy(), expected, atol=1e-15)


# MaCo


def test_phases_are_xpliques() -> None:
    """maco_image_parametrization of xplique, restated in numpy for each picture."""
    draw = np.random.default_rng(2)
    size, m = (6, 8), draw.random((3, 6, 5))
    phases = draw.normal(size=(2, 3, 6, 5))
    shown = Phases(size, torch.from_numpy(m), phases=torch.from_numpy(phases)).render().detach().numpy()
    colours = COLOURS / np.linalg.norm(COLOURS, axis=0).max()
    for picture, phase in zip(shown, phases, strict=True):
        phase = (phase - phase.mean()) / (phase.std() + 1e-5)
        flat = np.fft.irfft2(m * np.exp(1j * phase), s=size)
        flat = (flat - flat.mean()) / (flat.std() + 1e-5)
        np.testing.assert_allclose(
            picture, 1 / (1 + np.exp(-np.einsum("chw,rc->rhw", flat, colours))), atol=1e-12
        )


def test_a_magnitude_is_the_mean_of_windows_both_ways() -> None:
    photograph = torch.rand(1, 3, 8, 8)
    flat = decorrelate(photograph).numpy()
    expected = (np.abs(np.fft.rfft2(flat)) + np.abs(np.fft.rfft2(flat[..., ::-1])))[0] / 2
    np.testing.assert_allclose(magnitude([photograph], (8, 8)).numpy(), expected, rtol=1e-4, atol=1e-5)
    assert magnitude([photograph, torch.rand(1, 3, 30, 11)], (6, 9)).shape == (3, 6, 5)
    even = magnitude([torch.full((1, 3, 20, 30), 0.3)], (8, 8))
    assert float(even.flatten(1)[:, 1:].max()) < 1e-4 < float(even[0, 0, 0])
    with pytest.raises(Invalid, match="at least one photograph"):
        magnitude([], (8, 8))


def test_only_phases_move() -> None:
    network = wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))).frozen()
    m = torch.rand(3, 8, 5) + 0.1
    canvas = Phases((8, 8), m, pictures=2)
    frames = list(descend(network, canvas, [Stage(excite("0", 1), 10, optimiser=Adam(0.1))]))
    assert frames[-1].total < frames[0].total and torch.equal(canvas.magnitude, m)
    with pytest.raises(Invalid, match="without edits"):
        list(descend(network, canvas, [Stage(excite("0", 1), 2, optimiser=Adam(0.1), edits=(blur(1.0),))]))
    with pytest.raises(Invalid, match="cannot be resized"):
        canvas.resized((9, 9))


def test_opacity_is_horamas() -> None:
    """The gradients' absolute values, summed over steps, and cut at a percentile: restated in numpy."""
    canvas = Phases((10, 8), torch.rand(3, 10, 5) + 0.1, pictures=2)
    assert torch.equal(canvas.opacity(), torch.ones(2, 1, 10, 8)), "nothing was asked of them yet"
    weights = torch.randn(3, 2, 3, 10, 8, generator=torch.Generator().manual_seed(0))
    weights[:, 1, :, 1:] = 0  # of the second picture the first row alone
    for weight in weights:
        canvas.render()  # looked at, and nothing asked
        (canvas.render() * weight).sum().backward()
    for n, picture in enumerate(canvas.opacity()[:, 0].numpy()):
        alpha = np.abs(weights[:, n].numpy()).sum(0).mean(0)
        cut = np.percentile(alpha, 80, method="lower") or alpha.max()
        np.testing.assert_allclose(picture, np.clip(alpha / cut, None, 1), rtol=1e-5, atol=0)
    other = Phases((10, 8), torch.ones(3, 10, 5))
    other.restore(canvas.state())
    for same in (other, canvas.resized((10, 8))):
        assert torch.equal(same.opacity(), canvas.opacity())


def test_what_cannot_be_a_canvas_is_refused() -> None:
    with pytest.raises(Invalid, match=r"spectrum \(n, 3, 4, 3, 2\), not \(1, 3, 4, 4, 2\)"):
        Fourier((4, 4), spectrum=torch.zeros(1, 3, 4, 4, 2))
    with pytest.raises(Invalid, match="at least 1 pixel"):
        Fourier((0, 4))
    with pytest.raises(Invalid, match="give at least 1"):
        drawn((2,), 0, None)
    with pytest.raises(Invalid, match=r"magnitude of a picture of 4x4 .* must have the shape \(3, 4, 3\)"):
        Phases((4, 4), torch.ones(3, 4, 4))


def test_a_canvas_made_under_inference_mode_can_be_painted_on() -> None:
    with torch.inference_mode():
        canvas, phases = Fourier((4, 4)), Phases((4, 4), torch.ones(3, 4, 3))
    for each in (canvas, phases):
        (each.render() ** 2).sum().backward()
        assert each.parameter.grad is not None
