"""Who may ask the studio, and what it does with hostile requests: never an answer of 500 and above."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from innervision.errors import Invalid
from innervision.studio import Settings, pictures, security
from innervision.studio.settings import Opening

OURS = {"X-Innervision": "1"}


def settings(folder: Path, guest: str, **more: Any) -> Settings:
    return Settings(
        runs=folder / "runs", static=folder / "static", networks=(Opening(name=guest),), threads=1, **more
    )


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, guest: str, serve: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("safe")
    (folder / "static/assets").mkdir(parents=True)
    (folder / "static/index.html").write_text("<!doctype html><title>studio</title>")
    (folder / "static/assets/app-1a2b.js").write_text("export {};")
    (folder / "secret.txt").write_text("keep out")
    (folder / "static/link.txt").symlink_to(folder / "secret.txt")
    with serve(settings(folder, guest)) as found:
        yield found


def png(width: int = 8, height: int = 6, colour: tuple[int, int, int] = (200, 30, 60)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str) and detail and "\n" not in detail
    return detail


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:{}",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.0.0.1:{}.evil.example",
        "localhost:1{}",
        "",
        "10.0.0.1:{}",
    ],
)
def test_another_host_is_refused(studio: Any, host: str) -> None:
    for path in ("/", "/api/state", "/api/pictures/x"):
        sentence(studio.get(path, headers={"Host": host.format(studio.base_url.port)}), 403)


@pytest.mark.parametrize("host", ["127.0.0.1:{}", "localhost:{}", "LOCALHOST:{}"])
def test_our_own_names_are_answered(studio: Any, host: str) -> None:
    assert studio.get("/api/state", headers={"Host": host.format(studio.base_url.port)}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1:{}", "http://[bad", "file://"],
)
def test_another_origin_is_refused(studio: Any, origin: str) -> None:
    given = {"Origin": origin.format(studio.base_url.port)}
    sentence(studio.get("/api/state", headers=given), 403)
    sentence(studio.post("/api/pictures", content=png(), headers={**OURS, **given}), 403)


def test_our_own_origin_is_answered(studio: Any) -> None:
    given = {"Origin": str(studio.base_url).rstrip("/")}
    answer = studio.post("/api/pictures", content=png(), headers={**OURS, **given})
    assert answer.status_code == 201
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_what_changes_something_needs_the_header(studio: Any) -> None:
    sentence(studio.post("/api/pictures", content=png()), 403)
    sentence(studio.post("/api/look", json={"net": "x", "picture": "y"}), 403)
    sentence(studio.delete("/api/pictures/x"), 403)
    assert studio.options("/api/pictures", headers={"Origin": "https://evil.example"}).status_code == 403


def test_another_page_may_not_even_look(studio: Any) -> None:
    for site in ("cross-site", "same-site"):
        sentence(studio.get("/api/state", headers={"Sec-Fetch-Site": site}), 403)
    assert studio.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200, "a link to the page"


def test_every_answer_has_the_safe_headers(studio: Any) -> None:
    for answer in (
        studio.get("/"),
        studio.get("/api/state"),
        studio.get("/api/none"),
        studio.get("/", headers={"Host": "evil.example"}),
    ):
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
        assert policy["img-src"] == "'self' data: blob:" and policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_token_is_wanted_as_cookie_or_bearer(tmp_path: Path, guest: str, serve: Any) -> None:
    with serve(settings(tmp_path, guest, token="open-sesame-1")) as studio:
        assert "token" in sentence(studio.get("/api/state"), 401)
        sentence(studio.get("/api/state", params={"token": "open-sesame-1"}), 401)
        sentence(studio.get("/?token=wrong"), 401)
        for given in ("Bearer wrong", "Bearer", "Basic open-sesame-1", "Bearer öäü"):
            sentence(studio.get("/api/state", headers={"Authorization": given.encode()}), 401)
        bearer = {"Authorization": "Bearer open-sesame-1"}
        assert studio.get("/api/state", headers=bearer).status_code == 200
        answer = studio.get("/?token=open-sesame-1", follow_redirects=False)
        assert answer.status_code == 303 and answer.headers["location"] == "/"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert studio.get("/api/state").status_code == 200, "the cookie is kept"


def test_another_address_needs_a_token(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "192.168.1.7", "studio.example"):
        with pytest.raises(Invalid, match="--token"):
            security.check(Settings(host=host, runs=tmp_path))
        with pytest.raises(Invalid, match="12 or more"):
            security.check(Settings(host=host, token="short", runs=tmp_path))
        security.check(Settings(host=host, token="long-enough-1", runs=tmp_path))
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        security.check(Settings(host=host, runs=tmp_path))
    with pytest.raises(Invalid, match="letters"):
        security.check(Settings(token="a b; c", runs=tmp_path))


def test_names_under_which_an_open_address_answers(tmp_path: Path) -> None:
    settings = Settings(host="0.0.0.0", token="long-enough-1", runs=tmp_path)
    guard = security.Guard(lambda *_: None, settings)  # pyright: ignore[reportArgumentType]
    scope = {"server": ("192.168.1.7", 8765)}
    for host in ("192.168.1.7:8765", "localhost:8765", "127.0.0.1:8765", "[::1]:8765"):
        assert guard.is_ours(host, scope), host
    for host in (
        "evil.example:8765",
        "192.168.1.8:8765",
        "192.168.1.7",
        "192.168.1.7:80",
        "0.0.0.0:8765",
        ":8765",
    ):
        assert not guard.is_ours(host, scope), "only figures that were asked, for names can be rebound"


def test_the_page_and_its_files_and_nothing_else(studio: Any) -> None:
    assert "<title>studio</title>" in studio.get("/").text
    script = studio.get("/assets/app-1a2b.js")
    assert "javascript" in script.headers["content-type"] and "immutable" in script.headers["cache-control"]
    for path in (
        "/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/assets/..%2f..%2fsecret.txt",
        "/link.txt", "//etc/passwd", "/%2fetc%2fpasswd", "/assets", "/a%00b", "/" + "a" * 5000,
    ):  # fmt: skip
        answer = studio.get(path)
        assert answer.status_code == 404 and "keep out" not in answer.text, path


def test_without_the_pages_it_says_how_to_build_them(tmp_path: Path, guest: str, serve: Any) -> None:
    with serve(settings(tmp_path, guest)) as studio:
        answer = studio.get("/")
        assert answer.status_code == 200 and "make studio" in answer.text
        assert "<script" not in answer.text and "style" not in answer.text
        assert studio.get("/api/state").status_code == 200


# Uploads


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes that says it has so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 415),
        (b"not a picture", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", 415),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", 415),
        (png()[:40], 415),
        (b"\xff\xd8\xff\xe0" + b"\0" * 100, 415),
        (bomb(60_000, 60_000), 413),
        (bomb(2**31 - 1, 2**31 - 1), 413),
        (bomb(0, 5), 415),
    ],
)
def test_what_is_no_picture_within_bounds_is_refused(studio: Any, data: bytes, status: int) -> None:
    detail = sentence(studio.post("/api/pictures", content=data, headers=OURS), status)
    assert ".part" not in detail and "/tmp" not in detail, "no path of the server's"


def test_reading_stops_at_the_limit(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innervision.studio.api_pictures.MOST_BYTES", 3000)
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1000
            yield b"x" * 1000

    sentence(studio.post("/api/pictures", content=parts(), headers=OURS), 413)
    assert pictures.MOST_BYTES == 32 * 2**20


def test_nothing_is_left_of_what_was_refused(tmp_path: Path, guest: str, serve: Any) -> None:
    with serve(settings(tmp_path, guest)) as studio:
        studio.post("/api/pictures", content=b"nothing", headers=OURS)
        assert not [*(tmp_path / "runs/.studio/pictures").iterdir()]


def test_a_large_json_is_refused(studio: Any) -> None:
    for data in (b'{"net": "' + b"x" * (2 * 2**20) + b'"}', b"[" * 200_000):
        answer = studio.post("/api/look", content=data, headers={**OURS, "Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, answer.text


NAMES = {
    "../../etc/passwd": "passwd",
    "C:\\windows\\win.ini": "win.ini",
    "%00evil%0d%0aX-Header:%201": "evilX-Header: 1",
    "%F0%9F%90%B1.png": "🐱.png",
    "%ED%A0%80": "���",
    "a" * 1500: "a" * 120,
    "": "picture",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_for_people_alone(studio: Any, name: str) -> None:
    answer = studio.post("/api/pictures", content=png(5, 5), headers={**OURS, "X-Name": name})
    assert answer.status_code == 201 and answer.json()["name"] == NAMES[name]


# Hostile values


HOSTILE = [
    "..", "%2e%2e", "%00", "NaN", "-1", "9" * 400, "🐱", "'; drop", "<script>", "%ED%A0%80", "guest.py-build",
    "sample-chelsea", "a~b~32", "guest.py-build~sample-chelsea~32", "guest.py-build~sample-chelsea~9999",
    "stem", "%7B%7D", "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_ids_are_answered_calmly(studio: Any, value: str) -> None:
    ok = "guest.py-build~sample-chelsea~32"
    paths = [
        f"/api/networks/{value}", f"/api/pictures/{value}", f"/api/look/{value}", f"/api/look/{value}/stem",
        f"/api/look/{ok}/{value}", f"/api/look/{ok}/stem/{value}", f"/api/unit/{value}/stem/0",
        f"/api/unit/guest.py-build/{value}/0", f"/api/unit/guest.py-build/stem/{value}",
        f"/api/unit/guest.py-build/stem/0/{value}", f"/api/unit/guest.py-build/stem/0?key={value}",
        f"/api/unit/guest.py-build/stem/0/map?key={value}",
        f"/api/unit/guest.py-build/stem/0/map?key={ok}&epoch={value}",
        f"/api/look/{ok}/stem?cell={value}", f"/api/pictures/sample-chelsea?side={value}",
        f"/api/unit/guest.py-build/stem/0/excited?size={value}",
        f"/api/unit/guest.py-build/stem/0/excited?steps={value}",
    ]  # fmt: skip
    for path in paths:
        answer = studio.get(path)
        assert answer.status_code < 500, (path, answer.text)
        if answer.status_code >= 400:
            assert isinstance(answer.json()["detail"], str), path
    assert studio.delete(f"/api/pictures/{value}", headers=OURS).status_code in (404, 405, 409, 422)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"1", b'{"net": 1}', b"{", b"\xff\xfe", b'{"net": "guest.py-build"}',
        b'{"net": "guest.py-build", "picture": "sample-chelsea", "size": NaN}',
        b'{"net": "guest.py-build", "picture": "sample-chelsea", "size": 1e400}',
        b'{"net": "guest.py-build", "picture": "sample-chelsea", "size": 99999}',
        b'{"net": "guest.py-build", "picture": "sample-chelsea", "size": -1}',
        b'{"net": "guest.py-build", "picture": "sample-chelsea", "size": "32; rm"}',
        b'{"net": "\\ud800", "picture": "\\ud800", "size": 32}',
        b'{"net": "../guest.py", "picture": "/etc/passwd", "size": 32}',
        b'{"net": {"a": []}, "picture": true, "size": [32]}',
    ],
)  # fmt: skip
def test_hostile_looks_are_answered_calmly(studio: Any, body: bytes) -> None:
    answer = studio.post("/api/look", content=body, headers={**OURS, "Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    "query",
    ["", "net=guest.py-build", "net=x&layer=stem&size=32", "net=guest.py-build&layer=x&size=32",
     "net=guest.py-build&layer=stem&size=NaN", "net=guest.py-build&layer=stem&size=100000000",
     "net=guest.py-build&layer=stem&size=32", "net=guest.py-build&layer=stem&size=32&cell=-5"],
)  # fmt: skip
def test_hostile_frames_are_answered_calmly(studio: Any, query: str) -> None:
    answer = studio.post(f"/api/live?{query}", content=b"\0" * 100, headers=OURS)
    assert 400 <= answer.status_code < 500
    assert isinstance(answer.json()["detail"], str)


def test_the_samples_stay(studio: Any) -> None:
    sentence(studio.delete("/api/pictures/sample-chelsea", headers=OURS), 409)


def test_the_description_of_the_api_is_whole(studio: Any) -> None:
    told = studio.get("/api/openapi.json").json()
    text = json.dumps(told)
    assert "HTTPValidationError" not in text, "errors are one sentence"
    for path, methods in told["paths"].items():
        assert path.startswith("/api/")
        for method, operation in methods.items():
            assert {"401", "403", "422"} <= set(operation["responses"]), (method, path)
            if "{" in path:
                assert "404" in operation["responses"], (method, path)
    assert studio.get("/docs").status_code == 404, "nothing that would load from elsewhere"
