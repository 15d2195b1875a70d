"""Downloads against a real HTTP server on the loopback that misbehaves to order; the oracle is its file."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import platformdirs
import pytest

from innervision import _transfer, store
from innervision.errors import DownloadFailed, InnervisionError, Invalid, WeightsMissing

BODY = hashlib.shake_256(b"innervision").digest(1_000_000)
SHA = hashlib.sha256(BODY).hexdigest()
OTHER = BODY[::-1]


class Server(ThreadingHTTPServer):
    """Serves `body`; each request takes the next fault of `plan`, and is recorded in `asked`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.tag: str | None = '"v1"'
        self.plan: list[str] = []
        self.asked: list[tuple[str | None, str | None]] = []  # Range, If-Range
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that went away."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, headers = self.server, self.headers
        server.asked.append((headers["Range"], headers["If-Range"]))
        fault, _, value = (server.plan.pop(0) if server.plan else "").partition(":")
        if fault == "mute":
            server.release.wait(5)
            return
        if fault == "status":
            self.send_error(int(value))
            return
        if fault == "to":
            self.send_response(302)
            self.send_header("Location", value)
            self.end_headers()
            return
        body, start = server.body, 0
        same = headers["If-Range"] in (None, server.tag)
        if headers["Range"] and same and fault != "no-range":
            start = int(headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            start += int(value) if fault == "other-range" else 0
            body = body[: start + int(value)] if fault == "short-range" else body
            whole = "*" if fault == "unsized" else len(server.body)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{whole}")
        if server.tag:
            self.send_header("ETag", server.tag)
        if fault != "unsized":
            self.send_header("Content-Length", str(len(body) - start + int(value if fault == "lie" else 0)))
        self.end_headers()
        end = start + int(value) if fault in ("cut", "stall") else None
        self.wfile.write(body[start:end])
        if fault == "stall":
            self.wfile.flush()
            server.release.wait(5)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "INNERVISION_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_transfer, "_PAUSES", (0.01, 0.01, 0.01))
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights.pth"


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


# --- downloads ---


def test_download_brings_the_file_and_leaves_nothing_else(server: Server, path: Path) -> None:
    seen = list(store.download(server.url, path, sha256=SHA, size=len(BODY)))
    assert path.read_bytes() == BODY
    assert names(path) == ["weights.pth"]
    assert seen[0] == store.Progress(0, len(BODY))
    assert seen[-1] == store.Progress(len(BODY), len(BODY))
    assert [p.done for p in seen] == sorted({p.done for p in seen})


def test_a_file_that_is_there_is_not_fetched_and_a_wrong_one_is_replaced(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(OTHER)
    assert store.fetch(server.url, path, sha256=SHA) == path
    assert path.read_bytes() == BODY
    assert list(store.download(server.url, path, sha256=SHA)) == [store.Progress(len(BODY), len(BODY))]
    assert len(server.asked) == 1


def test_checksum_may_be_a_prefix_in_capitals_or_an_md5(server: Server, path: Path) -> None:
    store.fetch(server.url, path.with_name("a"), sha256=SHA[:8].upper())
    store.fetch(server.url, path.with_name("b"), md5=hashlib.md5(BODY).hexdigest())
    assert path.with_name("a").read_bytes() == path.with_name("b").read_bytes() == BODY
    with pytest.raises(DownloadFailed, match=r"md5 0{32} expected"):
        store.fetch(server.url, path, md5="0" * 32)


@pytest.mark.parametrize("fault", ["cut:300000", "stall:300000"])
def test_a_broken_line_is_gone_on_with(server: Server, path: Path, fault: str) -> None:
    server.plan = [fault, "cut:200000"]
    seen = list(store.download(server.url, path, sha256=SHA, timeout=0.3))
    assert path.read_bytes() == BODY
    assert server.asked == [(None, None), ("bytes=300000-", '"v1"'), ("bytes=500000-", '"v1"')]
    assert {p.total for p in seen} == {len(BODY)}
    assert names(path) == ["weights.pth"]


@pytest.mark.parametrize("fault", ["cut:0", "stall:0", "mute"])
def test_a_line_that_stays_broken_fails_and_the_next_call_goes_on(
    server: Server, path: Path, fault: str
) -> None:
    server.plan = ["cut:300000", fault, fault, fault]
    with pytest.raises(DownloadFailed, match=r"broke off at 300,000 bytes .* trying again goes on"):
        store.fetch(server.url, path, sha256=SHA, timeout=0.1)
    assert len(server.asked) == 4
    assert not path.exists()
    store.fetch(server.url, path, sha256=SHA)
    assert server.asked[4] == ("bytes=300000-", '"v1"')
    assert path.read_bytes() == BODY
    assert names(path) == ["weights.pth"]


def test_stopping_to_iterate_keeps_the_part(server: Server, path: Path) -> None:
    server.plan = ["stall:300000"]
    progress = store.download(server.url, path, sha256=SHA, timeout=5)
    while next(progress).done < 300_000:
        pass
    progress.close()  # type: ignore[attr-defined]
    assert names(path) == ["weights.pth.part", "weights.pth.part.tag"]
    store.fetch(server.url, path, sha256=SHA)
    assert server.asked[1] == ("bytes=300000-", '"v1"')
    assert path.read_bytes() == BODY


def test_a_length_stated_too_long_is_seen_through(server: Server, path: Path) -> None:
    server.plan = ["lie:100"]
    store.fetch(server.url, path, sha256=SHA)
    assert server.asked[1] == (f"bytes={len(BODY)}-", '"v1"')  # answered 416: nothing lacks
    assert path.read_bytes() == BODY


def test_a_length_stated_too_short_is_a_wrong_file(server: Server, path: Path) -> None:
    server.plan = ["lie:-100"]
    found = hashlib.sha256(BODY[:-100]).hexdigest()
    with pytest.raises(DownloadFailed, match=f"sha256 {SHA} expected, {found} found"):
        store.fetch(server.url, path, sha256=SHA)
    assert names(path) == []
    with pytest.raises(DownloadFailed, match="has 999,900 bytes where 1,000,000 are expected"):
        server.plan = ["lie:-100"]
        store.fetch(server.url, path, sha256=SHA, size=len(BODY))


def test_no_length_at_all(server: Server, path: Path) -> None:
    server.plan = ["unsized"]
    assert {p.total for p in store.download(server.url, path, sha256=SHA)} == {None}
    assert path.read_bytes() == BODY


def test_a_wrong_body_is_thrown_away(server: Server, path: Path) -> None:
    server.body = OTHER
    with pytest.raises(DownloadFailed, match=hashlib.sha256(OTHER).hexdigest()) as error:
        store.fetch(server.url, path, sha256=SHA[:8])
    assert f"sha256 {SHA[:8]} expected" in str(error.value)
    assert "\n" not in str(error.value)
    assert names(path) == []


@pytest.mark.parametrize("fault", ["no-range", "other-range:5"])
def test_a_server_without_honest_ranges_starts_anew(server: Server, path: Path, fault: str) -> None:
    server.plan = ["cut:300000", fault]
    store.fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY


def test_a_range_shorter_than_was_asked_for_is_gone_on_with(server: Server, path: Path) -> None:
    server.plan = ["cut:300000", "short-range:100000", "unsized"]  # the last: a range of a file of any length
    store.fetch(server.url, path, sha256=SHA, size=len(BODY))
    assert [asked for asked, _ in server.asked] == [None, "bytes=300000-", "bytes=400000-"]
    assert path.read_bytes() == BODY


def test_a_file_changed_between_the_parts_is_fetched_whole(server: Server, path: Path) -> None:
    server.body, server.plan = OTHER, ["cut:300000", "status:503", "status:503", "status:503"]
    with pytest.raises(DownloadFailed):
        store.fetch(server.url, path, sha256=SHA)
    server.body, server.tag = BODY, '"v2"'
    store.fetch(server.url, path, sha256=SHA)
    assert server.asked[-1] == ("bytes=300000-", '"v1"')
    assert path.read_bytes() == BODY


def test_a_change_that_the_server_hides_is_caught_by_the_checksum(server: Server, path: Path) -> None:
    server.body, server.tag = OTHER, None
    server.plan = ["cut:300000", *["cut:0"] * 3]
    with pytest.raises(DownloadFailed, match="broke off"):
        store.fetch(server.url, path, sha256=SHA)
    server.body = BODY
    with pytest.raises(DownloadFailed, match="is not the expected file"):
        store.fetch(server.url, path, sha256=SHA)
    store.fetch(server.url, path, sha256=SHA)
    assert [asked for asked, _ in server.asked[-2:]] == ["bytes=300000-", None]
    assert path.read_bytes() == BODY


def test_a_weak_tag_is_not_used_to_resume(server: Server, path: Path) -> None:
    server.tag, server.plan = 'W/"v1"', ["cut:300000"]
    store.fetch(server.url, path, sha256=SHA)
    assert server.asked[1] == ("bytes=300000-", None)


def test_a_part_longer_than_the_file_is_dropped(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pth.part").write_bytes(BODY + b"more")
    store.fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY


def test_not_found_is_said_at_once_and_a_busy_server_is_asked_again(server: Server, path: Path) -> None:
    server.plan = ["status:404"]
    with pytest.raises(DownloadFailed, match="answered 404 Not Found") as error:
        store.fetch(server.url, path, sha256=SHA)
    assert f"save it as {path} (sha256 {SHA})" in str(error.value)
    assert len(server.asked) == 1
    server.plan = ["status:500", "status:503"]
    store.fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY
    path.unlink()
    server.plan = ["status:500"] * 4
    with pytest.raises(DownloadFailed, match="500"):
        store.fetch(server.url, path, sha256=SHA)


def test_redirects_are_followed_within_http_only(server: Server, path: Path, tmp_path: Path) -> None:
    server.plan = ["to:/moved"]
    store.fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY
    path.unlink()
    server.plan = ["to:ftp://127.0.0.1/x"]
    with pytest.raises(DownloadFailed, match="redirects to ftp://127"):
        store.fetch(server.url, path, sha256=SHA)
    server.plan = ["to:/again"] * 20
    with pytest.raises(DownloadFailed, match=r"answered 302 .*infinite loop") as error:
        store.fetch(server.url, path, sha256=SHA)
    assert "\n" not in str(error.value)
    secure = urllib.request.Request("https://example.org/x")
    with (tmp_path / "body").open("wb") as body, pytest.raises(DownloadFailed, match="not https"):
        headers = _transfer.http.client.HTTPMessage()
        _transfer._Redirects().redirect_request(secure, body, 302, "Found", headers, "http://example.org/x")


# --- no network ---


def test_offline_asks_nobody_and_says_what_to_do(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNERVISION_OFFLINE", "1")
    with pytest.raises(WeightsMissing, match="INNERVISION_OFFLINE is set") as error:
        store.fetch(server.url, path, sha256=SHA)
    assert f"fetch {server.url} by hand and save it as {path} (sha256 {SHA})" in str(error.value)
    assert not server.asked
    assert not path.parent.exists()
    monkeypatch.setenv("INNERVISION_OFFLINE", "0")
    store.fetch(server.url, path, sha256=SHA)


def test_a_refused_connection_says_what_to_do(server: Server, path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/weights.pth"
        with pytest.raises(WeightsMissing, match="no connection to 127") as error:
            store.fetch(url, path, sha256=SHA)
    assert f"fetch {url} by hand and save it as {path} (sha256 {SHA})" in str(error.value)


def test_a_name_that_does_not_resolve(server: Server, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(WeightsMissing, match=r"no connection to weights\.example .*Name or service"):
        store.fetch("https://weights.example/w.pth", path, sha256=SHA)


def test_a_network_lost_on_the_way_is_a_broken_line(
    server: Server, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    server.plan = ["cut:300000"]
    progress = store.download(server.url, path, sha256=SHA)
    next(progress)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(DownloadFailed, match=r"broke off at 300,000 bytes .*Name or service"):
        list(progress)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "data:,x", "weights.pth"])
def test_only_http(url: str, path: Path) -> None:
    with pytest.raises(Invalid, match="only http"):
        store.download(url, path, sha256=SHA)


@pytest.mark.parametrize(
    "sums", [{}, {"sha256": SHA, "md5": "0" * 32}, {"sha256": "abc"}, {"sha256": "x" * 8}]
)
def test_a_checksum_is_needed(sums: dict[str, str], path: Path) -> None:
    with pytest.raises(Invalid):
        store.download("https://x/y", path, **sums)


# --- several at once ---


def test_two_threads_fetch_once(server: Server, path: Path) -> None:
    server.plan = ["stall:300000"]
    first = store.download(server.url, path, sha256=SHA, timeout=5)
    while next(first).done < 300_000:
        pass
    second = store.download(server.url, path, sha256=SHA)
    assert next(second) == store.Progress(300_000, None)  # the other's
    server.plan = ["cut:700000"]
    server.release.set()
    for _ in first:
        pass
    assert list(second)[-1] == store.Progress(len(BODY), len(BODY))
    assert len(server.asked) == 2  # the first, and its going on
    assert path.read_bytes() == BODY
    assert names(path) == ["weights.pth"]


def test_two_processes_fetch_once(server: Server, path: Path) -> None:
    source = str(Path(store.__file__).parents[1])
    code = f"from innervision import store; store.fetch({server.url!r}, {str(path)!r}, sha256={SHA!r})"
    environment = os.environ | {"PYTHONPATH": source}
    running = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(server.asked) == 1
    assert path.read_bytes() == BODY
    assert names(path) == ["weights.pth"]


def test_a_lock_left_by_a_killed_process_does_not_hold(server: Server, path: Path) -> None:
    path.parent.mkdir()
    path.with_name("weights.pth.lock").touch()
    store.fetch(server.url, path, sha256=SHA)
    assert names(path) == ["weights.pth"]


# --- files ---


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let the system refuse to write past `size`, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_room_for_a_download(server: Server, path: Path) -> None:
    with largest_file(400_000), pytest.raises(InnervisionError, match=r"no room to write .*weights\.pth"):
        store.fetch(server.url, path, sha256=SHA)
    assert len(server.asked) == 1  # asking again makes no room
    store.fetch(server.url, path, sha256=SHA)
    assert path.read_bytes() == BODY


def test_a_folder_that_may_not_be_written_names_what_chooses_another(
    server: Server, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "file"
    home.touch()
    for chosen, said in ((home, "set INNERVISION_HOME to"), (tmp_path / "other", "choose")):
        monkeypatch.setenv("INNERVISION_HOME", str(chosen))
        with pytest.raises(InnervisionError, match=rf"cannot write .*: Not a directory; {said} a folder"):
            store.fetch(server.url, home / "weights" / "w.pth", sha256=SHA)
    assert not server.asked
    monkeypatch.setenv("INNERVISION_HOME", "~nobody-of-this-name/x")
    with pytest.raises(Invalid, match="no such user"):
        store.home()


def test_atomic_replaces_whole(path: Path) -> None:
    with store.atomic(path) as draft:
        assert draft.parent == path.parent
        assert draft.suffix == path.suffix
        draft.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    assert names(path) == ["weights.pth"]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask  # readable to others, as any other file


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_keeps_the_old_file_when_writing_fails(path: Path, error: type[BaseException]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"old")
    with pytest.raises(error), store.atomic(path) as draft:
        draft.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(path) == ["weights.pth"]


def test_atomic_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with store.atomic(tmp_path / "link") as draft:
        draft.write_bytes(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_atomic_on_a_full_disk(path: Path) -> None:
    with (
        largest_file(1000),
        pytest.raises(InnervisionError, match="no room to write"),
        store.atomic(path) as d,
    ):
        d.write_bytes(bytes(2000))
    assert names(path) == []
    with pytest.raises(InnervisionError, match="no room to write"), store.atomic(path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_atomic_where_nothing_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = re.escape(f"cannot write {tmp_path / 'file' / 'x'}")
    with pytest.raises(InnervisionError, match=said), store.atomic(tmp_path / "file" / "x"):
        pytest.fail("the block must not run")


def test_sha256_of_the_empty_file(tmp_path: Path) -> None:
    (tmp_path / "e").touch()
    assert store.sha256(tmp_path / "e").startswith("e3b0c44298fc1c14")
    assert store.checksum(tmp_path / "e", "md5") == "d41d8cd98f00b204e9800998ecf8427e"


def test_home_is_chosen_or_the_systems_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path / "mine"))
    assert store.home() == tmp_path / "mine"
    assert not store.home().exists()
    monkeypatch.setenv("INNERVISION_HOME", "~/mine")
    assert store.home() == Path.home() / "mine"
    monkeypatch.delenv("INNERVISION_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.home() == platformdirs.user_cache_path("innervision")
    assert not (tmp_path / "xdg").exists()
