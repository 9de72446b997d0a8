"""Faults of a Triton server behind a gateway, under load; `pytest -s` prints the table of docs/gateway.md."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx

from dimml.contract import model_specs
from dimml.engine import EngineError
from dimml.repository import load_bundle
from dimml.status import Reason
from dimml_server.engines.triton_channel import TritonChannel
from support.gateway import QUEUE_SIZE, answered_whole, load, only, print_row, wait_until
from support.kserve_clients import Face, frames, waveform
from support.server_process import ServerProcess
from support.tiny_bundle import NAN_SAMPLE
from support.tiny_media import tiny_clip
from support.triton_process import TritonServer


def statuses(answer: Any) -> list[str]:
    return [text.decode() for text in answer.as_numpy("STATUS")[0]]


def test_an_encoder_unloaded_then_both_then_recovery(server: ServerProcess, control: Any, tmp_path: Path) -> None:
    gone, ok = "failed:encoder_gone", "ok"
    with load(server, tiny_clip(tmp_path, 2), model="tiny") as made:
        began = time.monotonic()
        made.wait_for(6, began)
        control.unload_model("tiny_audio")
        unloaded = time.monotonic()
        made.wait_for(10, unloaded + 0.5)
        assert {a.status for a in made.since(began)} == {200}
        steady = made.since(unloaded + 0.5)
        assert set(only(steady)) == {(200, True, (("audio", gone), ("visual", ok)))}
        print_row("an encoder unloaded", made, 0.0)
        control.unload_model("tiny_visual")
        both = time.monotonic()
        made.wait_for(6, both + 0.5)
        assert set(only(made.since(both + 0.5))) == {(503, False, (("audio", gone), ("visual", gone)))}
        control.load_model("tiny_audio")
        control.load_model("tiny_visual")
        back = time.monotonic()
        print_row("both encoders unloaded, loaded again", made, answered_whole(made, back) - back)
        made.wait_for(6, back + 0.5)
        assert set(only(made.since(back + 0.5))) == {(200, False, (("audio", ok), ("visual", ok)))}


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


def test_a_killed_stub_costs_its_modality_until_it_is_loaded_again(
    server: ServerProcess, triton: TritonServer, tmp_path: Path
) -> None:
    with load(server, tiny_clip(tmp_path, 0), model="tiny") as made:
        began = time.monotonic()
        made.wait_for(4, began)
        for stub in triton.stubs("tiny_visual"):
            os.kill(stub, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: any(a.degraded for a in made.since(killed)))
        broken = next(a.at for a in made.since(killed) if a.degraded)
        recovered = answered_whole(made, broken)
        print_row("a stub killed, mended by `dimml triton`", made, recovered - killed)
        made.wait_for(6, time.monotonic())
    assert {a.status for a in made.answers} == {200}
    assert {a.modalities["audio"] for a in made.answers} == {"ok"}
    worse = {a.modalities["visual"] for a in made.answers} - {"ok"}
    assert worse
    assert worse <= {"failed:encoder_error", "failed:encoder_gone", "timeout:deadline"}
    assert made.answers[-1].modalities["visual"] == "ok"


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
