"""Oracles: every window by itself, a table by hand, and known curves (captum: oracles)."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from innervision import wrap
from innervision.errors import Invalid
from innervision.network import Network
from innervision.see.occlusion import deletion, insertion, occlude
from innervision.see.target import Target, target

CLASS = Target(None, 1)


def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        ).double()
    return wrap(module)


def picture(h: int = 13, w: int = 17) -> Tensor:
    return torch.rand(1, 3, h, w, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(("patch", "stride"), [(4, 3), (5, 5), (1, 1), (17, 2)])
def test_every_window_by_itself(patch: int, stride: int) -> None:
    own, image = network(), picture()
    total, count, chance = (torch.zeros(13, 17, dtype=torch.float64) for _ in range(3))
    winners: list[list[int]] = []
    with torch.no_grad():
        whole = own(image)[0]
        top = 0
        while True:
            row, left = [], 0
            while True:
                covered = image.clone()
                covered[..., top : top + patch, left : left + patch] = 0.5
                answer = own(covered)[0]
                here = slice(top, top + patch), slice(left, left + patch)
                total[here] += whole[1] - answer[1]
                chance[here] += whole.softmax(0)[1] - answer.softmax(0)[1]
                count[here] += 1
                row.append(int(answer.argmax()))
                if left + patch >= 17:
                    break
                left += stride
            winners.append(row)
            if top + patch >= 13:
                break
            top += stride
    for batch in (1, 7, 64):
        found = occlude(own, image, CLASS, patch=patch, stride=stride, batch=batch)
        torch.testing.assert_close(found.map[0], total / count, rtol=0, atol=1e-12)
        assert found.probability is not None and found.winner is not None
        torch.testing.assert_close(found.probability[0], chance / count, rtol=0, atol=1e-12)
        assert found.winner.tolist() == winners
        assert found.score == pytest.approx(float(whole[1]), abs=1e-12)


def test_the_sum_of_pixels_falls_by_what_is_covered() -> None:
    own = wrap(nn.Sequential(nn.Conv2d(3, 1, 1, bias=False)))
    nn.init.ones_(own.module[0].weight)  # type: ignore[index]
    image = torch.zeros(1, 3, 4, 4)
    image[..., :2] = 1.0  # the left half is white
    found = occlude(own, image, target("0:0", own), patch=2, stride=2, value=0.0)
    assert found.map[0].tolist() == [[12.0, 12.0, 0.0, 0.0]] * 4  # 4 pixels of 3 channels
    assert found.probability is None and found.winner is None
    assert found.windows == ((0, 0, 2, 2), (2, 0, 4, 2), (0, 2, 2, 4), (2, 2, 4, 4))


def test_what_cannot_be_covered_is_refused() -> None:
    own, image = network(), picture()
    for patch, stride in ((0, 1), (18, 1), (3, 4), (3, 0)):
        with pytest.raises(Invalid, match=r"the patch can be 1 to 17, the stride 1 to the patch"):
            occlude(own, image, CLASS, patch=patch, stride=stride)
    with pytest.raises(Invalid, match="one picture is covered at a time"):
        occlude(own, image.repeat(2, 1, 1, 1), CLASS)


def adder() -> Network:
    """Answers class 0 by the sum of all pixels, class 1 by 0."""
    head = nn.Linear(3 * 16, 2, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.stack((torch.ones(48), torch.zeros(48))))
    return wrap(nn.Sequential(nn.Flatten(), head))


def test_curves_by_hand() -> None:
    """White pixels that go one by one: the class's logit is 3 times those that are left."""
    own, asked = adder(), Target(None, 0)
    image = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    image[0, :, 1, :] = 1.0
    right, wrong = (sign * image[:, 0] for sign in (1, -1))
    best = deletion(own, image, asked, right, steps=16, value=0.0)
    left = [4, 3, 2, 1, *[0] * 13]
    want = [1 / (1 + 2.718281828459045 ** (-3 * n)) for n in left]
    assert best.scores == pytest.approx(want)
    assert best.shares == tuple(n / 16 for n in range(17))
    assert best.area == pytest.approx(sum((a + b) / 2 for a, b in pairwise(want)) / 16)
    assert deletion(own, image, asked, wrong, steps=16, value=0.0).area > best.area
    assert (
        insertion(own, image, asked, right, steps=16).area
        > insertion(own, image, asked, wrong, steps=16).area
    )
    assert insertion(own, image, asked, right, steps=16).scores[-1] == pytest.approx(want[0])
    with pytest.raises(Invalid, match=r"give a map \(1, 4, 4\)"):
        deletion(own, image, asked, right[0])
    with pytest.raises(Invalid, match=r"steps is 17; it can be 1 to the 16 pixels"):
        deletion(own, image, asked, right, steps=17)


def test_a_layer_s_curve_is_in_shares_of_the_whole() -> None:
    own, image = network(), picture()
    asked = target("0:2", own)
    curve = deletion(own, image, asked, torch.rand(1, 13, 17, generator=torch.Generator().manual_seed(2)))
    assert curve.scores[0] == 1.0
