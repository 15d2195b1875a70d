"""Oracle: the pictures themselves, whole, through the same module; and a count of what was computed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from innervision import nets, wrap
from innervision.see import covering, squares
from innervision.see.folded import folded
from innervision.see.occlusion import occlude
from innervision.see.squares import Kept, Squares, covered, whole
from innervision.see.target import Target

SIZE = (37, 45)
BOXES = [(0, 0, 6, 6), (6, 3, 12, 9), (20, 15, 26, 21), (39, 31, 45, 37), (42, 36, 45, 37), (11, 0, 17, 1)]


def picture(size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Guest(nn.Module):
    """Any function of a picture, with a few modules to do it by."""

    def __init__(self, way: Callable[[Guest, Tensor], Tensor]) -> None:
        super().__init__()
        self.way = way
        self.one, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.wide = nn.Conv2d(4, 4, 5, padding=4, dilation=2, groups=2)
        self.strided = nn.Conv2d(3, 4, (5, 3), stride=(2, 3), padding=(1, 0))
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.norm, self.slope, self.group = nn.BatchNorm2d(4), nn.PReLU(4), nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.rand(1, 4, 1, 1))
        self.places = nn.Parameter(torch.rand(1, 1, *SIZE))
        self.register_buffer("memory", torch.zeros(1, 4, *SIZE))

    def forward(self, x: Tensor) -> Tensor:
        return self.way(self, x)


def branches(m: Guest, x: Tensor) -> Tensor:
    x = m.one(x)
    return torch.cat([F.relu(x), m.wide(x), m.three(x)], 1) + 1


def residual(m: Guest, x: Tensor) -> Tensor:
    x = m.one(x)
    y = m.three(x)
    y += x
    x = m.wide(y.relu_()) + y
    return m.norm(x).mul_(m.scale)


def pooled(m: Guest, x: Tensor) -> Tensor:
    x = F.max_pool2d(m.strided(x), 3, 2, ceil_mode=True)
    return F.avg_pool2d(x, 3, 2, padding=1)


def edges(m: Guest, x: Tensor) -> Tensor:
    """Poolings whose answers at the edges are means of fewer, and paddings that are not even."""
    x = F.avg_pool2d(F.pad(x, (1, 2, 0, 3), value=0.3), 3, 2, ceil_mode=True, count_include_pad=False)
    x = F.max_pool2d(m.one(x), 3, 1, padding=1, dilation=1)
    return m.three(F.pad(x, (2, 0), value=-1.0))


def mirrored(m: Guest, x: Tensor) -> Tensor:
    return m.three(m.one(F.pad(x, (2, 2, 2, 2), mode="reflect")))


def gated(m: Guest, x: Tensor) -> Tensor:
    x = m.three(m.slope(m.one(x)))
    return m.three(x * x.mean((2, 3), keepdim=True).sigmoid())


def attentive(m: Guest, x: Tensor) -> Tensor:
    x = m.one(x)
    return m.three(x * m.three(x).mean(1, keepdim=True).sigmoid())


def placed(m: Guest, x: Tensor) -> Tensor:
    return m.three(m.one(x) * m.places)


def enlarged(m: Guest, x: Tensor) -> Tensor:
    x = m.up(m.one(x))
    return F.interpolate(x, scale_factor=0.5, mode="bilinear")


def grouped(m: Guest, x: Tensor) -> Tensor:
    return m.three(F.gelu(m.group(m.one(x))))


def shuffled(m: Guest, x: Tensor) -> Tensor:
    a, b = m.three(m.one(x)).chunk(2, 1)
    b.add_(1)
    return torch.cat([b, a], 1)


def tokens(m: Guest, x: Tensor) -> Tensor:
    x = m.strided(x).flatten(2).transpose(1, 2)
    return m.head(torch.softmax(x @ x.transpose(1, 2), -1) @ x).mean(1)


def unpooled(m: Guest, x: Tensor) -> Tensor:
    x, where = F.max_pool2d(m.one(x), 3, 2, return_indices=True)
    return F.max_unpool2d(x, where, 3, 2)


def chosen(m: Guest, x: Tensor) -> Tensor:
    x = m.one(x)
    return m.three(x) if float(x.sum()) > 0 else x


def remembered(m: Guest, x: Tensor) -> Tensor:
    out = torch.empty(len(x), 4, *SIZE, dtype=x.dtype)
    out[:, :2], out[:, 2:] = m.one(x)[:, 2:], m.three(m.one(x))[:, :2]
    return out


def along(m: Guest, x: Tensor) -> Tensor:
    """A number a column, which a number a channel must not be taken for."""
    return m.three(m.one(x) + torch.arange(float(SIZE[1]), dtype=x.dtype))


def one_by_one(m: Guest, x: Tensor) -> Tensor:
    return torch.stack([m.three(m.one(each[None]))[0] for each in x])


FOLLOWED = [
    branches,
    residual,
    pooled,
    edges,
    gated,
    attentive,
    placed,
    enlarged,
    grouped,
    shuffled,
    mirrored,
]
FOLLOWED += [tokens, chosen, along, one_by_one, remembered]


def guest(way: Callable[[Guest, Tensor], Tensor]) -> Guest:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Guest(way).double().eval()
        nn.init.uniform_(module.norm.running_mean)
        nn.init.uniform_(module.norm.running_var, 0.5, 2)
    return module


def both(module: nn.Module, x: Tensor, boxes: list[squares.Box]) -> tuple[Tensor, Tensor]:
    """Return the answers to squares, and to whole pictures, of a second batch: what is kept counts."""
    kept, cover = Kept(), torch.full_like(x, 0.5)
    with torch.no_grad():
        for some in (boxes[::-1], boxes):
            found = whole(module(covered(x, cover, some, kept)))
        pictures = x.repeat(len(boxes), 1, 1, 1)
        for one, (left, top, right, bottom) in zip(pictures, boxes, strict=True):
            one[:, top:bottom, left:right] = 0.5
        return found, module(pictures)


@pytest.mark.parametrize("way", FOLLOWED, ids=lambda way: way.__name__)
def test_squares_give_what_whole_pictures_give(way: Callable[[Guest, Tensor], Tensor]) -> None:
    module = guest(way)
    for boxes in (BOXES, BOXES[2:3]):
        torch.testing.assert_close(*both(module, picture(), boxes), rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", [unpooled], ids=lambda way: way.__name__)
def test_what_cannot_be_followed_is_told(way: Callable[[Guest, Tensor], Tensor]) -> None:
    with pytest.raises(NotImplementedError, match="not followed"):
        both(guest(way), picture(), BOXES)


@pytest.mark.parametrize("way", [*FOLLOWED, unpooled], ids=lambda way: way.__name__)
def test_any_guest_is_covered(
    way: Callable[[Guest, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = wrap(guest(way))
    image = picture()
    found = occlude(network, image, Target(None, 1), patch=13, stride=11, batch=4)
    monkeypatch.setattr(covering, "covered", lambda *_: 1 / 0)
    plain = occlude(network, image, Target(None, 1), patch=13, stride=11, batch=4)
    torch.testing.assert_close(found.map, plain.map, rtol=1e-9, atol=1e-9)
    assert found.score == plain.score


@pytest.mark.parametrize("seed", range(12))
def test_chains_drawn_at_random(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)

    def number(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    layers: list[nn.Module] = []
    for _ in range(4):
        kernel = number(1, 4)
        layers += [
            nn.Conv2d(3, 3, kernel, stride=number(1, 2), padding=number(0, 3), dilation=number(1, 2)),
            nn.ReLU(inplace=bool(number(0, 1))),
            nn.MaxPool2d(number(2, 3), number(1, 2), number(0, 1), ceil_mode=bool(number(0, 1))),
        ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(*layers).double()
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()
    image = picture((number(120, 150), number(120, 150)))
    places = [(number(0, 118), number(0, 118)) for _ in range(5)]
    boxes = [(x, y, x + number(1, 2), y + number(1, 2)) for x, y in places]
    torch.testing.assert_close(*both(module, image, boxes), rtol=0, atol=1e-12)


class Arithmetic(TorchDispatchMode):
    """Counts the products of convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(isinstance(t, Squares) for t in args):
            with self:  # so that what is done on the squares is counted
                return Squares.__torch_dispatch__(func, types, args, kwargs)
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default:
            self.products += out.numel() * args[1][0].numel()
        return out


@pytest.mark.parametrize(("net", "least"), [("squeezenet1_1", 1.6), ("efficientnet_lite0", 1.4)])
def test_the_nets_are_answered_alike_with_less_arithmetic(net: str, least: float) -> None:
    module = nets.build(net, generator=torch.Generator().manual_seed(0)).eval()
    x = picture((128, 128)).float()
    boxes = [(l, t, l + 16, t + 16) for l in (0, 60) for t in (30, 112)]
    kept, cover = Kept(), torch.full_like(x, 0.5)
    with torch.no_grad():
        module(covered(x, cover, boxes, kept))
        with Arithmetic() as in_squares:
            found = whole(module(covered(x, cover, boxes, kept)))
        pictures = x.repeat(len(boxes), 1, 1, 1)
        for one, (left, top, right, bottom) in zip(pictures, boxes, strict=True):
            one[:, top:bottom, left:right] = 0.5
        with Arithmetic() as in_whole:
            plain = module(pictures)
    assert in_squares.products * least < in_whole.products
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_float32_and_layers_overwritten_in_place() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True)
    )
    network = wrap(module.train())
    image = picture().float()
    x = network.preprocessing(image)
    for layer in ("0", "1", "2"):
        target = Target(layer, 3)
        found = occlude(network, image, target, patch=7, stride=5, batch=5)
        pictures = []
        for left, top, right, bottom in found.windows:
            one = x.clone()
            one[..., top:bottom, left:right] = 0.5
            pictures.append(one)
        with torch.no_grad():
            answers = [module[: int(layer) + 1](one)[:, 3].sum() for one in pictures]
            at_all = module[: int(layer) + 1](x.clone())[:, 3].sum()
        fell = at_all - torch.stack(answers)
        total, count = torch.zeros(SIZE), torch.zeros(SIZE)
        for value, (left, top, right, bottom) in zip(fell, found.windows, strict=True):
            total[top:bottom, left:right] += value
            count[top:bottom, left:right] += 1
        scale = float(at_all.abs())
        torch.testing.assert_close(found.map[0], total / count, rtol=0, atol=1e-5 * scale)
    assert module.training and not any(m._forward_hooks for m in module.modules())


def test_under_inference_mode_and_with_a_hook() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3))
    network, image = wrap(module), picture().float()
    before = occlude(network, image, Target("2", 1), patch=9, stride=6)
    seen: list[type] = []
    handle = module[0].register_forward_hook(lambda _m, _i, out: seen.append(type(out)) or 2 * out)
    with torch.inference_mode():
        after = occlude(network, image, Target("2", 1), patch=9, stride=6)
    handle.remove()
    assert Squares in seen, "the hook was part of it"
    assert not torch.allclose(before.map, after.map)


def normed() -> nn.Sequential:
    """Two convolutions that a normalisation alone reads, and one that something else reads too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential()
        module.add_module("one", nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)))
        module.add_module("two", nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)))
        module.add_module("three", Twice())
        module.add_module("head", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                for tensor in (part.running_mean, part.running_var, part.weight, part.bias):
                    nn.init.uniform_(tensor, 0.5, 2)
    return module.double()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x


def test_normalisations_go_into_convolutions_that_nothing_else_reads() -> None:
    module, x = normed(), picture()
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    found = folded(module, lambda each: each(x))
    assert found is not None
    twin, answer = found
    left = [name for name, part in twin.named_modules() if type(part) is nn.BatchNorm2d]
    assert left == ["three.norm"]
    torch.testing.assert_close(answer, module.eval()(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())
    module.two[1].register_forward_hook(lambda *_: None)
    kept = folded(module, lambda each: each(x))
    assert kept is not None and type(kept[0].two[1]) is nn.BatchNorm2d, "someone listens to it"
    assert folded(module[3], lambda each: each(x[:, :1].expand(1, 4, -1, -1))) is None


@pytest.mark.parametrize("layer", [None, "one.1", "two.0", "three.conv"])
def test_batches_side_by_side_give_the_same(layer: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = wrap(normed()), picture()
    looked = {}
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        looked[count] = occlude(network, image, Target(layer, 1), patch=9, stride=7, batch=4)
    monkeypatch.setattr(covering, "folded", lambda *_: None)
    monkeypatch.setattr(covering, "covered", lambda *_: 1 / 0)
    plain = occlude(network, image, Target(layer, 1), patch=9, stride=7, batch=4)
    for found in looked.values():
        torch.testing.assert_close(found.map, plain.map, rtol=1e-9, atol=1e-9)
        assert found.score == pytest.approx(plain.score, rel=1e-9)
