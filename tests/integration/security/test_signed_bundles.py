"""A server with a public key: what is not signed by it, or was changed since, is not served, at start and later."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tritonclient.utils import InferenceServerException

from dimml.bundle import MANIFEST_NAME
from dimml.signing import SIGNATURE_NAME, generate_keys, read_private_key, sign
from support.forked import run_forked
from support.kserve_clients import face
from support.server_process import running_server, serve_command
from support.tiny_bundle import make_tiny_bundle


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    make_tiny_bundle(folder)
    generate_keys(tmp_path / "maker.key", tmp_path / "maker.pub")
    return folder


def sign_version(repository: Path, version: int) -> None:
    sign(repository / "tiny" / str(version) / MANIFEST_NAME, read_private_key(repository.parent / "maker.key"))


def refusal(repository: Path, **settings: object) -> str:
    """The one line of a server that does not start."""
    done = run_forked(serve_command(repository, settings))
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if " INFO " not in line]
    return line


def test_an_unsigned_or_changed_bundle_stops_the_start(repository: Path, tmp_path: Path) -> None:
    key = {"bundle_public_keys": str(tmp_path / "maker.pub"), "decode_workers": 1}
    assert "is not signed" in refusal(repository, **key)
    sign_version(repository, 1)
    manifest = repository / "tiny" / "1" / MANIFEST_NAME
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b"blue", b"pink"))
    assert "the manifest was changed" in refusal(repository, **key)
    manifest.write_bytes(whole)
    assert "cannot read" in refusal(repository, bundle_public_keys=str(tmp_path / "gone.pub"))


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_a_load_refuses_it_and_the_signed_version_goes_on(repository: Path, tmp_path: Path, transport: str) -> None:
    sign_version(repository, 1)
    settings = {"bundle_public_keys": str(tmp_path / "maker.pub"), "model_control": "explicit", "decode_workers": 1}
    with running_server(repository, **settings) as server, face(transport, server.http, server.grpc) as client:
        make_tiny_bundle(repository)
        with pytest.raises(InferenceServerException, match=r"is not signed.*version 1 goes on"):
            client.client.load_model("tiny")
        (repository / "tiny" / "2" / SIGNATURE_NAME).write_bytes(
            (repository / "tiny" / "1" / SIGNATURE_NAME).read_bytes()
        )
        with pytest.raises(InferenceServerException, match="fits none of the public keys"):
            client.client.load_model("tiny")
        assert [m["version"] for m in httpx.get(f"{server.url}/v1/models").json()["models"]] == [1]
        sign_version(repository, 2)
        client.client.load_model("tiny")
        assert [m["version"] for m in httpx.get(f"{server.url}/v1/models").json()["models"]] == [2]
