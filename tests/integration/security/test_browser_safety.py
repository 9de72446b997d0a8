"""What a browser is told: no other origin may call, nothing is kept, sniffed or framed; and the docs page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dimml_server.security.keys import new_key
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

ORIGIN = "https://console.example"
READER, _LINE = new_key("reader")
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository, decode_workers=1) as server:
        yield server


@pytest.mark.parametrize("path", ["/v1/models", "/v1/none", "/v2", "/health/live", "/metrics", "/openapi.json"])
def test_every_answer_has_the_headers_and_no_server_name(server: ServerProcess, path: str) -> None:
    headers = httpx.get(server.url + path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Request-Id"]
    assert "Server" not in headers


def test_no_other_origin_may_call_by_default(server: ServerProcess) -> None:
    assert "Access-Control-Allow-Origin" not in httpx.options(server.url + "/v1/predict", headers=PREFLIGHT).headers
    assert "Access-Control-Allow-Origin" not in httpx.get(server.url + "/v1/models", headers={"Origin": ORIGIN}).headers


def test_a_named_origin_may_call_with_a_key_and_no_other(repository: Path) -> None:
    settings = {"cors_origins": ORIGIN, "api_keys": _LINE.line, "docs_page": False, "decode_workers": 1}
    with running_server(repository, **settings) as server:
        asked = httpx.options(server.url + "/v1/predict", headers=PREFLIGHT)
        assert asked.status_code == 200, "a browser sends no key with this question"
        assert asked.headers["Access-Control-Allow-Origin"] == ORIGIN
        answer = httpx.get(server.url + "/v1/models", headers={"Origin": ORIGIN, "X-API-Key": READER})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Access-Control-Allow-Credentials" not in answer.headers
        refused = httpx.get(server.url + "/v1/models", headers={"Origin": ORIGIN})
        assert (refused.status_code, refused.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
        other = httpx.options(server.url + "/v1/predict", headers=PREFLIGHT | {"Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        for path in ("/docs", "/openapi.json", "/redoc"):
            assert httpx.get(server.url + path, headers={"X-API-Key": READER}).status_code == 404


def test_the_docs_page_runs_its_own_scripts_and_nothing_else(server: ServerProcess) -> None:
    answer = httpx.get(server.url + "/docs")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "unsafe" not in policy["script-src"]
    for script in re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy["script-src"]
    assert "'self'" in policy["script-src"]
    assert "'self'" in policy["style-src"]
    assert "https://" not in answer.text, "it must work where no other host can be reached"
    for path in re.findall(r'(?:<script src|<link [^>]*href)="([^":]+)"', answer.text):
        assert httpx.get(f"{server.url}/{path}").status_code == 200, path
