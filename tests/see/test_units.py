"""Top images: against brute force over all pictures, units, places and ties; killed and gone on with."""

from __future__ import annotations

import gzip
import subprocess
import sys
import tarfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from innervision.errors import Diverged, Invalid, NotAnImage, RunUnusable
from innervision.network import Network, wrap
from innervision.see.pictures import Files, Stack, first, open_pictures
from innervision.see.units import TopImages, top_images


class Whole(nn.Module):
    """Turns an image in 0..1 into whole numbers, with which float64 is exact whatever the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 15).round()


def exact(seed: int = 0) -> Network:
    """Small whole weights: many units answer the same to several pictures and at several places."""
    draw = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        OrderedDict(
            whole=Whole(),
            conv1=nn.Conv2d(3, 8, 3, padding=1),
            relu1=nn.ReLU(inplace=True),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 12, 3, stride=2),
            relu2=nn.ReLU(inplace=True),
        )
    ).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randint(-1, 2, weight.shape, generator=draw))
    return wrap(net, name="exact")


def noise(count: int, side: int = 12, seed: int = 0) -> np.ndarray:
    """Pictures of four grey levels, every third one a copy of an earlier one."""
    draw = np.random.default_rng(seed)
    pictures = draw.integers(0, 4, (count, side, side, 3)).astype(np.uint8) * 85
    pictures[3::3] = pictures[0:-3:3]
    return pictures


def whole(network: Network, pictures: object, *args: object, **options: object) -> TopImages:
    *_, found = top_images(network, pictures, *args, **options)  # type: ignore[arg-type]
    return found


def brute(
    network: Network, pictures: np.ndarray, layer: str, k: int
) -> list[list[tuple[float, int, int, int]]]:
    """Return (value, picture, row, column) of each unit's k strongest, by plain sorting."""
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    maps = network.features(image, (layer,))[layer].detach().numpy()
    rows = []
    for unit in range(maps.shape[1]):
        each = []
        for number in range(len(pictures)):
            flat = maps[number, unit].ravel().tolist()
            row, column = divmod(flat.index(max(flat)), maps.shape[3])
            each.append((max(flat), number, row, column))
        rows.append(sorted(each, key=lambda e: (-e[0], e[1]))[:k])
    return rows


def listed(found: TopImages, layer: str) -> list[list[tuple[float, int, int, int]]]:
    top = found[layer]
    return [
        [
            (float(v), int(n), int(place[0]), int(place[1]))
            for v, n, place in zip(values, numbers, places, strict=True)
        ]
        for values, numbers, places in zip(top.values, top.pictures, top.places, strict=True)
    ]


def same(one: TopImages, two: TopImages) -> None:
    assert one.layers.keys() == two.layers.keys()
    for name, top in one.layers.items():
        other = two[name]
        assert top.extent == other.extent
        for part in ("values", "pictures", "places"):
            np.testing.assert_array_equal(getattr(top, part), getattr(other, part))


# the ranking


@pytest.mark.parametrize("layer", ["conv1", "relu1", "relu2"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_unit_s_pictures_and_places_are_those_of_brute_force(layer: str, batch: int) -> None:
    network, pictures = exact(), noise(50)
    found = whole(network, pictures, [layer], batch_size=batch)
    want = brute(network, pictures, layer, 9)
    values = [[value for value, *_ in row] for row in want]
    assert any(len(set(row)) < len(row) for row in values), "there should be ties"
    assert listed(found, layer) == want


def test_all_layers_are_ranked_in_the_one_pass_whatever_the_batch() -> None:
    network, pictures = exact(), noise(50)
    found = whole(network, pictures, batch_size=8)
    assert list(found.layers) == ["relu1", "relu2"]
    assert (found.units, found.done, found.of) == (20, 50, 50)
    same(found, whole(network, pictures, batch_size=50))
    for name in found.layers:
        assert listed(found, name) == brute(network, pictures, name, 9)


def test_fewer_pictures_than_k_leave_room() -> None:
    found = whole(exact(), noise(3), ["relu2"], k=5)["relu2"]
    assert (found.pictures[:, 3:] == -1).all()
    assert (found.places[:, 3:] == -1).all()
    assert np.isneginf(found.values[:, 3:]).all()
    assert (np.sort(found.pictures[:, :3], 1) == [0, 1, 2]).all()


def test_a_float32_chain_on_vgg_s_plan_agrees_with_brute_force_too() -> None:
    """The frozen short way (see chain), whose answers are laid out channels last."""
    net = nn.Sequential(
        *(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(),
        )
    )
    torch.manual_seed(0)
    network = wrap(net).frozen()
    pictures = np.random.default_rng(1).integers(0, 256, (30, 16, 16, 3), np.uint8)
    found = whole(network, pictures, batch_size=30)
    for name in ("1", "4"):
        got, want = listed(found, name), brute(network, pictures, name, 9)
        assert [[e[1:] for e in row] for row in got] == [[e[1:] for e in row] for row in want]


def test_a_dense_layer_s_units_have_no_place() -> None:
    network = wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)))
    pictures = np.random.default_rng(2).integers(0, 256, (20, 6, 6, 3), np.uint8)
    found = whole(network, pictures, ["2"], k=3, batch_size=20)["2"]
    answer = network(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255).detach().numpy()
    np.testing.assert_array_equal(found.pictures, (-answer.T).argsort(1, kind="stable")[:, :3])
    assert found.extent == (1, 1)
    assert not found.places.any()


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu_()


def test_grey_pictures_and_functional_relus_of_a_guest_are_taken() -> None:
    network = wrap(Functional(), mean=[0.5], std=[0.5])
    pictures = np.random.default_rng(3).integers(0, 256, (9, 28, 28), np.uint8)
    found = whole(network, pictures)
    assert list(found.layers) == ["conv"]
    assert (found["conv"].values != 0).all()  # before the ReLU, which overwrites in place
    assert found["conv"].extent == (26, 26)


def test_half_precision_is_ranked_in_float32() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    found = whole(wrap(net).frozen(torch.bfloat16), noise(20), k=3)["1"]
    assert found.values.dtype == np.float32
    assert (np.diff(found.values, axis=1) <= 0).all()


def test_everything_borrowed_is_given_back() -> None:
    network = exact()
    network.module.train()
    passes = top_images(network, noise(20), batch_size=4)
    next(passes)
    assert torch.is_grad_enabled()
    assert network.module.training
    assert not any(m._forward_hooks for m in network.module.modules())
    passes.close()  # type: ignore[attr-defined]


def test_what_cannot_be_ranked_is_refused() -> None:
    tokens = wrap(nn.Sequential(nn.Flatten(2)))
    broken = wrap(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()))
    with torch.no_grad():
        broken.module[0].bias.fill_(torch.nan)
    with pytest.raises(Invalid, match=r"layer '0' answers \(4, 3, 144\)"):
        whole(tokens, noise(4), ["0"])
    with pytest.raises(Diverged, match="'1' answers NaN to picture 0"):
        whole(broken, noise(4))
    with pytest.raises(Invalid, match="neither ReLU nor Conv2d"):
        whole(tokens, noise(4))
    with pytest.raises(Invalid, match="no layer 'relu9'"):
        whole(exact(), noise(4), ["relu9"])
    with pytest.raises(Invalid, match="k is 0"):
        whole(exact(), noise(4), k=0)
    with pytest.raises(Invalid, match="uint8"):
        whole(exact(), np.zeros((2, 4, 4, 3), np.float32))


# the index


def test_an_index_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    found = whole(exact(), noise(20))
    found.save(tmp_path / "index.safetensors")
    back = TopImages.load(tmp_path / "index.safetensors")
    same(found, back)
    assert (back.done, back.of, back.key) == (20, 20, found.key)


def test_a_pass_that_is_stopped_goes_on_to_the_same_file(tmp_path: Path) -> None:
    network, pictures = exact(), noise(50)
    whole(network, pictures, batch_size=8, index=tmp_path / "whole.safetensors")
    broken = tmp_path / "broken.safetensors"
    passes = top_images(network, pictures, batch_size=8, index=broken, every=1e9)
    next(passes), next(passes)
    passes.close()  # type: ignore[attr-defined]
    assert TopImages.load(broken).done == 16
    seen = [found.done for found in top_images(network, pictures, batch_size=8, index=broken)]
    assert seen == [24, 32, 40, 48, 50]
    assert broken.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


VICTIM = """
import sys, time
sys.path.insert(0, {folder!r})
import test_units_victim as t
for found in t.top_images(t.exact(), t.noise(60), batch_size=4, index={index!r}, every=0):
    time.sleep(.05)
"""


def test_a_process_killed_in_the_middle_of_a_pass_loses_nothing(tmp_path: Path) -> None:
    index = tmp_path / "index.safetensors"
    (tmp_path / "test_units_victim.py").write_text(Path(__file__).read_text(encoding="utf-8"))
    code = VICTIM.format(folder=str(tmp_path), index=str(index))
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < until:
            if index.exists() and TopImages.load(index).done >= 12:
                break
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    done = TopImages.load(index).done
    assert 12 <= done < 60
    first_seen = next(iter(top_images(exact(), noise(60), batch_size=4, index=index)))
    assert first_seen.done == done + 4
    whole(exact(), noise(60), batch_size=4, index=index)
    whole(exact(), noise(60), batch_size=4, index=tmp_path / "whole.safetensors")
    assert index.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_finished_index_asks_the_network_nothing(tmp_path: Path) -> None:
    network, pictures = exact(), noise(20)
    found = whole(network, pictures, index=tmp_path / "i.safetensors")
    network.module.forward = None  # type: ignore[assignment]
    again = list(top_images(network, pictures, index=tmp_path / "i.safetensors"))
    assert len(again) == 1
    same(again[0], found)


def test_another_pass_s_index_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "i.safetensors"
    whole(exact(), noise(20), index=index)
    for network, pictures, k, what in (
        (exact(1), noise(20), 9, "weights"),
        (exact(), noise(20, seed=1), 9, "pictures"),
        (exact(), noise(20), 8, "k"),
    ):
        with pytest.raises(RunUnusable, match=f"what differs: {what}"):
            whole(network, pictures, k=k, index=index)
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(RunUnusable, match="damaged"):
        whole(exact(), noise(20), index=index)


# pictures


def test_damaged_pictures_are_named_and_skipped(tmp_path: Path) -> None:
    pictures = noise(12, side=16)
    for number, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (tmp_path / "03.png").write_bytes((tmp_path / "03.png").read_bytes()[:80])
    (tmp_path / "07.png").write_text("no picture")
    found = whole(exact(), open_pictures([tmp_path], size=16), batch_size=4)
    assert [(number, name) for number, name, _ in found.skipped] == [(3, "03.png"), (7, "07.png")]
    assert all("03.png" in why or "07.png" in why for _, _, why in found.skipped)
    assert not np.isin(found["relu2"].pictures, (3, 7)).any()
    kept = np.delete(np.arange(12), (3, 7))
    alone = whole(exact(), pictures[kept], batch_size=12)["relu2"]
    np.testing.assert_array_equal(found["relu2"].pictures, kept[alone.pictures])


def test_a_folder_without_a_readable_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no pictures in"):
        open_pictures([tmp_path])
    (tmp_path / "a.png").write_text("none")
    with pytest.raises(Invalid, match=r"none of 1 pictures could be read: .*a\.png"):
        whole(exact(), open_pictures([tmp_path], size=16))


def test_photographs_are_cut_to_their_middle_square(tmp_path: Path) -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    Image.fromarray(wide).save(tmp_path / "WIDE.PNG")
    (pixels,) = (open_pictures([tmp_path], size=10)[number] for number in range(1))
    assert (pixels == 200).all()
    assert Files([tmp_path / "WIDE.PNG"], side=5)[0].shape == (5, 5, 3)
    with pytest.raises(NotAnImage):
        Files([__file__])[0]


def test_data_sets_are_read_in_their_publishers_forms(tmp_path: Path) -> None:
    pictures = np.random.default_rng(4).integers(0, 256, (6, 32, 32, 3), np.uint8)
    rows = np.concatenate([np.zeros((6, 1), np.uint8), pictures.transpose(0, 3, 1, 2).reshape(6, -1)], 1)
    cifar = tmp_path / "cifar-10-batches-bin"
    cifar.mkdir()
    for name, part in (("data_batch_1.bin", rows[:4]), ("test_batch.bin", rows[4:])):
        (cifar / name).write_bytes(part.tobytes())
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(cifar, "cifar-10-batches-bin")
    np.save(tmp_path / "some.npy", pictures)
    for source in (cifar, tmp_path / "cifar-10-binary.tar.gz", tmp_path / "some.npy"):
        opened = open_pictures([source])
        assert opened.size == (32, 32)
        np.testing.assert_array_equal([opened[n] for n in range(len(opened))], pictures)
    np.testing.assert_array_equal(open_pictures([cifar / "test_batch.bin"])[1], pictures[5])
    grey = pictures[..., 0]
    header = np.array([2051, 6, 32, 32], ">i4").tobytes()
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + grey.tobytes()))
    opened = open_pictures([tmp_path / "t10k-images-idx3-ubyte.gz"])
    np.testing.assert_array_equal(opened[2], np.repeat(grey[2][..., None], 3, 2))
    assert open_pictures([cifar], size=64)[0].shape == (64, 64, 3)
    assert len(first(opened, 2)) == 2


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.bin", b"123", "no CIFAR file"),
        ("t-idx3-ubyte", b"\0" * 16, "not 2051"),
        ("t-idx3-ubyte.gz", b"no gzip", "damaged"),
        ("x.npy", b"no array", "damaged"),
        ("x.tar.gz", b"no archive", "damaged"),
    ],
)
def test_damaged_data_sets_are_said_to_be(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Invalid, match=said):
        open_pictures([tmp_path / name])


def test_an_array_is_told_by_its_shape() -> None:
    assert Stack(np.zeros((2, 5, 6), np.uint8)).size == (5, 6)
    assert Stack(np.zeros((2, 5, 6, 1), np.uint8))[1].shape == (5, 6, 3)
