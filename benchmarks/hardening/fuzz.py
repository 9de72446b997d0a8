"""Damaged recordings and malformed KServe v2 requests, through a real server."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from time import perf_counter
from typing import Any

import grpc
from tritonclient.grpc import service_pb2

from hardening import recordings
from hardening.raw import multipart, post
from hardening.report import Report, quantile
from hardening.watching import usage
from support.server_process import ServerProcess, running_server

DEADLINE_S = 10.0
#: On top of the server's own deadline, before a client takes an answer for missing.
PATIENCE_S = 20.0
CLIENTS = 8
#: Memory may end so far above its level after the warm-up: allocators keep what they had at the peak.
MEMORY_SLACK_MB = 150.0
_METHODS = ("ModelInfer", "ModelMetadata", "ModelConfig", "ModelReady", "RepositoryIndex", "ModelStatistics")
#: What a server may answer, by transport: anything below 500, and the documented 501, 503 and 504.
_FINE = {501, 503, 504}

Outcome = tuple[str, float]


async def _in_parallel(count: int, one: Callable[[int], Awaitable[Outcome]]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    numbers: Iterator[int] = iter(range(count))

    async def client() -> None:
        for number in numbers:
            outcomes.append(await one(number))

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return outcomes


async def media(server: ServerProcess, count: int, seed: int) -> list[Outcome]:
    """``POST /v1/predict`` with damaged recordings."""
    originals = recordings.seeds()

    async def one(number: int) -> Outcome:
        random_ = random.Random(f"{seed}/{number}")
        data = recordings.mutated(random_.choice(originals), random_.choice(originals), random_)
        answer = await post(server.http, "/v1/predict", *multipart({"media": data}), limit_s=DEADLINE_S + PATIENCE_S)
        return str(answer.status), answer.total_s

    return await _in_parallel(count, one)


def _infer_request(clip: bytes) -> service_pb2.ModelInferRequest:
    request = service_pb2.ModelInferRequest(model_name="avdigits_media", id="x")
    request.inputs.add(name="MEDIA", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(clip).to_bytes(4, "little") + clip)
    request.outputs.add(name="PROBABILITIES")
    return request


def _damaged_json(header: dict[str, Any], random_: random.Random) -> bytes:
    text = bytearray(json.dumps(header).encode())
    for _ in range(random_.choice((1, 2, 5))):
        at = random_.randrange(len(text))
        choice = random_.randrange(4)
        if choice == 0:
            text[at] = random_.randrange(256)
        elif choice == 1:
            text[at:at] = random_.choice(
                (b"[", b"{", b'"', b"-1", b"1e999", b"null", b"\\ud800", b"99999999999999999999")
            )
        elif choice == 2:
            del text[at : at + random_.randrange(1, 20)]
        else:
            text[at:at] = text[at : at + 30]
    return bytes(text)


async def kserve_http(server: ServerProcess, count: int, seed: int) -> list[Outcome]:
    """``POST /v2/models/…/infer`` with damaged headers, tails and lengths."""
    clip = recordings.GOOD.read_bytes()
    tail = len(clip).to_bytes(4, "little") + clip

    async def one(number: int) -> Outcome:
        random_ = random.Random(f"{seed}/http/{number}")
        tensor = {"name": "MEDIA", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
        header = _damaged_json({"id": "x", "inputs": [tensor], "outputs": [{"name": "STATUS"}]}, random_)
        body = tail[: random_.randrange(len(tail))] if random_.random() < 0.3 else tail
        length = random_.choice((len(header), len(header), len(header) - 1, 0, -1, 10**30, "x"))
        model = random_.choice(
            ("avdigits_media", "avdigits", "avdigits_audio", "avdigits_fusion", "no", "%00", "..%2f")
        )
        headers = {"Inference-Header-Content-Length": length}
        if random_.random() < 0.1:
            headers["Content-Encoding"] = random_.choice(("gzip", "deflate", "br", "\xff"))
        path = f"/v2/models/{model}/infer"
        answer = await post(
            server.http,
            path,
            header + body,
            "application/octet-stream",
            limit_s=DEADLINE_S + PATIENCE_S,
            headers=headers,
        )
        return str(answer.status), answer.total_s

    return await _in_parallel(count, one)


async def kserve_grpc(server: ServerProcess, count: int, seed: int) -> list[Outcome]:
    """KServe v2 over gRPC: damaged messages, as bytes that may not even be protobuf."""
    message = _infer_request(recordings.GOOD.read_bytes()).SerializeToString()
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        calls = {
            name: channel.unary_unary(
                f"/inference.GRPCInferenceService/{name}",
                request_serializer=lambda data: data,
                response_deserializer=lambda data: data,
            )
            for name in _METHODS
        }

        async def one(number: int) -> Outcome:
            random_ = random.Random(f"{seed}/grpc/{number}")
            # The message's own fields lie before the recording.
            data = recordings.mutated(message[: random_.choice((60, 200, len(message)))], message, random_)
            began = perf_counter()
            try:
                await calls[random_.choice(_METHODS)](data, timeout=DEADLINE_S + PATIENCE_S)
                code = "OK"
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            return code, perf_counter() - began

        return await _in_parallel(count, one)


def _counted(outcomes: list[Outcome]) -> str:
    return ", ".join(f"{status}: {count}" for status, count in sorted(Counter(s for s, _ in outcomes).items()))


def fuzz(*, count: int, requests: int, seed: int = 1) -> Report:
    """``count`` damaged recordings, ``requests`` malformed ones over each of KServe's transports."""
    report = Report(f"Fuzz: {count} damaged recordings, {requests} malformed KServe v2 requests over each transport")
    with running_server(recordings.REPOSITORY, timeout_s=DEADLINE_S, log_level="warning") as server:

        async def everything() -> None:
            await media(server, min(count, 300), seed - 1)
            before = usage(server)
            began = perf_counter()
            for name, outcomes in (
                ("recordings", await media(server, count, seed)),
                ("KServe over HTTP", await kserve_http(server, requests, seed)),
            ):
                bad = [s for s, _ in outcomes if s == "0" or (int(s) >= 500 and int(s) not in _FINE)]
                report.check(f"{name}: answers by status", _counted(outcomes), "no 5xx but 501, 503, 504", not bad)
                slowest = max(seconds for _, seconds in outcomes)
                report.check(
                    f"{name}: slowest answer", f"{slowest:.1f} s", "10 s and 2 of grace", slowest < DEADLINE_S + 2
                )
                report.note(f"{name}: median", f"{quantile([s for _, s in outcomes], 0.5) * 1000:.0f} ms")
            outcomes = await kserve_grpc(server, requests, seed)
            bad = [code for code, _ in outcomes if code in ("INTERNAL", "UNKNOWN", "DATA_LOSS", "CANCELLED")]
            report.check("KServe over gRPC: answers by code", _counted(outcomes), "no INTERNAL or UNKNOWN", not bad)
            report.note("time", f"{perf_counter() - began:.0f} s")
            await asyncio.sleep(2.0)
            after = usage(server)
            report.check(
                "server's memory before, after",
                f"{before.memory_mb:.0f}, {after.memory_mb:.0f} MB",
                f"at most {MEMORY_SLACK_MB:.0f} MB more",
                after.memory_mb - before.memory_mb <= MEMORY_SLACK_MB,
            )
            report.check(
                "open files before, after",
                f"{before.files}, {after.files}",
                "the same",
                after.files <= before.files + 2,
            )
            report.note("decode workers lost", f"{server.metric('dimml_decode_workers_lost_total'):.0f}")
            good = await post(
                server.http, "/v1/predict", *multipart({"media": recordings.GOOD.read_bytes()}), limit_s=30.0
            )
            report.check("a good recording afterwards", good.status, "200", good.status == 200)
            tracebacks = server.log.count("Traceback")
            report.check("tracebacks in the log", tracebacks, "0", tracebacks == 0)

        asyncio.run(everything())
    report.note("server's exit", "0, no process left")
    return report
