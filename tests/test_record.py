"""Runs on disk, with a work that needs no network: numbers that halve."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from innervision import record, sheets
from innervision.core import Frame
from innervision.errors import InnervisionError, RunUnusable
from innervision.record import Input, Result, RunCard
from innervision.record.events import sizes


class Halving:
    """Frames whose total is 1024 / 2**count; every second one is kept."""

    def __init__(self, steps: int = 6, done: int = 0) -> None:
        self.steps, self.done = steps, done
        self.changes: list[tuple[int, float]] = []

    def __iter__(self) -> Iterator[Frame]:
        for count in range(self.done + 1, self.steps + 1):
            self.done = count
            if count % 2 == 0 and count > 2:
                self.changes.append((count, 1.5 * count))
            image = torch.full((1, 3, 4, 6), count / self.steps)
            total = 1024 / 2**count
            values = {"content a": total / 4, "style b": 3 * total / 4}
            yield Frame(0, count, count, self.steps, image, total, values, count == self.steps, dict)

    def snapshot_due(self, frame: Frame) -> bool:
        return frame.count % 2 == 0

    def show(self, frame: Frame) -> Image.Image:
        return Image.new("RGB", (6, 4), (frame.count, 0, 0))

    def checkpoint(self) -> dict[str, Any]:
        return {"done": self.done, "tensor": torch.arange(3)}


def card(**changes: Any) -> RunCard:
    usual = RunCard(
        command="stylize",
        line="innervision stylize a b -o c.png",
        preset="gatys",
        options={"steps": 6, "stages": ((128, 60), (512, 90)), "until": None},
        seed=0,
        inputs=(Input("content", "/a.png", "aa"), Input("style", "/b.png", "bb")),
        output="/c.png",
        versions={"innervision": "1", "torch": "2", "python": "3.11"},
        machine={"threads": 1},
    )
    return replace(usual, **changes)


def result(count: int) -> Result:
    return Result("/c.png", "cc", count, 6, 1024 / 2**count, {"style b": 1.0}, 0.5)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


TERMS = {
    "total": [512.0, 256.0, 128.0, 64.0, 32.0, 16.0],
    "content a": [128.0, 64.0, 32.0, 16.0, 8.0, 4.0],
    "style b": [384.0, 192.0, 96.0, 48.0, 24.0, 12.0],
}


def tiles(path: Path, reds: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of the picture that is (red, 0, 0) all over, for each red."""
    found = []
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet)
    for red in reds:
        rows, columns = np.nonzero((pixels == (red, 0, 0)).all(-1))
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
        assert box[2] * box[3] == len(rows)
        found.append(tuple(map(int, box)))
    return found


def counts(folder: Path, kind: str) -> list[int]:
    return [event["count"] for event in record.read_events(folder) if event["event"] == kind]


def test_a_curve_is_marked_where_the_size_changes() -> None:
    stages = [(1, (30, 40)), (2, (30, 40)), (3, (60, 80)), (4, (60, 80)), (5, (30, 40))]
    events = [{"event": "frame", "count": count, "size": list(size)} for count, size in stages]
    assert sizes(events) == {1: "40x30", 3: "80x60", 5: "40x30"}
    assert sizes(events[:2]) == sizes([]) == {}


def test_a_run_leaves_card_events_snapshots_curve_and_sheet(tmp_path: Path) -> None:
    folder, work = tmp_path / "run", Halving()
    with record.open_run(folder, card()) as run:
        assert record.read_card(folder).status == "running"
        assert len(list(run.watch(work))) == 6
        run.finish(result(6))
    assert record.read_card(folder) == replace(
        run.card, options=json.loads(json.dumps(dict(run.card.options)))
    )
    assert run.card.status == "done"
    assert run.card.result == result(6)
    assert counts(folder, "frame") == [1, 2, 3, 4, 5, 6]
    totals = [event["total"] for event in record.read_events(folder) if event["event"] == "frame"]
    assert totals == [512, 256, 128, 64, 32, 16]
    changes = [event["change"] for event in record.read_events(folder) if event["event"] == "snapshot"]
    assert changes == [None, 6.0, 9.0]
    for count in (2, 4, 6):
        with Image.open(folder / f"snapshots/{count:04d}.png") as picture:
            assert picture.getpixel((0, 0)) == (count, 0, 0)
    with Image.open(folder / "curve.png") as curve:
        assert curve.tobytes() == sheets.curve(range(1, 7), TERMS).tobytes()
    # margins of 16, three pictures of 240x160, 8 apart; below them two lines of 20 and a gap of 8
    assert tiles(folder / "sheet.png", (2, 4, 6)) == [(16 + n * 248, 16, 240, 160) for n in range(3)]
    assert size(folder / "sheet.png") == (16 + 3 * 248 - 8 + 16, 16 + 160 + 2 * 20 + 8 + 16)
    left = {path.name for path in folder.iterdir()}
    assert left == {".lock", "run.json", "events.jsonl", "snapshots", "curve.png", "sheet.png"}


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with record.open_run(tmp_path, card()) as run:
        work = Halving()
        for frame in run.watch(work):
            if frame.count == 3:
                break
        run.stop(work, result(3))
    with (tmp_path / "events.jsonl").open("a") as events:  # as a crash after the checkpoint leaves it
        events.write('{"event": "frame", "count": 4}\n{"event": "fra')
    again, saved = record.resume_run(tmp_path, card())
    assert saved["done"] == 3
    assert saved["tensor"].tolist() == [0, 1, 2]
    with again:
        list(again.watch(Halving(done=saved["done"])))
        again.finish(result(6))
    assert counts(tmp_path, "frame") == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "checkpoint.pt").exists()
    assert again.seconds > run.seconds
    with pytest.raises(RunUnusable, match="is done"):
        record.resume_run(tmp_path, card())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"options": {"steps": 7}}, "steps is 7, was 6"),
        ({"versions": {"torch": "3"}}, "torch is 3, was 2"),
        (
            {"inputs": (Input("content", "/a.png", "aa"), Input("style", "/b.png", "xx"))},
            "the style /b.png is not",
        ),
        ({"inputs": (Input("content", "/a.png", "aa"),)}, "1 files are read, 2 were"),
    ],
)
def test_a_run_that_differs_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    stop_at_once(tmp_path)
    with pytest.raises(RunUnusable, match=said):
        record.resume_run(tmp_path, card(**changes))
    run, _ = record.resume_run(tmp_path, card())  # the refusal has let go of the folder
    with run:
        assert run.card.status == "running"


def stop_at_once(folder: Path) -> None:
    with record.open_run(folder, card()) as run:
        work = Halving()
        for _ in run.watch(work):
            break
        run.stop(work, result(1))


def test_a_run_that_goes_on_keeps_its_card_but_for_the_output(tmp_path: Path) -> None:
    stop_at_once(tmp_path)
    before = record.read_card(tmp_path)
    now = card(
        line="innervision stylize --resume r",
        started="2030",
        output="/d.png",
        versions={**card().versions, "python": "3.12"},
        machine={"threads": 8},
    )
    run, _ = record.resume_run(tmp_path, now)
    with run:
        assert run.count == 1  # a checkpoint saved before the first frame is of this step
        assert record.read_card(tmp_path) == replace(before, status="running", output="/d.png")
    assert before.result == result(1)


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    stop_at_once(tmp_path)
    with (tmp_path / "events.jsonl").open("a") as events:
        events.write('\n42\n["event", "count"]\n{"other": 1}\n{"event": "frame", "count": "2"}\nnull\n')
        events.write("[" * 100_000 + "\n")
    with (tmp_path / "events.jsonl").open("ab") as events:
        events.write(b"\x00\x00\xff\n")
    run, saved = record.resume_run(tmp_path, card())
    with run:
        list(run.watch(Halving(done=saved["done"])))
        run.finish(result(6))
    assert counts(tmp_path, "frame") == [1, 2, 3, 4, 5, 6]


def test_what_the_system_refuses_in_a_run_s_folder_is_an_error_for_a_person(tmp_path: Path) -> None:
    (tmp_path / "snapshots").touch()
    with record.open_run(tmp_path, card()) as run:
        with pytest.raises(InnervisionError, match=r"cannot write .*snapshots: "):
            next(run.watch(Halving()))
        (tmp_path / "checkpoint.pt").mkdir()
        with pytest.raises(InnervisionError, match=r"cannot write .*checkpoint.pt: "):
            run.finish(result(6))
    (tmp_path / "runs").touch()
    with pytest.raises(RunUnusable, match="name another folder by --run, or keep none by --no-run"):
        record.open_run(tmp_path / "runs/one", card())


def test_a_damaged_checkpoint_or_card_is_refused(tmp_path: Path) -> None:
    stop_at_once(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"no zip")
    with pytest.raises(RunUnusable, match="damaged"):
        record.resume_run(tmp_path, card())
    (tmp_path / "checkpoint.pt").unlink()
    with pytest.raises(RunUnusable, match="no checkpoint"):
        record.resume_run(tmp_path, card())
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunUnusable, match="cannot be read"):
        record.resume_run(tmp_path, card())
    with pytest.raises(RunUnusable, match="holds no run"):
        record.read_card(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('{"started": null}', "started is None"),
        ('{"command": 3}', "command is 3"),
        ('{"options": []}', r"options is \[\]"),
        ('{"machine": "none"}', "machine is 'none'"),
        ('{"seed": "0"}', "seed is '0'"),
        ('{"inputs": [{"role": "content", "source": 1, "sha256": ""}]}', "source is 1"),
        ('{"result": {"count": 1}}', "missing"),
        ('{"result": {"count": "1"}}', "count is '1'"),
        ('{"result": {"total": "low"}}', "total is 'low'"),
        ('{"result": {"values": {"accuracy": "x"}}}', "values is {'accuracy': 'x'}"),
        ("[" * 100_000, "recursion"),
        ("{", "Expecting"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused_and_not_listed(tmp_path: Path, change: str, said: str) -> None:
    stop_at_once(tmp_path / "good")
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    path = tmp_path / "bad/run.json"
    try:
        changes = json.loads(change)
    except (ValueError, RecursionError):
        path.write_text(change)
    else:
        data = json.loads(path.read_text())
        if isinstance(changes.get("result"), dict) and said != "missing":
            changes["result"] = {**data["result"], **changes["result"]}
        path.write_text(json.dumps({**data, **changes}))
    with pytest.raises(RunUnusable, match=rf"bad/run.json' cannot be read as a run card: .*{said}"):
        record.read_card(tmp_path / "bad")
    assert [path.name for path, _ in record.list_runs(tmp_path)] == ["good"]


@pytest.mark.skipif(os.name == "nt", reason="no named pipes in folders")
def test_pipes_and_folders_in_the_place_of_files_hold_nothing_up(tmp_path: Path) -> None:
    stop_at_once(tmp_path / "good")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe/run.json")
    (tmp_path / "folder/run.json").mkdir(parents=True)
    (tmp_path / "folder/.lock").mkdir()
    assert [path.name for path, _ in record.list_runs(tmp_path)] == ["good"]
    assert not record.in_use(tmp_path / "folder")


@pytest.mark.skipif(os.name == "nt", reason="no limits on the size of files")
def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(tmp_path: Path) -> None:
    import resource

    with record.open_run(tmp_path, card()) as run:
        work = Halving()
        run.save_checkpoint(work)
        before = (tmp_path / "checkpoint.pt").read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        work.checkpoint = lambda: {"tensor": torch.zeros(1 << 16)}  # 256 KiB
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
            with pytest.raises(InnervisionError, match=r"no room to write .*checkpoint\.pt: "):
                run.save_checkpoint(work)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert not list(tmp_path.glob(".checkpoint*"))


def test_a_run_that_is_done_makes_room_before_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise InnervisionError("no room" if not (tmp_path / "checkpoint.pt").exists() else "too early")

    monkeypatch.setattr("innervision.record.run.draw_curve", full)
    with record.open_run(tmp_path, card()) as run:
        run.save_checkpoint(Halving())
        with pytest.raises(InnervisionError, match="no room"):
            run.finish(result(6))
    assert record.read_card(tmp_path).status == "done"


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    with record.open_run(tmp_path, card()):
        assert record.in_use(tmp_path)
        with pytest.raises(RunUnusable, match="another process"):
            record.open_run(tmp_path, card())
    assert not record.in_use(tmp_path)
    with pytest.raises(RunUnusable, match="holds a run already"):
        record.open_run(tmp_path, card())
    with record.open_run(tmp_path / "two words", card()):
        pass
    with pytest.raises(RunUnusable, match=r"--resume '.*two words'$"):
        record.open_run(tmp_path / "two words", card())


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("bad"), "failed"), (KeyboardInterrupt(), "stopped")]
)
def test_a_run_left_by_an_error_says_so(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), record.open_run(tmp_path, card()):
        raise error
    found = record.read_card(tmp_path)
    assert (found.status, found.error) == (status, str(error) or "KeyboardInterrupt")


def test_checkpoints_at_snapshots_when_asked(tmp_path: Path) -> None:
    with record.open_run(tmp_path, card()) as run:
        for frame in run.watch(Halving(), checkpoints=True):
            saved = tmp_path / "checkpoint.pt"
            done = torch.load(saved, weights_only=True)["work"]["done"] if saved.exists() else 0
            assert done == frame.count // 2 * 2


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("innervision.files.os.fsync", full)
    with pytest.raises(InnervisionError, match="no room to write"):
        record.open_run(tmp_path / "run", card())
    assert not (tmp_path / "run/run.json").exists()


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    for name, started in (("b", "2020"), ("a", "2021")):
        with record.open_run(tmp_path / name, card(started=started)):
            pass
    (tmp_path / "c").mkdir()
    (tmp_path / "c/run.json").write_text("nonsense")
    assert [path.name for path, _ in record.list_runs(tmp_path)] == ["b", "a"]
    assert record.list_runs(tmp_path / "nowhere") == []


def test_many_snapshots_make_a_sheet_of_twelve(tmp_path: Path) -> None:
    with record.open_run(tmp_path, card()) as run:
        list(run.watch(Halving(steps=60)))
        record.draw_sheet(record.read_events(tmp_path), tmp_path)
    # 12 of the 30, evenly from the first to the last: every 29/11th
    chosen = (2, 8, 12, 18, 24, 28, 34, 38, 44, 50, 54, 60)
    places = [(16 + n % 4 * 248, 16 + n // 4 * 216, 240, 160) for n in range(12)]
    assert tiles(tmp_path / "sheet.png", chosen) == places
    assert size(tmp_path / "sheet.png") == (16 + 4 * 248 - 8 + 16, 16 + 3 * 216 - 8 + 16)
