"""Insertion and deletion: tables by hand on linear models, scipy's Gaussian, and what the command leaves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from innervision.cli import cli
from innervision.errors import Invalid
from innervision.network import Network, wrap
from innervision.see.curves import Curves, chance, chart, curves, importance
from innervision.see.occlusion import deletion
from innervision.see.target import Target

WEIGHTS = torch.tensor([[4.0, 0, 0, 3], [0, 0, 0, 0], [0, -2, 0, 0], [0, 0, 5, 0]], dtype=torch.float64)


def weighing() -> Network:
    """Answers by the weighted sum of the red pixels."""
    layer = nn.Linear(48, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.zero_()[0, :16] = WEIGHTS.flatten()
    return wrap(nn.Sequential(nn.Flatten(), layer))


def white() -> Tensor:
    return torch.ones(1, 3, 4, 4, dtype=torch.float64)


def test_deletion_by_hand() -> None:
    """Of a sum of 10, 5 goes first, then 4 and 3, then nothing, and what spoke against it at the last."""
    found = deletion(weighing(), white(), Target("1", 0), WEIGHTS[None], steps=16, value=0.0)
    assert found.scores == pytest.approx([1, 0.5, 0.1, *[-0.2] * 13, 0])
    assert found.area == pytest.approx((0.5 + 0.5 + 0.1 - 0.2 * 13 + 0) / 16)
    half = deletion(weighing(), white(), Target("1", 0), WEIGHTS[None], steps=16, value=0.5)
    assert half.scores == pytest.approx([1, 0.75, 0.55, *[0.4] * 13, 0.5])


def test_insertion_by_hand() -> None:
    """Pixel by pixel in the order of the map, on scipy's blur; each look by itself."""
    image = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    map = torch.randperm(16, generator=torch.Generator().manual_seed(1)).view(1, 4, 4).double()
    red = image[0, 0].numpy()
    now = gaussian_filter(red, 2.0, radius=5, mode="nearest")
    weights = WEIGHTS.numpy()
    want = [(weights * now).sum()]
    for place in np.argsort(-map[0].numpy().ravel()):
        now.flat[place] = red.flat[place]
        want.append((weights * now).sum())
    found = curves(weighing(), image, Target("1", 0), map, steps=16, blur=2.0, value=0.0)
    assert found.insertion.scores == pytest.approx(np.array(want) / want[-1])
    assert found.insertion.area == pytest.approx((sum(want) - (want[0] + want[-1]) / 2) / 16 / want[-1])
    down = deletion(weighing(), image, Target("1", 0), map, steps=16, value=0.0)
    assert found.deletion.scores == down.scores
    assert (found.blur, found.value) == (2.0, 0.0)


def test_looks_together_are_looks_one_by_one() -> None:
    """64 looks at a time at most: 65 of them come in two parts, and none is left out."""
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own = wrap(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).double())
    map = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = deletion(own, image, Target(None, 2), map, steps=64)
    now, order = image.clone(), map.flatten().argsort(descending=True)
    with torch.no_grad():
        want = [float(own(now).softmax(1)[0, 2])]
        for place in order.tolist():
            now[..., place // 8, place % 8] = 0.5
            want.append(float(own(now).softmax(1)[0, 2]))
    assert found.scores == pytest.approx(want)


def test_a_true_map_does_better_than_chance() -> None:
    asked, own, image = Target("1", 0), weighing(), white()
    image[..., 1, 1] = 0
    maps = (WEIGHTS[None], chance(image))
    mine, by_chance = (curves(own, image, asked, map, steps=16) for map in maps)
    assert mine.deletion.area < by_chance.deletion.area
    assert mine.insertion.area > by_chance.insertion.area
    assert torch.equal(chance(image, 3), chance(image, 3)) and not torch.equal(
        chance(image), chance(image, 1)
    )


def test_colours_are_summed_or_measured() -> None:
    map = torch.tensor([3.0, -4.0, 0.0]).view(1, 3, 1, 1)
    assert importance(map, "integrated").item() == -1.0
    assert importance(map, "gradient-x-input").item() == -1.0
    assert importance(map, "gradient").item() == importance(map, "guided").item() == 5.0
    assert importance(-map[:, 0], "grad-cam").item() == -3.0
    with pytest.raises(Invalid, match=r"a map is \(1, 3, h, w\) or \(1, h, w\)"):
        importance(map[0, 0], "gradient")


def test_the_command_leaves_chart_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that looks at the left half alone: the gradient's map finds it, and chance does not."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Left(nn.Module):\n"
        "    def forward(self, x):\n"
        "        s = x[..., : x.shape[-1] // 2].mean((1, 2, 3))\n"
        "        return torch.stack([8 * s, 0 * s], 1)\n"
        "def build():\n    return Left()\n"
    )
    image = np.full((16, 16, 3), 255, np.uint8)
    Image.fromarray(image).save("white.png")
    asked = ["attribute", "white.png", "--net", "net.py:build", "--target", "class:0", "--curves", "--json"]
    done = CliRunner().invoke(cli, [*asked, "-o", "map.png"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["written"] == ["map.png", "map-curves.png", "map-curves.json"]
    numbers = told["methods"]["gradient"]["curves"]
    assert numbers["measure"] == "probability"
    assert numbers["insertion"]["from"] == "blur 5" and numbers["deletion"]["to"] == "value 0.5"
    # all of the score is gone when half of the pixels are: 8 falls to 4, and no further
    scores = numbers["deletion"]["scores"]
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-6)
    assert scores[16:] == pytest.approx([1 / (1 + np.exp(-4))] * 17, abs=1e-6)
    assert numbers["deletion"]["area"] < numbers["chance"]["deletion"]["area"]
    kept = json.loads(Path("map-curves.json").read_text())
    assert kept["curves"]["gradient"]["deletion"] == numbers["deletion"]
    assert set(kept["curves"]) == {"gradient", "chance"}
    with Image.open("map-curves.png") as chart_:
        assert chart_.width > chart_.height


def test_a_chart_of_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="at least one method"):
        chart({})
    both = curves(weighing(), white(), Target("1", 0), WEIGHTS[None], steps=4)
    assert isinstance(both, Curves) and chart({"gradient": both}, by_chance=both, title="a net").width > 1000
