"""Our answers against other libraries', which are stored here as arrays: make.py says how they were made.

Both sides compute in float64, and agree to 1e-9 of the greatest value or better; where a peer turns to
float32, or does another sum, the test says what is left and why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from innervision.core import Fourier
from innervision.network import Network, wrap
from innervision.see import cam
from innervision.see.backward import attribute, deconvnet, guided
from innervision.see.occlusion import occlude
from innervision.see.similarity import psnr, ssim
from innervision.see.target import Target

HERE = Path(__file__).parent


def _loaded() -> Any:
    """Return make.py: the network and the picture that its arrays are of."""
    spec = importlib.util.spec_from_file_location("innervision-oracles", HERE / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _loaded()
CLASS = Target(None, make.CLASS)
FLAT, SHARP = make.LAYERS[1], make.LAYERS[0]  # maps half the picture's size, and of it
CAMS = {
    "grad-cam": cam.grad_cam,
    "grad-cam++": cam.grad_cam_pp,
    "layer-cam": cam.layer_cam,
    "score-cam": cam.score_cam,
}


@cache
def stored(peer: str) -> Mapping[str, Any]:
    with np.load(HERE / f"{peer}.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def ours(scale: float = 1.0) -> Network:
    net = make.network()
    with torch.no_grad():
        net.fc4.weight *= scale
        net.fc4.bias *= scale
    return wrap(net)


def apart(found: Tensor, peer: str, name: str) -> float:
    """Return the greatest difference to a peer's array, as a share of its greatest value."""
    want = torch.from_numpy(stored(peer)[name])
    assert found.shape == want.shape and want.any()
    return float((found - want).abs().max() / want.abs().max())


def test_the_arrays_say_what_made_them() -> None:
    about = {peer: str(stored(peer)["about"]) for peer in make.PEERS}
    assert all(said.startswith(f"{make.PEERS[peer][0]} ") for peer, said in about.items())
    assert sum((HERE / f"{peer}.npz").stat().st_size for peer in make.PEERS) < 400_000


def test_the_network_and_the_picture_are_the_same_everywhere() -> None:
    """SplitMix's first numbers by plain integers; and every ReLU is open somewhere and closed somewhere."""
    state, numbers = 0x9E3779B97F4A7C15, []
    for k in (1, 2):
        z = state * k % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        numbers.append(((z ^ z >> 31) >> 11) / 2**52 - 1)
    assert make.numbers(2, 0).tolist() == numbers
    network = ours()
    relus = [name for name in network.layers if name.startswith("relu")]
    for name, answer in network.features(make.picture(), relus).items():
        assert 0.1 < float((answer > 0).double().mean()) < 0.95
        assert name not in make.LAYERS or answer.flatten(2).any(2).all(), "no channel is dead"


@pytest.mark.parametrize(
    ("peer", "method"),
    [
        *(("captum", m) for m in ("gradient", "deconvnet", "guided", "gradient-x-input", "integrated")),
        ("zennit", "deconvnet"),
        ("zennit", "guided"),
        ("grad-cam", "guided"),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
def test_backward_methods(peer: str, method: str, frozen: bool) -> None:
    network = ours().frozen(torch.float64) if frozen else ours()
    found = attribute(network, make.picture(), CLASS, method).map
    # captum weighs the points of the line in float32
    assert apart(found, peer, method) <= (1e-7 if method == "integrated" else 1e-9)
    assert np.abs(found.numpy() - stored(peer)[method]).max() <= 1e-6


@pytest.mark.parametrize("method", ["deconvnet", "guided"])
def test_backward_methods_in_float32(method: str) -> None:
    network = wrap(make.network().float())
    map = attribute(network, make.picture().float(), CLASS, method).map.double()
    assert apart(map, "captum", method) <= 1e-6


def test_the_rules_are_told_apart() -> None:
    """An oracle that could not tell deconvnet from guided backpropagation or the gradient would be none."""
    kept = stored("captum")
    one, two, three = (kept[name] for name in ("deconvnet", "guided", "gradient"))
    assert min(np.abs(one - two).max(), np.abs(two - three).max(), np.abs(one - three).max()) > 0.01


def test_occlusion() -> None:
    found = occlude(ours(), make.picture(), CLASS, patch=6, stride=4)
    # captum adds up in float32, whatever the network computes in
    assert apart(found.map, "captum", "occlusion") <= 1e-6


@pytest.mark.parametrize("layer", make.LAYERS)
@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("captum", "grad-cam"),
        ("torchcam", "grad-cam"),
        ("torchcam", "layer-cam"),
        ("torchcam", "score-cam"),
        ("grad-cam", "grad-cam"),
        ("grad-cam", "layer-cam"),
        ("grad-cam", "score-cam"),
    ],
)
def test_class_activation_maps(peer: str, name: str, layer: str) -> None:
    found = CAMS[name](ours(), make.picture(), CLASS, layer)
    # for Score-CAM grad-cam keeps scores in float32, and torchcam adds 1e-8 to a channel's range
    far = 1e-6 if name == "score-cam" else 1e-9
    if (name, layer) == ("score-cam", FLAT):
        # the masks are others where a channel must be enlarged: see below
        assert 1e-3 < distance(found, peer, f"{name} {layer}") < 0.1
    else:
        assert distance(found, peer, f"{name} {layer}") <= far


@pytest.mark.parametrize("peer", ["ours", "torchcam", "grad-cam"])
def test_score_cam_of_a_smaller_layer(peer: str) -> None:
    """All weigh by the softmax of y(x · mask), and differ in the mask alone.

    Wang et al. 2020, eq. 6 and 7, enlarge a channel and then bring it to 0..1, as we do. torchcam does the
    second first, so that its masks end below 1; grad-cam enlarges with the corners aligned.
    """
    network, x = ours(), make.picture()
    a = network.features(x, [FLAT])[FLAT].detach()

    def enlarged(m: Tensor) -> Tensor:
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": peer == "grad-cam"}
        return F.interpolate(m, x.shape[-2:], **options)

    def to_one(m: Tensor) -> Tensor:
        low, high = m.amin((2, 3), keepdim=True), m.amax((2, 3), keepdim=True)
        return (m - low) / (high - low)

    masks = enlarged(to_one(a)) if peer == "torchcam" else to_one(enlarged(a))
    with torch.no_grad():
        weights = network(x * masks[0][:, None])[:, make.CLASS].softmax(0)
    want = (weights[:, None, None] * a[0]).sum(0)[None].relu()
    if peer == "ours":
        want = F.interpolate(want[None], x.shape[-2:], mode="bilinear", align_corners=False)[0]
        found = cam.score_cam(network, x, CLASS, FLAT)
        torch.testing.assert_close(found, want, rtol=0, atol=1e-9)
    else:
        assert apart(want, peer, f"score-cam {FLAT}") <= 1e-6


@pytest.mark.parametrize("layer", make.LAYERS)
def test_grad_cam_plus_plus(layer: str) -> None:
    found = cam.grad_cam_pp(ours(make.SCALE), make.picture(), CLASS, layer)
    assert distance(found, "grad-cam", f"grad-cam++ {layer}") <= 1e-6


def distance(found: Tensor, peer: str, name: str) -> float:
    """Return how far our map is from a peer's, rectified and enlarged here as ours is."""
    raw = torch.from_numpy(stored(peer)[name]).double().relu()
    want = F.interpolate(raw[:, None], found.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    assert want.any()
    return float((found - want).abs().max() / want.max())


@pytest.mark.parametrize("size", make.SIZES)
def test_fourier_canvas(size: tuple[int, int]) -> None:
    h, w = size
    kept = stored("lucent")
    canvas = Fourier(size, spectrum=torch.from_numpy(kept[f"spectrum {h}x{w}"]))
    np.testing.assert_allclose(canvas.render().detach(), kept[f"picture {h}x{w}"], rtol=0, atol=1e-6)


def test_structural_similarity() -> None:
    one, other = (torch.from_numpy(part).permute(2, 0, 1)[None] for part in make.pair())
    assert 0.1 < float(stored("skimage")["ssim"]) < 0.99
    assert ssim(one, other) == pytest.approx(float(stored("skimage")["ssim"]), abs=1e-9)
    assert psnr(one, other) == pytest.approx(float(stored("skimage")["psnr"]), abs=1e-9)


# --- by hand, on a picture of 4 x 4 -------------------------------------------------------------------


def windows() -> Network:
    """A 3x3 convolution of ones on the picture's red, seen by two channels; the second is negative.

    Its four windows answer 54, 63, 90 and 99 sixteenths; class 0 is the sum of channel 0, class 1 its first
    window less twice its last, class 2 the sum of the negated channel, which the ReLU closes.
    """
    conv, fc = nn.Conv2d(3, 2, 3, bias=False), nn.Linear(8, 3, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0], conv.weight[1, 0] = 1, -1
        fc.weight.zero_()
        fc.weight[0, :4] = 1
        fc.weight[1, 0], fc.weight[1, 3] = 1, -2
        fc.weight[2, 4:] = 1
    return wrap(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), fc).double())


def counting() -> Tensor:
    image = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    image[0, 0] = torch.arange(1, 17).view(4, 4) / 16
    return image


COVERED = ((1, 2, 2, 1), (2, 4, 4, 2), (2, 4, 4, 2), (1, 2, 2, 1))  # how many windows cover a pixel
FIRST = ((1, 1, 1, 0), (1, 1, 1, 0), (1, 1, 1, 0), (0, 0, 0, 0))  # what the first window covers


@pytest.mark.parametrize(
    ("method", "label", "want"),
    [
        (deconvnet, 0, COVERED),
        (guided, 0, COVERED),
        (deconvnet, 1, FIRST),  # what is negative on its way down stays behind
        (guided, 1, FIRST),
        (deconvnet, 2, tuple(tuple(-n for n in row) for row in COVERED)),  # a closed ReLU lets it through
        (guided, 2, ((0,) * 4,) * 4),
    ],
)
def test_deconvolution_by_hand(method: Any, label: int, want: Any) -> None:
    map = method(windows(), counting(), Target(None, label)).map
    np.testing.assert_allclose(map[0, 0], want, atol=1e-12)
    assert not map[:, 1:].any()


def test_grad_cam_by_hand() -> None:
    """Class 1 has a mean gradient of -1/4, which shows nothing; class 0 one of 1."""
    answers = np.array([[54, 63], [90, 99]]) / 16
    # bilinear, 2 to 4: the corners, and shares of 3/4 and 1/4 between
    mix = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    found = cam.grad_cam(windows(), counting(), Target(None, 0), "1")
    np.testing.assert_allclose(found[0], mix @ answers @ mix.T, atol=1e-12)
    assert not cam.grad_cam(windows(), counting(), Target(None, 1), "1").any()
    # LayerCAM: the first window's gradient is 1, the last one's below 0
    found = cam.layer_cam(windows(), counting(), Target(None, 1), "1")
    np.testing.assert_allclose(found[0], mix @ np.array([[54, 0], [0, 0]]) @ mix.T / 16, atol=1e-12)
