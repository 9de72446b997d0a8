"""`dimml models` on the embedded server, and where it cannot be had."""

from __future__ import annotations

from pathlib import Path

from support.models_command import dimml_models, load_a_broken_one_and_unload, loaded, roll_out_and_back
from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle


def test_a_new_version_a_rollback_and_a_broken_one(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with running_server(tmp_path, model_control="explicit", decode_workers=1) as server:
        http, grpc = f"http://{server.http}", f"grpc://{server.grpc}"
        first = roll_out_and_back(tmp_path, "tiny", http, grpc)
        dimml_models("load", "tiny", "--version", "1", "--version", "2", "--url", grpc)
        assert loaded(http, "tiny") == {name: ["1", "2"] for name in first}
        dimml_models("load", "tiny", "--version", "1", "--url", http)
        load_a_broken_one_and_unload(tmp_path, "tiny", http, grpc)


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
