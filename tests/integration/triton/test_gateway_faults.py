"""Faults of a Triton server behind a gateway, under load; `pytest -s` prints the table of docs/gateway.md."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.grpc

from dimml.contract import model_specs
from dimml.engine import EngineError
from dimml.repository import load_bundle
from dimml.status import Reason
from dimml_server.engines.triton_channel import TritonChannel
from support.gateway import QUEUE_SIZE, Answered, Load, encoders_and_fusion, gateway, load, wait_until
from support.kserve_clients import Face, face, frames, waveform
from support.server_process import ServerProcess
from support.tiny_bundle import NAN_SAMPLE
from support.tiny_media import tiny_clip
from support.triton_process import TritonServer, running_triton


@pytest.fixture
def repository(gateway_repository: Path) -> Path:
    return gateway_repository


@pytest.fixture
def triton(gateway_triton: TritonServer) -> TritonServer:
    return gateway_triton


@pytest.fixture
def server(gateway_server: ServerProcess) -> ServerProcess:
    return gateway_server


@pytest.fixture
def control(triton: TritonServer) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(triton.grpc) as client:
        yield client


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Face]:
    with face("grpc", server.http, server.grpc) as client:
        yield client


def statuses(answer: Any) -> list[str]:
    return [text.decode() for text in answer.as_numpy("STATUS")[0]]


def only(answers: list[Answered]) -> Counter[tuple[int, bool, tuple[tuple[str, str], ...]]]:
    return Counter((a.status, a.degraded, tuple(sorted(a.modalities.items()))) for a in answers)


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
        row("an encoder unloaded", made, 0.0)
        control.unload_model("tiny_visual")
        both = time.monotonic()
        made.wait_for(6, both + 0.5)
        assert set(only(made.since(both + 0.5))) == {(503, False, (("audio", gone), ("visual", gone)))}
        control.load_model("tiny_audio")
        control.load_model("tiny_visual")
        back = time.monotonic()
        row("both encoders unloaded, loaded again", made, answered_whole(made, back) - back)
        made.wait_for(6, back + 0.5)
        assert set(only(made.since(back + 0.5))) == {(200, False, (("audio", ok), ("visual", ok)))}


def test_a_late_encoder_is_out_and_the_other_answers(server: ServerProcess, tmp_path: Path) -> None:
    with load(server, tiny_clip(tmp_path, 1), model="stalls") as made:
        began = time.monotonic()
        made.wait_for(8, began)
    row("an encoder past its deadline", made, 0.0)
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
        row("a stub killed, mended by `dimml triton`", made, recovered - killed)
        made.wait_for(6, time.monotonic())
    assert {a.status for a in made.answers} == {200}
    assert {a.modalities["audio"] for a in made.answers} == {"ok"}
    worse = {a.modalities["visual"] for a in made.answers} - {"ok"}
    assert worse
    assert worse <= {"failed:encoder_error", "failed:encoder_gone", "timeout:deadline"}
    assert made.answers[-1].modalities["visual"] == "ok"


def test_a_full_queue_on_triton_is_a_busy_encoder(repository: Path, triton: TritonServer) -> None:
    spec = next(s for s in model_specs(load_bundle(repository, "stalls")) if s.modality == "visual")

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


def test_triton_late_then_killed_then_started_again_under_load(repository: Path, tmp_path: Path) -> None:
    models = encoders_and_fusion(repository, "tiny")
    port = free_port()
    gone = (("audio", "failed:encoder_gone"), ("visual", "failed:encoder_gone"))
    with (
        gateway(repository, f"127.0.0.1:{port}", models="tiny", triton_wait_s=0.5) as server,
        load(server, tiny_clip(tmp_path, 2)) as made,
    ):

        def ready() -> bool:
            return httpx.get(f"{server.url}/health/ready").status_code == 200

        made.wait_for(4, time.monotonic())
        assert set(only(made.answers)) == {(503, False, gone)}
        assert not ready()
        with running_triton(repository, killed=True, model=models, grpc_port=port) as first:
            recovered = answered_whole(made, time.monotonic())
            wait_until(ready)
            made.wait_for(6, recovered)
            killed = time.monotonic()
            os.kill(first.server_pid(), signal.SIGKILL)
            made.wait_for(6, killed + 0.5)
            assert set(only(made.since(killed + 0.5))) == {(503, False, gone)}
            # Not those that were on their way when the first one was answered: they may have been given up already.
            assert {a.status for a in made.answers if a.began >= recovered and a.at < killed} == {200}
            wait_until(lambda: not ready())
            first.process.wait(60)
        with running_triton(repository, model=models, grpc_port=port):
            back = time.monotonic()
            recovered = answered_whole(made, back)
            row("Triton killed, started again", made, recovered - back)
            made.wait_for(6, recovered + 1)
            assert {(a.status, a.degraded) for a in made.since(recovered + 1)} == {(200, False)}
            wait_until(ready)
    assert {a.status for a in made.answers} == {200, 503}


def answered_whole(made: Load, began: float) -> float:
    """When the first answer by all modalities came after ``began``."""
    wait_until(lambda: any(a.status == 200 and not a.degraded for a in made.since(began)))
    return next(a.at for a in made.since(began) if a.status == 200 and not a.degraded)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def row(fault: str, made: Load, recovery_s: float) -> None:
    """A line of the table in docs/gateway.md, for `pytest -s`."""
    failed = sum(a.status != 200 for a in made.answers)
    degraded = sum(a.degraded for a in made.answers)
    print(f"| {fault} | {len(made.answers)} | {failed} | {degraded} | {recovery_s:.2f} s |")
