"""benchmarks/imagenet.py counts what a classifier of fixed answers gets right, and what it cannot place."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor, nn

from innervision.images import Picture
from innervision.nets import imagenet
from innervision.network import wrap

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "imagenet.py"


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("imagenet_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Fixed(nn.Module):
    """Holds everything for a tabby, then for a golden retriever, and then for the first of all classes."""

    def forward(self, x: Tensor) -> Tensor:
        answer = -torch.arange(1000.0)
        answer[[281, 207]] = torch.tensor([2.0, 1.0])
        return answer.expand(len(x), -1)


def test_counts(benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("n02123045_tabby", "n01440764_tench", "n15075141_toilet_tissue", "n99999999_nothing", "plain")
    file = tmp_path / "photographs.tar"
    with tarfile.open(file, "w") as archive:
        for name in names:
            data = io.BytesIO()
            Image.new("RGB", (30, 20), (90, 60, 30)).save(data, "JPEG")
            member = tarfile.TarInfo(f"sample/{name}.jpg")
            member.size = data.tell()
            data.seek(0)
            archive.addfile(member, data)
            folder = tmp_path / "folders" / name.partition("_")[0]
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(data.getvalue())
    fixed = wrap(Fixed(), classes=imagenet.classes(), input_size=16)
    monkeypatch.setattr(benchmark.innervision, "load", lambda *_, **__: fixed)
    for source in (file, tmp_path / "folders"):
        found = benchmark.measure("fixed", None, source, 1)
        assert found["n"] == 3 and len(found["unmapped"]) == 2
        assert found["top1"] == {"crop": 1, "whole": 1} and found["top5"] == {"crop": 2, "whole": 2}
    assert benchmark.measure("fixed", None, file, 2)["n"] == 2  # by name: n01440764 and n15075141


def test_views_and_intervals(benchmark) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[:, 40:50] = 255
    whole = benchmark.view(Picture(pixels), "whole", 28)
    crop = benchmark.view(Picture(pixels), "crop", 28)
    assert whole.shape == (1, 3, 28, 42) and crop.shape == (1, 3, 28, 28)  # of 32 by 48
    columns = crop[0, 0].mean(0)
    assert columns.flip(0).allclose(columns, atol=1e-5) and columns[14] > 0.9 > 0.1 > columns[0]
    low, high = binomtest(82, 125).proportion_ci(method="wilson")
    assert benchmark.wilson(82, 125) == pytest.approx((100 * low, 100 * high), abs=1e-4)
