"""Which files of the console are served, and how; without any, the way to have them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from dimml_server.console.page import POLICY, page_files
from dimml_server.http.errors import install_error_handlers
from dimml_server.http.routes import console


@pytest.fixture
def built(tmp_path: Path) -> Path:
    folder = tmp_path / "static"
    for name in ("index.html", "assets/index-abc.js", "assets/index-abc.css", "samples/index.json", "notes.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def served(folder: Path) -> TestClient:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(console.router(page_files(folder)))

    @app.middleware("http")
    async def with_id(request, call_next):  # type: ignore[no-untyped-def]
        request.state.request_id = "id"
        return await call_next(request)

    return TestClient(app, follow_redirects=False)


def test_the_page_and_its_assets_are_served(built: Path) -> None:
    client = served(built)
    assert client.get("/console").headers["Location"] == "console/"
    page = client.get("/console/")
    assert page.text == "index.html"
    assert page.headers["Content-Security-Policy"] == POLICY
    assert page.headers["Cache-Control"] == "no-cache"
    asset = client.get("/console/assets/index-abc.js")
    assert asset.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert asset.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert "Content-Security-Policy" not in asset.headers
    assert client.get("/console/samples/index.json").headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("name", ["index.html", "notes.sh", "assets", "assets/none.js", "%2e%2e/secret", "..%2fsecret"])
def test_nothing_else_is_served(built: Path, name: str) -> None:
    (built.parent / "secret").write_text("secret")
    answer = served(built).get(f"/console/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "no such file of the console"


@pytest.mark.parametrize("path", ["/console", "/console/", "/console/assets/index-abc.js"])
def test_a_page_that_is_not_built_says_how(tmp_path: Path, path: str) -> None:
    answer = served(tmp_path / "none").get(path)
    assert answer.status_code == 404
    assert "make console" in answer.json()["error"]["message"]


def test_only_the_files_of_the_page_need_no_key(built: Path) -> None:
    paths = console.open_paths(page_files(built))
    assert {"/console", "/console/", "/console/assets/index-abc.js"} <= paths
    assert not any(path.startswith("/v1") or "notes" in path for path in paths)
