"""3x3 convolutions with a quarter to a half of the products: Winograd's minimal filtering, on a CPU.

Y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ d B)]A of Lavin & Gray 2016 (arXiv:1509.09308), summed over channels as one matrix
product for each place in a tile. float32 takes F(4x4, 3x3): a tile of 4x4 answers in 36 products instead of
144. bfloat16 takes F(2x2, 3x3), 16 products instead of 36, whose transforms only add and subtract.

Departure: both transforms are dense products, over a few rows of tiles that stay in cache. Their cost per
channel is that of ten or so channels of a direct convolution, so narrow layers are left to the library. The
roundings are two to five times a direct convolution's in float32 (up to 1e-5 of the largest answer), and
1.7 times in bfloat16 (4.8e-3 of the answers' norm instead of 2.9e-3). F(4x4) in bfloat16 would lose all.

Measured on two cores, against oneDNN's direct convolution, either way. float32, AVX2: 128 channels at 256x192
1.5 times sooner, 256 at 128x96 1.7 to 2.0, 512 at 64x48 1.6 to 2.5. bfloat16, AVX-512 BF16: 128 to 256
channels at 128x96 1.2 to 1.3, 256 at 128x96 1.4 to 1.5, 512 at 64x48 1.6, at 32x24 1.5; 128 at 256x192 none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from innervision.shapes import Float

_TILES = 256  # taken at a time: more leave the cache, fewer wait for the threads more often
_KERNELS = 32  # transformed at a time: what that takes in float64 would be the most an evaluation takes
_LEAST = {torch.float32: (64, 24), torch.bfloat16: (80, 160)}
"""c·k/(c + k) at least, or the transforms cost what the products save; tiles at least, or reading the kernel
does."""


@dataclass(frozen=True, eq=False)
class _Form:
    """F(m x m, 3x3): its matrices, the last two for whole tiles at once."""

    m: int
    g: Tensor  # G (m+2, 3), float64
    b: Tensor  # Bᵀ⊗Bᵀ ((m+2)², (m+2)²)
    a: Tensor  # Aᵀ⊗Aᵀ (m², (m+2)²)


@cache
def _form(dtype: torch.dtype, flipped: bool = False) -> _Form:
    """Return the form for numbers of this kind: interpolation at 0, ±1 and ∞, and at ±2 for float32.

    flipped: as though the kernel were. Of the points of bfloat16 that only exchanges 0 and ∞.
    """
    if dtype == torch.bfloat16:
        g = [[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]
        b = [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]
        a = [[1, 1, 1, 0], [0, 1, -1, 1]]
        if flipped:
            b[0], b[3] = b[3], b[0]
            a = [[row[3], *row[1:3], row[0]] for row in a]
    else:
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
    # of the processor, whatever torch's default device is
    bt, at = (torch.tensor(rows, dtype=dtype, device="cpu") for rows in (b, a))
    kernels = torch.tensor(g, dtype=torch.float64, device="cpu") / g[-1][-1]
    return _Form(len(a), kernels, torch.kron(bt, bt), torch.kron(at, at))


def pays(x: Float[Tensor, "n _ h w"], weight: Float[Tensor, "k c y x"]) -> bool:
    """Tell whether this is the sooner way to convolve x with a kernel."""
    if weight.dtype not in _LEAST or weight.device.type != "cpu" or weight.shape[2:] != (3, 3):
        return False
    (n, _, h, w), (k, c), m = x.shape, weight.shape[:2], _form(weight.dtype).m
    gain, least = _LEAST[weight.dtype]
    tiles = -(-h // m) * -(-w // m)
    # of a line most of a tile would be wasted, and without padding nothing is left of it
    return c * k >= gain * (c + k) and tiles >= least and n == 1 and min(h, w) >= 3


def transform(weight: Float[Tensor, "k c 3 3"]) -> Float[Tensor, "places c k"]:
    """Return G w Gᵀ of a kernel, for each of a tile's (m+2)² places."""
    g = _form(weight.dtype).g
    (k, c), n = weight.shape[:2], len(g)
    turned = weight.new_empty(n, n, c, k)
    for few, part in zip(turned.split(_KERNELS, -1), weight.split(_KERNELS), strict=True):
        few.copy_(torch.einsum("ai,bj,kcij->abck", g, g, part.double()))
    return turned.flatten(0, 1)


def _at_a_time(rows: int, columns: int) -> int:
    """Return how many rows of tiles to take at a time, in parts as even as can be."""
    parts = -(-rows // max(1, _TILES // columns))
    return -(-rows // parts)


def convolve(
    x: Float[Tensor, "1 c h w"],
    kernel: Float[Tensor, "places c k"],
    bias: Float[Tensor, " k"] | None,
    padding: tuple[int, int],
) -> Float[Tensor, "1 k y x"]:
    """Convolve with a transformed kernel; both pictures are laid out channels last."""
    return _convolve(x, kernel, bias, padding, _form(kernel.dtype))


def _convolve(
    x: Tensor, kernel: Tensor, bias: Tensor | None, padding: tuple[int, int], form: _Form
) -> Tensor:
    m, b, a = form.m, form.b, form.a
    n = m + 2
    (_, c, h, w), k = x.shape, kernel.shape[2]
    (top, left), (out_h, out_w) = padding, (h + 2 * padding[0] - 2, w + 2 * padding[1] - 2)
    rows, columns = -(-out_h // m), -(-out_w // m)
    few = _at_a_time(rows, columns)
    image = x[0].permute(1, 2, 0)
    strip = x.new_zeros(m * few + 2, m * columns + 2, c)
    s = strip.stride()
    patches = strip.as_strided((n, n, few, columns, c), (s[0], s[1], m * s[0], m * s[1], 1))
    answer = x.new_empty(rows, m, columns, m, k)
    tiles = few * columns
    seen, turned = x.new_empty(2, n * n, tiles * c)
    found, back = x.new_empty(n * n, tiles * k), x.new_empty(m * m, tiles * k)
    for row in range(0, rows, few):
        first = m * row - top
        low, high = max(first, 0), min(first + len(strip), h)
        strip[low - first : high - first, left : left + w] = image[low:high]
        strip[max(0, high - first) :].zero_()
        seen.view_as(patches).copy_(patches)
        torch.mm(b, seen, out=turned)
        torch.bmm(turned.view(n * n, -1, c), kernel, out=found.view(n * n, -1, k))
        torch.mm(a, found, out=back)
        if bias is not None:
            back.view(-1, k).add_(bias)
        place = answer[row : row + few]
        place.copy_(back.view(m, m, few, columns, k).permute(2, 0, 3, 1, 4)[: len(place)])
    return answer.view(m * rows, m * columns, k)[:out_h, :out_w].permute(2, 0, 1)[None]


def data_gradient(
    g: Float[Tensor, "1 k y x"], kernel: Float[Tensor, "places c k"], padding: tuple[int, int]
) -> Float[Tensor, "1 c h w"]:
    """Return the gradient to `convolve`'s picture, from that to its answer.

    In bfloat16 as a convolution with the flipped, transposed kernel: summing overlapping tiles would round
    each time (5.6e-3 of the norm instead of 4.5e-3).
    """
    if kernel.dtype == torch.bfloat16:
        rest = (2 - padding[0], 2 - padding[1])
        return _convolve(g, kernel.transpose(1, 2), None, rest, _form(kernel.dtype, flipped=True))
    form = _form(kernel.dtype)
    m, b, a = form.m, form.b, form.a
    n = m + 2
    (_, k, out_h, out_w), c = g.shape, kernel.shape[1]
    rows, columns = -(-out_h // m), -(-out_w // m)
    few = _at_a_time(rows, columns)
    image = g[0].permute(1, 2, 0)
    strip = g.new_zeros(m * few, m * columns, k)
    patches = strip.view(few, m, columns, m, k).permute(1, 3, 0, 2, 4)
    # tiles overlap by two: one more row and column of tiles, and as many more as the last strip
    total = g.new_zeros(-(-rows // few) * few + 1, m, columns + 1, m, c)
    tiles = few * columns
    seen, found = g.new_empty(m * m, tiles * k), g.new_empty(n * n, tiles * k)
    back, turned = g.new_empty(2, n * n, tiles * c)
    kernel = kernel.transpose(1, 2)
    for row in range(0, rows, few):
        part = image[m * row : m * (row + few)]
        strip[: len(part), :out_w] = part
        strip[len(part) :].zero_()
        seen.view_as(patches).copy_(patches)
        torch.mm(a.T, seen, out=found)
        torch.bmm(found.view(n * n, -1, k), kernel, out=back.view(n * n, -1, c))
        torch.mm(b.T, back, out=turned)
        parts = turned.view(n, n, few, columns, c).permute(2, 0, 3, 1, 4)
        here, below = total[row : row + few], total[row + 1 : row + few + 1]
        here[:, :, :columns] += parts[:, :m, :, :m]
        here[:, :, 1:, :2] += parts[:, :m, :, m:]
        below[:, :2, :columns] += parts[:, m:, :, :m]
        below[:, :2, 1:, :2] += parts[:, m:, :, m:]
    (top, left), h, w = padding, out_h + 2 - 2 * padding[0], out_w + 2 - 2 * padding[1]
    whole = total.view(m * len(total), m * (columns + 1), c)
    return whole[top : top + h, left : left + w].permute(2, 0, 1)[None]
