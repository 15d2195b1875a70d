"""A real server on the loopback: many clients at once, and the command that starts it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner

from innervision.cli import cli
from innervision.cli.studio import openings
from innervision.errors import Invalid
from innervision.studio import Settings
from innervision.studio.networks import Networks
from innervision.studio.pictures import Shelf
from innervision.studio.places import Here
from innervision.studio.settings import Opening

OURS = {"X-Innervision": "1"}
NET = "guest.py-build"
NONE: dict[str, Any] = dict.fromkeys(("weights", "mean", "std", "range_", "order", "classes"))


def alone(function: Callable[..., Awaitable[Any]], *given: Any) -> None:
    """Run a coroutine in a thread of its own: in this one a browser's tests may hold an event loop."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(anyio.run, function, *given).result()


def test_fifty_clients_at_once_get_answers(tmp_path: Path, guest: str, serve: Any) -> None:
    samples = ("chelsea", "coffee", "rocket", "astronaut", "harvest")
    answers: list[tuple[int, bytes]] = []

    async def one(number: int, client: httpx.AsyncClient) -> None:
        asked = {"net": NET, "picture": f"sample-{samples[number % 5]}", "size": 32 + number}
        look = await client.post("/api/look", json=asked)
        sprite = await client.get(f"/api/look/{look.json()['key']}/stem")
        frame = await client.post(f"/api/live?net={NET}&layer=act&size=16", content=bytes(768))
        state = await client.get("/api/state")
        assert sprite.headers["x-shape"].startswith("8,")
        answers.extend((answer.status_code, answer.content) for answer in (look, sprite, frame, state))

    async def all_of_them(address: str) -> None:
        limits = httpx.Limits(max_connections=50)
        async with (
            httpx.AsyncClient(base_url=address, headers=OURS, timeout=60, limits=limits) as client,
            anyio.create_task_group() as group,
        ):
            for number in range(50):
                group.start_soon(one, number, client)

    settings = Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1)
    with serve(settings) as studio:
        alone(all_of_them, str(studio.base_url))
    assert len(answers) == 200 and {status for status, _ in answers} == {200}


def test_one_looks_through_a_network_at_a_time(tmp_path: Path, guest: str) -> None:
    networks = Networks(Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1))
    within, most = 0, 0

    def work() -> None:
        nonlocal within, most
        within += 1
        most = max(most, within)
        time.sleep(0.01)
        within -= 1

    async def several() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(networks.turn, networks[NET], work)

    alone(several)
    assert most == 1


def test_an_excitation_lets_others_look_meanwhile(tmp_path: Path, guest: str, serve: Any) -> None:
    with serve(Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1)) as client:
        path = f"/api/unit/{NET}/stem/0/excite?size=128&steps=1024"
        with client.stream("GET", path) as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event: frame"))
            with httpx.Client(base_url=client.base_url, headers=OURS, timeout=60) as other:
                look = {"net": NET, "picture": "sample-coffee", "size": 32}
                assert other.post("/api/look", json=look).status_code == 200
            assert next(line for line in lines if line.startswith("event:")) == "event: frame", "not done yet"
        # who closes the page ends the work
        assert client.get(f"/api/unit/{NET}/stem/0/excited?size=128&steps=1024").status_code == 404


def test_the_command_serves_until_it_is_interrupted(tmp_path: Path, guest: str) -> None:
    command = [sys.executable, "-m", "innervision", "studio", "--port", "0", "--no-browser", "--net", guest]
    process = subprocess.Popen(
        [*command, "--runs", str(tmp_path / "runs"), "--threads", "1", "--token", "secret-enough"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        address, _, query = process.stdout.readline().split()[2].partition("?")
        assert query == "token=secret-enough"
        assert httpx.get(f"{address}api/state", timeout=60).status_code == 401
        bearer = {"Authorization": "Bearer secret-enough"}
        answer = httpx.get(f"{address}api/state", headers=bearer, timeout=60)
        assert [one["id"] for one in answer.json()["networks"]] == [NET]
        path = f"{address}api/unit/{NET}/stem/0/excite?size=128&steps=1024"
        with httpx.stream("GET", path, headers=bearer, timeout=60) as stream:
            lines = stream.iter_lines()
            assert next(line for line in lines if line.startswith("event: frame"))
            process.send_signal(signal.SIGINT)
            assert not [line for line in lines if line.startswith("event: done")], "it ends, and is not done"
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0 and "Traceback" not in said, said


def test_the_options_of_a_guest_are_its_own(guest: str, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\n")
    given = NONE | {"mean": (0.5,), "classes": names}
    other, mine = openings(("vgg19", guest), given)
    assert other == Opening(name="vgg19")
    assert mine == Opening(name=guest, options={"mean": (0.5,)}, classes=("ant", "bee"), classes_file=names)
    here = Here(Networks(Settings(runs=tmp_path, networks=(mine,))), Shelf(tmp_path / "pictures"))
    assert here.network(NET) == {"net": guest, "mean": "0.5", "classes": str(names)}  # its jobs know them
    (alone,) = openings(("vgg19",), NONE | {"weights": "w.pth"})
    assert alone.options == {"weights_file": "w.pth"}
    with pytest.raises(Invalid, match="one network"):
        openings(("vgg19", "vgg16"), given)
    with pytest.raises(Invalid, match="vgg19"):
        openings(("vgg91",), NONE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--host", "0.0.0.0"), "--token"),
        (("--host", "0.0.0.0", "--token", "short"), "12 or more"),
        (("--net", "vgg91"), "Did you mean"),
        (("--net", "nowhere.py:build"), "no file 'nowhere.py'"),
        (("--host", "no.such.host.invalid", "--token", "long-enough-1"), "cannot listen"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    command = ["studio", "--port", "0", "--no-browser", "--runs", str(tmp_path), *words]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 2 and told in found.output
    assert len(found.output.strip().splitlines()) == 1


def test_a_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        found = CliRunner().invoke(cli, ["studio", "--port", port, "--no-browser"])
    assert found.exit_code == 2 and "another --port" in found.output
