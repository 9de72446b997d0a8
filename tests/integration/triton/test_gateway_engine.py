"""The gateway before a real Triton server gives the answers of the embedded engine, and knows what runs there."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dimml.contract import ModelSpec, model_specs
from dimml.engine import EngineError
from dimml.repository import load_bundle
from dimml.status import Reason
from dimml_server.engines.triton_channel import TritonChannel
from support.data import REPOSITORY_ROOT
from support.forked import run_forked
from support.kserve_clients import Face, face, frames, waveform
from support.server_process import ServerProcess, serve_command
from support.tiny_bundle import make_tiny_bundle
from support.triton_process import TritonServer
from support.waiting import wait_until

SAMPLES = REPOSITORY_ROOT / "samples"


# --- the same answers -------------------------------------------------------------------------------------------


def test_sample_clips_get_the_answers_of_the_embedded_engine(server: ServerProcess, embedded: ServerProcess) -> None:
    with (SAMPLES / "samples.csv").open(newline="") as file:
        names = [row["file"] for row in csv.DictReader(file)]
    assert len(names) >= 8
    largest = 0.0
    asked = [(name, {"model": "avdigits", "top_k": 10}) for name in names]
    # Either modality left out by the caller, too.
    asked += [(names[0], {"model": "avdigits", "top_k": 10, "modalities": m}) for m in ("audio", "visual")]
    for name, fields in asked:
        here, there = (
            httpx.post(f"{s.url}/v1/predict", files={"media": (SAMPLES / name).read_bytes()}, data=fields, timeout=60)
            for s in (server, embedded)
        )
        assert here.status_code == there.status_code, (name, here.text, there.text)
        a, b = here.json(), there.json()
        if here.status_code != 200:
            assert {**a["error"], "request_id": ""} == {**b["error"], "request_id": ""}, name
            continue
        assert (a["label"], a["degraded"]) == (b["label"], b["degraded"]), name
        assert {n: (p["status"], p.get("reason")) for n, p in a["modalities"].items()} == {
            n: (p["status"], p.get("reason")) for n, p in b["modalities"].items()
        }
        one, other = ({p["label"]: p["probability"] for p in d["predictions"]} for d in (a, b))
        largest = max(largest, *(abs(one[label] - other[label]) for label in other))
    assert largest < 1e-3


def test_an_answer_is_explained_as_by_the_embedded_engine(server: ServerProcess, embedded: ServerProcess) -> None:
    """Whose bundle takes batches: coalitions are one run of the fusion."""
    files = {"media": (SAMPLES / "covered_picture.mp4").read_bytes()}
    here, there = (
        httpx.post(
            f"{s.url}/v1/predict", files=files, data={"model": "avdigits", "explain": "shapley"}, timeout=60
        ).json()["explanation"]
        for s in (server, embedded)
    )
    assert here["stopped"] is there["stopped"] is None
    assert (here["label"], list(here["modalities"])) == (there["label"], ["audio", "visual"])
    for name, one in here["modalities"].items():
        assert one["shapley"] == pytest.approx(there["modalities"][name]["shapley"], abs=1e-3)
        assert one["without"]["label"] == there["modalities"][name]["without"]["label"]


def test_tensors_over_grpc_batched_and_with_a_modality_left_out(client: Face, embedded: ServerProcess) -> None:
    with face("grpc", embedded.http, embedded.grpc) as other:
        for inputs in (["WAVEFORM", "FRAMES"], ["WAVEFORM"], ["FRAMES"]):
            arrays = {"WAVEFORM": waveform([0, -1, 2]), "FRAMES": frames([0, 1, -1])}
            here, there = (c.infer("tiny", [c.tensor(name, arrays[name]) for name in inputs]) for c in (client, other))
            assert (here.as_numpy("STATUS") == there.as_numpy("STATUS")).all()
            for name in ("PROBABILITIES", "LOGITS", "CERTAINTY", "WEIGHTS"):
                np.testing.assert_allclose(here.as_numpy(name), there.as_numpy(name), atol=1e-4, err_msg=name)


def test_readiness_is_tritons_by_model(server: ServerProcess, client: Face, control: Any) -> None:
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
    assert client.client.is_server_ready()
    assert client.client.is_model_ready("tiny_audio")
    control.unload_model("tiny_audio")
    try:
        wait_until(lambda: not client.client.is_model_ready("tiny_audio"))
        assert client.client.is_model_ready("tiny")
        assert client.client.is_model_ready("tiny_visual")
        control.unload_model("tiny_fusion")
        wait_until(lambda: not client.client.is_model_ready("tiny"))
        assert client.client.is_server_ready()  # Other bundles have all they need.
    finally:
        control.load_model("tiny_audio")
        control.load_model("tiny_fusion")
    wait_until(lambda: client.client.is_model_ready("tiny"))


# --- the connection ---------------------------------------------------------------------------------------------


def model(repository: Path, bundle: str, name: str) -> ModelSpec:
    return next(spec for spec in model_specs(load_bundle(repository, bundle)) if spec.name == name)


def infer(url: str, spec: ModelSpec, array: Any, max_message_bytes: int = 2**28) -> dict[str, Any]:
    async def call() -> dict[str, Any]:
        channel = TritonChannel(url, max_message_bytes=max_message_bytes, keepalive_s=10)
        try:
            return await channel.infer(spec, 1, {spec.inputs[0].name: array})
        finally:
            await channel.close()

    return asyncio.run(call())


def test_one_setting_bounds_messages_both_ways(repository: Path, triton: TritonServer) -> None:
    spec = model(repository, "large", "large_visual")
    array = np.full((4, *spec.inputs[0].dims), 99, np.uint8)
    assert array.nbytes > 16 * 2**20  # gRPC's own limit is 4 MiB.
    assert infer(triton.grpc, spec, array)["LOGITS"].shape == (4, 3)
    with pytest.raises(EngineError, match="raise triton_max_message_bytes") as refused:
        infer(triton.grpc, spec, array, max_message_bytes=2**20)
    assert refused.value.reason is Reason.ENCODER_ERROR


def test_a_call_that_nobody_waits_for_is_cancelled(repository: Path, embedded: ServerProcess) -> None:
    # Of both servers that speak Triton's protocol, the embedded one counts what was cancelled.
    spec = model(repository, "stalls", "stalls_visual")

    async def give_up() -> None:
        channel = TritonChannel(embedded.grpc, max_message_bytes=2**28, keepalive_s=10)
        async with asyncio.timeout(0.5):
            await channel.infer(spec, 1, {"FRAMES": frames([1])})

    with pytest.raises(TimeoutError):
        asyncio.run(give_up())
    embedded.wait_for_metric("dimml_requests_total", 1, model="stalls_visual", outcome="cancelled")


def test_models_with_other_tensors_stop_the_start_with_one_line(triton: TritonServer, tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path, labels=("red", "green", "blue", "grey"))
    settings: dict[str, object] = {"engine": "triton", "triton_url": triton.grpc, "decode_workers": 1}
    done = run_forked(serve_command(tmp_path, settings))
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    assert "tiny_audio" in errors[0]
    assert "its output LOGITS is FP32 [-1, 3], the manifest says FP32 [-1, 4]" in errors[0]
    assert "Traceback" not in done.stderr
