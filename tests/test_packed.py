"""Oracle: the library's own convolution and autograd, and what is left to them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from innervision import packed
from innervision.chain import chain_of


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), (1, 1)), ((5, 3), (0, 2)), ((1, 1), (0, 0))])
def test_one_kernel_convolves_maps_of_any_size(dtype, kernel, padding) -> None:
    weight, bias = drawn(24, 16, *kernel, dtype=dtype), drawn(24, dtype=dtype)
    ready = packed.pack(weight, drawn(1, 16, 7, 9, dtype=dtype), padding)
    for shape in ((1, 16, 7, 9), (3, 16, 5, 6), (1, 16, 13, 8)):
        x = drawn(*shape, dtype=dtype)
        for given in (bias, None):
            found = packed.convolve(x, ready, given, padding)
            exact = F.conv2d(
                x.double(), weight.double(), None if given is None else bias.double(), 1, padding
            )
            assert found.is_contiguous(memory_format=torch.channels_last)
            off = 1e-5 if dtype == torch.float32 else 1e-2
            assert (found.double() - exact).abs().max() <= off * exact.abs().max()


def test_a_chain_takes_it_both_ways_and_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, (5, 3), padding=(1, 0)))
    module = module.requires_grad_(False)
    chain = chain_of(module, ("2",), {})
    assert chain is not None
    assert packed.pays(drawn(1, 3, 8, 8), module[0].weight), "torch has these operations"
    seen: list[tuple[int, ...]] = []
    convolve = packed.convolve
    monkeypatch.setattr(
        packed, "convolve", lambda x, *rest: seen.append(tuple(x.shape)) or convolve(x, *rest)
    )
    for size, calls in (((20, 25), 4), ((40, 30), 0)):
        x = drawn(1, 3, *size).requires_grad_()
        seen.clear()
        (ours,) = torch.autograd.grad(chain(x)["2"].square().sum(), x)
        (theirs,) = torch.autograd.grad(module(x).square().sum(), x)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        assert len(seen) == calls
    monkeypatch.setattr(packed, "_works", lambda _: False)
    assert not packed.pays(drawn(1, 3, 8, 8), module[0].weight)
    assert not packed.pays(drawn(1, 3, 8, 8).double(), module[0].weight.double())
