"""Canvases: what renders an image from parameters."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# (torch.fft carries no annotations)

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.errors import Invalid
from innervision.shapes import Float

Size = tuple[int, int]
"""Height and width in pixels."""


@runtime_checkable
class Canvas(Protocol):
    """Renders an image in sRGB units from one contiguous leaf tensor.

    A batch of pictures is descended together where every term of the objective is a sum over
    them: then none of them changes another's path.
    """

    parameter: Float[Tensor, "n ..."]

    def render(self) -> Float[Tensor, "n 3 h w"]:
        """Return the image, with a gradient to the parameter; values may leave 0..1."""
        ...

    def resized(self, size: Size) -> Canvas:
        """Return a canvas of another size that shows the same picture."""
        ...

    def repainted(self, image: Float[Tensor, "n 3 h w"]) -> None:
        """Set the parameter in place so that the canvas shows this image."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return copies of every tensor that `restore` needs to show the same picture again."""
        ...

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take a state back; it may be of another size, and is not changed by what follows."""
        ...


class Pixels:
    """The pixels themselves, measured in `unit`: image = parameter · unit.

    image: sRGB 0..1, copied. unit: what one step of the parameter is in sRGB 0..1, a number
    or one a channel; it sets what a learning rate means (the article's 3.0 is in units of the network's
    std). L-BFGS all but ignores it.
    """

    @torch.inference_mode(False)
    def __init__(self, image: Float[Tensor, "n 3 h w"], unit: Tensor | float = 1.0) -> None:
        picture = _picture(image)
        self.unit = torch.as_tensor(unit).detach().clone().to(picture).view(1, -1, 1, 1)
        self.parameter = (picture / self.unit).requires_grad_()

    def render(self) -> Float[Tensor, "n 3 h w"]:
        return self.parameter * self.unit

    def resized(self, size: Size) -> Pixels:
        return Pixels(_resize(self.render().detach(), size), self.unit)

    @torch.no_grad()
    def repainted(self, image: Float[Tensor, "n 3 h w"]) -> None:
        self.parameter.copy_(image / self.unit)

    def state(self) -> dict[str, Tensor]:
        return {"parameter": self.parameter.detach().clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self.parameter = state["parameter"].clone().requires_grad_()


class Detail:
    """A photograph plus learned detail, its spectrum shaped so that large forms move as readily as fine ones.

    image = photo + carried + F⁻¹(F(parameter) · s), s = gain · ((r + ε)/(½ + ε))^slope, r the radial
    frequency in cycles a pixel, ε = 1/32. slope −½ needs about 1.3 times fewer L-BFGS evaluations than
    pixels; slope 0 is pixels. The parameter has the image's shape and starts at 0.

    photo: sRGB 0..1, copied. photos: gives the photograph at a size. A canvas resized by it
    takes only the detail along (`carried`), so that the photograph's own fine grain stays sharp.
    """

    @torch.inference_mode(False)
    def __init__(
        self,
        photo: Float[Tensor, "n 3 h w"],
        *,
        photos: Callable[[Size], Float[Tensor, "n 3 h w"]] | None = None,
        carried: Float[Tensor, "n 3 h w"] | None = None,
        slope: float = -0.5,
        gain: float = 3 / 255,
    ) -> None:
        self.photo = _picture(photo)
        self.photos = photos
        self.carried = torch.zeros_like(self.photo) if carried is None else carried.detach().to(self.photo)
        self.slope = slope
        self.gain = gain
        self.parameter = torch.zeros_like(self.photo).requires_grad_()
        self.shape = self._shape()

    def _shape(self) -> Tensor:
        h, w = self.photo.shape[-2:]
        fy: Tensor = torch.fft.fftfreq(h, device=self.photo.device, dtype=self.photo.dtype)[:, None]
        fx: Tensor = torch.fft.rfftfreq(w, device=self.photo.device, dtype=self.photo.dtype)[None, :]
        r = (fx.square() + fy.square()).sqrt()
        return self.gain * ((r + 1 / 32) / (1 / 2 + 1 / 32)).pow(self.slope)

    def _filtered(self, image: Tensor, spectrum: Tensor) -> Tensor:
        out: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * spectrum, s=image.shape[-2:])
        return out

    def render(self) -> Float[Tensor, "n 3 h w"]:
        return self.photo + self.carried + self._filtered(self.parameter, self.shape)

    def resized(self, size: Size) -> Detail:
        detail = self.carried + self._filtered(self.parameter, self.shape).detach()
        if self.photos is not None:
            photo, carried = self.photos(size), _resize(detail, size)
        else:
            photo, carried = _resize(self.photo + detail, size), None
        return Detail(photo, photos=self.photos, carried=carried, slope=self.slope, gain=self.gain)

    @torch.no_grad()
    def repainted(self, image: Float[Tensor, "n 3 h w"]) -> None:
        self.parameter.add_(self._filtered(image - self.render(), 1 / self.shape))

    def state(self) -> dict[str, Tensor]:
        return {
            "parameter": self.parameter.detach().clone(),
            "photo": self.photo.clone(),
            "carried": self.carried.clone(),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        self.photo, self.carried = state["photo"].clone(), state["carried"].clone()
        self.parameter = state["parameter"].clone().requires_grad_()
        self.shape = self._shape()


def _picture(image: Tensor) -> Tensor:
    """Copy an image for a canvas: contiguous (L-BFGS wants it so), in float32 or better."""
    if image.ndim != 4 or not image.is_floating_point():
        raise Invalid(
            f"a canvas wants an image of floating point numbers in 0..1, (1, 3, height, width), "
            f"not {image.dtype} {tuple(image.shape)}"
        )
    dtype = image.dtype if image.dtype == torch.float64 else torch.float32
    return image.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)


def _resize(image: Tensor, size: Size) -> Tensor:
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
