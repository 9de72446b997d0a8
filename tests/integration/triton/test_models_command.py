"""`dimml models` on a real Triton server, and a roll-out behind a gateway under load."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import tritonclient.grpc

from support.gateway import gateway, load
from support.models_command import dimml_models, load_a_broken_one_and_unload, loaded, parts, roll_out_and_back
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.triton_process import TritonServer


def test_a_new_version_a_rollback_and_a_broken_one(repository: Path, triton: TritonServer) -> None:
    http, grpc = f"http://{triton.http}", f"grpc://{triton.grpc}"
    first = roll_out_and_back(repository, "versions", http, grpc)
    # A process that dies after a roll-back brings back the version that was chosen, not the newest.
    for stub in triton.stubs("versions_audio"):
        os.kill(stub, signal.SIGKILL)
    triton.wait_for_log("versions_audio is loaded again")
    assert loaded(http, "versions") == first
    load_a_broken_one_and_unload(repository, "versions", http, grpc)
    assert "--repository" in dimml_models("load", "versions", "--version", "1", "--url", http, code=1)


def test_a_roll_out_behind_a_gateway_costs_no_request(repository: Path, triton: TritonServer, tmp_path: Path) -> None:
    with (
        gateway(repository, triton.grpc, models="rollout", model_control="explicit") as server,
        load(server, tiny_clip(tmp_path, 2)) as made,
    ):
        behind, front = f"grpc://{triton.grpc}", f"grpc://{server.grpc}"
        made.wait_for(4, time.monotonic())
        make_tiny_bundle(repository, name="rollout")
        said = dimml_models("load", "rollout", "--version", "2", "--url", front, code=1)
        assert "version 2 is not ready on" in said  # Triton first.
        for versions, url in (((1, 2), behind), ((2,), front), ((2,), behind)):
            dimml_models("load", "rollout", *(f"--version={v}" for v in versions), "--url", url)
        assert loaded(behind, "rollout") == {name: ["2"] for name in parts("rollout")}
        done = time.monotonic()
        made.wait_for(4, done)
        assert {(a.status, a.degraded) for a in made.answers} == {(200, False)}
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            assert client.is_model_ready("rollout", "2")
            assert not client.is_model_ready("rollout", "1")
