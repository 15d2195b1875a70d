"""Augmentation: every kind against loops over pictures and pixels; what is drawn, against its law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from innervision.errors import Invalid
from innervision.learn.augment import Augmentation, Draw, augment, draw, moved


def pictures(count: int = 6, channels: int = 3, height: int = 7, width: int = 9, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, height, width), generator=draw, dtype=torch.uint8)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(kind: Augmentation, count: int = 6, size: tuple[int, int] = (7, 9), epoch: int = 0) -> Draw:
    coins = torch.arange(count) % 2 == 0
    return draw(count, size, kind, epoch=epoch, generator=generator(), coins=coins)


def reflect(place: int, length: int) -> int:
    while not 0 <= place < length:
        place = -place if place < 0 else 2 * (length - 1) - place
    return place


# moved


def test_nothing_changes_nothing() -> None:
    images, labels = pictures(), torch.arange(6)
    same, targets = augment(images, labels, Augmentation(), epoch=0, generator=generator())
    assert torch.equal(same, images)
    assert torch.equal(targets, labels)
    assert str(Augmentation()) == "none"
    assert str(Augmentation(flip="random", shift=2)) == "flip random, shift 2"


@pytest.mark.parametrize("shift", [0, 1, 2, 6])
@pytest.mark.parametrize("flip", ["none", "random"])
@pytest.mark.parametrize("channels", [1, 3])
def test_whole_shifts_and_flips_are_those_of_loops(shift: int, flip: str, channels: int) -> None:
    images, kind = pictures(8, channels), Augmentation(flip=flip, shift=shift)  # type: ignore[arg-type]
    before = images.clone()
    by = drawn(kind, 8)
    found = moved(images, by, kind)
    want = torch.empty_like(images)
    for n in range(8):
        down, across = by.shift[n].tolist() if by.shift is not None else (0, 0)
        for row in range(7):
            for column in range(9):
                at = 8 - column if by.mirrored is not None and by.mirrored[n] else column
                want[n, :, row, column] = images[n, :, reflect(row + down, 7), reflect(at + across, 9)]
    assert found.dtype == torch.uint8
    assert torch.equal(found, want)
    assert torch.equal(images, before)


@pytest.mark.parametrize("part", [0.125, 0.5])
@pytest.mark.parametrize("flip", ["none", "random"])
def test_fractional_shifts_are_those_of_loops(part: float, flip: str) -> None:
    fill = (0.2, 0.4, 0.6)
    kind = Augmentation(flip=flip, shift=part, fill=fill)  # type: ignore[arg-type]
    images = pictures()
    by = drawn(kind)
    assert by.shift is not None and by.shift.abs().max() <= part * 9
    found = moved(images, by, kind)
    unit = images.double() / 255
    for n in range(6):
        down, across = by.shift[n].tolist()
        for row in range(7):
            for column in range(9):
                at = 8 - column if by.mirrored is not None and by.mirrored[n] else column
                y, x = row + down, at + across
                if not (0 <= y <= 6 and 0 <= x <= 8):
                    want = torch.tensor(fill, dtype=torch.float64)
                else:
                    top, left = int(y), int(x)
                    low, right = min(top + 1, 6), min(left + 1, 8)
                    over = (left + 1 - x) * unit[n, :, top, left] + (x - left) * unit[n, :, top, right]
                    under = (left + 1 - x) * unit[n, :, low, left] + (x - left) * unit[n, :, low, right]
                    want = (top + 1 - y) * over + (y - top) * under
                torch.testing.assert_close(found[n, :, row, column].double(), want, atol=2e-6, rtol=0)


def test_a_fractional_shift_is_the_one_that_keras_makes() -> None:
    """Its ImageDataGenerator calls scipy.ndimage.affine_transform with order 1, mode constant, cval 0."""
    ndimage = pytest.importorskip("scipy.ndimage")
    images, kind = pictures(5), Augmentation(shift=0.25)
    by = drawn(kind, 5)
    found = moved(images, by, kind)
    assert by.shift is not None
    for n in range(5):
        for channel in range(3):
            want = ndimage.affine_transform(
                images[n, channel].double().numpy() / 255,
                np.eye(2),
                by.shift[n].double().numpy(),
                order=1,
                mode="constant",
                cval=0.0,
            )
            np.testing.assert_allclose(found[n, channel].numpy(), want, atol=2e-6)


def test_alternating_flips_show_both_sides_in_two_epochs() -> None:
    kind, images = Augmentation(flip="alternating"), pictures()
    even, odd, again = (moved(images, drawn(kind, epoch=epoch), kind) for epoch in (0, 1, 2))
    assert torch.equal(even, again)
    assert torch.equal(odd, even.flip(-1))
    for n in range(6):
        assert torch.equal(even[n], images[n].flip(-1) if n % 2 == 0 else images[n])
    with pytest.raises(Invalid, match="alternating flip needs coins"):
        draw(6, (7, 9), kind, epoch=0, generator=generator())


def test_cutout_fills_what_of_its_square_lies_inside() -> None:
    for side in (1, 4, 5):
        kind = Augmentation(cutout=side, fill=(0.5, 0.0, 1.0))
        images, by = pictures(), drawn(kind)
        found = moved(images, by, kind)
        want = images.clone()
        assert by.holes is not None
        for n in range(6):
            down, across = by.holes[n].tolist()
            for row in range(down - side // 2, down - side // 2 + side):
                for column in range(across - side // 2, across - side // 2 + side):
                    if 0 <= row < 7 and 0 <= column < 9:
                        want[n, :, row, column] = torch.tensor([128, 0, 255])
        assert torch.equal(found, want)
        assert found.dtype == torch.uint8


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_is_that_of_loops(channels: int) -> None:
    kind, images = Augmentation(colour=0.4), pictures(4, channels)
    by = drawn(kind, 4)
    found = moved(images, by, kind)
    weight = torch.tensor([0.299, 0.587, 0.114] if channels == 3 else [1.0], dtype=torch.float64)
    assert by.colour is not None
    for n in range(4):
        brightness, contrast, saturation = by.colour[n].double().tolist()
        image = (images[n].double() / 255 * brightness).clamp(0, 1)
        grey = sum(float(image[:, r, c] @ weight) for r in range(7) for c in range(9)) / 63
        image = (grey + contrast * (image - grey)).clamp(0, 1)
        for r in range(7):
            for c in range(9):
                luma = float(image[:, r, c] @ weight)
                want = (luma + saturation * (image[:, r, c] - luma)).clamp(0, 1)
                torch.testing.assert_close(found[n, :, r, c].double(), want, atol=2e-6, rtol=0)


# mixed


def mix(
    kind: Augmentation, seed: int, count: int = 8, classes: int = 5
) -> tuple[Tensor, Tensor, Tensor, Tensor, Draw]:
    images, labels = pictures(count, seed=seed), torch.arange(count) % classes
    by = draw(count, (7, 9), kind, epoch=0, generator=generator(seed))
    found, targets = augment(images, labels, kind, epoch=0, generator=generator(seed), classes=classes)
    return images, labels, found, targets, by


@pytest.mark.parametrize("seed", range(4))
def test_mixup_adds_pictures_and_labels_in_one_proportion(seed: int) -> None:
    images, labels, found, targets, by = mix(Augmentation(mixup=0.7), seed)
    assert by.mix is not None and by.mix.box is None and 0 <= by.mix.share <= 1
    for n in range(8):
        other, share = int(by.mix.partner[n]), by.mix.share
        want = share * images[n].double() / 255 + (1 - share) * images[other].double() / 255
        torch.testing.assert_close(found[n].double(), want, atol=2e-6, rtol=0)
        shares = torch.zeros(5, dtype=torch.float64)
        shares[labels[n]] += share
        shares[labels[other]] += 1 - share
        torch.testing.assert_close(targets[n].double(), shares, atol=2e-6, rtol=0)


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_labels_by_the_pixels_that_are_the_other_s(seed: int) -> None:
    images, labels, found, targets, by = mix(Augmentation(cutmix=1.0), seed)
    assert by.mix is not None and by.mix.box is not None and found.dtype == torch.uint8
    assert torch.equal(by.mix.partner.sort().values, torch.arange(8))
    top, bottom, left, right = by.mix.box
    for n in range(8):
        other, pasted = int(by.mix.partner[n]), 0
        for row in range(7):
            for column in range(9):
                inside = top <= row < bottom and left <= column < right
                pasted += inside
                assert torch.equal(found[n, :, row, column], images[other if inside else n, :, row, column])
        shares = torch.zeros(5, dtype=torch.float64)
        shares[labels[n]] += 1 - pasted / 63
        shares[labels[other]] += pasted / 63
        torch.testing.assert_close(targets[n].double(), shares, atol=2e-6, rtol=0)


def test_mixing_follows_its_law() -> None:
    """Beta(a, a) has mean 1/2, variance 1 / (4 (2a + 1)); with both kinds on, half of the batches paste."""
    for alpha in (0.3, 1.0, 4.0):
        shares = []
        for seed in range(600):
            by = draw(2, (8, 8), Augmentation(mixup=alpha), epoch=0, generator=generator(seed))
            assert by.mix is not None
            shares.append(by.mix.share)
        assert np.mean(shares) == pytest.approx(0.5, abs=4 * np.std(shares) / 600**0.5)
        assert np.var(shares) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.15)
    both = Augmentation(mixup=1.0, cutmix=1.0)
    boxes = [draw(2, (8, 8), both, epoch=0, generator=generator(seed)).mix for seed in range(400)]
    assert 160 < sum(each is not None and each.box is not None for each in boxes) < 240
    with pytest.raises(Invalid, match="mixing needs the number of classes"):
        augment(pictures(), torch.arange(6), both, epoch=0, generator=generator())


# what is drawn


def test_what_is_drawn_covers_its_range_evenly() -> None:
    kind = Augmentation(flip="random", shift=2, cutout=3)
    by = draw(20_000, (8, 8), kind, epoch=0, generator=generator())
    assert by.shift is not None and by.mirrored is not None and by.holes is not None
    counts = torch.bincount((by.shift[:, 0] + 2) * 5 + by.shift[:, 1] + 2, minlength=25)
    assert counts.min() > 650 and counts.max() < 950  # 800 each, deviation 28
    assert 9_700 < by.mirrored.sum() < 10_300
    assert torch.bincount(by.holes[:, 0] * 8 + by.holes[:, 1], minlength=64).min() > 230  # 312 each
    part = draw(20_000, (8, 16), Augmentation(shift=0.25), epoch=0, generator=generator()).shift
    assert part is not None
    assert part.abs().amax(0).tolist() == pytest.approx([2, 4], rel=1e-3)
    assert part.mean(0).abs().max() < 0.06


def test_the_mean_picture_stays_what_it_was_where_it_should() -> None:
    """Of a picture that is one ramp, mirrored and shifted evenly to both sides, the mean is symmetric."""
    ramp = torch.arange(16, dtype=torch.uint8).mul(16).view(1, 1, 1, 16).expand(4000, 3, 16, 16)
    kind = Augmentation(flip="random", shift=3)
    found, _ = augment(ramp, torch.zeros(4000, dtype=torch.int64), kind, epoch=0, generator=generator())
    mean = found.float().mean((0, 1, 2))
    torch.testing.assert_close(mean, mean.flip(0), atol=6, rtol=0)
    assert mean.mean().item() == pytest.approx(120, abs=3)


def test_a_seed_repeats_and_another_does_not() -> None:
    kind = Augmentation(flip="random", shift=0.1, cutout=3, mixup=0.4, cutmix=1.0, colour=0.2)
    images, labels = pictures(12), torch.arange(12) % 3
    runs = [
        augment(images, labels, kind, epoch=0, generator=generator(seed), classes=3) for seed in (5, 5, 6)
    ]
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])
    assert runs[0][0].dtype == torch.float32
    assert runs[0][0].min() >= 0 and runs[0][0].max() <= 1


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"flip": "both"}, "flip is 'both'; there are none, random and alternating"),
        ({"shift": -1}, "shift is -1"),
        ({"shift": 1.5}, "a float is a part of the side"),
        ({"mixup": float("nan")}, "mixup is nan"),
        ({"colour": 2.0}, "colour is 2"),
        ({"fill": (0.0, 0.0)}, "one colour in 0..1"),
        ({"fill": (124.0,)}, "one colour in 0..1"),
    ],
)
def test_values_that_mean_nothing_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        Augmentation(**options)  # type: ignore[arg-type]


def test_a_shift_or_fill_that_does_not_fit_the_picture_is_refused() -> None:
    kind = Augmentation(cutout=2, fill=(0.1, 0.2, 0.3))
    with pytest.raises(Invalid, match="a value a channel, for pictures of 1"):
        moved(pictures(channels=1), drawn(kind), kind)
    with pytest.raises(Invalid, match="a shift of 7 pixels is too far for pictures of 7x9"):
        drawn(Augmentation(shift=7))
