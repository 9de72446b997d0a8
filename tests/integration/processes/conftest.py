"""The server of two processes that the tests here share. None of them needs another to have run, or not."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import faulty_decoding, faulty_server
from support.server_process import ServerProcess, running_server
from support.several_processes import (
    LABEL,
    NARROW_LINE,
    OPS,
    OPS_LINE,
    Pinned,
    begun,
    one_client_each,
)
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import marked, tiny_clip
from support.waiting import wait_until

BUNDLES = ("tiny", "growing", "broken", "split", "gone", "kept", "metered")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    for name in BUNDLES:
        make_tiny_bundle(folder / "models", name=name)
    (folder / "keys").write_text(f"{OPS_LINE.line}\n{NARROW_LINE.line}\n")
    return folder


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[ServerProcess]:
    """Works on one request in each process, and lets one more wait in all."""
    settings: dict[str, object] = {
        **{"processes": 2, "concurrency": 2, "queue_length": 1, "decode_workers": 2, "intra_op_threads": 1},
        **{"model_control": "explicit", "routing_file": str(folder / "routing.json")},
        **{"api_keys_file": str(folder / "keys"), "metrics_open": True},
        # What hangs does so until its caller hangs up.
        **{"timeout_s": 60, "queue_wait_s": 60, "decode_timeout_s": 30},
    }
    (folder / "tmp").mkdir()
    environment = {"TMPDIR": str(folder / "tmp")}
    with running_server(folder / "models", script=faulty_server.SCRIPT, environment=environment, **settings) as it:
        yield it
        started = it.descendants()
        _drain(it, tiny_clip(folder, LABEL))
        assert "Traceback" not in it.log
    assert [process for process in started if Path(f"/proc/{process}").exists()] == []
    assert list((folder / "tmp").iterdir()) == []


def _drain(server: ServerProcess, clip: bytes) -> None:
    """Stop the server while a request is half sent: it takes no other, and answers this one. Its exit code is 0."""
    connection, rest = begun(server, clip, whole=False)
    stopped = server.log.count("stopping; requests in flight")
    with connection:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.log.count("stopping; requests in flight") == stopped + 2)
        host, port = server.http.split(":")

        def refused() -> bool:
            try:
                socket.create_connection((host, int(port))).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused)
        connection.sendall(rest)
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.fixture
def both(server: ServerProcess) -> Iterator[list[Pinned]]:
    """A client of each process."""
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    with one_client_each(server, OPS) as clients:
        yield clients


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), LABEL)


@pytest.fixture(scope="session")
def hanging(clip: bytes) -> bytes:
    return marked(clip, faulty_decoding.PICTURE_HANGS)
