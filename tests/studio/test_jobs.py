"""Jobs one after the other: begun, followed, stopped, found again; with a command that only pretends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from innervision.errors import InnervisionError
from innervision.studio import labour, process, runs
from innervision.studio.files import files
from innervision.studio.history import History
from innervision.studio.ledger import Ledger
from innervision.studio.queue import Full, Jobs, Unready
from innervision.studio.runs import Job
from innervision.studio.works import WORKS

PRETENDED = Path(__file__).with_name("pretended.py")


class Here:
    """A network and a picture."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "photo.png"
        self.file.write_bytes(b"\x89PNG")

    def networks(self) -> list[str]:
        return ["vgg19"]

    def network(self, name: str) -> Mapping[str, str]:
        return {"net": name}

    def picture(self, id: str) -> Path:
        if id != "photo":
            raise InnervisionError(f"no picture {id!r}")
        return self.file

    def called(self, id: str) -> str:
        return "../My photo.of/ Ωmega.jpeg"


class Studio:
    """Jobs of a folder, begun and ended as the server does."""

    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "runs")
        self.jobs = Jobs(self.ledger, Here(folder), patience=(20, 5, 5))
        self.jobs.start()

    def submit(self, steps: int = 3, seed: int = 0) -> str:
        return self.jobs.submit("dream", {"source": "photo", "steps": steps, "seed": seed}).id

    def __getitem__(self, id: str) -> Job:
        found = self.ledger.get(id)
        assert found is not None
        return found

    def until(self, id: str, state: str, seconds: float = 60) -> Job:
        """Wait for a state; a running job must have spoken, or a Ctrl-C may meet Python while it begins."""
        told = state == "running"
        return until(lambda: self[id], lambda job: job.state == state and bool(job.step or not told), seconds)

    def steps(self, id: str) -> list[int]:
        return [event.data["step"] for event in self.ledger.history(id).since(0) if event.kind == "step"]


def until(look: Callable[[], Any], enough: Callable[[Any], bool], seconds: float = 60) -> Any:
    """Look again and again until it is enough; return what was seen."""
    end = time.monotonic() + seconds
    while not enough(seen := look()):
        assert time.monotonic() < end, f"after {seconds} s still {seen}"
        time.sleep(0.01)
    return seen


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Studio]]:
    """Begin a studio, again and again on the same folder."""
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(PRETENDED)))
    begun: list[Studio] = []

    def one() -> Studio:
        begun.append(Studio(tmp_path))
        return begun[-1]

    yield one
    for studio in begun:
        studio.jobs.close()
    assert not any(thread.name == "jobs" for thread in threading.enumerate())


@pytest.fixture
def studio(begin: Callable[[], Studio]) -> Studio:
    return begin()


def test_a_job_is_done_and_leaves_what_it_made(studio: Studio) -> None:
    id = studio.submit(steps=3)
    job = studio.until(id, "done")
    assert (job.step, job.of, job.error) == (3, 3, "")
    assert job.result is not None and job.result["finished"] is True
    assert studio.steps(id) == [1, 2, 3]
    made = {file.name: file.kind for file in files(job, studio.ledger.folder)}
    assert made == {"dream.png": "result", "events.jsonl": "data", "inputs/source-1/Ωmega.png": "input"}
    told = until(lambda: studio.ledger.history(id).since(0), lambda told: told[-1].kind == "end")
    named = [event.data["name"] for event in told if event.kind == "file"]
    assert named == ["inputs/source-1/Ωmega.png", "dream.png"]
    assert told[-1].data == {"state": "done"}
    assert next(event for event in told if event.kind == "step").data["terms"] == {"loss": 1.0}
    assert runs.read(studio.ledger.folder / id) == job  # on disk too


def test_one_at_a_time_in_the_order_asked_for(studio: Studio) -> None:
    ids = [studio.submit(steps=steps) for steps in (4000, 4000, 3)]
    for before, id in enumerate(ids[:2]):
        studio.until(id, "running")
        with studio.ledger.lock:  # all at one moment
            states = [studio[id].state for id in ids]
            assert studio.jobs.ahead(ids[2]) == 2 - before
        assert states == [*["stopped"] * before, "running", *["queued"] * (2 - before)]
        studio.jobs.stop(id)
    studio.until(ids[2], "done")
    assert [studio.jobs.ahead(id) for id in ids] == [None] * 3
    turns = [(studio[id].started, studio[id].ended) for id in ids]
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(turns))


@pytest.mark.parametrize(
    ("seed", "error"),
    [(1, "no layer 'conv9_9' in vgg19"), (2, "SIGKILL"), (5, "SIGKILL")],
    ids=["error", "killed", "leaving a child"],
)
def test_a_failure_is_told_and_hurts_no_other(studio: Studio, seed: int, error: str) -> None:
    bad, good = studio.submit(seed=seed), studio.submit()
    assert error in studio.until(bad, "failed").error
    assert studio.until(good, "done").error == ""
    assert runs.resumable(studio[bad], studio.ledger.folder) == "anew"


def test_a_job_that_is_killed_from_outside_fails(studio: Studio) -> None:
    id, next = studio.submit(steps=4000), studio.submit()
    pid = until(lambda: studio[id].pid, bool)
    until(lambda: studio.steps(id), lambda steps: len(steps) > 2)
    os.kill(pid, signal.SIGKILL)
    assert "memory" in studio.until(id, "failed").error
    studio.until(next, "done")


def test_nonsense_is_passed_over(studio: Studio) -> None:
    id = studio.submit(steps=2, seed=4)
    studio.until(id, "done")
    assert studio.steps(id) == [1, 1, 2]
    first = next(event for event in studio.ledger.history(id).since(0) if event.kind == "step")
    assert len(first.data["text"]) <= 300 and "infinite" not in first.data["terms"]
    json.dumps(first.data, allow_nan=False)


def test_numbers_that_are_none_become_none(studio: Studio) -> None:
    job = studio.until(studio.submit(seed=6), "done")
    assert job.result is not None and job.result["value"] is None


def test_stop_keeps_what_there_is(studio: Studio) -> None:
    id, waits = studio.submit(steps=4000), studio.submit()
    until(lambda: studio.steps(id), lambda steps: len(steps) > 2)
    assert studio.jobs.stop(waits).state == "stopped"  # it had not begun
    assert studio.jobs.stop(id).text == "stopping"
    job = studio.until(id, "stopped")
    assert job.step is not None and 3 <= job.step < 4000
    assert (studio.ledger.folder / id / "dream.png").is_file()
    assert studio[waits].state == "stopped"
    with pytest.raises(Unready, match="not at work"):
        studio.jobs.stop(id)


def test_a_job_that_is_stopped_while_it_begins_has_not_failed(studio: Studio) -> None:
    id = studio.submit(steps=4000, seed=7)
    until(lambda: studio.steps(id), bool)
    studio.jobs.stop(id)
    assert studio.until(id, "stopped").error == ""


def test_who_is_deaf_to_a_first_asking_is_ended_by_a_second(studio: Studio) -> None:
    id = studio.submit(steps=4000, seed=3)
    until(lambda: studio.steps(id), lambda steps: len(steps) > 1)
    studio.jobs.stop(id)
    before = len(studio.steps(id))
    until(lambda: studio.steps(id), lambda steps: len(steps) > before + 2)
    assert studio[id].state == "running"
    studio.jobs.stop(id)
    studio.until(id, "stopped")


def test_resume_begins_anew_where_a_command_cannot_go_on(studio: Studio) -> None:
    id = studio.submit(steps=20)
    until(lambda: studio.steps(id), lambda steps: len(steps) > 2)
    studio.jobs.stop(id)
    studio.until(id, "stopped")
    assert runs.resumable(studio[id], studio.ledger.folder) == "anew"
    studio.jobs.resume(id)
    assert not (studio.ledger.folder / id / "dream.png").exists()
    assert studio.until(id, "done").step == 20
    with pytest.raises(Unready, match="done"):
        studio.jobs.resume(id)


def test_the_server_stops_and_another_finds_all(begin: Callable[[], Studio]) -> None:
    first = begin()
    done = first.submit()
    first.until(done, "done")
    works, waits = first.submit(steps=4000), first.submit()
    until(lambda: first.steps(works), lambda steps: len(steps) > 2)
    first.jobs.close()
    assert first[works].state == "interrupted" and first[waits].state == "queued"
    with pytest.raises(Unready, match="stopped"):
        first.submit()
    second = begin()
    assert [second[id].state for id in (done, works, waits)] == ["done", "interrupted", "interrupted"]
    assert second.steps(works)[:3] == [1, 2, 3]  # what happened is told again
    assert second.ledger.history(works).since(0)[-1].kind == "end"
    for id in (works, waits):
        assert runs.resumable(second[id], second.ledger.folder) == "anew"
    second.jobs.resume(waits)
    second.until(waits, "done")
    assert [job.id for job in second.ledger.listing()] == [waits, works, done]


def test_a_server_in_a_hurry_waits_for_no_one(begin: Callable[[], Studio]) -> None:
    """Its job is deaf to Ctrl-C: it would wait for twenty seconds."""
    studio = begin()
    id = studio.submit(steps=4000, seed=3)
    until(lambda: studio.steps(id), bool)
    closing = threading.Thread(target=studio.jobs.close)
    closing.start()
    until(lambda: studio.jobs._child and studio.jobs._child[1].asked, bool)
    assert studio.jobs.busy
    studio.jobs.hurry()
    closing.join(15)
    assert not closing.is_alive() and not studio.jobs.busy
    assert studio[id].state == "interrupted"


def claimed(folder: Path) -> bool:
    """Whether a run's folder can be claimed: no one works in it."""
    try:
        labour.take(folder).close()
    except BlockingIOError:
        return False
    return True


def test_a_server_that_died_leaves_no_one_at_work(begin: Callable[[], Studio], tmp_path: Path) -> None:
    """Its job is deaf to Ctrl-C, and goes on: the next server ends it by force before it offers it."""
    folder = tmp_path / "runs" / "dream-1"
    (folder / "inputs").mkdir(parents=True)
    lock = labour.take(folder)
    child = process.Child(["dream", f"--output={folder / 'dream.png'}", "--steps=900", "--seed=3"], lock)
    events = child.events()
    next(events)
    lock.close()  # the server is gone; its child holds the lock on
    job = Job(
        id="dream-1", command="dream", options={}, words=("--steps=2",), output="dream.png",
        state="running", created="2026", pid=child.pid,
    )  # fmt: skip
    runs.write(job, tmp_path / "runs")
    (folder / "events.jsonl").write_text('{"event": "step", "count": 7, "of": 900}\n')
    assert not claimed(folder)
    labour.end_orphan(folder, child.pid, patience=0.3)
    until(lambda: claimed(folder), bool)
    assert [*events] and child.code == -signal.SIGKILL
    studio = begin()
    found = studio["dream-1"]
    assert (found.state, found.step, found.of) == ("interrupted", 7, 900)  # by its events
    studio.jobs.resume("dream-1")
    studio.until("dream-1", "done")


def test_two_servers_do_not_share_a_folder(begin: Callable[[], Studio]) -> None:
    first = begin()
    id = first.submit(steps=30)
    second = begin()
    assert second[id].state in ("queued", "running")  # it may be seen
    with pytest.raises(Unready, match="another studio"):
        second.submit()
    first.until(id, "done")
    second.until(id, "done")


def test_the_queue_is_bounded(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innervision.studio.queue.WAITING", 2)
    works = studio.submit(steps=4000)
    studio.until(works, "running")
    studio.submit(), studio.submit()
    with pytest.raises(Full):
        studio.submit()


def test_what_is_refused_leaves_nothing(studio: Studio) -> None:
    for options in ({}, {"source": "nobody"}, {"source": "photo", "steps": "x"}):
        with pytest.raises(InnervisionError):
            studio.jobs.submit("dream", options)
    assert studio.ledger.listing() == []


def test_remove(studio: Studio) -> None:
    works, waits = studio.submit(steps=4000), studio.submit()
    studio.until(works, "running")
    with pytest.raises(Unready, match="stop it first"):
        studio.jobs.remove(works)
    studio.jobs.remove(waits)
    studio.jobs.stop(works)
    studio.until(works, "stopped")
    studio.jobs.remove(works)
    assert studio.ledger.get(works) is None and studio.ledger.get(waits) is None
    assert not [path for path in studio.ledger.folder.iterdir() if not path.name.startswith(".")]


CARD = {
    "command": "stylize", "line": "innervision stylize", "preset": "gatys", "options": {"steps": 9},
    "seed": 0, "inputs": [], "output": "/elsewhere/painted.png", "versions": {}, "machine": {},
    "started": "2026-01-01T00:00:00", "status": "stopped", "error": "", "result": None,
}  # fmt: skip


def test_runs_of_the_command_line_appear(studio: Studio) -> None:
    """With broken ones among them, which are passed over."""
    runs_folder = studio.ledger.folder
    for name, text in {
        "good": json.dumps(CARD),
        "broken": "{",
        "list": "[]",
        "short": json.dumps({"command": "stylize"}),
        "odd": json.dumps({**CARD, "options": 7, "status": [], "result": {"x": 1}}),
        "deep": "[" * 100_000,
        "endless": json.dumps({**CARD, "status": "running"}),
    }.items():
        (runs_folder / name).mkdir(parents=True)
        (runs_folder / name / "run.json").write_text(text)
    (runs_folder / "bad-record").mkdir()
    (runs_folder / "bad-record" / "job.json").write_text('{"state": "queued", "pid": "x"}')
    (runs_folder / "file").write_text("not a folder")
    (runs_folder / "good" / "snapshots").mkdir()
    (runs_folder / "good" / "snapshots" / "0002.png").write_bytes(b"png")
    (runs_folder / "good" / "link.png").symlink_to("/etc/passwd")
    frame = {"event": "frame", "count": 2, "steps": 9, "size": [4, 6], "total": 3.0, "values": {"style": 2.0}}
    lines = [json.dumps(frame), json.dumps({"event": "snapshot", "count": 2}), '{"event": "frame", "cou']
    (runs_folder / "good" / "events.jsonl").write_text("\n".join(lines))
    listed = {job.id: job for job in studio.ledger.listing()}
    assert set(listed) == {"good", "endless"}
    good = listed["good"]
    assert (good.state, good.step, good.of, good.text, good.own) == ("stopped", 2, 9, "6 × 4 px", False)
    assert good.output is None and listed["endless"].state == "interrupted"
    names = [file.name for file in files(good, runs_folder)]
    assert names == ["events.jsonl", "run.json", "snapshots/0002.png"]
    step = studio.ledger.history("good").since(0)[0]
    assert step.data["terms"] == {"total": 3.0, "style": 2.0}
    assert runs.resumable(good, runs_folder) == ""  # there is no checkpoint
    (runs_folder / "good" / "checkpoint.pt").touch()
    assert runs.resumable(good, runs_folder) == "on"
    with pytest.raises(Unready, match="by hand"):
        studio.jobs.remove("good")


def test_a_run_at_work_on_the_command_line_is_followed(studio: Studio) -> None:
    folder = studio.ledger.folder / "cli"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({**CARD, "status": "running"}))
    with (folder / ".lock").open("ab") as lock:
        from innervision.files import claim

        claim(lock)
        assert studio["cli"].state == "running"
        with pytest.raises(Unready, match="command line"):
            studio.jobs.stop("cli")
        history = studio.ledger.history("cli")
        event = {"event": "step", "count": 4, "of": 9, "text": "epoch 1/3", "loss": 0.5, "lr": 0.1}
        (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
        studio.ledger.refresh("cli")
        studio.ledger.refresh("cli")
        assert studio.steps("cli") == [4] and history.open
        job = studio["cli"]
        assert (job.step, job.of, job.text) == (4, 9, "epoch 1/3")
    (folder / "run.json").write_text(json.dumps({**CARD, "status": "done"}))
    studio.ledger.refresh("cli")
    assert not history.open and history.since(0)[-1].data == {"state": "done"}


@pytest.mark.parametrize(
    "id", ["", ".", "..", ".studio", "../runs", "a/b", "x\0", "é" * 300, "\ud800", "nobody", "/etc"]
)
def test_ids_are_names_and_no_paths(studio: Studio, id: str) -> None:
    studio.submit(steps=1)
    assert studio.ledger.get(id) is None


def test_what_a_job_is_started_with(tmp_path: Path) -> None:
    def line(command: str, output: str | None, *, go_on: bool) -> list[str]:
        job = Job(id="a", command=command, options={}, words=("--steps=3", "x.png"), output=output)
        return labour.command_line(job, WORKS[command], tmp_path, go_on=go_on)

    at, more = f"{tmp_path}", ["--json", "--steps=3", "x.png"]
    assert line("excite", "excite.png", go_on=False) == [
        "excite", f"--output={at}/excite.png", f"--run={at}", *more,
    ]  # fmt: skip
    same = ["invert", f"--output={at}", f"--run={at}", *more]
    assert line("invert", "", go_on=True) == same  # the same words go on
    assert line("predict", None, go_on=False) == ["predict", *more]
    assert line("stylize", "painting.png", go_on=False) == [
        "stylize", f"--output={at}/painting.png", f"--run={at}", "--checkpoints", *more,
    ]  # fmt: skip
    assert line("stylize", "painting.png", go_on=True) == [
        "stylize", f"--resume={at}", f"--output={at}/painting.png", "--checkpoints", "--json",
    ]  # fmt: skip
    assert line("train", "", go_on=False) == ["train", f"--run={at}", *more]
    assert line("train", "", go_on=True) == ["train", f"--resume={at}", "--json"]


def test_a_history_is_bounded_and_keeps_its_ends() -> None:
    history = History(most=50)
    for step in range(1000):
        history.add("step", {"step": step})
    history.add("file", {"name": "a", "v": 1})
    history.add("file", {"name": "a", "v": 2})
    kept = history.since(0)
    steps = [event.data["step"] for event in kept if event.kind == "step"]
    assert len(kept) <= 51 and steps[-1] == 999 and steps[0] < 100 and steps == sorted(steps)
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 100  # evenly
    assert [event.data["v"] for event in kept if event.kind == "file"] == [2]


def test_what_a_listener_has_seen_is_not_told_again() -> None:
    history = History()
    for step in range(3):
        history.add("step", {"step": step})
    text = history.message(history.since(0)[1]).decode()
    assert text.startswith(f"id: {history.token}-2\nevent: step\ndata: {{") and text.endswith("}\n\n")
    last = text.split("\n")[0].removeprefix("id: ")
    assert [event.data["step"] for event in history.since(history.resumed(last))] == [2]
    for other in ("", "2", "00000000-2", f"{history.token}-x", f"{history.token}--5", f"{history.token}-²"):
        assert history.resumed(other) == 0


def test_many_steps_on_disk_are_read_evenly(tmp_path: Path) -> None:
    lines = [json.dumps({"event": "step", "count": n, "loss": 1.0}) for n in range(1, 9000)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines))
    steps = [step["step"] for step in runs.steps(tmp_path)]
    assert 1500 < len(steps) <= 2000 and steps[-1] == 8999 and steps[0] < 10
    assert {after - before for before, after in itertools.pairwise(steps)} == {5}
