"""The same requests to every way of running a bundle: p50, p99 and throughput, interleaved in one run.

    python benchmarks/engines.py
    python benchmarks/engines.py --bundle avdigits --requests 300

It starts what it measures: a Triton server from pip (`dimml triton`, whose `onnxruntime` backend is the one in Python),
with the bundle and a classic Triton ensemble of the same encoders and fusion; and `dimml serve`, once with the local
engine and once as a gateway before that Triton.
Every request holds one row of each modality as binary tensors; what differs is who is asked:

- raw ONNX Runtime: both encoders, then the fusion, in this process, in threads
- local engine, in process: `HeldCall.infer`, the coroutine beneath every transport
- local engine, HTTP and gRPC: the entry model of `dimml serve`, over KServe v2
- Triton encoders: both encoders at once, then the fusion, three calls by this client
- gateway: `dimml serve --engine triton`, gRPC in and gRPC out
- Triton entry model: one call, the bundle's own `model.py` calls encoders and fusion inside
- Triton ensemble: one call, `platform: "ensemble"`; it answers nothing when an input is missing

Rounds of each are interleaved, so that what else runs on the machine meets all alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf import text_format
from harness.triton_ensemble import add_models, triton_type
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, PRESENT, datatype_of, features_input, logits_input, model_specs
from dimml.repository import load_bundle
from dimml.system.outbound import import_quietly
from dimml_server.observability.metrics import Metrics
from dimml_server.process.wiring import build_service
from dimml_server.settings.settings import load_settings

Tensors = dict[str, np.ndarray[Any, np.dtype[Any]]]
Ask = Callable[[], Awaitable[int]]

ENSEMBLE = "classic_ensemble"
CHANNEL_OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


def rows(bundle: Bundle) -> Tensors:
    """One row of noise per modality: it passes for signal, and costs what any row costs."""
    rng = np.random.default_rng(0)
    made: Tensors = {}
    for modality in bundle.modalities:
        noise = rng.random((1, *modality.shape), np.float32)
        made[modality.tensor] = (noise * 255).astype(np.uint8) if modality.dtype == np.uint8 else noise - 0.5
    return made


class RawOnnx:
    """What one would write by hand: encoders in parallel threads, then the fusion; the local engine's own options."""

    def __init__(self, repository: Path, bundle: Bundle, tensors: Tensors) -> None:
        ort = import_quietly("onnxruntime")
        options = ort.SessionOptions()
        options.intra_op_num_threads = max(1, (os.cpu_count() or 1) // len(bundle.encoders))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._bundle, self._tensors = bundle, tensors
        self._sessions = {
            spec.name: ort.InferenceSession(bundle.model_file(repository, spec.name), options)
            for spec in model_specs(bundle)
            if spec.role in ("encoder", "fusion")
        }
        self._threads = ThreadPoolExecutor(32)

    async def ask(self) -> int:
        loop = asyncio.get_running_loop()
        modalities = self._bundle.modalities

        def encode(name: str, tensor: str) -> Any:
            session = self._sessions[self._bundle.encoder_model(name)]
            return session.run([FEATURES, LOGITS], {tensor: self._tensors[tensor]})

        encoded = await asyncio.gather(
            *(loop.run_in_executor(self._threads, encode, m.name, m.tensor) for m in modalities)
        )
        feeds: dict[str, Any] = {PRESENT: np.ones((1, len(modalities)), np.bool_)}
        for modality, (features, logits) in zip(modalities, encoded, strict=True):
            feeds[features_input(modality.name)], feeds[logits_input(modality.name)] = features, logits
        fusion = self._sessions[self._bundle.fusion_model]
        out = await loop.run_in_executor(self._threads, lambda: fusion.run(["PROBABILITIES"], feeds))
        return int(out[0].argmax())


class Grpc:
    """Requests over one gRPC channel, made before the clock runs."""

    def __init__(self, address: str) -> None:
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        )

    @staticmethod
    def request(model: str, tensors: Tensors, outputs: list[str]) -> Any:
        made = service_pb2.ModelInferRequest(model_name=model)
        for name, array in tensors.items():
            datatype = datatype_of(array.dtype)
            made.inputs.add(name=name, datatype=datatype, shape=array.shape)
            made.raw_input_contents.append(array.tobytes())
        for output in outputs:
            made.outputs.add(name=output)
        return made

    def one_call(self, model: str, tensors: Tensors) -> Ask:
        request = self.request(model, tensors, ["PROBABILITIES"])

        async def ask() -> int:
            answer = await self.stub.ModelInfer(request)
            return int(np.frombuffer(answer.raw_output_contents[0], np.float32).argmax())

        return ask

    def encoders_then_fusion(self, bundle: Bundle, tensors: Tensors) -> Ask:
        calls = {
            m.name: self.request(bundle.encoder_model(m.name), {m.tensor: tensors[m.tensor]}, [FEATURES, LOGITS])
            for m in bundle.modalities
        }

        async def ask() -> int:
            answers = await asyncio.gather(*(self.stub.ModelInfer(call) for call in calls.values()))
            feeds: Tensors = {}
            for name, answer in zip(calls, answers, strict=True):
                for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
                    to = features_input(name) if output.name == FEATURES else logits_input(name)
                    feeds[to] = np.frombuffer(raw, np.float32).reshape(tuple(output.shape))
            feeds[PRESENT] = np.ones((1, len(calls)), np.bool_)
            fused = await self.stub.ModelInfer(self.request(bundle.fusion_model, feeds, ["PROBABILITIES"]))
            return int(np.frombuffer(fused.raw_output_contents[0], np.float32).argmax())

        return ask


def http_ask(client: httpx.AsyncClient, bundle: Bundle, tensors: Tensors) -> Ask:
    """The entry model over KServe v2 HTTP, tensors in binary."""
    import json

    inputs, body = [], b""
    for name, array in tensors.items():
        raw = array.tobytes()
        datatype = datatype_of(array.dtype)
        parameters = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "datatype": datatype, "shape": array.shape, "parameters": parameters})
        body += raw
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "PROBABILITIES"}]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}

    async def ask() -> int:
        answer = await client.post(f"/v2/models/{bundle.name}/infer", content=head + body, headers=headers)
        assert answer.status_code == 200, answer.text
        return int(np.argmax(answer.json()["outputs"][0]["data"]))

    return ask


def write_ensemble(repository: Path, bundle: Bundle) -> None:
    """A classic Triton ensemble of the bundle's encoders and fusion: every input required, PRESENT given by the caller.

    A classic ensemble has no constants, so the caller sends PRESENT; it cannot know that an encoder failed.
    """
    specs = {spec.name: spec for spec in model_specs(bundle)}
    config = model_config_pb2.ModelConfig(name=ENSEMBLE, platform="ensemble", max_batch_size=bundle.max_batch_size)
    encoders = [specs[bundle.encoder_model(m.name)] for m in bundle.modalities]
    for tensor in (*(spec.inputs[0] for spec in encoders), specs[bundle.fusion_model].inputs[-1]):
        config.input.add(name=tensor.name, data_type=triton_type(tensor.datatype), dims=tensor.dims)
    add_models(config, bundle)
    (repository / ENSEMBLE / "1").mkdir(parents=True)
    (repository / ENSEMBLE / "config.pbtxt").write_text(text_format.MessageToString(config))


@contextlib.contextmanager
def command(*words: str) -> Iterator[dict[str, str]]:
    """A `dimml` server process on free ports; the addresses of its ready line."""
    ports = ["--http-port", "0", "--grpc-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "dimml", *words, *ports], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise SystemExit(f"`dimml {words[0]}` did not start:\n{process.communicate(timeout=60)[1]}")
        # Nobody reads on: a full pipe must not stop the server.
        drain = ThreadPoolExecutor(1)
        drain.submit(process.stderr.read)
        yield dict(re.findall(r"(\w+)=(\S+)", line))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


async def measured(ask: Ask, requests: int, concurrency: int) -> tuple[list[float], float]:
    """Seconds of every request, and of all."""
    left, seconds = requests, []

    async def work() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = perf_counter()
            await ask()
            seconds.append(perf_counter() - began)

    began = perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return seconds, perf_counter() - began


async def compare(repository: Path, bundle: Bundle, addresses: dict[str, Any], arguments: argparse.Namespace) -> None:
    tensors = rows(bundle)
    present = {PRESENT: np.ones((1, len(bundle.modalities)), np.bool_)}
    triton, local, gateway = (Grpc(addresses[name]["grpc"]) for name in ("triton", "local", "gateway"))
    settings = load_settings(repository=repository, models=[bundle.name], decode_workers=1, concurrency=16)
    service = build_service(settings, Metrics())
    await service.start()
    by_modality = {m.name: tensors[m.tensor] for m in bundle.modalities}

    async def in_process() -> int:
        with service.hold(bundle.name, bundle.version, None) as call:
            outcome = await call.infer(by_modality)
        return int(outcome.result.fused.probabilities_BC.argmax())

    async with httpx.AsyncClient(base_url=f"http://{addresses['local']['http']}", timeout=60) as http:
        ways: dict[str, Ask] = {
            "raw ONNX Runtime, in process": RawOnnx(repository, bundle, tensors).ask,
            "local engine, in process": in_process,
            "local engine, gRPC": local.one_call(bundle.name, tensors),
            "local engine, HTTP": http_ask(http, bundle, tensors),
            "Triton, encoders and fusion by the client": triton.encoders_then_fusion(bundle, tensors),
            "gateway before Triton, gRPC": gateway.one_call(bundle.name, tensors),
            "Triton, entry model": triton.one_call(bundle.name, tensors),
            "Triton, classic ensemble": triton.one_call(ENSEMBLE, tensors | present),
        }
        wanted = await ways["raw ONNX Runtime, in process"]()
        for way, ask in ways.items():
            assert await ask() == wanted, f"{way} gives another answer"
            await measured(ask, 20, 4)
        for concurrency in arguments.concurrency:
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            whole = dict.fromkeys(ways, 0.0)
            per_round = max(1, arguments.requests // arguments.rounds)
            for _ in range(arguments.rounds):
                for way, ask in ways.items():
                    some, all_s = await measured(ask, per_round, concurrency)
                    seconds[way] += some
                    whole[way] += all_s
            print(f"\nConcurrency {concurrency}, {per_round * arguments.rounds} requests each:\n")
            print("| way | p50 | p99 | requests/s | p50 against raw |\n|---|---|---|---|---|")
            raw_ms = 1000 * statistics.median(seconds["raw ONNX Runtime, in process"])
            for way, some in seconds.items():
                p50, p99 = 1000 * statistics.median(some), 1000 * float(np.quantile(some, 0.99))
                rate = len(some) / whole[way]
                print(f"| {way} | {p50:.2f} ms | {p99:.2f} ms | {rate:.0f} | {p50 / raw_ms:.1f} |")
    await service.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--bundle", default="avdigits")
    parser.add_argument("--requests", type=int, default=400, help="per way and concurrency")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds that they are split into")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        repository = Path(folder) / "models"
        bundle = load_bundle(arguments.repository, arguments.bundle)
        for spec in model_specs(bundle):
            shutil.copytree(arguments.repository / spec.name, repository / spec.name)
        write_ensemble(repository, bundle)
        where = ["--repository", str(repository)]
        triton = stack.enter_context(command("triton", *where, "--metrics-port", "0"))
        one = ["--model", bundle.name, "--set", "concurrency=16", "--set", "decode_workers=1"]
        local = stack.enter_context(command("serve", *where, *one))
        gateway = stack.enter_context(
            command("serve", *where, *one, "--engine", "triton", "--triton-url", triton["grpc"])
        )
        print(f"{bundle.name}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {platform.platform()}")
        asyncio.run(compare(repository, bundle, {"triton": triton, "local": local, "gateway": gateway}, arguments))


if __name__ == "__main__":
    main()
