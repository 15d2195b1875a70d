"""3x3 convolutions with a quarter of the products: Winograd's minimal filtering, for float32 on a CPU.

A tile of 4x4 answers of a 3x3 convolution takes 36 products instead of 144: F(4x4, 3x3) of Lavin & Gray 2016
(arXiv:1509.09308), Y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A, summed over channels as 36 matrix products. The data
gradient is the same chain of linear maps transposed, with the same transformed kernel.

Departure: both transforms are dense 36x36 and 16x36 products, over a few rows of tiles that stay in cache.
Their cost per channel is that of ten or so channels of a direct convolution, so narrow layers are left to the
library. The roundings are two to five times a direct convolution's (up to 1e-5 of the largest answer), which
float32 bears and bfloat16 would not.

Measured (2 cores, AVX2, against oneDNN's direct convolution, either way): 128 channels at 256x192 1.5 times
sooner, 256 at 128x96 1.7 to 2.0, 512 at 64x48 1.6 to 2.5.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_TILES = 256  # taken at a time: more leave the cache, fewer wait for the threads more often
_CHANNELS = 128  # at least, in and out: below, the transforms cost what the products save
_LEAST = 24  # tiles at least, or reading the kernel costs what the products save


def pays(x: Tensor, weight: Tensor) -> bool:
    """Tell whether this is the sooner way to convolve x (n, ·, h, w) with a kernel (k, c, 3, 3)."""
    if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.shape[2:] != (3, 3):
        return False
    tiles = -(-x.shape[2] // 4) * -(-x.shape[3] // 4)
    return min(weight.shape[:2]) >= _CHANNELS and tiles >= _LEAST and x.shape[0] == 1


def transform(weight: Tensor) -> Tensor:
    """Return G w Gᵀ of a kernel (k, c, 3, 3) as (36, c, k)."""
    g, _, _ = _matrices()
    turned = torch.einsum("ai,bj,kcij->abck", g, g, weight.double())
    return turned.flatten(0, 1).float().contiguous()


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """Return G (6, 3) in float64, Bᵀ⊗Bᵀ (36, 36) and Aᵀ⊗Aᵀ (16, 36): interpolation at 0, ±1, ±2 and ∞."""
    g = [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]
    b = [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
    a = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    bt, at = torch.tensor(b, dtype=torch.float32), torch.tensor(a, dtype=torch.float32)
    return torch.tensor(g, dtype=torch.float64) / 24, torch.kron(bt, bt), torch.kron(at, at)


def _at_a_time(rows: int, columns: int) -> int:
    """Return how many rows of tiles to take at a time, in parts as even as can be."""
    parts = -(-rows // max(1, _TILES // columns))
    return -(-rows // parts)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    """Convolve (1, c, h, w) with a transformed kernel; both pictures are laid out channels last."""
    _, b, a = _matrices()
    (_, c, h, w), k = x.shape, kernel.shape[2]
    (top, left), (out_h, out_w) = padding, (h + 2 * padding[0] - 2, w + 2 * padding[1] - 2)
    rows, columns = -(-out_h // 4), -(-out_w // 4)
    few = _at_a_time(rows, columns)
    image = x[0].permute(1, 2, 0)
    strip = x.new_zeros(4 * few + 2, 4 * columns + 2, c)
    s = strip.stride()
    patches = strip.as_strided((6, 6, few, columns, c), (s[0], s[1], 4 * s[0], 4 * s[1], 1))
    answer = x.new_empty(rows, 4, columns, 4, k)
    tiles = few * columns
    seen, turned = x.new_empty(2, 36, tiles * c)
    found, back = x.new_empty(36, tiles * k), x.new_empty(16, tiles * k)
    for row in range(0, rows, few):
        first = 4 * row - top
        low, high = max(first, 0), min(first + len(strip), h)
        strip[low - first : high - first, left : left + w] = image[low:high]
        strip[max(0, high - first) :].zero_()
        seen.view_as(patches).copy_(patches)
        torch.mm(b, seen, out=turned)
        torch.bmm(turned.view(36, -1, c), kernel, out=found.view(36, -1, k))
        torch.mm(a, found, out=back)
        if bias is not None:
            back.view(-1, k).add_(bias)
        place = answer[row : row + few]
        place.copy_(back.view(4, 4, few, columns, k).permute(2, 0, 3, 1, 4)[: len(place)])
    return answer.view(4 * rows, 4 * columns, k)[:out_h, :out_w].permute(2, 0, 1)[None]


def data_gradient(g: Tensor, kernel: Tensor, padding: tuple[int, int]) -> Tensor:
    """Return the gradient to `convolve`'s picture, from that to its answer (1, k, h', w')."""
    _, b, a = _matrices()
    (_, k, out_h, out_w), c = g.shape, kernel.shape[1]
    rows, columns = -(-out_h // 4), -(-out_w // 4)
    few = _at_a_time(rows, columns)
    image = g[0].permute(1, 2, 0)
    strip = g.new_zeros(4 * few, 4 * columns, k)
    patches = strip.view(few, 4, columns, 4, k).permute(1, 3, 0, 2, 4)
    # tiles of 6x6 overlap by two: one more row and column of tiles, and as many more as the last strip
    total = g.new_zeros(-(-rows // few) * few + 1, 4, columns + 1, 4, c)
    tiles = few * columns
    seen, found = g.new_empty(16, tiles * k), g.new_empty(36, tiles * k)
    back, turned = g.new_empty(2, 36, tiles * c)
    kernel = kernel.transpose(1, 2)
    for row in range(0, rows, few):
        part = image[4 * row : 4 * (row + few)]
        strip[: len(part), :out_w] = part
        strip[len(part) :].zero_()
        seen.view_as(patches).copy_(patches)
        torch.mm(a.T, seen, out=found)
        torch.bmm(found.view(36, -1, k), kernel, out=back.view(36, -1, c))
        torch.mm(b.T, back, out=turned)
        parts = turned.view(6, 6, few, columns, c).permute(2, 0, 3, 1, 4)
        here, below = total[row : row + few], total[row + 1 : row + few + 1]
        here[:, :, :columns] += parts[:, :4, :, :4]
        here[:, :, 1:, :2] += parts[:, :4, :, 4:]
        below[:, :2, :columns] += parts[:, 4:, :, :4]
        below[:, :2, 1:, :2] += parts[:, 4:, :, 4:]
    (top, left), h, w = padding, out_h + 2 - 2 * padding[0], out_w + 2 - 2 * padding[1]
    whole = total.view(4 * len(total), 4 * (columns + 1), c)
    return whole[top : top + h, left : left + w].permute(2, 0, 1)[None]
