"""Pages that hold all they show: their sections and figures, written as one HTML file."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

FEW = 112  # pixels of a side up to which a picture is shown as squares


@dataclass(frozen=True)
class Figure:
    """A picture of the page, as a data URI, and what is said of it."""

    source: str
    text: str = ""
    wide: bool = False
    plot: bool = False  # wide, but no wider than a plot need be
    pixels: bool = False  # so small that a browser is to show its pixels as squares


@dataclass
class Section:
    """A part of the page."""

    title: str
    text: str
    figures: list[Figure] = field(default_factory=list)
    table: list[tuple[str, ...]] = field(default_factory=list)
    note: str = ""  # a line of what could be done, set apart


def picture(image: Tensor | Image.Image) -> Image.Image:
    """Return a tensor (1, 3, h, w) in 0..1 as a picture; a picture as it is."""
    from PIL import Image

    from innervision.images import to_bytes

    return image if isinstance(image, Image.Image) else Image.fromarray(to_bytes(image.detach().cpu()))


def figure(image: Tensor | Image.Image, text: str = "") -> Figure:
    """Return a picture as a figure of the page; one of few pixels shows them."""
    drawn = picture(image)
    return Figure(uri(drawn), text, pixels=max(drawn.size) <= FEW)


def uri(image: Tensor | Image.Image) -> str:
    """Return a picture as the page holds it: WebP, of which a browser needs no file."""
    buffer = io.BytesIO()
    drawn = picture(image).convert("RGB")
    drawn.save(buffer, "WEBP", quality=88, lossless=max(drawn.size) <= FEW)  # few pixels: each tells
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def render(sections: list[Section], *, title: str, head: str) -> str:
    """Return the page."""
    import jinja2

    source = resources.files("innervision.cli").joinpath("look.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["coded"] = coded
    template = environment.from_string(source)
    return template.render(title=title, head=head, sections=sections)


def coded(text: str) -> str:
    """Return a text as HTML, in which options stay on one line: --images FOLDER."""
    import markupsafe

    return markupsafe.Markup(
        re.sub(r"--[a-z-]+( [A-Z]+\b)?", r"<code>\g<0></code>", str(markupsafe.escape(text)))
    )
