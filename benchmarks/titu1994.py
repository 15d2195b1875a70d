"""Style transfer as titu1994/Neural-Style-Transfer does it, restated in PyTorch for stylize.py.

    python titu1994.py --content C.png --style S.png --folder OUT [--steps 200] [--log LOG]

That program (Network.py) needs a Keras and a TensorFlow that no longer install. What made its speed is
kept:

- one Keras graph holds content, style and picture as a batch of three, so all three run through the
  network, forwards and backwards, at every evaluation, in fp32;
- each of its iterations is a fresh `scipy.optimize.fmin_l_bfgs_b(..., maxfun=20)`: the history of
  curvature is thrown away and the last point is evaluated once more. scipy looks at maxfun after a whole
  step, so that an iteration is 21 evaluations or a few more; all are counted;
- scipy works in float64: the picture goes to float32 and the gradient back at every evaluation;
- a picture is saved after each iteration, clipped to 0..255 and truncated to 8 bits as it does.

What is changed, in its favour, so that it can be judged by the same objective:

- the weights of the terms are those of scorer.py and total variation is off: what it minimises is J;
- it works on a square, image_size x image_size, and squeezes the result; here it works at the content's
  shape;
- it stretches the style to that same shape, or the batch could not be made, and so aims at the Gram
  matrices of a stretched painting. The stretched style runs in the batch here too, but its Grams are
  corrected by a constant, measured once, to those of the style at its own shape: the target of every
  other contestant;
- the channels are RGB, not BGR, with the weights turned to match: this changes no number;
- PyTorch's convolutions stand in for those of TensorFlow 1.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import fmin_l_bfgs_b
from torch import Tensor

WEIGHTS = Path(__file__).parents[1] / "src/innervision/weights/vgg19_features_rgb255_8bit.npz"
MEAN = np.array((123.68, 116.779, 103.939), dtype=np.float32)
BLOCKS = (2, 2, 4, 4, 1)
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
EVALUATIONS_AN_ITERATION = 20


class Graph:
    """The batch of three and its loss."""

    def __init__(self, content: Path, style: Path) -> None:
        with np.load(WEIGHTS) as file:
            self.layers = [
                (name, torch.from_numpy(file[f"{name}.table"][file[f"{name}.codes"]]), file[f"{name}.bias"])
                for name in (f"conv{b}_{i + 1}" for b, n in enumerate(BLOCKS, 1) for i in range(n))
            ]
        photo, painting = Image.open(content).convert("RGB"), Image.open(style).convert("RGB")
        self.content = tensor(photo)
        self.style = tensor(painting.resize(photo.size, Image.Resampling.BILINEAR))
        with torch.no_grad():
            own, stretched = self.activations(tensor(painting)), self.activations(self.style)
            self.correction = {name: gram(own[name][0]) - gram(stretched[name][0]) for name in STYLE}
        self.evaluations = 0

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        kept = {}
        for name, weight, bias in self.layers:
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = kept[name] = F.relu(F.conv2d(x, weight, torch.from_numpy(bias), padding=1))
        return kept

    def loss(self, picture: Tensor) -> Tensor:
        features = self.activations(torch.cat((self.content, self.style, picture)))
        content, _, own = features["conv4_2"]
        value = F.mse_loss(own, content)
        for name in STYLE:
            _, style, own = features[name]
            target = gram(style) + self.correction[name]
            value = value + 1e3 / len(own) ** 2 * F.mse_loss(gram(own), target)
        return value

    def evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Loss and gradient, in scipy's float64."""
        picture = torch.from_numpy(x.reshape(self.content.shape).astype(np.float32)).requires_grad_()
        loss = self.loss(picture)
        (gradient,) = torch.autograd.grad(loss, picture)
        self.evaluations += 1
        print(self.evaluations, loss.item())
        return loss.item(), gradient.numpy().ravel().astype(np.float64)


def tensor(picture: Image.Image) -> Tensor:
    """1 x 3 x H x W, RGB, 0..255 minus the mean."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) - MEAN).permute(2, 0, 1)[None].contiguous()


def gram(x: Tensor) -> Tensor:
    """C x C, divided by H * W."""
    rows = x.flatten(1)
    return rows @ rows.T / rows.shape[1]


def main() -> None:
    """Descend J for at least the steps asked for, saving a picture after every twenty evaluations or so."""
    started = float(os.environ.get("BENCHMARK_STARTED", time.monotonic()))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where the pictures go")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--every", type=int, help="unused: it saves after each of its iterations")
    parser.add_argument("--log", type=Path, help="append a line of JSON for each picture")
    args = parser.parse_args()

    graph = Graph(args.content, args.style)
    x = graph.content.numpy().ravel().astype(np.float64)
    saving = 0.0
    while graph.evaluations < args.steps:
        x, loss, _ = fmin_l_bfgs_b(graph.evaluate, x, maxfun=EVALUATIONS_AN_ITERATION)
        before = time.monotonic()
        pixels = x.reshape(graph.content.shape)[0].transpose(1, 2, 0) + MEAN
        file = args.folder / f"{graph.evaluations:04d}.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
        frame = {
            "elapsed": before - started - saving,
            "evaluations": graph.evaluations,
            "picture": str(file),
            "loss": float(loss),
        }
        if args.log:
            with args.log.open("a") as log:
                print(json.dumps(frame), file=log)
        saving += time.monotonic() - before


if __name__ == "__main__":
    main()
