"""Requests made from the API's own description: no answer is 5xx, and each refusal is a sentence.

Here every address is tried with the same hostile values; with schemathesis, which is no part of the extra
`test` (pip install schemathesis), `pytest -m slow tests/studio/test_fuzz.py` draws thousands of requests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from innervision.studio import Settings, process

PRETENDED = Path(__file__).with_name("pretended.py")
OURS = {"X-Innervision": "1"}

TEXTS = (
    "x", "0", "-1", "..", "../../etc/passwd", "a/b", "%", "\x00", "é" * 300, "\U0001f600", "<script>", "{}",
    "sample-rocket", "job.json", "9" * 5000, "1e999", "nan", " ", "'; --", "\r\nX: y",
)  # fmt: skip
BODIES: tuple[bytes, ...] = (
    b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 50_000, b"NaN", b'{"a": 1e999}', b'"text"', b"7" * 5000,
    b'{"command": "dream", "options": {"source": null}}', b'{"command": {}, "options": 3}',
    b'{"command": "stylize", "options": {"content": "\\ud800"}}', b'{"net": "x", "picture": "y", "size": 64}',
    b'{"net": 3, "picture": [], "size": -1}', b"\x89PNG\r\n\x1a\n" + bytes(64), b"GIF89a", bytes(2000),
)  # fmt: skip


@pytest.fixture(scope="module")
def client(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setattr(process, "PROGRAM", (sys.executable, str(PRETENDED)))
    patch.setenv("INNERVISION_OFFLINE", "1")
    with serve(Settings(runs=tmp_path_factory.mktemp("fuzz") / "runs", device="cpu", threads=1)) as client:
        client.headers.update(OURS)
        yield client
    patch.undo()


def operations(app: Any) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Return method, path and parameters of all that the description holds."""
    return [
        (method.upper(), path, operation.get("parameters", []))
        for path, each in app.openapi()["paths"].items()
        for method, operation in each.items()
    ]


def test_no_request_ends_in_an_error_of_the_server(client: Any) -> None:
    found = operations(client.app)
    assert len(found) >= 8
    sentences = 0
    for method, path, parameters in found:
        named = [p["name"] for p in parameters if p["in"] == "path"]
        asked = [p["name"] for p in parameters if p["in"] == "query"]
        bodies = BODIES if method == "POST" else (b"",)
        for number in range(0, max(len(TEXTS), len(bodies)), 1 if bodies is BODIES else 3):
            texts = islice(TEXTS * 4, number, None)  # another for each parameter
            url = path.format(**{name: quote(next(texts), safe="") for name in named})
            query = {name: next(texts) for name in asked}
            body = bodies[number % len(bodies)]
            kind = "application/json" if number % 3 else "application/octet-stream"
            answer = client.request(
                method, url, params=query, content=body, headers={"Content-Type": kind, "X-Name": "%FF%00"}
            )
            where = f"{method} {url[:200]} {query} {body[:80]!r}"
            assert answer.status_code < 500, f"{where}: {answer.text[:500]}"
            if answer.status_code >= 400:
                said = answer.json()["detail"]
                assert isinstance(said, str) and "Traceback" not in said and len(said) < 3000, where
                sentences += 1
    assert sentences > 100


@pytest.mark.slow
def test_requests_drawn_from_the_description(client: Any) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    hypothesis = pytest.importorskip("hypothesis")
    schema = schemathesis.openapi.from_dict(client.app.openapi())
    tried = 0
    for result in schema.get_all_operations():
        operation = result.ok()

        @hypothesis.settings(
            max_examples=100, deadline=None, database=None, derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy())
        def call(case: Any) -> None:
            nonlocal tried
            tried += 1
            answer = case.call(base_url=str(client.base_url), headers=OURS, timeout=60)
            assert answer.status_code < 500, answer.text

        call()
    assert tried > 500
