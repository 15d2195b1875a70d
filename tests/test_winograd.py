"""Oracle: torch's own convolution and its autograd, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import winograd
from innervision.chain import chain_of

SIZES = [
    # c, k, h, w, padding: whole tiles, cut tiles, one tile, several strips, every padding a 3x3 kernel takes
    (8, 6, 8, 12, (1, 1)),
    (3, 5, 7, 9, (1, 1)),
    (2, 3, 3, 4, (0, 0)),
    (4, 4, 1, 1, (1, 1)),
    (2, 2, 5, 1, (1, 2)),
    (3, 2, 150, 70, (2, 0)),
    (2, 2, 70, 150, (1, 1)),
    (2, 3, 6, 1100, (0, 1)),
]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def close(found: Tensor, expected: Tensor) -> None:
    """The transforms' numbers reach 25, and so do the roundings: 2e-5 of the largest value."""
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.detach().abs().max()))


@pytest.mark.parametrize(("c", "k", "h", "w", "padding"), SIZES)
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_data_gradients_are_the_convolutions(c, k, h, w, padding, biased):
    x, weight = noise(1, c, h, w), noise(k, c, 3, 3) / (9 * c) ** 0.5
    bias = noise(k) if biased else None
    exact = x.double().requires_grad_()
    expected = F.conv2d(exact, weight.double(), None if bias is None else bias.double(), padding=padding)
    gradient = noise(*expected.shape)
    expected.backward(gradient.double())
    kernel = winograd.transform(weight)
    found = winograd.convolve(x, kernel, bias, padding)
    back = winograd.data_gradient(gradient, kernel, padding)
    close(found.double(), expected.detach())
    close(back.double(), exact.grad)


@pytest.mark.parametrize(("c", "k", "h", "w", "padding"), SIZES)
def test_in_bfloat16_little_more_is_lost_than_a_direct_convolution_loses(c, k, h, w, padding):
    x, weight = noise(1, c, h, w).bfloat16(), (noise(k, c, 3, 3) / (9 * c) ** 0.5).bfloat16()
    exact = x.double().requires_grad_()
    expected = F.conv2d(exact, weight.double(), padding=padding)
    gradient = noise(*expected.shape).bfloat16()
    expected.backward(gradient.double())
    kernel = winograd.transform(weight)
    assert kernel.dtype == torch.bfloat16
    found = winograd.convolve(x, kernel, None, padding)
    back = winograd.data_gradient(gradient, kernel, padding)
    for ours, theirs in ((found, expected.detach()), (back, exact.grad)):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() <= 1e-2 * theirs.norm()  # 2^-8 is bfloat16's own step


def test_a_kernel_is_transformed_a_few_at_a_time_to_the_same():
    weight = noise(70, 3, 3, 3)
    whole = winograd.transform(weight)
    assert torch.equal(whole[:, :, 65:66], winograd.transform(weight[65:66]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_may_lie_in_memory_as_they_like(dtype):
    """Channels first, channels last, a part of a larger picture, turned, or one number throughout."""
    kernel = winograd.transform(noise(6, 6, 3, 3).to(dtype))
    large = noise(1, 6, 30, 23).to(dtype)
    for x in (
        large.contiguous(memory_format=torch.channels_last),
        large[..., 3:19, 2:11],
        large.transpose(2, 3),
        large[:, :1, :1, :1].expand(1, 6, 13, 17),
    ):
        plain = x.clone(memory_format=torch.contiguous_format)
        forth = [winograd.convolve(each, kernel, None, (1, 1)) for each in (x, plain)]
        back = [winograd.data_gradient(each, kernel, (1, 1)) for each in (x, plain)]
        assert torch.equal(*forth) and torch.equal(*back)
        assert torch.equal(x, plain), "it is not written into"


def test_the_processor_is_meant_whatever_torchs_default_device_is():
    x, weight = noise(1, 5, 9, 9), noise(6, 5, 3, 3)
    winograd._form.cache_clear()
    with torch.device("meta"):
        kernel = winograd.transform(weight)
        found = winograd.convolve(x, kernel, None, (1, 1))
    close(found, F.conv2d(x, weight, padding=1))


def test_what_a_kernel_s_middle_alone_does_is_known():
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 1, 1], weight[1, 0, 0, 2] = 3, 1
    x = torch.arange(30.0).view(1, 1, 5, 6)
    found = winograd.convolve(x, winograd.transform(weight), None, (1, 1))
    torch.testing.assert_close(found[0, 0], 3 * x[0, 0])
    torch.testing.assert_close(found[0, 1, 1:, :-1], x[0, 0, :-1, 1:])  # the pixel above, to the right


@pytest.mark.parametrize("grad", [True, False])
def test_a_wide_chain_takes_it_and_gives_the_module_s_numbers(monkeypatch, grad):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(128, 130, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    module.requires_grad_(False)
    asked: list[tuple[int, ...]] = []
    own = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda x, *rest: asked.append(tuple(x.shape)) or own(x, *rest))
    kernels = {}
    for size, turns in ((32, 1), (8, 0), (32, 1)):  # too few tiles at 8, and back again
        x = noise(1, 128, size, size).requires_grad_(grad)
        chain = chain_of(module, ("2",), kernels)
        asked.clear()
        found = chain(x)["2"]
        assert len(asked) == turns
        expected = module(x)
        close(found, expected)
        if grad:
            (ours,) = torch.autograd.grad(found.square().sum(), x)
            (theirs,) = torch.autograd.grad(expected.square().sum(), x)
            close(ours, theirs)


@pytest.mark.parametrize(
    "odd",
    [
        (noise(1, 128, 40, 40), noise(127, 128, 3, 3)),
        (noise(1, 127, 40, 40), noise(128, 127, 3, 3)),
        (noise(1, 128, 40, 40), noise(128, 128, 5, 5)),
        (noise(1, 128, 16, 16), noise(128, 128, 3, 3)),
        (noise(2, 128, 40, 40), noise(128, 128, 3, 3)),
        (noise(1, 128, 2, 400), noise(128, 128, 3, 3)),
        (noise(1, 128, 400, 1), noise(128, 128, 3, 3)),
        (noise(1, 128, 40, 40).bfloat16(), noise(128, 128, 3, 3).bfloat16()),
        (noise(1, 256, 24, 24).bfloat16(), noise(128, 256, 3, 3).bfloat16()),
        (noise(1, 128, 40, 40).double(), noise(128, 128, 3, 3).double()),
        (noise(1, 128, 40, 40).to("meta"), noise(128, 128, 3, 3).to("meta")),
    ],
    ids=[
        "few out",
        "few in",
        "5x5",
        "small",
        "two pictures",
        "two rows",
        "one column",
        "bfloat16",
        "small bfloat16",
        "float64",
        "elsewhere",
    ],
)
def test_where_it_does_not_pay_it_is_left(odd):
    assert winograd.pays(noise(1, 128, 40, 40), noise(128, 128, 3, 3))
    assert winograd.pays(noise(1, 256, 40, 40).bfloat16(), noise(128, 256, 3, 3).bfloat16())
    assert not winograd.pays(*odd)
