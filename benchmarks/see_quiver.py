"""quiver's way of showing activations, restated as one contestant of see.py; its Keras no longer installs.

As in its vis_utils.py, util.py and file_utils.py (MIT): a request for a layer runs the network as far as that
layer; each channel is brought to mean 0.5 and deviation 0.1 by itself, cut at 0 and 1, stretched once more by
the function that writes it, and saved as a PNG file of its own. The browser's 5,504 requests are not counted.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from see_worker import Work, module, picture, serve


def layers(size: int) -> Work:
    """All ReLU layers of VGG19, a pass and a file a channel for each."""
    own, image = module("vgg19", "relu5_4"), picture(size)
    names = [name for name, _ in own.named_children()]
    with torch.no_grad():
        own(image)

    def work() -> dict[str, Any]:
        folder, channels = Path(tempfile.mkdtemp()), 0
        for place, name in enumerate(names):
            if not name.startswith("relu"):
                continue
            with torch.no_grad():
                maps = own[: place + 1](image)[0].numpy()
            for channel, one in enumerate(maps):
                save(one, folder / f"{name}_{channel}.png")
                channels += 1
        size = sum(file.stat().st_size for file in folder.iterdir())
        shutil.rmtree(folder)
        return {"channels": channels, "bytes": size}

    return work


def save(one: np.ndarray, file: Path) -> None:
    """Stretch a channel twice and write it."""
    one = np.clip((one - one.mean()) / (one.std() + 1e-5) * 0.1 + 0.5, 0, 1)
    low, high = one.min(), one.max()
    stretched = (one - low) * (255 / ((high - low) or 1))
    Image.fromarray((stretched + 0.5).astype(np.uint8)).save(file)


if __name__ == "__main__":
    serve({"layers": layers})
