"""Score saved 8-bit pictures by the objective of Gatys' notebook, in fp32.

    python scorer.py --content C.png --style S.png PICTURE... [--json]

The judge of `stylize.py`: it shares no code with innervision, nor with any peer. It needs torch, numpy and
Pillow, and reads the VGG19 weights out of the repository.

    J = MSE(relu4_2) + sum over relu1_1 ... relu5_1 of 1e3/C^2 * MSE(Gram / (H W))

with the image in 0..255 minus the mean colour, maximum pooling and zero padding, after Gatys, Ecker, Bethge,
"Image style transfer using convolutional neural networks" (2016) and the weights of the authors' notebook
PytorchNeuralStyleTransfer. Content and style are used at the size they come in; a picture must have the
content's size. No total variation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

WEIGHTS = Path(__file__).parents[1] / "src/innervision/weights/vgg19_features_rgb255_8bit.npz"
MEAN = (123.68, 116.779, 103.939)  # RGB
CONVOLUTIONS = {"1": 2, "2": 2, "3": 4, "4": 4, "5": 1}  # as far as conv5_1, the deepest layer wanted
CONTENT = "4_2"
STYLE = {"1_1": 64, "2_1": 128, "3_1": 256, "4_1": 512, "5_1": 512}  # with their channels


def read_picture(path: Path) -> Tensor:
    """Read a picture as 1 x 3 x H x W, RGB, 0..255 minus the mean."""
    pixels = np.array(Image.open(path).convert("RGB"), dtype=np.float32)
    return torch.from_numpy(pixels - np.array(MEAN, dtype=np.float32)).permute(2, 0, 1)[None]


def read_weights(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Read name -> (weight, bias); the file keeps one byte a weight, an index into a table of 256."""
    with np.load(path) as file:
        names = [f"{block}_{i}" for block, count in CONVOLUTIONS.items() for i in range(1, count + 1)]
        return {
            name: (
                torch.from_numpy(file[f"conv{name}.table"][file[f"conv{name}.codes"]]),
                torch.from_numpy(file[f"conv{name}.bias"]),
            )
            for name in names
        }


def activations(x: Tensor, weights: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Run the network to relu5_1; return the activations the objective speaks of."""
    kept = {}
    block = "1"
    for name, (weight, bias) in weights.items():
        if name[0] != block:
            block, x = name[0], F.max_pool2d(x, 2)
        x = F.relu(F.conv2d(x, weight, bias, padding=1))
        if name == CONTENT or name in STYLE:
            kept[name] = x
    return kept


def gram(x: Tensor) -> Tensor:
    """The C x C matrix of channel products, divided by H * W."""
    rows = x[0].flatten(1)
    return rows @ rows.T / rows.shape[1]


def score(picture: Path, content: Tensor, grams: dict[str, Tensor], weights: dict) -> float:
    """J of one saved picture."""
    features = activations(read_picture(picture), weights)
    if features[CONTENT].shape != content.shape:
        raise SystemExit(f"{picture} does not have the content's size")
    value = F.mse_loss(features[CONTENT], content)
    for name, channels in STYLE.items():
        value += 1e3 / channels**2 * F.mse_loss(gram(features[name]), grams[name])
    return value.item()


@torch.inference_mode()
def main() -> None:
    """Print J of every picture named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--content", type=Path, required=True)
    parser.add_argument("--style", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--json", action="store_true", help="print one JSON object: picture -> J")
    parser.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE")
    args = parser.parse_args()

    weights = read_weights(args.weights)
    content = activations(read_picture(args.content), weights)[CONTENT]
    style = activations(read_picture(args.style), weights)
    grams = {name: gram(style[name]) for name in STYLE}
    scores = {str(picture): score(picture, content, grams, weights) for picture in args.pictures}
    if args.json:
        print(json.dumps(scores))
    else:
        for picture, value in scores.items():
            print(f"{value:14.1f}  {picture}")


if __name__ == "__main__":
    main()
