"""Canvases of frequencies: pictures rendered from a spectrum, or from a spectrum's phases alone."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch.fft carries no annotations)

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.core.canvas import Size
from innervision.errors import Invalid
from innervision.shapes import Float

_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
_PALEST = 1e-4  # how far from black and white a picture is kept to have a place before the sigmoid
_OPAQUE = 0.2  # the share of the pixels that a picture of phases shows in full


class Fourier:
    """Pictures rendered from their spectra, in colours that do not go together.

    image = sigmoid(C · F⁻¹(parameter · s) / 4), s = √(w·h) / max(f, 1/max(w, h))^decay, f in cycles a pixel;
    C holds ImageNet's colours along their principal axes, divided by the greatest norm of its columns
    (Lucid, Olah et al. 2017). The parameter (n, 3, h, w//2 + 1, 2) holds real and imaginary parts.

    size: (height, width). spectrum: the parameter to begin with, copied; by default n = `pictures` drawn
    from N(0, sd), one after another, so that the first ones do not depend on how many follow.
    Departure: odd widths have w//2 + 1 frequencies; Lucid makes one more, which is never used.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        size: Size,
        *,
        spectrum: Float[Tensor, "n 3 h f 2"] | None = None,
        pictures: int = 1,
        sd: float = 0.01,
        decay: float = 1.0,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = _spectrum_shape(size)
        if spectrum is None:
            spectrum = (sd * drawn((*shape, 2), pictures, generator)).to(device)
        if tuple(spectrum.shape[1:]) != (*shape, 2):
            raise Invalid(
                f"a picture of {size[0]}x{size[1]} (height x width) has a spectrum (n, "
                f"{', '.join(map(str, shape))}, 2), not {tuple(spectrum.shape)}"
            )
        self.size: Size = (size[0], size[1])
        self.decay = decay
        self.parameter = _leaf(spectrum)
        self._scale = self._scales()

    def _scales(self) -> Float[Tensor, "h f 1"]:
        """Return s of every frequency, f = w//2 + 1."""
        h, w = self.size
        f = frequencies(self.size).clamp(min=1 / max(w, h))
        return ((w * h) ** 0.5 / f.pow(self.decay))[..., None].to(self.parameter)

    def render(self) -> Float[Tensor, "n 3 h w"]:
        spectrum = torch.view_as_complex(self.parameter * self._scale)
        return torch.sigmoid(correlate(_back(spectrum, self.size) / 4))

    def resized(self, size: Size) -> Fourier:
        image = self.render().detach()
        if size != self.size:
            image = F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
        empty = image.new_zeros(len(image), *_spectrum_shape(size), 2)
        canvas = Fourier(size, spectrum=empty, decay=self.decay)
        canvas.repainted(image)
        return canvas

    @torch.no_grad()
    def repainted(self, image: Float[Tensor, "n 3 h w"]) -> None:
        """Show this image; what is darker or lighter than a sigmoid can be is shown as near as it can."""
        flat = decorrelate(torch.logit(image.to(self.parameter), eps=_PALEST))
        self.parameter.copy_(torch.view_as_real(_forth(4 * flat)) / self._scale)

    def state(self) -> dict[str, Tensor]:
        return {"parameter": self.parameter.detach().clone(), "size": torch.tensor(self.size)}

    def restore(self, state: dict[str, Tensor]) -> None:
        h, w = (int(side) for side in state["size"])
        self.size = (h, w)
        self.parameter = _leaf(state["parameter"])
        self._scale = self._scales()


class Phases:
    """Pictures that all have photographs' spectrum, and only its phases to be changed (MaCo).

    image = sigmoid(C · z(F⁻¹(m · e^(i·z(parameter))))), z taking each picture's mean away and dividing by
    its standard deviation, C as in `Fourier`; the parameter (n, 3, h, w//2 + 1) begins as N(0, 1)
    (Fel et al. 2023, and its authors' xplique: z(parameter) shortens a step once the phases have spread,
    as a learning rate that falls would).

    magnitude: m (3, h, w//2 + 1), see `magnitude`. A picture has a magnitude of its own, so that this canvas
    can neither be resized nor edited: both raise Invalid. On each way back it notes how much was asked of
    each pixel (`opacity`).
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        size: Size,
        magnitude: Float[Tensor, "3 h f"],
        *,
        phases: Float[Tensor, "n 3 h f"] | None = None,
        pictures: int = 1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = _spectrum_shape(size)
        if phases is None:
            phases = drawn(shape, pictures, generator).to(device)
        for name, tensor in (("magnitude", magnitude[None]), ("phases", phases)):
            if tuple(tensor.shape[1:]) != shape:
                raise Invalid(
                    f"the {name} of a picture of {size[0]}x{size[1]} (height x width) must have the shape "
                    f"{shape}, not {tuple(tensor.shape[1:])}"
                )
        self.size: Size = (size[0], size[1])
        self.parameter = _leaf(phases)
        self.magnitude = magnitude.detach().to(self.parameter).clone()
        self._asked = self.parameter.new_zeros(len(self.parameter), 1, *self.size).detach()

    def render(self) -> Float[Tensor, "n 3 h w"]:
        spectrum = torch.polar(self.magnitude.expand_as(self.parameter), _standard(self.parameter))
        image = torch.sigmoid(correlate(_standard(_back(spectrum, self.size))))
        if image.requires_grad:
            image.register_hook(self._note)
        return image

    def _note(self, gradient: Tensor) -> None:
        self._asked += gradient.detach().abs().mean(1, keepdim=True)

    def opacity(self) -> Float[Tensor, "n 1 h w"]:
        """Return how far each pixel was asked for, in 0..1: what of a picture to show.

        Σ over steps of |∂L/∂x|, x the picture, the mean over its colours, cut at its 80th percentile and
        divided by that (Fel et al. 2023; their Horama's `plot_maco`). The rest is chance: phases that no one
        has looked at. Of pictures that nothing was asked of yet, all is shown.
        """
        flat = self._asked.flatten(1)
        rank = max(1, round((1 - _OPAQUE) * flat.shape[1]))
        most = flat.kthvalue(rank, 1).values
        most = torch.where(most > 0, most, flat.amax(1)).view(-1, 1, 1, 1)
        return torch.where(most > 0, (self._asked / most).clamp(max=1), 1.0)

    def resized(self, size: Size) -> Phases:
        if tuple(size) != self.size:
            raise Invalid("a canvas of phases cannot be resized: its magnitudes are of one size")
        new = Phases(size, self.magnitude, phases=self.parameter)
        new._asked = self._asked.clone()
        return new

    def repainted(self, image: Float[Tensor, "n 3 h w"]) -> None:
        raise Invalid("a canvas of phases cannot show just any picture: descend it without edits")

    def state(self) -> dict[str, Tensor]:
        return {
            "parameter": self.parameter.detach().clone(),
            "magnitude": self.magnitude.clone(),
            "asked": self._asked.clone(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        if state["parameter"].shape[1:] != self.parameter.shape[1:]:
            raise Invalid("the state of a canvas of phases is of another size: make one of that size")
        self.parameter = _leaf(state["parameter"])
        self.magnitude = state["magnitude"].clone()
        self._asked = state["asked"].clone()


def frequencies(size: Size) -> Float[Tensor, "h f"]:
    """Return the radial frequency of each entry of a real spectrum, f = w//2 + 1, in cycles a pixel."""
    h, w = size
    fy: Tensor = torch.fft.fftfreq(h, dtype=torch.float64)[:, None]
    fx: Tensor = torch.fft.rfftfreq(w, dtype=torch.float64)[None, :]
    return (fx.square() + fy.square()).sqrt()


def magnitude(photographs: Iterable[Float[Tensor, "1 3 h w"]], size: Size) -> Float[Tensor, "3 h f"]:
    """Return the mean magnitude of photographs' spectra, f = w//2 + 1, along the axes of their colours.

    photographs: sRGB 0..1, of any size from 2 px. From each the largest windows of the
    canvas's aspect are taken, at both ends and in the middle, upright and mirrored, and resized; colours are
    `decorrelate`d. The mean over windows tells how strong frequencies are, and no longer of what.
    """
    total, count = torch.zeros(_spectrum_shape(size), device="cpu"), 0
    for photograph in photographs:
        for window in _windows(photograph, size):
            sized = F.interpolate(window, size, mode="bicubic", align_corners=False, antialias=True)
            flat = decorrelate(sized.float().cpu())
            both = torch.cat([flat, flat.flip(-1)])
            total += _forth(both).abs().sum(0)
            count += len(both)
    if not count:
        raise Invalid("a mean magnitude needs at least one photograph")
    return total / count


def _windows(image: Tensor, size: Size) -> Iterable[Tensor]:
    h, w = image.shape[-2:]
    share = min(h / size[0], w / size[1])
    height, width = (max(1, min(side, int(share * n))) for side, n in zip((h, w), size, strict=True))
    for part in (0.0, 0.5, 1.0):
        top, left = int(part * (h - height)), int(part * (w - width))
        yield image[..., top : top + height, left : left + width]


@cache
@torch.inference_mode(False)  # whoever asks first, all who come later may want gradients
def _colours(inverse: bool) -> Tensor:
    axes = torch.tensor(_COLOURS, dtype=torch.float64, device="cpu")  # whatever torch's default device is
    axes = axes / axes.norm(dim=0).max()
    return torch.linalg.inv(axes) if inverse else axes


def correlate(image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Give values along the principal axes of ImageNet's colours as red, green and blue."""
    return torch.einsum("ij,njhw->nihw", _colours(False).to(image), image)


def decorrelate(image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """Undo `correlate`."""
    return torch.einsum("ij,njhw->nihw", _colours(True).to(image), image)


def drawn(shape: tuple[int, ...], pictures: int, generator: torch.Generator | None) -> Float[Tensor, "n ..."]:
    """Draw (pictures, *shape) from N(0, 1), each picture on its own: more do not change those before.

    generator: None is a fresh one of seed 0.
    """
    if pictures < 1:
        raise Invalid(f"{pictures} pictures: give at least 1")
    source = generator or torch.Generator().manual_seed(0)
    each = [torch.randn(shape, generator=source, device=source.device) for _ in range(pictures)]
    return torch.stack(each)


def _spectrum_shape(size: Size) -> tuple[int, int, int]:
    if min(size) < 1:
        raise Invalid(f"a canvas of {size[0]}x{size[1]}: each side must be at least 1 pixel")
    return (3, size[0], size[1] // 2 + 1)


def _forth(image: Tensor) -> Tensor:
    return cast(Tensor, torch.fft.rfft2(image))


def _back(spectrum: Tensor, size: Size) -> Tensor:
    return cast(Tensor, torch.fft.irfft2(spectrum, s=size))


def _standard(values: Tensor) -> Tensor:
    """Take each picture's mean away and divide by its standard deviation."""
    mean = values.mean((1, 2, 3), keepdim=True)
    deviation = values.std((1, 2, 3), keepdim=True, correction=0)
    return (values - mean) / (deviation + 1e-5)


def _leaf(values: Tensor) -> Tensor:
    dtype = values.dtype if values.dtype == torch.float64 else torch.float32
    return values.detach().to(dtype, copy=True, memory_format=torch.contiguous_format).requires_grad_()
