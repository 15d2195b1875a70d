"""The API of jobs over HTTP: forms, files, streams; with a command that only pretends to work."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from innervision.studio import Settings, create_app, jobs, process
from innervision.studio.serving import Server

PRETENDED = Path(__file__).with_name("pretended.py")
OURS = {"X-Innervision": "1"}


@pytest.fixture(scope="module")
def served(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    patch = pytest.MonkeyPatch()
    patch.setattr(process, "PROGRAM", (sys.executable, str(PRETENDED)))
    patch.setattr(jobs, "BEAT", 0.2)
    with serve(Settings(runs=tmp_path_factory.mktemp("studio") / "runs")) as client:
        client.headers.update(OURS)
        yield client, client.app.state
    patch.undo()


@pytest.fixture
def client(served: tuple[Any, Any]) -> Any:
    return served[0]


def submit(client: Any, **options: Any) -> str:
    answer = client.post(
        "/api/jobs", json={"command": "dream", "options": {"source": "sample-rocket", **options}}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def ended(client: Any, id: str) -> dict[str, Any]:
    """Follow a job to its end; return it."""
    stream = client.get(f"/api/jobs/{id}/events")
    assert stream.text.rstrip().split("\n")[-2] == "event: end"
    return client.get(f"/api/jobs/{id}").json()


def events(text: str) -> list[tuple[str, Any, str]]:
    """Return a stream's events: kind, data, id."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if line[:1] not in ("", ":"))
        if "event" in fields:
            found.append((fields["event"], json.loads(fields["data"]), fields["id"]))
    return found


def test_the_forms(client: Any) -> None:
    found = {form["name"]: form for form in client.get("/api/commands").json()}
    assert {"stylize", "dream", "invert", "train", "excite"} <= set(found)
    assert found["stylize"]["options"][0]["kind"] == "picture"
    assert found["train"]["resumable"] and not found["dream"]["resumable"]


def test_a_job_from_its_form_to_its_file(client: Any) -> None:
    id = submit(client, steps=2)
    job = ended(client, id)
    assert (job["state"], job["step"], job["of"], job["resumable"]) == ("done", 2, 2, False)
    assert job["options"] == {"source": "sample-rocket", "steps": 2} and job["result"]["finished"]
    files = {file["name"]: file for file in job["files"]}
    answer = client.get(files["dream.png"]["url"])
    assert answer.content == b"\x89PNG what there is"
    assert answer.headers["content-type"] == "image/png" and "max-age" in answer.headers["cache-control"]
    again = client.get(f"/api/jobs/{id}/files/dream.png", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304 and not again.content
    part = client.get(files["dream.png"]["url"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"\x89PNG")
    assert client.get(files["inputs/source-1/rocket.png"]["url"]).headers["content-type"] == "image/png"
    assert [one["id"] for one in client.get("/api/jobs?most=1").json()] == [id]


HIDDEN = (
    "secret", "job.json", "checkpoint.pt", ".job.lock", "nothing", "../x", "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd", "inputs", "inputs/", "inputs//source-1/rocket.png", "inputs/source-1", "%00", "a" * 3000,
)  # fmt: skip


def test_files_are_those_of_the_list_alone(served: tuple[Any, Any]) -> None:
    client, state = served
    id = submit(client, steps=1)
    ended(client, id)
    folder = state.jobs.folder / id
    (folder / "page.html").write_text("<script>fetch('/api/jobs')</script>")
    (folder / "drawing.svg").write_text("<svg onload='alert(1)'/>")
    (folder / "secret").symlink_to("/etc/passwd")
    (folder / "checkpoint.pt").write_bytes(b"weights")
    names = {file["name"] for file in client.get(f"/api/jobs/{id}").json()["files"]}
    assert {"page.html", "drawing.svg"} <= names and not {"secret", "job.json", "checkpoint.pt"} & names
    page = client.get(f"/api/jobs/{id}/files/page.html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox;") and "script" not in policy and "allow" not in policy
    drawing = client.get(f"/api/jobs/{id}/files/drawing.svg")
    assert drawing.headers["content-type"] == "application/octet-stream"
    assert drawing.headers["content-disposition"].startswith("attachment")
    assert drawing.headers["x-content-type-options"] == "nosniff"
    for name in HIDDEN:
        answer = client.get(f"/api/jobs/{id}/files/{name}")
        assert answer.status_code == 404, name
        assert b"root:" not in answer.content


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"command": "dream", "options": {"source": "nobody"}}, 404),
        ({"command": "dream", "options": {"source": "../../etc/passwd"}}, 404),
        ({"command": "dream", "options": {"source": "sample-rocket", "steps": "x"}}, 400),
        ({"command": "dream", "options": {"source": "sample-rocket", "output": "/tmp/x"}}, 400),
        ({"command": "rm -rf /", "options": {}}, 400),
        ({"command": "dream", "options": []}, 422),
        ({"command": "dream", "words": ["--output=/tmp/x"]}, 422),
        ({}, 422),
        ([], 422),
    ],
)
def test_what_is_refused(client: Any, body: Any, status: int) -> None:
    before = client.get("/api/jobs").json()
    answer = client.post("/api/jobs", json=body)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["detail"], str)
    assert client.get("/api/jobs").json() == before


@pytest.mark.parametrize(
    "body", ["[" * 100_000, '{"command": ', "1" * 5000, '{"command": "\\ud800"}', "\xff"]
)
def test_a_body_that_is_no_job(client: Any, body: str) -> None:
    answer = client.post(
        "/api/jobs", content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
    )
    assert 400 <= answer.status_code < 500 and isinstance(answer.json()["detail"], str)


def test_without_the_header_nothing_begins(client: Any) -> None:
    for method, path in (("POST", "/api/jobs"), ("DELETE", "/api/jobs/x"), ("POST", "/api/jobs/x/stop")):
        assert client.request(method, path, headers={"X-Innervision": "0"}).status_code == 403


def test_states_that_do_not_go_together(client: Any) -> None:
    id = submit(client, steps=1)
    ended(client, id)
    assert client.post(f"/api/jobs/{id}/stop").status_code == 409
    assert client.post(f"/api/jobs/{id}/resume").status_code == 409
    assert client.delete(f"/api/jobs/{id}").status_code == 204
    for answer in (client.get(f"/api/jobs/{id}"), client.delete(f"/api/jobs/{id}"),
                   client.post(f"/api/jobs/{id}/stop"), client.get(f"/api/jobs/{id}/events")):  # fmt: skip
        assert answer.status_code == 404 and isinstance(answer.json()["detail"], str)


def test_stop_and_resume(client: Any) -> None:
    id = submit(client, steps=2000)
    while client.get(f"/api/jobs/{id}").json()["step"] is None:
        time.sleep(0.02)
    assert client.delete(f"/api/jobs/{id}").status_code == 409
    assert client.post(f"/api/jobs/{id}/stop").json()["state"] == "running"
    job = ended(client, id)
    assert (job["state"], job["resumable"], job["resume"]) == ("stopped", True, "anew")


def test_many_follow_one_job_from_where_they_were(served: tuple[Any, Any]) -> None:
    client, _ = served
    id = submit(client, steps=30)
    texts: dict[int, str] = {}

    def follow(number: int) -> None:
        texts[number] = httpx.get(client.base_url.join(f"/api/jobs/{id}/events"), timeout=60).text

    threads = [threading.Thread(target=follow, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for text in texts.values():
        kinds = [kind for kind, _, _ in events(text)]
        assert [data["step"] for kind, data, _ in events(text) if kind == "step"] == [*range(1, 31)]
        assert kinds[-1] == "end" and "file" in kinds and "state" in kinds
    whole = events(texts[0])
    last = whole[-4][2]
    rest = client.get(f"/api/jobs/{id}/events", headers={"Last-Event-ID": last})
    assert [one[2] for one in events(rest.text)] == [one[2] for one in whole[-3:]]
    anew = client.get(f"/api/jobs/{id}/events", headers={"Last-Event-ID": "00000000-12"})
    assert events(anew.text)[-1][0] == "end" and len(events(anew.text)) >= 30


def test_who_goes_is_let_go_and_who_stays_hears_beats(served: tuple[Any, Any]) -> None:
    client, state = served
    first, waits = submit(client, steps=2000), submit(client)
    history = state.jobs.ledger.history(waits)
    with client.stream("GET", f"/api/jobs/{waits}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.iter_lines()
        assert ": " in [next(lines) for _ in range(12)]  # nothing happens to it yet, but the line is open
        assert history.listeners == 1
    end = time.monotonic() + 60
    while history.listeners:
        assert time.monotonic() < end, "a listener that has gone is still held"
        time.sleep(0.02)
    client.post(f"/api/jobs/{first}/stop")
    assert ended(client, waits)["state"] == "done"


def test_a_second_ctrl_c_is_answered_by_a_line(tmp_path: Path) -> None:
    """And ends the job; uvicorn's own second is a trace, and leaves the job to itself."""
    app, said, hurried = FastAPI(), list[str](), threading.Event()
    app.state.jobs = SimpleNamespace(busy=True, hurry=hurried.set)
    server = Server(app, uvicorn.Config(app), say=said.append)
    for _ in range(3):
        server.handle_exit(signal.SIGINT, None)
    assert server.should_exit and not server.force_exit and hurried.wait(10)
    assert [line.partition(";")[0] for line in said] == ["stopping", "stopping at once"]


def test_a_server_that_stops_lets_go_of_who_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the streams itself: it would wait for them, here for a minute."""
    monkeypatch.setattr(process, "PROGRAM", (sys.executable, str(PRETENDED)))
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    app = create_app(Settings(runs=tmp_path / "runs", port=port))
    config = uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=60)
    server = Server(app, config)
    threads = [threading.Thread(target=server.run, kwargs={"sockets": [listening]})]
    threads[0].start()
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=OURS, timeout=60)
    with client, listening:
        while not server.started:
            time.sleep(0.01)
        id = submit(client, steps=2000)
        texts: list[str] = []
        follow = lambda: texts.append(client.get(f"/api/jobs/{id}/events").text)  # noqa: E731
        threads.append(threading.Thread(target=follow))
        threads[1].start()
        while app.state.jobs.ledger.history(id).listeners == 0 or app.state.jobs.ledger.jobs[id].step is None:
            time.sleep(0.01)
        server.should_exit = True
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert "event: step" in texts[0] and texts[0].endswith("\n\n") and "event: end" not in texts[0]
    assert json.loads((tmp_path / "runs" / id / "job.json").read_text())["state"] == "interrupted"
