"""The server that the tests of KServe v2 share. None of them changes it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dimml.bundle import Bundle
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

#: Room for a batch as JSON numbers.
_MAX_BODY_BYTES = 400_000
_MAX_MEDIA_S = 5


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bundles``, on disk."""
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="session")
def bundles(repository: Path) -> dict[str, Bundle]:
    """``tiny`` is whole; the others are named for what their encoders do."""
    made = (
        make_tiny_bundle(repository, max_batch_size=4),
        make_tiny_bundle(repository, name="raising", raises="audio"),
        make_tiny_bundle(repository, name="stalling", stall="visual", deadline_ms=60_000),
        make_tiny_bundle(repository, name="late", stall="visual", deadline_ms=300),
        make_tiny_bundle(repository, name="both", raises="audio", stall="visual", deadline_ms=300),
    )
    return {bundle.name: bundle for bundle in made}


@pytest.fixture(scope="session")
def bundle(bundles: dict[str, Bundle]) -> Bundle:
    """The one that is whole."""
    return bundles["tiny"]


@pytest.fixture(scope="session")
def max_body_bytes() -> int:
    """The shared server's bound."""
    return _MAX_BODY_BYTES


@pytest.fixture(scope="session")
def server(repository: Path, bundles: dict[str, Bundle]) -> Iterator[ServerProcess]:
    """Bounded, so that little is too much."""
    assert bundles
    bounds = {"max_body_bytes": _MAX_BODY_BYTES, "max_media_s": _MAX_MEDIA_S}
    with running_server(repository, decode_workers=2, **bounds) as process:
        yield process
        assert "Traceback" not in process.log


@pytest.fixture(scope="session")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    """A client that knows nothing of the protocol."""
    with httpx.Client(base_url=f"http://{server.http}", timeout=20) as client:
        yield client
