"""Clients of KServe v2 and of ``grpc.health.v1``: what each asks for, and what a right answer is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from callers.cases import SAMPLES
from support.kserve_clients import Face, face
from support.tiny_media import marked

#: In the order of the demo bundle's labels.
_THREE, _FOUR = 3, 4
_LIMIT_S = 30.0
_LARGE_BYTES = 3_000_000


def tritonclient(name: str, http: str, grpc_address: str) -> list[str]:
    """Everything that one of the four faces of tritonclient asks for; what is wrong with the answers."""
    with face(name, http, grpc_address) as one:
        checks: dict[str, Callable[[], str | None]] = {
            "live": lambda: _unless(one.client.is_server_live()),
            "ready": lambda: _unless(one.client.is_server_ready() and one.client.is_model_ready("avdigits_media")),
            "predict": lambda: _answer(one, "clean_three.mp4", _THREE, ["ok", "ok"]),
            "one modality missing": lambda: _answer(one, "no_sound.mp4", _FOUR, ["absent:no_track", "ok"]),
            "refused": lambda: _refused(one),
            "compressed": lambda: _answer(one, "clean_three.mp4", _THREE, ["ok", "ok"], **_gzip(one)),
            "large": lambda: _answer(one, "clean_three.mp4", _THREE, ["ok", "ok"], more=_LARGE_BYTES),
        }
        return _problems(checks)


def short_calls(name: str, http: str, grpc_address: str) -> None:
    """Those whose bytes are few enough to be kept: a recording without sound, plain and in gzip."""
    with face(name, http, grpc_address) as one:
        for how in ({}, _gzip(one)):
            problem = _answer(one, "no_sound.mp4", _FOUR, ["absent:no_track", "ok"], **how)
            if problem is not None:
                raise OSError(f"tritonclient.{name}: {problem}")


def health(address: str) -> list[str]:
    """Check and Watch as Kubernetes and grpc_health_probe ask, with grpcio's own stubs."""
    serving = health_pb2.HealthCheckResponse.SERVING
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def check(service: str) -> str | None:
            return _unless(
                stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_LIMIT_S).status == serving
            )

        def watch() -> str | None:
            watching = stub.Watch(health_pb2.HealthCheckRequest(), timeout=_LIMIT_S)
            status = next(watching).status
            watching.cancel()
            return _unless(status == serving)

        def unknown() -> str | None:
            try:
                check("none")
            except grpc.RpcError as error:
                return _unless(error.code() is grpc.StatusCode.NOT_FOUND)
            return "an unknown service is serving"

        checks = {
            "Check": lambda: check(""),
            "Check of a model": lambda: check("avdigits"),
            "Watch": watch,
            "Check of an unknown model": unknown,
        }
        return _problems(checks)


def _problems(checks: dict[str, Callable[[], str | None]]) -> list[str]:
    found = []
    for name, check in checks.items():
        try:
            problem = check()
        except Exception as error:  # A client's own errors are many; each is a finding.
            problem = repr(error)
        if problem is not None:
            found.append(f"{name}: {problem}")
    return found


def _unless(right: bool) -> str | None:
    return None if right else "no"


def _media(one: Face, data: bytes) -> Any:
    return one.tensor("MEDIA", np.array([data], np.object_), datatype="BYTES")


def _answer(one: Face, file: str, label: int, statuses: list[str], *, more: int = 0, **how: Any) -> str | None:
    data = (SAMPLES / file).read_bytes()
    answer = one.infer("avdigits_media", [_media(one, marked(data, bytes(more)) if more else data)], **how)
    found = int(answer.as_numpy("PROBABILITIES").argmax())
    status = [text.decode() for text in answer.as_numpy("STATUS").ravel()]
    return None if (found, status) == (label, statuses) else f"says class {found}, {status}"


def _refused(one: Face) -> str | None:
    try:
        one.infer("avdigits_media", [_media(one, b"no recording")])
    except InferenceServerException as error:
        return None if "usable" in str(error.message()) else f"does not say why: {error}"
    return "was answered"


def _gzip(one: Face) -> dict[str, str]:
    if one.http:
        return {"request_compression_algorithm": "gzip", "response_compression_algorithm": "gzip"}
    return {"compression_algorithm": "gzip"}
