"""Every method on every kind of guest: the same numbers however a module is written, and nothing left behind.

The guests are one network in different hands: functional ReLUs, ReLUs in place, one module called everywhere,
training mode, another precision. Each must give what the plain one gives. Guests of another build, a vision
transformer and one that fails in the middle, must give an answer, or refuse it with a reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.errors import Invalid
from innervision.network import Network, wrap
from innervision.see import backward, cam
from innervision.see.activations import answers
from innervision.see.compare import cka
from innervision.see.directions import unit
from innervision.see.dream import Octaves, film
from innervision.see.excite import excite
from innervision.see.invert import invert
from innervision.see.occlusion import occlude
from innervision.see.receptive import by_gradient
from innervision.see.survey import survey
from innervision.see.target import Target
from innervision.see.target import target as read
from innervision.see.trust import trust
from innervision.see.units import top_images

SIDE = 32
CLASS = Target(None, 1)


class Plain(nn.Module):
    """Two convolutions with batch normalisation, a pooling and a head; the ReLUs as they are asked for."""

    def __init__(self, relu: Callable[[], Callable[[Tensor], Tensor]] = nn.ReLU, channels: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), relu()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 3, padding=1), relu()
        self.drop, self.pool2, self.fc = nn.Dropout(0.5), nn.AdaptiveAvgPool2d(2), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        return self.fc(self.drop(self.pool2(self.relu2(self.conv2(x)))).flatten(1))


def seeded(module: nn.Module) -> nn.Module:
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in [*module.parameters(), *module.buffers()]:
            if value.is_floating_point():
                value.copy_(torch.randn(value.shape, generator=draw) / max(1, value[0].numel()) ** 0.5)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_var is not None
                part.running_var.abs_().add_(0.5)
    return module


shared = nn.ReLU(inplace=True)
GUESTS: dict[str, Callable[[], Network]] = {
    "plain": lambda: wrap(seeded(Plain().eval())),
    "functional": lambda: wrap(seeded(Plain(lambda: F.relu)).eval()),
    "in place": lambda: wrap(seeded(Plain(lambda: nn.ReLU(inplace=True))).eval()),
    "functional in place": lambda: wrap(seeded(Plain(lambda: F.relu_)).eval()),
    "shared": lambda: wrap(seeded(Plain(lambda: shared)).eval()),
    "in training": lambda: wrap(seeded(Plain()).train()),
    "frozen": lambda: wrap(seeded(Plain())).frozen(),
    "float64": lambda: wrap(seeded(Plain()).double().eval()),
    "bfloat16": lambda: wrap(seeded(Plain())).frozen(torch.bfloat16),
}


def picture(seed: int = 0) -> Tensor:
    return torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)


Method = Callable[[Network, str, str], Tensor]
"""(network, a shallow layer, a deep one) -> what came of it."""


def _explained(method: str) -> Method:
    def made(network: Network, shallow: str, deep: str) -> Tensor:
        draw = torch.Generator().manual_seed(0)
        options = {"samples": 3, "points": 5, "generator": draw}
        return backward.attribute(network, picture(), CLASS, method, **options).map

    return made


def _judged(network: Network, shallow: str, deep: str) -> Tensor:
    method = backward.gradient
    verdict = trust(network, picture(), CLASS, lambda n, i, t: method(n, i, t).map, steps=2)
    return torch.cat([each.map for each in verdict.comparisons])


def _dreamt(network: Network, shallow: str, deep: str) -> Tensor:
    how = Octaves(count=1, steps=2, jitter=0)
    *_, last = film(network, picture(), [(Target(deep), 1.0)], pictures=1, octaves=how)
    return last.image


def _excited(network: Network) -> Tensor:
    precision = "bfloat16" if network.dtype == torch.bfloat16 else "float32"
    return excite(network, "class:1", steps=2, size=SIDE, precision=precision).results()[0].images


def _ranked(network: Network, shallow: str, deep: str) -> Tensor:
    *_, found = top_images(network, pictures(), [deep], k=2)
    return torch.from_numpy(found[deep].values)


def _compared(network: Network, shallow: str, deep: str) -> Tensor:
    *_, found = cka(network, pictures(), [shallow, deep])
    return torch.from_numpy(found.matrix)


def _mapped(map: Callable[..., Tensor]) -> Method:
    """Map the first of the four classes for which there is something to see: ReLU may leave nothing."""

    def made(network: Network, shallow: str, deep: str) -> Tensor:
        maps = [map(network, picture(), Target(None, number), deep) for number in range(4)]
        return next(each for each in maps if each.any())

    return made


METHODS: dict[str, Method] = {
    "answers": lambda n, shallow, deep: torch.from_numpy(answers(n, picture(), [deep])[0].maps),
    "survey": lambda n, shallow, deep: survey(n, picture(), [shallow, deep])[1].maps,
    **{name: _explained(name) for name in backward.METHODS},
    "grad-cam": _mapped(cam.grad_cam),
    "grad-cam++": _mapped(cam.grad_cam_pp),
    "layer-cam": _mapped(cam.layer_cam),
    "score-cam": _mapped(cam.score_cam),
    "occlusion": lambda n, shallow, deep: occlude(n, picture(), CLASS, patch=12, stride=10).map,
    "excite": lambda n, shallow, deep: _excited(n),
    "top images": _ranked,
    "invert": lambda n, shallow, deep: next(iter(invert(n, picture(), [deep], steps=2))).image,
    "dream": _dreamt,
    "similarity": _compared,
    "trust": _judged,
}


def clean(network: Network, training: bool) -> None:
    for module in network.module.modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        assert not any(hooks) and not module._backward_pre_hooks
        assert "forward" not in vars(module)
        assert module.training == training
    assert all(p.grad is None for p in network.module.parameters())


@cache
def plain(method: str) -> Tensor:
    return METHODS[method](GUESTS["plain"](), "conv1", "conv2").float()


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_guest_gives_what_the_plain_network_gives(method: str, guest: str) -> None:
    network = GUESTS[guest]()
    training = network.module.training
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    wanted = [p.requires_grad for p in network.module.parameters()]
    found, want = METHODS[method](network, "conv1", "conv2").float(), plain(method)
    assert found.isfinite().all() and found.any()
    if guest == "bfloat16":
        alike = F.cosine_similarity(found.flatten(), want.flatten(), dim=0)
        assert alike > (0.9 if method in ("trust", "integrated") else 0.97)
    else:
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))
    clean(network, training)
    assert [p.requires_grad for p in network.module.parameters()] == wanted
    assert all(torch.equal(before[name], now) for name, now in network.module.state_dict().items())
    assert torch.is_grad_enabled()


class Breaks(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise OSError("in the middle")


@pytest.mark.parametrize("method", METHODS)
def test_a_failure_in_the_middle_leaves_nothing(method: str) -> None:
    module = seeded(Plain()).train()
    module.relu2 = Breaks()
    module.pool1 = Breaks()  # before any layer that is asked for, so that no early end hides it
    network = wrap(module)
    with pytest.raises(OSError, match="in the middle"):
        METHODS[method](network, "conv1", "conv2")
    clean(network, True)
    assert torch.is_grad_enabled() and all(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_grey_pictures(method: str) -> None:
    network = wrap(seeded(Plain(channels=1)).eval(), mean=[0.4], std=[0.3])
    found = METHODS[method](network, "conv1", "conv2")
    assert found.isfinite().all() and found.any()
    clean(network, False)


# --- layers of tokens ---------------------------------------------------------------------------------


class Block(nn.Module):
    """Attention among tokens (n, t, c), then a layer for each by itself; rectified, so that rules apply."""

    def __init__(self, wide: int) -> None:
        super().__init__()
        self.norm1, self.qkv, self.proj = nn.LayerNorm(wide), nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.norm2, self.up, self.act = nn.LayerNorm(wide), nn.Linear(wide, 2 * wide), nn.ReLU()
        self.down = nn.Linear(2 * wide, wide)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Vit(nn.Module):
    """Patches of 4 px, a class token in front, two blocks, and a head on the class token alone."""

    def __init__(self, apart: int = 1) -> None:
        super().__init__()
        self.patch, self.apart = nn.Conv2d(3, 12, 4, stride=4), apart
        self.front = nn.Parameter(torch.zeros(1, apart, 12))
        self.places = nn.Parameter(torch.zeros(1, apart + (SIDE // 4) ** 2, 12))
        self.blocks = nn.Sequential(Block(12), Block(12))
        self.norm, self.fc = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.front.expand(len(x), -1, -1), x], 1) + self.places
        x = self.norm(self.blocks(x))
        return self.fc(x[:, 0] if self.apart else x.mean(1))


class Swin(nn.Module):
    """Maps with channels last, (n, h, w, c), each place by itself, and a mean at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm1, self.mix = nn.Conv2d(3, 12, 4, stride=4), nn.LayerNorm(12), nn.Linear(12, 12)
        self.act, self.norm2, self.fc = nn.ReLU(), nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        x = x + self.act(self.mix(self.norm1(x)))
        return self.fc(self.norm2(x).mean((1, 2)))


def adding_nothing() -> Network:
    """A transformer whose last block's grid is the patches' own map."""
    module = seeded(Vit())
    with torch.no_grad():
        for block in module.blocks:
            block.proj.weight.zero_(), block.proj.bias.zero_()
            block.down.weight.zero_(), block.down.bias.zero_()
        module.places.zero_()
    return wrap(module)


@pytest.mark.parametrize("what", [":3", ":3@2,5", ""])
def test_tokens_are_dreamt_of_as_their_patches_are(what: str) -> None:
    network, image, how = adding_nothing(), picture(), Octaves(count=1, steps=2, jitter=0)
    asked = [read(layer + what, network) for layer in ("blocks.1", "patch")]
    *_, found = film(network, image, [(asked[0], 1.0)], pictures=1, octaves=how)
    *_, want = film(network, image, [(asked[1], 1.0)], pictures=1, octaves=how)
    torch.testing.assert_close(found.image, want.image, rtol=0, atol=1e-6)
    assert found.value == pytest.approx(want.value, rel=1e-5)
    if not what:
        *_, found = film(network, image, [(asked[0], 1.0)], pictures=1, octaves=how, guide=picture(1))
        *_, want = film(network, image, [(asked[1], 1.0)], pictures=1, octaves=how, guide=picture(1))
        torch.testing.assert_close(found.image, want.image, rtol=0, atol=1e-6)
        assert found.value == pytest.approx(want.value, rel=1e-5)


@pytest.mark.parametrize("what", ["3", "3@2,5", "3+0.5*7"])
def test_tokens_are_excited_as_their_patches_are(what: str) -> None:
    """At rest, where a network of patches alone needs no fixed size either."""
    network = adding_nothing()
    asked = [unit(f"{layer}:{what}", network, SIDE) for layer in ("blocks.1", "patch")]
    found, want = (excite(network, each, preset="yosinski2", size=SIDE, steps=3).results() for each in asked)
    torch.testing.assert_close(found[0].images, want[0].images, rtol=0, atol=1e-6)
    assert found[0].after == pytest.approx(want[0].after, rel=1e-5)
    (lucid,) = excite(network, asked[0], size=SIDE, steps=2, pictures=2, precision="float32").results()
    if what == "3":
        answer = network.features(lucid.images, ["blocks.1"])["blocks.1"].detach()
        assert lucid.after == pytest.approx(float(answer[:, 1:, 3].mean()), abs=1e-4)


def test_tokens_are_shown_where_their_patches_are() -> None:
    """With blocks that add nothing, the last layer's grid is the patches' own map."""
    network, image = adding_nothing(), picture()
    patches = network.features(image, ["patch"])["patch"][0].detach()
    (layer,) = survey(network, image, ["blocks.1"])
    torch.testing.assert_close(layer.maps, patches, rtol=0, atol=1e-6)
    assert (layer.shape, layer.apart, layer.field) == ((12, 8, 8), 1, None)
    (row,) = answers(network, image, ["blocks.1"], channels=12)
    torch.testing.assert_close(torch.from_numpy(row.maps), patches[list(row.channels)], rtol=0, atol=1e-6)
    top = [*top_images(network, pictures(), ["blocks.1"], k=2, batch_size=3)][-1]["blocks.1"]
    want = [*top_images(network, pictures(), ["patch"], k=2, batch_size=3)][-1]["patch"]
    assert top.extent == (8, 8)
    np.testing.assert_array_equal(top.places, want.places)
    np.testing.assert_allclose(top.values, want.values, atol=1e-6)


def test_channels_last_are_turned() -> None:
    network, image = wrap(seeded(Swin())), picture()
    answer = network.features(image, ["norm1"])["norm1"].detach()
    assert answer.shape == (1, 8, 8, 12)
    (layer,) = survey(network, image, ["norm1"])
    assert torch.equal(layer.maps, answer[0].permute(2, 0, 1)) and layer.apart == 0
    found = cam.layer_cam(network, image, CLASS)
    assert torch.equal(found, cam.layer_cam(network, image, CLASS, "norm2"))
    (one,) = survey(network, image, ["act"])
    assert str(one.field) == "4 px, stride 4", "each place sees its patch: normalised over channels alone"


@pytest.mark.parametrize(("guest", "layer"), [(Vit, "blocks.1.norm1"), (Swin, "norm1")])
def test_a_channel_of_tokens_is_a_target(guest: Callable[[], nn.Module], layer: str) -> None:
    """What is asked of channel 3 at row 2, column 5 comes down from that number alone."""
    network, image = wrap(seeded(guest()).double()), picture().double().requires_grad_()
    answer = network.features(image, [layer])[layer]
    one = answer[0, 2, 5, 3] if guest is Swin else answer[0, 1 + 2 * 8 + 5, 3]
    (want,) = torch.autograd.grad(one, image)
    found = backward.gradient(network, image.detach(), Target(layer, 3, (2, 5)))
    torch.testing.assert_close(found.map, want, rtol=0, atol=1e-12)
    assert found.score == pytest.approx(float(one.detach()))
    covered = occlude(network, image.detach(), Target(layer, 3, (2, 5)), patch=16, stride=16)
    assert covered.score == pytest.approx(float(one.detach()))
    first = "patch" if guest is Swin else "blocks.0.norm1"
    assert cam.layer_cam(network, image.detach(), Target(layer, 3), first).isfinite().all()


@pytest.mark.parametrize("apart", [0, 1, 2, 5])
def test_a_class_token_has_no_place(apart: int) -> None:
    """LayerCAM by its formula on the grid; by default of the deepest normalisation whose places are read."""
    network, image = wrap(seeded(Vit(apart)).double()), picture().double()
    module = network.module
    with torch.enable_grad():
        x = module.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([module.front.expand(1, -1, -1), x], 1) + module.places
        x = module.blocks[0](x)
        a = module.blocks[1].norm1(x)
        q, k, v = module.blocks[1].qkv(a).chunk(3, -1)
        y = x + module.blocks[1].proj(F.scaled_dot_product_attention(q, k, v))
        y = y + module.blocks[1].down(F.relu(module.blocks[1].up(module.blocks[1].norm2(y))))
        y = module.norm(y)
        score = module.fc(y[:, 0] if apart else y.mean(1))[0, 1]
        (g,) = torch.autograd.grad(score, a)
    want = (g.relu() * a).sum(2).relu()[:, apart:].view(1, 1, 8, 8).detach()
    want = F.interpolate(want, (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
    found = cam.layer_cam(network, image, CLASS, "blocks.1.norm1")
    torch.testing.assert_close(found, want, rtol=0, atol=1e-12)
    deepest = "blocks.1.norm1" if apart else "norm"  # behind it only the class token is read
    usual = [cam.layer_cam(network, image, Target(None, n)) for n in range(4)]
    assert any(map.any() for map in usual)
    for n, map in enumerate(usual):
        assert torch.equal(map, cam.layer_cam(network, image, Target(None, n), deepest))
    for method in (cam.grad_cam, cam.grad_cam_pp, cam.score_cam):
        assert method(network, image, CLASS, "blocks.0").isfinite().all()


@pytest.mark.parametrize("guest", [Vit, Swin])
@pytest.mark.parametrize("method", METHODS)
def test_a_transformer_is_a_guest(method: str, guest: Callable[[], nn.Module]) -> None:
    network = wrap(seeded(guest()).train())
    found = METHODS[method](network, "patch", "act" if guest is Swin else "blocks.1.norm1")
    assert found.isfinite().all() and found.any()
    clean(network, True)


def test_a_transformer_shows_all_its_layers_by_default() -> None:
    network = wrap(seeded(Vit()))
    names = [layer.name for layer in survey(network, picture())]
    assert names[0] == "patch" and names[-1] == "norm" and "blocks.0.up" in names
    assert [each.layer for each in answers(network, picture())] == names


def test_what_is_no_grid_is_refused_with_the_reason() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch, self.some, self.fc = nn.Conv2d(3, 12, 4, stride=4), nn.Identity(), nn.Linear(12, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.some(self.patch(x).flatten(2).transpose(1, 2)[:, :23]).mean(1))

    network = wrap(seeded(Text()))
    for asked in (
        lambda: survey(network, picture(), ["some"]),
        lambda: answers(network, picture(), ["some"]),
        lambda: cam.grad_cam(network, picture(), CLASS, "some"),
        lambda: [*top_images(network, pictures(), ["some"])],
        lambda: by_gradient(network, "some"),
    ):
        with pytest.raises(Invalid, match=r"23 tokens are no grid of a picture of \d+x\d+"):
            asked()
    clean(network, True)


# --- memory -------------------------------------------------------------------------------------------

CALLS = """
import gc, json, os, sys
from pathlib import Path
import torch
from torch import Tensor, nn
from innervision.network import wrap
from innervision.see import backward, cam
from innervision.see.survey import survey
from innervision.see.target import Target

torch.set_num_threads(1)
network = wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(inplace=True), nn.Conv2d(2, 2, 3)))
x, asked = torch.rand(1, 3, 8, 8), Target("2", 1)

def resident():
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 1

def tensors():
    return sum(issubclass(type(o), Tensor) for o in gc.get_objects())

calls = {
    "survey": lambda: survey(network, x, ["0", "1"]),
    **{name: lambda name=name: backward.attribute(network, x, asked, name, samples=2, points=2)
       for name in backward.METHODS},
    **{name: lambda name=name: getattr(cam, name)(network, x, asked, "1")
       for name in ("grad_cam", "grad_cam_pp", "layer_cam", "score_cam")},
}
told = {}
for name in sys.argv[1:]:
    call = calls[name]
    for _ in range(100):
        call()
    gc.collect()
    gc.disable()
    before, room = tensors(), resident()
    for _ in range(1000):
        call()
    told[name] = tensors() - before, resident() / room
    gc.enable()
print(json.dumps(told))
"""


def test_memory_is_flat_over_a_thousand_calls() -> None:
    """In a process of its own: checking annotations, as tests do, holds on to a little with each call.

    Live tensors are counted with the collector off, so that a circle that holds a graph would show.
    """
    methods = ("survey", "guided", "layer_cam")  # the others go the same ways
    command = [sys.executable, "-c", CALLS, *methods]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    assert list(told) == list(methods)
    assert {name: kept for name, (kept, _) in told.items() if kept} == {}
    assert {name: grown for name, (_, grown) in told.items() if grown > 1.01} == {}
