"""Make the stored answers of other libraries, which test_peers.py compares ours with.

    python tests/oracles/make.py captum zennit      (in an environment that has them, PyTorch and numpy)

Each peer's answers go to PEER.npz beside this file, with its version in `about`. The network and the picture
come from integers (`numbers`), so that every machine has the same to the last bit; all is float64 unless the
peer turns it to float32. No peer's weights are loaded. torchvision, which some of them import and nothing
used here needs, is replaced by an empty stand-in where it is not installed.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HERE = Path(__file__).parent
CLASS = 3
LAYERS = ("relu1_2", "relu2_1")  # at the picture's size, and at half of it
SIZES = ((16, 16), (9, 12), (12, 9))  # of lucent's pictures
SCALE = 1e5  # of the scores, for Grad-CAM++ in grad-cam: see `grad_cam`


def numbers(count: int, seed: int) -> np.ndarray:
    """Return float64 values spread evenly over -1..1: SplitMix of their places (Steele et al. 2014)."""
    golden, first, second = (
        np.uint64(each) for each in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    with np.errstate(over="ignore"):
        z = (np.arange(count, dtype=np.uint64) + np.uint64(1 + 1_000_003 * seed)) * golden
        z = (z ^ (z >> np.uint64(30))) * first
        z = (z ^ (z >> np.uint64(27))) * second
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) / 2**52 - 1


def network() -> nn.Sequential:
    """Return a small VGG with batch normalisation in evaluation mode: (n, 3, 24, 20) -> (n, 5), float64."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, wide, deep in (("1_1", 3, 8), ("1_2", 8, 8), ("2_1", 8, 16)):
        layers[f"conv{name}"] = nn.Conv2d(wide, deep, 3, padding=1)
        layers[f"bn{name}"] = nn.BatchNorm2d(deep)
        layers[f"relu{name}"] = nn.ReLU()
        if name != "1_1":
            layers[f"pool{name[0]}"] = nn.MaxPool2d(2)
    layers |= {"flatten": nn.Flatten(), "fc3": nn.Linear(16 * 6 * 5, 20), "relu3": nn.ReLU()}
    net = nn.Sequential(layers | {"fc4": nn.Linear(20, 5)}).double().eval()
    with torch.no_grad():
        for seed, (name, value) in enumerate(net.state_dict().items()):
            if not value.is_floating_point():
                continue
            drawn = torch.from_numpy(numbers(value.numel(), seed)).view(value.shape)
            if value.ndim > 1:
                drawn = drawn * (6 / value[0].numel()) ** 0.5  # uniform, by He et al. 2015
            elif name.endswith("running_var") or (name.startswith("bn") and name.endswith("weight")):
                drawn = 1 + drawn / 2
            else:
                drawn = 0.3 * drawn + 1.5 * (name == "bn2_1.bias")  # so that no channel is dead there
            value.copy_(drawn)
    return net


def picture() -> Tensor:
    return torch.from_numpy(numbers(3 * 24 * 20, 99)).view(1, 3, 24, 20) / 2 + 0.5


def pair() -> tuple[np.ndarray, np.ndarray]:
    """Return two pictures (h w 3) that are somewhat alike."""
    one = numbers(32 * 40 * 3, 5).reshape(32, 40, 3) / 2 + 0.5
    return one, (0.7 * one + 0.3 * (numbers(32 * 40 * 3, 6).reshape(32, 40, 3) / 2 + 0.5))


def captum() -> dict[str, Any]:
    from captum import attr

    net, x = network(), picture().requires_grad_()
    windows = {"strides": (3, 4, 4), "baselines": 0.5, "perturbations_per_eval": 8}
    return {
        "gradient": attr.Saliency(net).attribute(x, CLASS, abs=False),
        "deconvnet": attr.Deconvolution(net).attribute(x, CLASS),
        "guided": attr.GuidedBackprop(net).attribute(x, CLASS),
        "gradient-x-input": attr.InputXGradient(net).attribute(x, CLASS),
        "integrated": attr.IntegratedGradients(net).attribute(x, 0.0, CLASS, n_steps=50),
        "occlusion": attr.Occlusion(net).attribute(x, (3, 6, 6), target=CLASS, **windows)[:, 0],
        **{
            f"grad-cam {layer}": attr.LayerGradCam(net, net.get_submodule(layer)).attribute(x, CLASS)[:, 0]
            for layer in LAYERS
        },
    }


def zennit() -> dict[str, Any]:
    from zennit.attribution import Gradient
    from zennit.composites import DeconvNet, GuidedBackprop

    asked = torch.eye(5, dtype=torch.float64)[[CLASS]]
    found: dict[str, Any] = {}
    for name, composite in (("deconvnet", DeconvNet()), ("guided", GuidedBackprop())):
        with Gradient(network(), composite) as attributor:
            found[name] = attributor(picture(), asked)[1]
    return found


def grad_cam() -> dict[str, Any]:
    """Return grad-cam's maps before it enlarges and normalises them.

    It adds 1e-6 to the denominator of Grad-CAM++'s α, 2g² + ΣA·g³, which is of that size itself where a
    gradient is 0.001. So there it is asked for SCALE times the score, beside which 1e-6 is nothing.
    """
    import pytorch_grad_cam as peer

    found: dict[str, Any] = {}
    for layer in LAYERS:
        for name, kind, scale in (
            ("grad-cam", peer.GradCAM, 1.0),
            ("grad-cam++", peer.GradCAMPlusPlus, SCALE),
            ("layer-cam", peer.LayerCAM, 1.0),
            ("score-cam", peer.ScoreCAM, 1.0),
        ):
            net, x = network(), picture()
            asked = [lambda scores, scale=scale: scale * scores[CLASS]]
            module = net.get_submodule(layer)
            with kind(net, [module]) as theirs:
                theirs(x, asked)
                kept = theirs.activations_and_grads
                parts = (kept.activations, kept.gradients)
                a, g = (part[0].cpu().data.numpy() if part else None for part in parts)
                found[f"{name} {layer}"] = theirs.get_cam_image(x, module, asked, a, g, False)
    guided = peer.GuidedBackpropReLUModel(network())(picture(), CLASS)
    return {**found, "guided": guided.transpose(2, 0, 1)[None]}


def torchcam() -> dict[str, Any]:
    """Return torchcam's maps before it enlarges and normalises them; its Grad-CAM++ divides a copy: none."""
    from torchcam import methods

    found: dict[str, Any] = {}
    for layer in LAYERS:
        for name, kind in (
            ("grad-cam", methods.GradCAM),
            ("layer-cam", methods.LayerCAM),
            ("score-cam", methods.ScoreCAM),
        ):
            net = network()
            extractor = kind(net, layer)
            scores = net(picture().requires_grad_())
            found[f"{name} {layer}"] = extractor(CLASS, scores, normalized=False)[0]
            extractor.remove_hooks()
    return found


def lucent() -> dict[str, Any]:
    """Return lucent's pictures (float32), and the spectra that it drew for them, of seed 0."""
    from lucent.optvis.param import color, spatial

    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for h, w in SIZES:
        (spectrum,), image = spatial.fft_image((1, 3, h, w), sd=0.5)
        found[f"spectrum {h}x{w}"] = spectrum[:, :, :, : w // 2 + 1]  # one more at odd widths is never used
        found[f"picture {h}x{w}"] = color.to_valid_rgb(image, decorrelate=True)()
    return found


def skimage() -> dict[str, Any]:
    from skimage import metrics

    one, other = pair()
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    alike = metrics.structural_similarity(one, other, data_range=1, channel_axis=-1, **options)
    return {"ssim": alike, "psnr": metrics.peak_signal_noise_ratio(one, other, data_range=1)}


PEERS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "captum": ("captum", captum),
    "zennit": ("zennit", zennit),
    "grad-cam": ("grad-cam", grad_cam),
    "torchcam": ("torchcam", torchcam),
    "lucent": ("torch-lucent", lucent),
    "skimage": ("scikit-image", skimage),
}


class _Anything(types.ModuleType):
    """A module that has every name, each an empty class."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandIn:
    """Finds such a module for torchvision and all within it."""

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # pyright: ignore

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Anything(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def main(peers: Sequence[str]) -> None:
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_StandIn())  # pyright: ignore
    for peer in peers or PEERS:
        package, make = PEERS[peer]
        arrays = {
            name: value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
            for name, value in make().items()
        }
        versions = f"{package} {importlib.metadata.version(package)}, torch {torch.__version__}"
        np.savez_compressed(HERE / f"{peer}.npz", about=np.array(versions), **arrays)
        print(f"{peer}: {versions}, {len(arrays)} arrays")


if __name__ == "__main__":
    main(sys.argv[1:])
