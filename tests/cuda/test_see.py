"""A GPU sees what the processor sees: every way of looking, on both, in float32 and on the same picture.

Sums over thousands of numbers in another order differ by about 1e-6 of the greatest. What is carried forward
through a network is held to 1e-4. On the way back a ReLU whose input is 0 but for rounding may be open on one
device and closed on the other, and of two equal values a pooling may choose either: 1e-3. What takes many
steps begins alike and drifts apart: each test says how far.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor

from innervision.network import Network
from innervision.see import cam
from innervision.see.backward import attribute
from innervision.see.compare import cka
from innervision.see.dream import Octaves, dream
from innervision.see.excite import excite
from innervision.see.invert import inverting
from innervision.see.occlusion import deletion, insertion, occlude
from innervision.see.receptive import by_gradient, receptive_fields
from innervision.see.survey import survey
from innervision.see.target import Target, strongest
from innervision.see.trust import randomised
from innervision.see.units import top_images

pytestmark = pytest.mark.usefixtures("exact")

Both = Callable[[str], tuple[Network, Network]]
Near = Callable[..., None]
Explain = Callable[[Network, Tensor, Target], Tensor]

FORWARD, BACK = 1e-4, 1e-3


def _back(network: Network, image: Tensor, target: Target, *, method: str) -> Tensor:
    noise = torch.Generator().manual_seed(0)
    return attribute(network, image, target, method, samples=4, points=8, generator=noise).map


def _covered(network: Network, image: Tensor, target: Target) -> Tensor:
    return occlude(network, image, target, patch=8, stride=8).map


WAYS: Mapping[str, tuple[Explain, float]] = {
    **{
        method: (functools.partial(_back, method=method), BACK)
        for method in ("gradient", "deconvnet", "guided", "gradient-x-input", "smoothgrad", "integrated")
    },
    "grad-cam": (cam.grad_cam, BACK),
    "grad-cam++": (cam.grad_cam_pp, BACK),
    "layer-cam": (cam.layer_cam, BACK),
    "score-cam": (cam.score_cam, BACK),
    "occlusion": (_covered, BACK),  # a difference of two scores that are nearly alike
}
NETS = {"vgg19": 64, "cifar10-fast": 32, "lenet5-mnist": 28}
CASES = [
    (net, way)
    for net in NETS
    for way in WAYS
    # GELU has no rule; of 512 channels Score-CAM takes as many looks
    if not (net == "cifar10-fast" and way in ("deconvnet", "guided")) and (net, way) != ("vgg19", "score-cam")
]


def asked(network: Network, image: Tensor) -> Target:
    """Return the class that is seen, or of a network without classes the strongest channel of relu4_1."""
    if network.name != "vgg19":
        return strongest(network, image)
    with torch.no_grad():
        answer = network.features(image, ("relu4_1",))["relu4_1"]
    return Target("relu4_1", int(answer.mean((0, 2, 3)).argmax()))


@pytest.mark.parametrize(("net", "way"), CASES)
def test_attributions(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device, net: str, way: str
) -> None:
    processor, graphics = both(net)
    image = photograph(NETS[net])
    target = asked(processor, image)
    explain, within = WAYS[way]
    theirs = explain(processor, image, target)
    ours = explain(graphics, image.to(gpu), target)
    assert ours.device.type == gpu.type
    near(ours, theirs, within, f"{net} {way}")


@pytest.mark.parametrize("way", WAYS)
def test_a_picture_may_lie_in_the_processors_memory(
    both: Both, near: Near, photograph: Callable[..., Tensor], way: str
) -> None:
    processor, graphics = both("lenet5-mnist")
    image = photograph(28)
    target = asked(processor, image)
    explain, within = WAYS[way]
    near(explain(graphics, image, target), explain(processor, image, target), within, way)


def test_occlusion_of_a_class_and_the_curves_of_a_map(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device
) -> None:
    processor, graphics = both("cifar10-fast")
    image = photograph(32)
    target = asked(processor, image)
    theirs = occlude(processor, image, target, patch=8, stride=4)
    ours = occlude(graphics, image.to(gpu), target, patch=8, stride=4)
    assert ours.score == pytest.approx(theirs.score, rel=FORWARD)
    assert ours.windows == theirs.windows
    assert ours.winner is not None and theirs.winner is not None
    assert torch.equal(ours.winner.cpu(), theirs.winner)
    near(ours.probability, theirs.probability, BACK, "probability")
    for curve in (deletion, insertion):
        mine = curve(graphics, image.to(gpu), target, theirs.map, steps=8)
        near(
            mine.scores, curve(processor, image, target, theirs.map, steps=8).scores, FORWARD, curve.__name__
        )


def test_a_verdict_of_trust_draws_the_same_weights(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device
) -> None:
    found: list[list[float]] = []
    explain = functools.partial(_back, method="gradient")
    for network, image in zip(both("lenet5-mnist"), (photograph(28), photograph(28).to(gpu)), strict=True):
        target = Target(None, 3)
        made = list(randomised(network, image, target, explain, steps=2, cascades=1))
        found.append([value for each in made for value in (each.rank, each.ssim, each.magnitude)])
    near(found[1], found[0], 1e-2, "trust")  # equal values share a rank, nearly equal ones do not


@pytest.mark.parametrize("net", NETS)
def test_activations(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device, net: str
) -> None:
    processor, graphics = both(net)
    image = photograph(NETS[net])
    theirs, ours = survey(processor, image), survey(graphics, image.to(gpu))
    assert [layer.field for layer in ours] == [layer.field for layer in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        near(mine.maps, other.maps, FORWARD, f"{net} {mine.name}")


def test_receptive_fields_are_the_same(both: Both) -> None:
    processor, graphics = both("lenet5-mnist")
    assert receptive_fields(graphics, (28, 28)) == receptive_fields(processor, (28, 28))
    assert by_gradient(graphics, "conv2") == by_gradient(processor, "conv2")


def test_the_first_steps_of_an_inversion(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device
) -> None:
    processor, graphics = both("vgg19")
    image = photograph(64)
    theirs = list(inverting(processor, image, "relu2_1", steps=5))
    ours = list(inverting(graphics, image.to(gpu), "relu2_1", steps=5))
    assert ours[-1].image.device.type == gpu.type
    near([ours[0].total], [theirs[0].total], FORWARD, "the first loss")
    near([frame.total for frame in ours], [frame.total for frame in theirs], 1e-2, "five losses")
    near(ours[1].image, theirs[1].image, BACK, "the picture after a step")
    near(ours[-1].image, theirs[-1].image, 1e-2, "after four")  # L-BFGS divides small differences by another


@pytest.mark.parametrize(
    ("net", "unit", "preset"),
    [
        ("vgg19", "relu3_1:12", "lucid"),
        ("vgg19", "relu3_1:12", "maco"),
        ("vgg19", "relu3_1:12", "yosinski1"),
        ("cifar10-fast", "class:3", "lucid"),
    ],
)
def test_a_step_of_excitation(both: Both, near: Near, net: str, unit: str, preset: str) -> None:
    side = NETS[net]
    first, then = (
        [step.frame for step in excite(each, unit, preset=preset, size=side, steps=2, precision="float32")]
        for each in both(net)
    )
    near(then[0].image, first[0].image, FORWARD, "the start")
    near([then[0].total], [first[0].total], BACK, "what it excites")
    # Adam's first step goes by the gradient's sign, which rounding may turn where it is near 0
    near(then[1].image, first[1].image, 1e-2, "after a step")
    near([then[1].total], [first[1].total], 1e-2, "what that excites")


@pytest.mark.parametrize("guided", [False, True])
def test_a_dream(
    both: Both, near: Near, photograph: Callable[..., Tensor], gpu: torch.device, guided: bool
) -> None:
    processor, graphics = both("vgg19")
    image = photograph(64)
    guide = image.flip(-2) if guided else None
    how = Octaves(count=2, steps=1, tile=48)
    wishes = [(Target("relu3_1"), 1.0)]
    theirs = list(dream(processor, image, wishes, guide=guide, octaves=how))
    moved = None if guide is None else guide.to(gpu)
    ours = list(dream(graphics, image.to(gpu), wishes, guide=moved, octaves=how))
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs, strict=True):
        near([mine.value], [other.value], BACK, f"octave {mine.octave}: what is seen")
        near(mine.image, other.image, BACK, f"octave {mine.octave}: the picture")
    near(ours[-1].whole(), theirs[-1].whole(), BACK, "the whole")


def test_top_images(both: Both, near: Near, crops: tuple[Tensor, Tensor]) -> None:
    processor, graphics = both("cifar10-fast")
    pictures = crops[0][:96].permute(0, 2, 3, 1).contiguous()
    *_, theirs = top_images(processor, pictures, k=5)
    *_, ours = top_images(graphics, pictures, k=5)
    images = pictures.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        every = processor.features(images, list(theirs.layers))
    same: list[bool] = []
    for name, top in theirs.layers.items():
        mine = ours[name]
        near(mine.values, top.values, FORWARD, name)
        # where another picture or place is named, it must be as strong but for rounding
        which, (rows, columns) = mine.pictures, (mine.places[..., 0], mine.places[..., 1])
        units = np.arange(len(which))[:, None]
        named = every[name].numpy()[which, units, rows, columns]
        assert np.abs(named - top.values).max() <= FORWARD * np.abs(top.values).max(), name
        same += [*(which == top.pictures).flat]
    assert np.mean(same) > 0.95


def test_likeness_of_layers(both: Both, near: Near, crops: tuple[Tensor, Tensor]) -> None:
    processor, graphics = both("cifar10-fast")
    pictures = crops[0][:64].permute(0, 2, 3, 1).contiguous()
    *_, theirs = cka(processor, pictures, batch_size=32)
    *_, ours = cka(graphics, pictures, batch_size=32)
    near(ours.matrix, theirs.matrix, FORWARD, "cka")
    *_, across = cka(graphics, pictures, other=processor, batch_size=32)
    near(across.matrix, theirs.matrix, FORWARD, "cka of the GPU's network and the processor's")
