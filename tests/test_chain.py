"""Oracle: the plain modules, out of place, under torch's own autograd in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from innervision import chain as links
from innervision import nets, winograd
from innervision.chain import Chain, chain_of
from innervision.network import wrap


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def tower(pool: type[nn.MaxPool2d | nn.AvgPool2d] = nn.MaxPool2d) -> nn.Sequential:
    """Every link a chain knows, nested: kernels of many shapes, overlapping pools, a pool before a ReLU."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True)),
        nn.Conv2d(5, 6, (3, 1), padding=(1, 0), bias=False),
        nn.ReLU(),
        pool(2),
        nn.Sequential(
            nn.Conv2d(6, 4, 1), nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 5, 5, padding=2))
        ),
        pool(3, 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(5, 4, 3),
    ).requires_grad_(False)


NAMES = ("0.0", "0.1", "1", "2", "3", "4.0", "4.1.0", "4.1.1", "5", "6", "7")


def by_modules(module: nn.Module, x: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Call each leaf in turn; a ReLU out of place."""
    found: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if any(part.children()) or len(found) == len(wanted):
            continue
        x = x.relu() if isinstance(part, nn.ReLU) else part(x)
        if name in wanted:
            found[name] = x
    return found


def chain(module: nn.Module, wanted: tuple[str, ...]) -> Chain:
    made = chain_of(module, wanted, {})
    assert made is not None
    return made


def picture(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def loss(found: dict[str, Tensor], without: tuple[str, ...] = ()) -> Tensor:
    """A smooth sum that gives every value its own gradient."""
    parts = [
        (value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)).sum()
        + value.square().sum()
        for name, value in found.items()
        if name not in without
    ]
    return torch.stack(parts).sum()


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize(
    ("wanted", "without"),
    [
        (NAMES, ()),
        (("7",), ()),
        (("1", "2"), ()),
        (("0.0",), ()),
        (("0.1", "4.1.1"), ("4.1.1",)),  # the deepest takes no gradient
        (("1", "3", "6"), ("3",)),
        (("2", "4.0", "5"), ("2", "5")),
    ],
    ids=lambda value: "+".join(value) or "all",
)
def test_values_and_gradients_are_autograds(
    pool: type[nn.MaxPool2d | nn.AvgPool2d], wanted: tuple[str, ...], without: tuple[str, ...]
) -> None:
    compare(tower(pool).double(), wanted, without, picture(2, 3, 17, 15), 1e-12)


def test_float32_is_close() -> None:
    compare(tower(), NAMES, (), picture(1, 3, 16, 19).float(), 2e-5)


def compare(
    module: nn.Module, wanted: tuple[str, ...], without: tuple[str, ...], image: Tensor, atol: float
) -> None:
    ours, theirs = (image.clone().requires_grad_() for _ in range(2))
    found, expected = chain(module, wanted)(ours), by_modules(module, theirs, wanted)
    assert list(found) == list(expected) == list(wanted)
    before = {name: value.detach().clone() for name, value in found.items()}
    for name in wanted:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=atol)
    loss(found, without).backward()
    loss(expected, without).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=10 * atol)
    for name, value in before.items():
        assert torch.equal(found[name], value), f"{name} was overwritten on the way back"
    with torch.no_grad():
        untaped = chain(module, wanted)(ours)
    assert all(torch.equal(untaped[name], value) for name, value in before.items())


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
def test_gradients_are_finite_differences(pool: type[nn.MaxPool2d | nn.AvgPool2d]) -> None:
    module, image = tower(pool).double(), picture(1, 3, 16, 15).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(chain(module, NAMES)(x)), (image,), fast_mode=True)


def narrow(pool: type[nn.MaxPool2d | nn.AvgPool2d]) -> nn.Sequential:
    parts = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), pool(2), nn.Conv2d(5, 4, 3, padding=1)
    return nn.Sequential(*parts, nn.ReLU()).requires_grad_(False).double()


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize("size", [(2, 2), (3, 2), (2, 31), (40, 3), (5, 7)])
def test_small_and_narrow_pictures(
    pool: type[nn.MaxPool2d | nn.AvgPool2d], pictures: int, size: tuple[int, int]
) -> None:
    compare(narrow(pool), ("1", "2", "4"), (), picture(pictures, 3, *size), 1e-12)


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (60, 1)])
def test_a_line_is_convolved_and_not_pooled(
    pool: type[nn.MaxPool2d | nn.AvgPool2d], size: tuple[int, int]
) -> None:
    module, image = narrow(pool), picture(1, 3, *size)
    compare(module, ("0", "1"), (), image, 1e-12)
    for grad in (False, True):
        found = chain(module, ("2",))(image.requires_grad_(grad))
        with pytest.raises(RuntimeError, match="too small"):  # as torch's own modules say
            found["2"]


@pytest.mark.parametrize(
    "first", [nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.ReLU()]
)
def test_pictures_may_lie_in_memory_as_they_like(first: nn.Module) -> None:
    module = nn.Sequential(first, nn.ReLU(inplace=True), nn.MaxPool2d(2)).double().requires_grad_(False)
    large = picture(2, 3, 24, 21)
    for image in (
        large.contiguous(memory_format=torch.channels_last),
        large[..., 3:15, 2:11],
        large.transpose(2, 3),
        large[:1].expand(4, 3, 24, 21),
        large[:, :, ::2, ::3],
    ):
        compare(module, ("0", "2"), (), image, 1e-12)


def test_who_asks_again_after_an_error_is_answered_rightly(monkeypatch: pytest.MonkeyPatch) -> None:
    module, image = tower().double(), picture(1, 3, 16, 16).requires_grad_()
    found, run, refused = chain(module, ("1", "3", "7"))(image), links._run, []

    def short_of_memory(part: links.Part, x: Tensor) -> Tensor:
        if part.name == "3" and not refused:
            refused.append(part.name)
            raise MemoryError
        return run(part, x)

    monkeypatch.setattr(links, "_run", short_of_memory)
    with pytest.raises(MemoryError):
        found["7"]
    expected = by_modules(module, image, ("1", "3", "7"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


def test_answers_are_computed_in_the_mode_they_were_made_in() -> None:
    module, image = tower().double(), picture(1, 3, 16, 16).requires_grad_()
    tracked = chain(module, ("1", "7"))(image)
    with torch.inference_mode():
        value = tracked["7"]
    assert value.requires_grad and not value.is_inference()
    with torch.no_grad():
        untracked = chain(module, ("1", "7"))(image)
    assert not untracked["7"].requires_grad


def test_little_is_kept_of_the_forward_pass() -> None:
    """Of a ReLU before a pooling: what is left after it, and as much for where that was."""
    parts = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)
    module = nn.Sequential(*parts).double().requires_grad_(False)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = chain(module, ("2",))(picture(1, 3, 16, 16).requires_grad_())["2"]
    answer = found.numel() * 8
    assert sum(kept.values()) <= 2 * answer + 8
    found.sum().backward()


def by_children(module: nn.Module, x: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """Call each part in turn, on a copy that it may overwrite."""
    found: dict[str, Tensor] = {}
    for name, part in module.named_children():
        x = part(x.clone())
        if name in wanted:
            found[name] = x
    return found


@pytest.mark.parametrize("pooling", ["max", "average"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("vgg19", ("relu1_1", "relu2_1", "relu3_1", "relu4_2", "relu5_1")),
        ("vgg16", ("conv1_1", "relu2_2", "pool3", "conv5_1")),
        ("squeezenet1_1", ("relu1", "fire3", "fire5")),  # no plain chain: by hooks
    ],
)
def test_a_frozen_net_of_the_house_loses_no_more_than_its_modules(
    monkeypatch: pytest.MonkeyPatch, name: str, wanted: tuple[str, ...], dtype: torch.dtype, pooling: str
) -> None:
    """Against float64: features and gradient, by way of Winograd's method too, of a picture of odd sides."""
    monkeypatch.setattr("innervision.nets.vgg.WIDTHS", (16, 160, 160, 32, 32))
    own, asked = winograd.convolve, []
    monkeypatch.setattr(winograd, "convolve", lambda *given: asked.append(1) or own(*given))
    generator = torch.Generator().manual_seed(0)
    module = nets.build(name, pooling=pooling, top=False, generator=generator).eval().requires_grad_(False)
    frozen, exact = wrap(module).frozen(dtype), wrap(module).frozen(torch.float64).module
    image = picture(1, 3, 53, 55).to(dtype)
    errors: list[list[float]] = []
    truth: list[Tensor] = []
    for find in (
        lambda x: by_children(exact, x.double(), wanted),
        lambda x: by_children(frozen.module, x, wanted),
        lambda x: frozen.features(x, wanted),
    ):
        given = image.clone().float().requires_grad_()
        found = find(given.to(dtype))
        sum(value.double().square().mean() / n for n, value in enumerate(found.values(), 1)).backward()
        got = [*(value.detach().double() for value in found.values()), given.grad.double()]
        truth = truth or got
        errors.append([float((one - two).norm() / two.norm()) for one, two in zip(got, truth, strict=True)])
    assert bool(asked) == name.startswith("vgg")
    _, plain, ours = errors
    for other, error in zip(plain, ours, strict=True):
        assert error <= 2 * other + 1e-6, (plain, ours)


def test_the_callers_tensors_are_not_written_to() -> None:
    module = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)
    ).double()
    module.requires_grad_(False)
    image = picture(1, 3, 6, 5).requires_grad_()
    kept = image.detach().clone()
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = chain(module, ("0", "1", "2"))(image)
        assert torch.equal(image, kept)
        assert (found["1"] < 0).any()
    given = [torch.ones_like(value) for value in found.values()]
    torch.autograd.backward(list(found.values()), given)
    assert all(torch.equal(g, torch.ones_like(g)) for g in given)


def test_gradients_that_are_expanded_or_strided_are_taken() -> None:
    module = tower().double()
    grads = []
    for find in (lambda x: chain(module, ("3",))(x), lambda x: by_modules(module, x, ("3",))):
        image = picture(2, 3, 9, 9).requires_grad_()
        out = find(image)["3"]
        weight = torch.arange(out.numel(), dtype=out.dtype).view(*reversed(out.shape)).permute(3, 2, 1, 0)
        (out.sum() + (out * weight).sum()).backward()
        out.grad = None
        grads.append(image.grad)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


def test_a_second_backward_needs_retaining_and_adds_up() -> None:
    module = tower().double()
    image = picture(1, 3, 16, 16).requires_grad_()
    total = loss(chain(module, ("2", "7"))(image))
    total.backward(retain_graph=True)
    once = image.grad.clone()
    total.backward()
    torch.testing.assert_close(image.grad, 2 * once)


def test_an_answer_overwritten_by_the_caller_is_found_out() -> None:
    found = chain(tower().double(), ("0.1", "7"))(picture(1, 3, 16, 16).requires_grad_())
    total = found["7"].sum()
    with torch.no_grad():
        found["0.1"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_a_second_derivative_is_refused_not_wrong() -> None:
    image = picture(1, 3, 16, 16).requires_grad_()
    total = loss(chain(tower().double(), ("7",))(image))
    (gradient,) = torch.autograd.grad(total, image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_bfloat16_is_close() -> None:
    module = tower()
    exact_image = picture(1, 3, 24, 24, dtype=torch.float32).requires_grad_()
    image = exact_image.detach().bfloat16().requires_grad_()
    exact, found = by_modules(module, exact_image, NAMES), chain(tower_like(module), NAMES)(image)
    loss({n: v.float() for n, v in found.items()}).backward()
    loss(exact).backward()
    for name, value in found.items():
        assert value.dtype == torch.bfloat16
        assert (value.float() - exact[name]).norm() < 0.02 * exact[name].norm()
    assert (image.grad.float() - exact_image.grad).norm() < 0.03 * exact_image.grad.norm()


def tower_like(module: nn.Sequential) -> nn.Sequential:
    copy = tower()
    copy.load_state_dict(module.state_dict())
    return copy.bfloat16()


def test_kernels_are_made_once_and_shared() -> None:
    module, kernels = tower(), {}
    chain_of(module, ("1",), kernels)
    first = dict(kernels)
    assert list(first) == ["0.0", "1"]
    chain_of(module, ("1", "7"), kernels)
    assert all(kernels[name] is kernel for name, kernel in first.items())
    with torch.no_grad():
        module[1].weight.mul_(2)
    chain_of(module, ("1",), kernels)
    assert kernels["1"] is not first["1"] and kernels["0.0"] is first["0.0"]


class Louder(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Twice(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(super().forward(input))


def conv(**options: object) -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, **options)


def hooked(place: Callable[[nn.Module], Callable[..., object]]) -> nn.Module:
    part = nn.ReLU()
    place(part)(lambda *_: None)
    return part


def overridden() -> nn.Module:
    part = nn.ReLU()
    part.forward = lambda x: -x
    return part


SHARED_RELU = nn.ReLU()


@pytest.mark.parametrize(
    "odd",
    [
        conv(stride=2),
        conv(dilation=2),
        nn.Conv2d(3, 3, 3, groups=3),
        conv(padding="same"),
        conv(padding=3),
        conv(padding=1, padding_mode="reflect"),
        Louder(3, 3, 3),
        Twice(conv(padding=1)),
        nn.BatchNorm2d(3),
        nn.ReLU6(),
        nn.LeakyReLU(),
        nn.Identity(),
        nn.Dropout(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, return_indices=True),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(2),
        nn.utils.parametrizations.weight_norm(conv()),
        hooked(lambda part: part.register_forward_hook),
        hooked(lambda part: part.register_forward_pre_hook),
        hooked(lambda part: part.register_full_backward_hook),
        hooked(lambda part: part.register_full_backward_pre_hook),
        overridden(),
        nn.Sequential(SHARED_RELU, SHARED_RELU),
    ],
    ids=lambda part: str(part).replace("\n", ""),
)
def test_what_it_cannot_do_exactly_it_leaves(odd: nn.Module) -> None:
    module = nn.Sequential(conv(padding=1), odd, nn.ReLU())
    assert chain_of(module, ("2",), {}) is None
    assert chain_of(module, ("0",), {}) is not None, "what comes before it is plain"


def test_hooks_on_a_sequence_are_not_passed_by() -> None:
    module = nn.Sequential(nn.Sequential(conv(), nn.ReLU()))
    assert chain_of(module, ("0.1",), {}) is not None
    module[0].register_forward_hook(lambda *_: None)
    assert chain_of(module, ("0.1",), {}) is None


def test_a_sequence_itself_or_an_unknown_name_is_left() -> None:
    module = nn.Sequential(nn.Sequential(conv(), nn.ReLU()), conv())
    assert chain_of(module, ("0",), {}) is None
    assert chain_of(module, ("0.0", "9"), {}) is None


def test_weights_made_in_inference_mode_are_left() -> None:
    with torch.inference_mode():
        module = nn.Sequential(conv())
    assert chain_of(module, ("0",), {}) is None
