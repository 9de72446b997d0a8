"""One server and one browser for all tests of the console; every page is watched for what it must never do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml_server.console.page import page_files
from support.browsing import Console, launched
from support.data import REPOSITORY_ROOT, unavailable
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

#: Labels are text of a stranger.
HOSTILE = ("<img src=x onerror=alert(1)>", "\"'><script>alert(2)</script>", "blue")


@pytest.fixture(scope="package")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundle; ``tiny`` in two versions of which the second swaps two labels; one with hostile labels."""
    folder = tmp_path_factory.mktemp("console") / "repository"
    shutil.copytree(REPOSITORY_ROOT / "model_repository", folder)
    make_tiny_bundle(folder)
    make_tiny_bundle(folder, labels=("green", "red", "blue"))
    make_tiny_bundle(folder, name="zhostile", labels=HOSTILE)
    return folder


@pytest.fixture(scope="package")
def server(repository: Path) -> Iterator[ServerProcess]:
    if not page_files():
        unavailable("the console is not built: make console")
    with running_server(repository, model_control="explicit", explain="occlusion") as it:
        load_both(it)
        yield it


def load_both(server: ServerProcess) -> None:
    """Load both versions of ``tiny``, of which the newer one then answers: what tests find, and leave behind."""
    policy = json.dumps({"version_policy": {"specific": {"versions": [1, 2]}}})
    answer = httpx.post(f"{server.url}/v2/repository/models/tiny/load", json={"parameters": {"config": policy}})
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def browser(server: ServerProcess) -> Iterator[Any]:
    """Chromium, with a camera and a microphone that are made up; after the server, which it must not be forked with.

    As long as there is one, Playwright's event loop runs in this thread, and no test may start another.
    """
    if shutil.which("chromium") is None:
        unavailable("chromium is not installed")
    # Playwright brings a driver of its own, and no browser.
    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with launched() as it:
        yield it


@pytest.fixture
def console(browser: Any, server: ServerProcess) -> Iterator[Console]:
    """A page of the console, fresh. That it has done nothing it must not is asserted at the end."""
    with Console.opened(browser, server.url) as it:
        yield it
