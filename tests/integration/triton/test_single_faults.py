"""Faults in a real Triton server that concern one request, one row, one queue, or all of Triton."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import tritonclient.grpc

from dimml.contract import model_specs
from dimml.engine import EngineError
from dimml.repository import load_bundle
from dimml.status import Reason
from dimml_server.engines.triton_channel import TritonChannel
from support.gateway import QUEUE_SIZE, load, only, print_row
from support.kserve_clients import Face, frames, waveform
from support.server_process import ServerProcess
from support.tiny_bundle import NAN_SAMPLE
from support.tiny_media import tiny_clip
from support.triton_faults import Faults, tiny_inputs
from support.triton_process import TritonServer
from support.waiting import wait_until


def statuses(answer: Any) -> list[str]:
    return [text.decode() for text in answer.as_numpy("STATUS")[0]]


def test_a_late_encoder_is_out_and_the_other_answers(server: ServerProcess, tmp_path: Path) -> None:
    with load(server, tiny_clip(tmp_path, 1), model="stalls") as made:
        began = time.monotonic()
        made.wait_for(8, began)
    print_row("an encoder past its deadline", made, 0.0)
    assert set(only(made.answers)) == {(200, True, (("audio", "ok"), ("visual", "timeout:deadline")))}


def test_nan_makes_a_modality_failed_in_that_row_alone(client: Face) -> None:
    sound = waveform([1, 1])
    sound[0, 7] = NAN_SAMPLE
    answer = client.infer("nans", [client.tensor("WAVEFORM", sound), client.frames([1, 1])])
    assert statuses(answer) == ["failed:non_finite", "ok"]
    assert answer.as_numpy("STATUS")[1].tolist() == [b"ok", b"ok"]
    assert answer.as_numpy("PROBABILITIES").argmax(axis=1).tolist() == [1, 1]


def test_a_request_without_the_faulty_modality_does_not_notice(faults: Faults) -> None:
    faults.tell_sound("raise")
    try:
        with faults.client() as client:
            answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, 1, ("visual",)))
    finally:
        faults.tell_sound("")
    assert statuses(answer) == ["absent:not_sent", "ok"]
    assert answer.as_numpy("PROBABILITIES")[0].argmax() == 1


def test_a_request_s_own_time_limit_bounds_a_sleeping_encoder(faults: Faults) -> None:
    settle(faults)
    faults.tell_sound("sleep 4")
    try:
        with faults.client() as client:
            began = time.monotonic()
            answer = client.infer("faulty", tiny_inputs(tritonclient.grpc, 2), parameters={"timeout_ms": 500})
            took_s = time.monotonic() - began
    finally:
        faults.tell_sound("")
    assert statuses(answer) == ["timeout:deadline", "ok"]
    assert answer.as_numpy("PROBABILITIES")[0].argmax() == 2
    assert took_s < 3.0, "the encoder's own time limit is 1.5 s, its sleep 4 s"
    settle(faults)


def settle(faults: Faults) -> None:
    """Wait until a request is answered with both modalities."""
    with faults.client() as client:
        wait_until(lambda: statuses(client.infer("faulty", tiny_inputs(tritonclient.grpc, 0))) == ["ok", "ok"])


def test_a_full_queue_on_triton_is_a_busy_encoder(repository: Path, triton: TritonServer) -> None:
    spec = next(s for s in model_specs(load_bundle(repository, "queued")) if s.modality == "visual")

    async def ask() -> list[Any]:
        channel = TritonChannel(triton.grpc, max_message_bytes=2**28, keepalive_s=10)

        async def one() -> Any:
            async with asyncio.timeout(2.0):
                return await channel.infer(spec, 1, {"FRAMES": frames([1])})

        try:
            return await asyncio.gather(*(one() for _ in range(2 * QUEUE_SIZE)), return_exceptions=True)
        finally:
            await channel.close()

    refused = [error for error in asyncio.run(ask()) if isinstance(error, EngineError)]
    assert refused
    assert {error.reason for error in refused} == {Reason.ENCODER_BUSY}


# --- Triton away ------------------------------------------------------------------------------------------------


def test_triton_frozen_is_late_and_thawed_is_back(server: ServerProcess, triton: TritonServer, tmp_path: Path) -> None:
    pid = triton.server_pid()
    clip = tiny_clip(tmp_path, 2)
    ask: dict[str, Any] = {"files": {"media": clip}, "data": {"model": "tiny", "timeout_ms": "1500"}, "timeout": 60}
    os.kill(pid, signal.SIGSTOP)
    try:
        late = httpx.post(f"{server.url}/v1/predict", **ask)
        assert late.status_code == 504, late.text
        assert {p["reason"] for p in late.json()["error"]["modalities"].values()} == {"deadline"}
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_until(lambda: httpx.post(f"{server.url}/v1/predict", **ask).status_code == 200)
