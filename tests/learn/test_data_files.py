"""Class folders and tables of picture files: against the very pixels that were saved."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from innervision import images
from innervision.errors import InnervisionError, Invalid
from innervision.learn import crew, decoding
from innervision.learn.crew import Worker
from innervision.learn.data import parts, read, reading
from innervision.learn.raw import squared


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("INNERVISION_HOME", str(home))
    return home


def noise(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def folder(root: Path, each: int = 3, names: tuple[str, ...] = ("cat", "dog", "emu")) -> np.ndarray:
    """Save `each` pictures a class; return all of them (n, c, h, w), in the order of classes and files."""
    pixels = [
        save(root / name / f"{number}.png", noise(100 * place + number))
        for place, name in enumerate(names)
        for number in range(each)
    ]
    return np.stack(pixels).transpose(0, 3, 1, 2)


# folders


def test_class_folders_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    want = folder(tmp_path / "zoo")
    found = read(tmp_path / "zoo")
    np.testing.assert_array_equal(found.images.numpy(), want)  # small squares of one size keep it
    assert found.classes == ("cat", "dog", "emu")
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found.name == "zoo"
    assert found.notes == found.skipped == ()
    assert parts(tmp_path / "zoo") == ("train",)


def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder(tmp_path, 1, ("10", "9", "2"))
    assert read(tmp_path).classes == ("2", "9", "10")


def test_parts_lie_in_folders_and_share_the_training_part_s_classes(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    folder(tmp_path / "val", 1)
    save(tmp_path / "test/emu/a.png", noise(7))
    assert parts(tmp_path) == ("train", "validation", "test")
    test = read(tmp_path, "test")
    assert test.counts() == {"cat": 0, "dog": 0, "emu": 1}
    assert len(read(tmp_path, "validation")) == 3
    assert torch.equal(read(tmp_path, "any").images, test.images)
    save(tmp_path / "test/fox/a.png", noise(8))
    with pytest.raises(Invalid, match="no class 'fox' in the classes"):
        read(tmp_path, "test")


def test_the_test_part_is_not_touched_unless_asked_for(tmp_path: Path) -> None:
    folder(tmp_path / "train")
    (tmp_path / "test/cat").mkdir(parents=True)
    (tmp_path / "test/cat/broken.png").write_bytes(b"nothing")
    assert len(read(tmp_path)) == 9
    with pytest.raises(Invalid, match=r"broken\.png"):
        read(tmp_path, "test")


def test_an_undivided_folder_has_no_test_part(tmp_path: Path) -> None:
    folder(tmp_path)
    with pytest.raises(
        Invalid, match="has no test part, only train: put the class folders into folders train and"
    ):
        read(tmp_path, "test")
    assert len(read(tmp_path, "any")) == 9


def test_what_is_no_set_of_classes_says_how_to_make_one(tmp_path: Path) -> None:
    save(tmp_path / "loose/a.png", noise(1))
    with pytest.raises(Invalid, match=r"no class folders in .*give each class a folder of its own"):
        read(tmp_path / "loose")
    folder(tmp_path / "one", 2, ("cat",))
    with pytest.raises(Invalid, match="only one class, 'cat': a classifier tells two or more apart"):
        read(tmp_path / "one")
    folder(tmp_path / "zoo", 2)
    (tmp_path / "zoo/fox").mkdir()
    with pytest.raises(Invalid, match=r"class 'fox' has no pictures: '.*fox' is empty"):
        read(tmp_path / "zoo")
    (tmp_path / "zoo/fox").rmdir()
    save(tmp_path / "zoo/loose.png", noise(2))
    assert read(tmp_path / "zoo").notes == ("1 picture in no class folder left out",)


def test_a_network_s_classes_may_be_more_and_in_another_order(tmp_path: Path) -> None:
    folder(tmp_path, 1, ("cat", "dog"))
    found = read(tmp_path, classes=("emu", "dog", "cat"))
    assert (found.classes, found.labels.tolist()) == (("emu", "dog", "cat"), [1, 2])
    with pytest.raises(Invalid, match="no class 'dog' in the network, which has cat, emu"):
        read(tmp_path, classes=("cat", "emu"))


# files that cannot be used


def test_unreadable_files_are_named_and_refused_or_skipped(tmp_path: Path) -> None:
    want = folder(tmp_path / "zoo")
    whole = (tmp_path / "zoo/cat/1.png").read_bytes()
    (tmp_path / "zoo/cat/1.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "zoo/emu/0.png").write_bytes(b"")
    (tmp_path / "zoo/emu/note.txt").write_text("no picture, and not named as one")
    with pytest.raises(
        Invalid, match=r"2 of 9 pictures of 'zoo' cannot be used: cat/1\.png: .*cut short.*emu/0\.png: "
    ):
        read(tmp_path / "zoo")
    found = read(tmp_path / "zoo", bad="skip")
    keep = [0, 2, 3, 4, 5, 7, 8]
    np.testing.assert_array_equal(found.images.numpy(), want[keep])
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert [name for name, _ in found.skipped] == ["cat/1.png", "emu/0.png"]
    assert "2 files left out that cannot be used" in found.notes
    for name in ("1", "2"):
        (tmp_path / f"zoo/emu/{name}.png").write_bytes(b"")
    with pytest.raises(Invalid, match="no picture of class 'emu' can be read"):
        read(tmp_path / "zoo", bad="skip")


def test_a_picture_with_too_many_pixels_is_never_decoded(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    save(tmp_path / "cat/huge.png", noise(1, 40, 40))
    with pytest.raises(Invalid, match=r"huge\.png.*over the limit of 1,000"):
        read(tmp_path, max_pixels=1000)
    assert len(read(tmp_path, max_pixels=1000, bad="skip")) == 6


def test_grey_pictures_in_a_coloured_set_are_told_or_refused(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    grey = save(tmp_path / "dog/grey.png", noise(1)[..., 0])
    found = read(tmp_path)
    np.testing.assert_array_equal(found.images[4].numpy(), np.stack([grey] * 3))
    assert found.notes == ("1 of 7 pictures is grey: three equal channels",)
    with pytest.raises(Invalid, match=r"1 of 7 pictures grey in a coloured set: dog/grey\.png"):
        read(tmp_path, grey="refuse")
    one = read(tmp_path, channels=1)
    assert one.images.shape == (7, 1, 16, 16)
    np.testing.assert_array_equal(one.images[4, 0].numpy(), grey)


# sizes


@pytest.mark.parametrize(("height", "width"), [(40, 60), (61, 33), (24, 24), (300, 20), (20, 7000)])
def test_a_square_is_the_middle_of_the_resized_picture(height: int, width: int) -> None:
    pixels = noise(height, height, width)
    found = squared(images.Picture(pixels), 24)
    short = min(height, width)
    if max(height, width) > 4 * short:  # what lies farther out than this has no part in the square
        middle = max(height, width) // 2
        pixels = pixels[middle - 2 * short : middle + 2 * short] if height > width else pixels
        pixels = pixels[:, middle - 2 * short : middle + 2 * short] if width > height else pixels
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    size = (round(pixels.shape[0] * 24 / short), round(pixels.shape[1] * 24 / short))
    image = F.interpolate(image, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    top, left = (size[0] - 24) // 2, (size[1] - 24) // 2
    want = (image[0, :, top : top + 24, left : left + 24] * 255).round().numpy()
    # a side that shrinks four times or more is averaged first
    np.testing.assert_allclose(found, want, atol=1 if short < 96 else 12)


def test_a_strip_is_never_as_long_as_it_would_become(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1x60,000 pixels a side of 64 would make 3,840,000 columns, 3 GiB in float."""
    sizes: list[tuple[int, int]] = []
    real = images.Picture.tensor

    def tensor(self: images.Picture, size: tuple[int, int]) -> torch.Tensor:
        sizes.append(size)
        return real(self, size)

    monkeypatch.setattr(images.Picture, "tensor", tensor)
    assert squared(images.Picture(noise(1, 1, 60_000)), 64).shape == (3, 64, 64)
    assert sizes == [(64, 256)]


def test_files_of_several_sizes_are_read_at_224(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    save(tmp_path / "cat/wide.png", noise(1, 20, 50))
    assert read(tmp_path).size == (224, 224)
    assert read(tmp_path, size=20).size == (20, 20)


# the cache


def test_a_second_reading_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "zoo")
    (tmp_path / "zoo/cat/broken.png").write_bytes(b"no picture")
    first = read(tmp_path / "zoo", bad="skip")
    monkeypatch.setattr(decoding, "squares", None)
    again = read(tmp_path / "zoo", bad="skip")
    assert torch.equal(first.images, again.images)
    assert (first.sha256, first.skipped, first.notes) == (again.sha256, again.skipped, again.notes)


def test_what_is_changed_is_decoded_anew(tmp_path: Path, home: Path) -> None:
    folder(tmp_path / "zoo")
    first = read(tmp_path / "zoo")
    file = tmp_path / "zoo/dog/1.png"
    new = save(file, noise(999))
    found = read(tmp_path / "zoo")
    np.testing.assert_array_equal(found.images[4].numpy(), new.transpose(2, 0, 1))
    assert found.sha256 != first.sha256
    os.utime(file, ns=(0, 0))
    assert read(tmp_path / "zoo").sha256 == found.sha256
    assert len(list((home / "decoded").glob("*.u8"))) == 3
    assert read(tmp_path / "zoo", size=8).size == (8, 8)


def test_a_cache_that_is_not_whole_is_made_anew(tmp_path: Path, home: Path) -> None:
    folder(tmp_path / "zoo")
    first = read(tmp_path / "zoo").images.clone()
    pixels, facts = next((home / "decoded").glob("*.u8")), next((home / "decoded").glob("*.json"))
    for damage in (
        lambda: pixels.write_bytes(b"0" * 10),
        lambda: facts.write_text("{"),
        facts.unlink,
        pixels.unlink,
    ):
        damage()
        assert torch.equal(read(tmp_path / "zoo").images, first)


def test_the_mapped_file_is_never_written_through(tmp_path: Path) -> None:
    folder(tmp_path / "zoo")
    first = read(tmp_path / "zoo")
    kept = first.images.clone()
    first.images.zero_()
    assert torch.equal(read(tmp_path / "zoo").images, kept)


def test_a_reading_that_is_stopped_leaves_nothing(tmp_path: Path, home: Path) -> None:
    folder(tmp_path / "zoo")
    work = reading(tmp_path / "zoo")
    steps = [next(work) for _ in range(4)]
    assert [(step.done, step.of) for step in steps] == [(0, 9), (1, 9), (2, 9), (3, 9)]
    work.close()
    assert list((home / "decoded").iterdir()) == []


def test_a_full_disk_is_told_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "zoo")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(decoding.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InnervisionError, match=r"these pictures take .* free some, choose a smaller size"):
        read(tmp_path / "zoo")


# processes


def test_processes_decode_the_same_and_one_that_dies_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    want = folder(tmp_path / "zoo", 8)
    (tmp_path / "zoo/cat/a broken é.png").write_bytes(b"no picture")
    before = threading.active_count()
    monkeypatch.setattr(crew, "FEW", 1)
    asked: list[str] = []
    real = Worker.decode

    def decode(self: Worker, file: Path) -> tuple[int, bytes]:
        asked.append(file.name)
        if file.name == "5.png" and file.parent.name == "dog":
            self._process.kill()  # as the system does to one that takes too much memory
        return real(self, file)

    monkeypatch.setattr(Worker, "decode", decode)
    found = read(tmp_path / "zoo", workers=2, bad="skip")
    keep = np.setdiff1d(np.arange(24), [13])
    np.testing.assert_array_equal(found.images.numpy(), want[keep])
    assert len(asked) == 25
    assert [name for name, _ in found.skipped] == ["cat/a broken é.png", "dog/5.png"]
    assert "ended the process that decoded it (exit code -9)" in found.skipped[1][1]
    assert threading.active_count() == before


# tables


def table(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,cat\nsub/b.png,dog\n",
        "\ufefffilename,class\r\na.png,cat\r\nsub/b.png,dog\r\n",
        "a.png,cat\nsub/b.png,dog\n",
        "label;width;file\ncat;16;a.png\ndog;16;sub/b.png\n",
        '"path","label"\n"a.png","cat"\n\n"sub/b.png", dog \n',
    ],
)
def test_a_table_names_files_and_labels(tmp_path: Path, text: str) -> None:
    pixels = [save(tmp_path / name, noise(n)) for n, name in enumerate(("a.png", "sub/b.png"))]
    found = read(table(tmp_path / "set.csv", text))
    np.testing.assert_array_equal(found.images.numpy(), np.stack(pixels).transpose(0, 3, 1, 2))
    assert (found.classes, found.labels.tolist(), found.name) == (("cat", "dog"), [0, 1], "set")


def test_a_table_may_say_which_part_a_file_belongs_to(tmp_path: Path) -> None:
    for n in range(4):
        save(tmp_path / f"{n}.png", noise(n))
    rows = "path,label,split\n0.png,7,train\n1.png,12,train\n2.png,12,test\n3.png,7,val\n"
    source = table(tmp_path / "set.csv", rows)
    assert parts(source) == ("train", "validation", "test")
    assert read(source).classes == ("7", "12")
    assert read(source, "test").labels.tolist() == [1]
    assert read(source, "validation").labels.tolist() == [0]
    with pytest.raises(Invalid, match="line 3: part is 'x'; it must be train, validation or test"):
        read(table(tmp_path / "odd.csv", "path,label,part\n0.png,7,train\n1.png,12,x\n"))


def test_missing_files_and_unknown_labels_are_named_with_their_line(tmp_path: Path) -> None:
    for n in range(4):
        save(tmp_path / f"{n}.png", noise(n))
    rows = "path,label\n0.png,cat\n1.png,dog\ngone.png,cat\n2.png,\n3.png,dgo\n"
    source = table(tmp_path / "set.csv", rows)
    classes = ("cat", "dog")
    with pytest.raises(
        Invalid,
        match=r"3 of 5 pictures of '.*set\.csv' cannot be used: line 4, gone\.png: no such file; "
        r"line 5, 2\.png: it has no label; line 6, 3\.png: no class 'dgo'.*Did you mean 'dog'",
    ):
        read(source, classes=classes)
    found = read(source, classes=classes, bad="skip")
    assert found.labels.tolist() == [0, 1]
    assert len(found.skipped) == 3


def test_tables_that_are_none_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(1))
    with pytest.raises(Invalid, match="is empty"):
        read(table(tmp_path / "empty.csv", "\n"))
    with pytest.raises(Invalid, match="no column for the label among path, width"):
        read(table(tmp_path / "odd.csv", "path,width\na.png,16\n"))
    with pytest.raises(Invalid, match="line 2: 1 columns, where path and label are wanted"):
        read(table(tmp_path / "short.csv", "path,label\na.png\n"))
    with pytest.raises(Invalid, match="only one class, 'cat'"):
        read(table(tmp_path / "one.csv", "path,label\na.png,cat\n"))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\0\0")
    with pytest.raises(Invalid, match="must be a text table in UTF-8"):
        read(tmp_path / "binary.csv")


def test_the_cache_is_told_as_plain_json(tmp_path: Path, home: Path) -> None:
    folder(tmp_path / "zoo", 1)
    read(tmp_path / "zoo")
    facts = json.loads(next((home / "decoded").glob("*.json")).read_text())
    assert (facts["count"], facts["bad"], facts["grey"]) == (3, [], [])
