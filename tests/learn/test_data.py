"""Reading publishers' archives: against arrays written in their forms, and against published checksums."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from PIL import Image

from innervision import _transfer
from innervision.errors import DownloadFailed, Invalid, WeightsMissing
from innervision.learn import dataset, sets
from innervision.learn.data import DataSet, hold_out, parts, read, relabel, split
from innervision.learn.inspection import statistics, twins
from innervision.learn.sets import SETS, SetFile

SHARED = Path(__file__).parents[2].parent / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside this clone")


def cifar(count: int, classes: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.permutation(np.arange(count) % classes).astype(np.int64)
    return draw.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), labels


def records(images: np.ndarray, labels: np.ndarray, coarse: bool = False) -> bytes:
    rows = [
        bytes([7] * coarse + [label]) + image.tobytes() for image, label in zip(images, labels, strict=True)
    ]
    return b"".join(rows)


def write_cifar10(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """The last fifth is the test part; the rest lies in two files."""
    folder.mkdir(parents=True, exist_ok=True)
    n = len(labels)
    cuts = {
        "data_batch_1.bin": (0, n // 2),
        "data_batch_2.bin": (n // 2, n * 4 // 5),
        "test_batch.bin": (n * 4 // 5, n),
    }
    for name, (start, end) in cuts.items():
        (folder / name).write_bytes(records(images[start:end], labels[start:end]))


def pack(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as out:
        for file in sorted(folder.iterdir()):
            out.add(file, f"{folder.name}/{file.name}")
    return archive


def write_idx(folder: Path, stem: str, images: np.ndarray, labels: np.ndarray, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for what, array in (("images", images), ("labels", labels.astype(np.uint8))):
        head = struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape)
        data = head + array.tobytes()
        name = f"{stem}-{what}-idx{array.ndim}-ubyte"
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        else:
            (folder / name).write_bytes(data)


def same(data: DataSet, images: np.ndarray, labels: np.ndarray) -> None:
    np.testing.assert_array_equal(data.images.numpy(), images)
    np.testing.assert_array_equal(data.labels.numpy(), labels)


# CIFAR


def test_cifar10_reads_the_same_from_a_folder_an_archive_and_single_files(tmp_path: Path) -> None:
    images, labels = cifar(50)
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder, images, labels)
    archive = pack(folder, tmp_path / "cifar-10-binary.tar.gz")
    for source in (folder, archive, str(folder)):
        assert parts(source) == ("train", "test")
        train, test = read(source), read(source, "test")
        same(train, images[:40], labels[:40])
        same(test, images[40:], labels[40:])
        assert train.classes == SETS["cifar10"].classes
        assert train.name == "cifar10"
        assert "not cifar10 as it was published" in " ".join(train.notes)
    assert read(folder).sha256 == read(archive).sha256 != read(folder, "test").sha256
    assert parts(folder / "test_batch.bin") == ("test",)
    same(read(folder / "test_batch.bin", "test"), images[40:], labels[40:])
    same(read(folder / "test_batch.bin", "any"), images[40:], labels[40:])
    with pytest.raises(Invalid, match="has no train part, only test"):
        read(folder / "test_batch.bin")


def test_cifar100_takes_the_fine_label_and_its_list_of_names(tmp_path: Path) -> None:
    images, labels = cifar(200, 100)
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    (folder / "train.bin").write_bytes(records(images, labels, coarse=True))
    found = read(folder)
    same(found, images, labels)
    assert found.name == "cifar100"
    assert found.classes == SETS["cifar100"].classes
    assert set(found.counts().values()) == {2}
    (folder / "fine_label_names.txt").write_text("\n".join(f"kind{n}" for n in range(100)) + "\n")
    assert read(folder).classes[3] == "kind3"


def python2(table: dict[str, object]) -> bytes:
    """Pickle as Python 2 did, whose strings were bytes: what CIFAR's python version is."""
    out = io.BytesIO()

    def text(value: bytes) -> bytes:
        return (
            b"U" + bytes([len(value)]) + value
            if len(value) < 256
            else b"T" + struct.pack("<i", len(value)) + value
        )

    out.write(b"\x80\x02}(")
    for key, value in table.items():
        out.write(text(key.encode()))
        if isinstance(value, np.ndarray):
            count, width = value.shape
            out.write(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85U\x01b\x87R")
            out.write(b"(K\x01J" + struct.pack("<i", count) + b"J" + struct.pack("<i", width) + b"\x86")
            out.write(
                b"cnumpy\ndtype\nU\x02u1K\0K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
            )
            out.write(b"\x89" + text(value.tobytes()) + b"tb")
        else:
            out.write(b"](" + b"".join(b"K" + bytes([n]) for n in value) + b"e")  # type: ignore[union-attr]
    out.write(b"u.")
    return out.getvalue()


def test_a_python_2_pickle_is_what_it_should_be() -> None:
    images, labels = cifar(3)
    data = python2({"data": images.reshape(3, -1), "labels": labels.tolist()})
    plain = pickle.loads(data, encoding="bytes")
    np.testing.assert_array_equal(plain[b"data"].reshape(images.shape), images)
    assert plain[b"labels"] == labels.tolist()


@pytest.mark.parametrize("writer", ["python 2", "python 3"])
def test_the_python_version_is_read(tmp_path: Path, writer: str) -> None:
    images, labels = cifar(20)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    table = {"data": images.reshape(20, -1), "labels": labels.tolist()}
    data = python2(table) if writer == "python 2" else pickle.dumps(table, 2)
    (folder / "data_batch_1").write_bytes(data)
    same(read(folder), images, labels)
    same(read(pack(folder, tmp_path / "cifar-10-python.tar.gz")), images, labels)
    fine = {"data": images.reshape(20, -1), "fine_labels": labels.tolist(), "coarse_labels": [0] * 20}
    other = tmp_path / "cifar-100-python"
    other.mkdir()
    (other / "test").write_bytes(python2(fine))
    found = read(other, "test")
    same(found, images, labels)
    assert found.name == "cifar100"


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


def test_nothing_that_a_pickle_names_is_run(tmp_path: Path) -> None:
    folder, mark = tmp_path / "cifar", tmp_path / "ran"
    folder.mkdir()
    _, labels = cifar(4)
    for table in ({"data": Attack(mark), "labels": labels.tolist()}, Attack(mark)):
        data = pickle.dumps(table)
        (folder / "data_batch_1").write_bytes(data)
        with pytest.raises(Invalid, match=r"data_batch_1.*names builtins\.exec"):
            read(folder)
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists(), "the attack is one"


def test_pickles_that_are_no_batches_are_refused(tmp_path: Path) -> None:
    images, labels = cifar(4)
    flat = images.reshape(4, -1)
    cases = {
        "no table": pickle.dumps([1]),
        "has no data and labels": pickle.dumps({"data": flat}),
        "no list of whole numbers": pickle.dumps({"data": flat, "labels": ["a"] * 4}),
        "4 pictures and 3 labels": pickle.dumps({"data": flat, "labels": [1, 2, 3]}, 2),
        "no table of bytes": pickle.dumps({"data": flat.astype(np.float32), "labels": labels.tolist()}, 2),
        "or damaged": pickle.dumps({"data": flat, "labels": labels.tolist()}, 2)[:-9000],
    }
    for reason, data in cases.items():
        (tmp_path / "data_batch_1").write_bytes(data)
        with pytest.raises(Invalid, match=reason):
            read(tmp_path)


# damaged, wrong, mislabelled


def test_cut_short_and_wrong_archives_are_named(tmp_path: Path) -> None:
    images, labels = cifar(50)
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder, images, labels)
    archive = pack(folder, tmp_path / "cifar-10-binary.tar.gz")
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    with pytest.raises(Invalid, match=r"cifar-10-binary\.tar\.gz' is cut short or damaged"):
        read(archive)
    batch = folder / "data_batch_2.bin"
    batch.write_bytes(batch.read_bytes()[:-100])
    with pytest.raises(Invalid, match=r"data_batch_2\.bin' is cut short.*pictures of 3,073 bytes"):
        read(folder)
    wrong = tmp_path / "weights.tar.gz"
    with tarfile.open(wrong, "w:gz") as out:
        out.addfile(tarfile.TarInfo("weights/model.pth"))
    with pytest.raises(Invalid, match=r"weights\.tar\.gz' is no archive of CIFAR .* or of MNIST"):
        read(wrong)
    other = tmp_path / "photos.zip"
    other.write_bytes(b"PK\3\4")
    with pytest.raises(Invalid, match="is no archive"):
        read(other)
    (tmp_path / "train.bin").write_bytes(records(images, labels))  # CIFAR-10's records under CIFAR-100's name
    with pytest.raises(Invalid, match=r"train\.bin' is cut short or of another kind"):
        read(tmp_path / "train.bin")


def test_labels_that_no_class_has_are_refused_or_left_out(tmp_path: Path) -> None:
    images, labels = cifar(20)
    labels[[3, 11]] = 10, 255
    (tmp_path / "data_batch_1.bin").write_bytes(records(images, labels))
    with pytest.raises(
        Invalid, match=r"mislabelled: picture 3 has the label 10 where there are 0 to 9; it has 2"
    ):
        read(tmp_path)
    found = read(tmp_path, bad="skip")
    keep = np.setdiff1d(np.arange(20), [3, 11])
    same(found, images[keep], labels[keep])
    assert [reason for _, reason in found.skipped] == ["no class 10", "no class 255"]
    assert any("2 pictures left out" in note for note in found.notes)


# MNIST


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("inner", [".", "raw", "MNIST/raw"])
def test_idx_files_are_read(tmp_path: Path, packed: bool, inner: str) -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (30, 28, 28), dtype=np.uint8)
    labels = np.arange(30) % 10
    write_idx(tmp_path / inner, "train", images, labels, packed)
    assert parts(tmp_path) == ("train",)
    found = read(tmp_path)
    same(found, images[:, None], labels)
    assert found.classes == tuple("0123456789")
    file = next((tmp_path / inner).glob("train-images*"))
    same(read(file), images[:, None], labels)
    three = read(tmp_path, channels=3)
    same(three, np.repeat(images[:, None], 3, 1), labels)


def test_idx_files_that_are_not_whole_or_not_alike_are_named(tmp_path: Path) -> None:
    images, labels = np.zeros((30, 28, 28), np.uint8), np.arange(30) % 10
    write_idx(tmp_path, "train", images, labels)
    pictures, names = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    whole = pictures.read_bytes()
    cases = {
        "announces 23,520 numbers and has only 23,510": whole[:-10],
        "announces 23,520 numbers and has more": whole + b"0",
        r"no idx file of bytes.*begins 89 50 4e 47": b"\x89PNG\r\n\x1a\n" + whole,
        "is cut short or damaged": gzip.compress(whole)[:-50],
        "more than any of these sets": b"\0\0\x08\x03" + b"\x7f\xff\xff\xff" * 3,
        "do not belong together": b"\0\0\x08\x03"
        + struct.pack(">3i", 29, 28, 28)
        + whole[16 : 16 + 29 * 784],
    }
    for reason, data in cases.items():
        pictures.write_bytes(data)
        with pytest.raises(Invalid, match=f"train-images-idx3-ubyte'.*{reason}|{reason}"):
            read(tmp_path)
    names.unlink()
    with pytest.raises(Invalid, match="no class folders"):  # pictures without labels are no such set
        read(tmp_path)


def test_fashion_is_told_from_digits_by_its_folder(tmp_path: Path) -> None:
    images, labels = np.zeros((20, 28, 28), np.uint8), np.arange(20) % 10
    write_idx(tmp_path / "FashionMNIST/raw", "t10k", images, labels)
    found = read(tmp_path / "FashionMNIST", "test")
    assert (found.name, found.classes[9]) == ("fashion-mnist", "Ankle boot")


@needs_shared
def test_mnist_has_the_published_checksums_and_statistics(tmp_path: Path) -> None:
    """The oracle is MNIST itself: a set read wrongly has other checksums, and a note that says so."""
    with np.load(SHARED / "mnist.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    keys = [("train", "x_train", "y_train"), ("t10k", "x_test", "y_test")]
    for stem, x, y in keys:
        write_idx(tmp_path, stem, arrays[x], arrays[y])
    train, test = read(tmp_path), read(tmp_path, "test")
    assert (len(train), len(test), train.notes, test.notes) == (60_000, 10_000, (), ())
    same(test, arrays["x_test"][:, None], arrays["y_test"])
    found = statistics(train)
    assert found.mean == pytest.approx((0.1307,), abs=5e-5)
    assert found.std == pytest.approx((0.3081,), abs=5e-5)
    assert list(train.counts().values()) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@needs_shared
def test_a_rebuilt_cifar10_is_read_and_said_to_be_one(tmp_path: Path) -> None:
    """Only the test part, for time's sake: of the training part the figures are those of `data inspect`."""
    stored = np.load(SHARED / "cifar10/labels.npz")
    tiles = []
    for mosaic in sorted((SHARED / "cifar10").glob("test_*.webp")):
        grid = np.asarray(Image.open(mosaic).convert("RGB"))
        tiles.append(grid.reshape(50, 32, 50, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32))
    images = np.concatenate(tiles)
    (tmp_path / "test_batch.bin").write_bytes(records(images, stored["y_test"]))
    found = read(tmp_path, "test")
    same(found, images, stored["y_test"])
    assert set(found.counts().values()) == {1000}
    assert found.notes == ("not cifar10 as it was published: its checksums differ; say so beside a figure",)


# sets by name


class Handler(BaseHTTPRequestHandler):
    files: dict[str, bytes]

    def do_GET(self) -> None:
        body = self.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Served", (Handler,), {"files": files})) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """A set named mnist of 20 pictures, whose first address has nothing."""
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "INNERVISION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_transfer, "_PAUSES", (0.01, 0.01, 0.01))
    images, labels = (
        np.arange(20 * 784, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28),
        np.arange(20) % 10,
    )
    for stem in ("train", "t10k"):
        write_idx(tmp_path / "served", stem, images, labels, packed=True)
    files = {f"/copy/{p.name}": p.read_bytes() for p in sorted((tmp_path / "served").iterdir())}
    cards = tuple(
        SetFile(name.rpartition("/")[2], len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    )
    with served(files) as url:
        card = replace(SETS["mnist"], files=cards, urls=(f"{url}gone/", f"{url}copy/"))
        monkeypatch.setattr(sets, "SETS", MappingProxyType({"mnist": card}))
        yield images, labels, url


def test_a_set_is_fetched_by_name_from_the_address_that_has_it(
    small: tuple[np.ndarray, np.ndarray, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, _ = small
    assert parts("mnist") == ("train", "test")
    found = read("mnist")
    same(found, images[:, None], labels)
    assert found.notes == (), "what has been checked by its checksum is the publisher's"
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    same(read("mnist", "test"), images[:, None], labels)


def test_offline_it_says_which_file_to_put_where(
    small: tuple[np.ndarray, np.ndarray, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    path = tmp_path / "home/data/mnist/t10k-images-idx3-ubyte.gz"
    with pytest.raises(WeightsMissing, match=f"fetch {small[2]}gone/.* by hand and save it as {path}"):
        read("mnist")


def test_where_no_address_has_the_file_the_first_is_named(
    small: tuple[np.ndarray, np.ndarray, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = replace(sets.SETS["mnist"], urls=(f"{small[2]}gone/", f"{small[2]}lost/"))
    monkeypatch.setattr(sets, "SETS", MappingProxyType({"mnist": card}))
    with pytest.raises(DownloadFailed, match=r"gone/t10k-images.* answered 404"):
        read("mnist")


def test_the_cards_agree_with_themselves() -> None:
    for name, card in SETS.items():
        assert (card.name, len(set(card.classes))) == (name, len(card.classes))
        assert len(card.classes) == (100 if name == "cifar100" else 10)
        assert all(bool(f.sha256) != bool(f.md5) for f in card.files)
        assert all(url.endswith("/") for url in card.urls)
    assert list(SETS["cifar100"].classes) == sorted(SETS["cifar100"].classes)


def test_unknown_names_are_met_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"no data set or folder 'cifar11'.*Did you mean 'cifar10'"):
        read("cifar11")
    with pytest.raises(Invalid, match="no file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(Invalid, match="part is 'valid'; it must be one of"):
        read("cifar10", "valid")  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="channels is 2"):
        read("cifar10", channels=2)
    with pytest.raises(Invalid, match="size is 0"):
        read("cifar10", size=0)


# the set itself


def made(counts: tuple[int, ...]) -> DataSet:
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    images = torch.arange(len(labels) * 12).remainder(256).to(torch.uint8).view(-1, 3, 2, 2)
    return DataSet(images, labels, tuple("abcdefgh"[: len(counts)]), "made", "0")


def test_a_set_says_what_does_not_fit_together() -> None:
    images, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1])
    with pytest.raises(Invalid, match=r"uint8 of shape \(n, c, h, w\)"):
        DataSet(images.float(), labels, ("a", "b"))
    with pytest.raises(Invalid, match="2 pictures need as many labels"):
        DataSet(images, labels[:1], ("a", "b"))
    with pytest.raises(Invalid, match="labels must be 0 to 0"):
        DataSet(images, labels, ("a",))


def test_what_is_held_out_has_the_classes_in_proportion() -> None:
    data = made((100, 50, 7, 2))
    train, held = split(data, 0.1, seed=3)
    assert held.counts() == {"a": 10, "b": 5, "c": 1, "d": 1}
    assert train.counts() == {"a": 90, "b": 45, "c": 6, "d": 1}
    rows = [tuple(image.flatten().tolist()) for part in (train, held) for image in part.images]
    want = [tuple(image.flatten().tolist()) for image in data.images]
    assert sorted(rows) == sorted(want)
    again = split(data, 0.1, seed=3)
    assert torch.equal(held.images, again[1].images)
    assert held.sha256 == again[1].sha256 != train.sha256
    assert not torch.equal(held.labels, split(data, 0.1, seed=4)[1].labels)
    with pytest.raises(Invalid, match="class 'b' has one picture"):
        split(made((5, 1)), 0.2, 0)
    with pytest.raises(Invalid, match="share is 1"):
        split(data, 1.0, 0)


def test_a_part_too_large_for_memory_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path))
    data = replace(made((1500, 900)), sha256="a set of its own")
    want = split(data, 0.2, seed=1)
    assert not (tmp_path / "decoded").exists()
    monkeypatch.setattr(dataset, "available", lambda _: 30_000)
    for _ in range(2):  # made, and found made
        for found, plain in zip(split(data, 0.2, seed=1), want, strict=True):
            assert torch.equal(found.images, plain.images)
            assert torch.equal(found.labels, plain.labels)
        assert [file.stat().st_size for file in (tmp_path / "decoded").iterdir()] == [1920 * 12]
    other = replace(data, images=255 - data.images, sha256="")
    for nameless in (other, replace(data, sha256="")):
        kept = nameless.images[hold_out(nameless, 0.2, seed=1)[0]]
        assert torch.equal(split(nameless, 0.2, seed=1)[0].images, kept)


def test_labels_are_matched_to_a_network_s_classes_by_name() -> None:
    data = made((4, 3, 2))
    turned = relabel(data, ("c", "x", "a", "b"))
    names = [turned.classes[label] for label in turned.labels]
    assert names == [data.classes[label] for label in data.labels]
    assert turned.counts() == {"c": 2, "x": 0, "a": 4, "b": 3}
    assert relabel(data, ("a", "b", "c")) is data
    with pytest.raises(
        Invalid, match="made has 3 classes where 10 are expected; 'a', 'b', 'c' are not among 0, 1"
    ):
        relabel(data, tuple("0123456789"))


def test_statistics_are_those_of_all_pixels() -> None:
    images, labels = cifar(50)
    found = statistics(DataSet(torch.from_numpy(images), torch.from_numpy(labels), tuple("0123456789")))
    unit = images.astype(np.float64) / 255
    np.testing.assert_allclose(found.mean, unit.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(found.std, unit.std((0, 2, 3)), rtol=1e-12)


def test_pictures_that_occur_twice_are_found() -> None:
    images, labels = (torch.from_numpy(each) for each in cifar(20))
    classes = tuple("0123456789")
    train = DataSet(torch.cat([images[:12], images[2:4]]), torch.cat([labels[:12], labels[2:4]]), classes)
    test = DataSet(
        images[[15, 5, 16, 5, 0]], torch.tensor([1, labels[5], 2, (labels[5] + 1) % 10, labels[0]]), classes
    )
    found = twins(train, test)
    assert found.within == (2, 1)
    assert found.across == ((5, 1), (5, 3), (0, 4))
    assert found.disagreeing == 1
    assert twins(test).within == (1,)


def test_other_sizes_and_channels_are_made(tmp_path: Path) -> None:
    images, labels = cifar(10)
    images[:] = images[:, :, :1, :1]  # of one colour each: any resizing keeps it
    (tmp_path / "data_batch_1.bin").write_bytes(records(images, labels))
    found = read(tmp_path, size=48, channels=1)
    assert found.images.shape == (10, 1, 48, 48)
    luma = np.rint(images[:, :, 0, 0] @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(found.images[:, 0, 20, 20].numpy(), luma, atol=1)
    assert np.ptp(found.images.numpy(), axis=(2, 3)).max() == 0
