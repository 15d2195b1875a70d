"""What the tests of painting share: small pictures, and a small network of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import innervision
from innervision.paint.gatys import Painting

GUEST = """
from collections import OrderedDict
import torch
from torch import nn

def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(4, 6, 3, padding=1), relu2=nn.ReLU(),
        ))

def fixed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(),
            flat=nn.Flatten(), fc=nn.Linear(4 * 24 * 32, 5),
        ))
"""


@pytest.fixture
def guest(tmp_path: Path) -> str:
    """Name a user's own network: two convolutions, 0..1 in, nothing said of mean and deviation."""
    file = tmp_path / "vgg_of_mine.py"
    file.write_text(GUEST)
    return f"{file}:build"


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Draw a smooth picture (h, w) whose colours stay within a range of bytes."""

    def draw(h: int, w: int, seed: int, low: int = 60, high: int = 200) -> Image.Image:
        grid = np.random.default_rng(seed).integers(low, high, (5, 5, 3), np.uint8)
        return Image.fromarray(grid).resize((w, h), Image.Resampling.BILINEAR)

    return draw


@pytest.fixture
def paint(guest: str, picture: Callable[..., Image.Image]) -> Callable[..., Painting]:
    """Begin a small painting on the user's network: 32x24 px, 6 steps, one size."""
    usual: dict[str, Any] = {"size": 32, "stages": None, "steps": 6, "every": 2}
    usual |= {"net": guest, "content_layers": ("relu2",), "style_layers": ("relu1", "relu2")}
    usual |= {"precision": "float32", "threads": 1, "device": "cpu"}

    def begin(content: Any = None, style: Any = None, **options: Any) -> Painting:
        content = picture(48, 64, 1) if content is None else content
        style = picture(40, 40, 2) if style is None else style
        return innervision.stylize(content, style, **(usual | options))

    return begin
