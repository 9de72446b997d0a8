"""Environment variables of the libraries beneath, as docs/deploy.md has them, on a real server."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle


def test_what_uvicorn_s_command_reads_changes_nothing(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    # uvicorn 0.54 fails where the first is no number; the others are those of its command line.
    variables = {
        "WEB_CONCURRENCY": "auto",
        "UVICORN_PORT": "1",
        "UVICORN_WORKERS": "3",
        "FORWARDED_ALLOW_IPS": "10.0.0.1",
    }
    with running_server(tmp_path, decode_workers=1, environment=variables) as server:
        forged = {"X-Forwarded-For": "203.0.113.9"}
        assert httpx.get(f"{server.url}/health/live", headers=forged, trust_env=False).status_code == 200
        server.wait_for_log("GET /health/live 200")
        assert "203.0.113.9" not in server.log


def test_metrics_in_a_folder_that_is_not_there_are_refused_by_name(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "models")
    gone = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "gone")}
    with pytest.raises(AssertionError) as stopped:  # noqa: SIM117
        with running_server(tmp_path / "models", decode_workers=1, environment=gone):
            pytest.fail("it started")
    assert f"error: PROMETHEUS_MULTIPROC_DIR={tmp_path}/gone: not a folder" in str(stopped.value)
