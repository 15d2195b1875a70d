"""What the comparisons of a GPU with the processor share: skipped where there is no CUDA device.

INNERVISION_TEST_DEVICE=cpu lets the processor stand in for the GPU: it agrees with itself, which shows that
the comparisons run and no more.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from innervision import images, network, samples
from innervision.network import Network

DEVICE = os.environ.get("INNERVISION_TEST_DEVICE", "cuda")
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The device that is compared with the processor."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(DEVICE)


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolve and multiply in float32 to its last bit, always by the same method.

    By itself cuDNN rounds factors to 10 bits (TF32), and may choose a method by its speed.
    """
    cudnn: Any = torch.backends.cudnn
    product = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, product.allow_tf32
    try:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, product.allow_tf32 = False, False, True, False
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, product.allow_tf32 = before


@pytest.fixture(scope="session")
def both(gpu: torch.device) -> Callable[[str], tuple[Network, Network]]:
    """Return a network by name as it is looked through, on the processor and on the GPU."""

    @functools.cache
    def opened(name: str) -> tuple[Network, Network]:
        own = network.load(name)
        return own.frozen(), own.frozen().to(gpu)

    return opened


@pytest.fixture
def near() -> Callable[..., None]:
    """Compare two tensors: the greatest difference, of the second one's greatest value."""

    def compare(ours: Any, theirs: Any, within: float, what: str = "") -> None:
        mine, other = (torch.as_tensor(each).detach().cpu().double() for each in (ours, theirs))
        assert mine.shape == other.shape and bool(mine.isfinite().all()), what
        assert bool(other.any()), f"{what} is 0 everywhere: nothing is compared"
        error = float((mine - other).abs().max() / other.abs().max())
        print(f"{what}: {error:.1e}, may be {within:.0e}")  # pytest -rP shows how near a bound is
        assert error <= within, f"{what}: {error:.1e} of the greatest value, may be {within:.0e}"

    return compare


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Tensor]:
    """Return the middle of a cat's face, (1, 3, side, side), sRGB 0..1."""

    def cut(side: int) -> Tensor:
        whole = images.read(samples.path("chelsea")).tensor()
        square = whole[..., 0:300, 76:376]
        return images.resize(square, (side, side))

    return cut


@pytest.fixture(scope="session")
def crops() -> tuple[Tensor, Tensor]:
    """Return 256 squares cut out of four photographs, uint8 (256, 3, 32, 32), and of which each is."""
    rng = np.random.default_rng(0)
    whole = [images.read(samples.path(name)).pixels for name in PHOTOGRAPHS]
    labels = np.arange(256) % len(whole)
    found: list[Any] = []
    for label in labels:
        small = whole[label][::4, ::4]
        y, x = (int(rng.integers(0, side - 32)) for side in small.shape[:2])
        found.append(small[y : y + 32, x : x + 32])
    pixels = np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2))
    return torch.from_numpy(pixels), torch.from_numpy(labels).long()
