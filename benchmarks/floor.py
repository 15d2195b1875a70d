"""Time what an evaluation's direct convolutions come to on this processor: VGG19's, and nothing else.

    python floor.py WIDTH HEIGHT [--repeats 5]

For each layer as far as conv5_1, at the picture's shape: the median time of the forward convolution,
channels_last, and of the gradient to its input written as a convolution with the flipped, transposed
kernel; in the precision that innervision takes by itself. Prints one JSON object: the dtype, seconds
forward, seconds backward, and the multiply-adds of both. What an evaluation takes beyond this floor is
activations, pooling, Grams, optimiser and overhead. A method with less arithmetic, such as Winograd's, can
go below it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from innervision.machine import choose_precision

DTYPE = choose_precision("auto", torch.device("cpu"))

# (channels in, channels out); a tuple a block, halved in between
LAYERS = (
    ((3, 64), (64, 64)),
    ((64, 128), (128, 128)),
    ((128, 256), (256, 256), (256, 256), (256, 256)),
    ((256, 512), (512, 512), (512, 512), (512, 512)),
    ((512, 512),),
)


def noise(*shape: int) -> Tensor:
    """Random values laid out channels last."""
    return torch.randn(shape, dtype=DTYPE).contiguous(memory_format=torch.channels_last)


def median_time(work: Callable[[], Tensor], repeats: int) -> float:
    """The median of several timings, after one for warming up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


@torch.inference_mode()
def main() -> None:
    """Sum the layers and print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("width", type=int)
    parser.add_argument("height", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    torch.manual_seed(0)
    forward = backward = 0.0
    products = 0
    for block, layers in enumerate(LAYERS):
        height, width = args.height >> block, args.width >> block
        for inputs, outputs in layers:
            x, kernel = noise(1, inputs, height, width), noise(outputs, inputs, 3, 3)
            bias = torch.randn(outputs, dtype=DTYPE)
            gradient = noise(1, outputs, height, width)
            turned = kernel.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)
            forward += median_time(lambda x=x, k=kernel, b=bias: F.conv2d(x, k, b, padding=1), args.repeats)
            backward += median_time(lambda g=gradient, k=turned: F.conv2d(g, k, padding=1), args.repeats)
            products += 2 * kernel.numel() * height * width
    dtype = str(DTYPE).removeprefix("torch.")
    print(json.dumps({"dtype": dtype, "forward": forward, "backward": backward, "multiply_adds": products}))


if __name__ == "__main__":
    main()
