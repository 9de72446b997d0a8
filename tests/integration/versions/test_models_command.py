"""`dimml models` on a real Triton server, on the embedded server, and a roll-out behind a gateway under load."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import tritonclient.grpc

from dimml.bundle import Bundle
from dimml.cli import main
from support.gateway import encoders_and_fusion, gateway, load
from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.triton_process import TritonServer, running_triton

PARTS = ("tiny_audio", "tiny_visual", "tiny_fusion")


def dimml_models(*words: str, code: int = 0) -> str:
    """What the command says: stdout, or where it must fail its one line on stderr."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        exit_code = main(["models", *words])
    assert exit_code == code, err.getvalue()
    if code == 0:
        return out.getvalue()
    assert len(err.getvalue().splitlines()) == 1, err.getvalue()
    return err.getvalue()


def loaded(url: str) -> dict[str, list[str]]:
    """Ready versions by model."""
    ready: dict[str, list[str]] = {}
    for entry in json.loads(dimml_models("list", "--url", url, "--json")):
        if entry["state"] == "READY":
            ready.setdefault(entry["name"], []).append(entry["version"])
    return {name: sorted(versions) for name, versions in ready.items()}


@contextmanager
def a_server(kind: str, repository: Path) -> Iterator[tuple[str, str, TritonServer | None]]:
    """``http`` and ``grpc`` URLs of a server that has version 1; and it, where it is Triton."""
    if kind == "triton":
        with running_triton(repository, model=encoders_and_fusion(repository)) as triton:
            yield f"http://{triton.http}", f"grpc://{triton.grpc}", triton
    else:
        with running_server(repository, model_control="explicit", decode_workers=1) as server:
            yield f"http://{server.http}", f"grpc://{server.grpc}", None


def spoil(repository: Path, bundle: Bundle) -> None:
    bundle.model_file(repository, "tiny_visual").write_bytes(b"garbage")


@pytest.mark.parametrize("kind", ["triton", "embedded"])
def test_a_new_version_a_rollback_and_a_broken_one(kind: str, tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with a_server(kind, tmp_path) as (http, grpc, triton):
        first = loaded(http)
        assert set(PARTS) <= set(first)
        assert set(map(tuple, first.values())) == {("1",)}
        make_tiny_bundle(tmp_path)
        said = dimml_models("load", "tiny", "--url", grpc, "--repository", str(tmp_path))
        assert "version 2" in said
        assert loaded(grpc) == {name: ["2"] for name in first}
        dimml_models("load", "tiny", "--version", "1", "--url", http)
        assert loaded(http) == {name: ["1"] for name in first}
        if triton is not None:
            # A process that dies after a roll-back brings back the version that was chosen, not the newest.
            for stub in triton.stubs("tiny_audio"):
                os.kill(stub, signal.SIGKILL)
            triton.wait_for_log("tiny_audio is loaded again")
            assert loaded(http) == {name: ["1"] for name in first}
        if kind == "embedded":  # On Triton the roll-out below does it.
            dimml_models("load", "tiny", "--version", "1", "--version", "2", "--url", grpc)
            assert loaded(http) == {name: ["1", "2"] for name in first}
            dimml_models("load", "tiny", "--version", "1", "--url", http)
        spoil(tmp_path, make_tiny_bundle(tmp_path))
        for url in (http, grpc):
            assert "tiny_visual" in dimml_models("load", "tiny", "--version", "3", "--url", url, code=1)
            # Not even the parts that did load have changed.
            assert loaded(url) == {name: ["1"] for name in first}
        assert "no bundle 'grid'" in dimml_models("load", "grid", "--url", http, code=1)
        dimml_models("unload", "tiny", "--url", grpc)
        assert loaded(http) == {}
        if kind == "triton":
            assert "--repository" in dimml_models("load", "tiny", "--version", "1", "--url", http, code=1)


def test_a_server_that_does_not_allow_it_or_is_not_there(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    make_tiny_bundle(tmp_path)
    with running_server(tmp_path, decode_workers=1) as server:
        for url in (f"http://{server.http}", f"grpc://{server.grpc}"):
            said = dimml_models("load", "tiny", "--version", "1", "--url", url, code=1)
            assert "model_control=explicit" in said
    assert server.http in dimml_models("list", "--url", f"http://{server.http}", code=1)
    assert server.grpc in dimml_models("list", "--url", f"grpc://{server.grpc}", code=1)
    assert "none of http://" in dimml_models("list", "--url", "localhost", code=1)


def test_a_roll_out_behind_a_gateway_costs_no_request(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    make_tiny_bundle(repository)
    with (
        running_triton(repository, model=encoders_and_fusion(repository)) as triton,
        gateway(repository, triton.grpc, model_control="explicit") as server,
        load(server, tiny_clip(tmp_path, 2)) as made,
    ):
        behind, front = f"grpc://{triton.grpc}", f"grpc://{server.grpc}"
        made.wait_for(4, time.monotonic())
        make_tiny_bundle(repository)
        said = dimml_models("load", "tiny", "--version", "2", "--url", front, code=1)
        assert "version 2 is not ready on" in said  # Triton first.
        for versions, url in (((1, 2), behind), ((2,), front), ((2,), behind)):
            dimml_models("load", "tiny", *(f"--version={v}" for v in versions), "--url", url)
        assert loaded(behind) == {name: ["2"] for name in PARTS}
        done = time.monotonic()
        made.wait_for(4, done)
        assert {(a.status, a.degraded) for a in made.answers} == {(200, False)}
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            assert client.is_model_ready("tiny", "2")
            assert not client.is_model_ready("tiny", "1")
