"""Oracles: a table by hand, formulas restated place by place (captum, torchcam and grad-cam: oracles)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision import wrap
from innervision.errors import Invalid
from innervision.network import Network
from innervision.see import cam
from innervision.see.target import Target, target


class Classifier(nn.Module):
    """Convolutions with batch normalisation, ReLUs in place and by function, and a head."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.in_place = in_place
        self.conv1, self.bn1, self.relu1 = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(in_place),
        )
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.pool2 = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.relu1(self.bn1(self.conv1(x))))
        return self.fc(self.pool2(F.relu(self.conv2(x), self.in_place)).flatten(1))


def network(in_place: bool = True) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Classifier(in_place).double().eval()
        for value in module.bn1.running_mean, module.bn1.running_var:
            value.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return wrap(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


def pictures(n: int = 1, h: int = 10, w: int = 14) -> Tensor:
    return torch.rand(n, 3, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def restated(own: Network, image: Tensor, asked: Target, layer: str) -> tuple[Tensor, Tensor]:
    """The layer's answer and gradient, by running what comes after it on a leaf."""
    module = own.module
    assert isinstance(module, Classifier)
    x = own.preprocessing(image)
    rest: Any
    if layer == "conv2":
        a = module.conv2(module.pool1(module.relu1(module.bn1(module.conv1(x)))))
        rest = lambda v: module.fc(module.pool2(F.relu(v)).flatten(1))  # noqa: E731
    else:
        a = module.relu1(module.bn1(module.conv1(x)))
        rest = lambda v: module.fc(module.pool2(F.relu(module.conv2(module.pool1(v)))).flatten(1))  # noqa: E731
    a = a.detach().requires_grad_()
    (g,) = torch.autograd.grad(rest(a)[:, asked.channel].sum(), a)
    return a.detach(), g


def enlarged(map: Tensor, image: Tensor) -> Tensor:
    return F.interpolate(map[:, None], image.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


CLASS = Target(None, 2)


@pytest.mark.parametrize("layer", ["relu1", "conv2"])
def test_formulas_place_by_place(layer: str) -> None:
    own, image = network(), pictures(2)
    a, g = restated(own, image, CLASS, layer)
    n, c, h, w = a.shape
    plain, plus, place = (torch.zeros(n, h, w, dtype=torch.float64) for _ in range(3))
    for i in range(n):
        for k in range(c):
            total = float(a[i, k].sum())
            alpha = [
                float(v) ** 2 / (2 * float(v) ** 2 + total * float(v) ** 3) if float(v) else 0.0
                for v in g[i, k].flatten()
            ]
            weight = sum(x * max(float(v), 0.0) for x, v in zip(alpha, g[i, k].flatten(), strict=True))
            plain[i] += float(g[i, k].mean()) * a[i, k]
            plus[i] += weight * a[i, k]
            place[i] += g[i, k].clamp(min=0) * a[i, k]
    for made, want in (
        (cam.grad_cam(own, image, CLASS, layer), plain),
        (cam.grad_cam_pp(own, image, CLASS, layer), plus),
        (cam.layer_cam(own, image, CLASS, layer), place),
    ):
        torch.testing.assert_close(made, enlarged(want.clamp(min=0), image), rtol=0, atol=1e-6)
        assert made.shape == (2, 10, 14) and made.max() > 0


def test_a_table_by_hand() -> None:
    """Two channels of 4x4, of which the score takes 1x and -0.5x the mean: w = 1/16 and -1/32."""
    module = nn.Sequential(
        nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)
    )
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[..., None, None])
        module[3].weight.copy_(torch.tensor([[1.0, -0.5]]))  # type: ignore[operator]
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0] = torch.arange(16).view(4, 4) / 16
    image[0, 1, 0] = 1.0
    found = cam.grad_cam(wrap(module), image, Target(None, 0), "0")
    by_hand = torch.tensor(
        [[0, 0, 0, 0], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]  # row 0: 0..3/16 less .5, below 0
    ) / (16 * 16)
    torch.testing.assert_close(found[0], by_hand)


def test_score_cam_channel_by_channel() -> None:
    own, image = network(), pictures()
    x = own.preprocessing(image)
    module = own.module
    assert isinstance(module, Classifier)
    with torch.no_grad():
        a = module.relu1(module.bn1(module.conv1(x)))
        scores = []
        for k in range(a.shape[1]):
            mask = F.interpolate(a[:, k : k + 1], image.shape[-2:], mode="bilinear", align_corners=False)
            mask = (mask - mask.min()) / (mask.max() - mask.min())
            scores.append(float(module(x * mask)[0, 2]))
        weights = torch.tensor(scores, dtype=torch.float64).softmax(0)
    want = enlarged((weights[None, :, None, None] * a).sum(1).relu(), image)
    for batch in (1, 4, 16):
        found = cam.score_cam(own, image, CLASS, "relu1", batch=batch)
        torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_the_default_layer_is_the_deepest_that_answers_maps_and_does_not_pool() -> None:
    own, image = network(), pictures()
    assert torch.equal(cam.grad_cam(own, image, CLASS), cam.grad_cam(own, image, CLASS, "conv2"))
    inner = target("conv2:3", own)
    assert torch.equal(cam.layer_cam(own, image, inner), cam.layer_cam(own, image, inner, "relu1"))


def test_a_unit_of_a_layer_is_a_target() -> None:
    own, image = network(), pictures()
    module = own.module
    assert isinstance(module, Classifier)
    a = module.relu1(module.bn1(module.conv1(own.preprocessing(image)))).detach().requires_grad_()
    (g,) = torch.autograd.grad(module.conv2(module.pool1(a))[0, 3, 1, 2], a)
    want = enlarged((g.relu() * a.detach()).sum(1), image)
    found = cam.layer_cam(own, image, target("conv2:3@1,2", own), "relu1")
    torch.testing.assert_close(found, want, rtol=0, atol=1e-6)


def test_what_cannot_be_mapped_is_refused_and_hooks_are_gone() -> None:
    own, image = network(), pictures()
    for asked, layer, said in (
        (CLASS, "fc", r"answers \(1, 5\): a map is of a layer"),
        (CLASS, "conv9", "no layer 'conv9'"),
        (target("relu1:0", own), "conv2", "does not depend on layer 'conv2'"),
        (Target(None, 9), "conv2", r"no channel 9 in class, which has 0 … 4"),
    ):
        with pytest.raises(Invalid, match=said):
            cam.grad_cam(own, image, asked, layer)
    with pytest.raises(Invalid, match="no layer before conv1:0 answers maps"):
        cam.grad_cam(own, image, target("conv1:0", own))
    assert not any(module._forward_hooks for module in own.module.modules())


def test_nothing_of_the_caller_is_changed() -> None:
    own, image = network(), pictures().requires_grad_()
    own.module.train()
    before = copy.deepcopy(own.module.state_dict())
    with torch.no_grad():
        cam.grad_cam(own, image, CLASS)
        cam.score_cam(own, image, CLASS)
        assert not torch.is_grad_enabled()
    assert own.module.training and image.grad is None
    assert all(torch.equal(value, before[name]) for name, value in own.module.state_dict().items())
    assert all(p.grad is None for p in own.module.parameters())


def test_grad_cam_pp_does_not_underflow() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        module[2].weight.abs_().mul_(1e-25)  # squares of such gradients are 0 in float32
    found = cam.grad_cam_pp(wrap(module), pictures(), Target("2", 0), "1")
    assert found.dtype == torch.float32
    assert bool(found.any())
