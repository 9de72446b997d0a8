"""Small real servers of both protocols that answer as a test scripts them, for tests of clients."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

ANSWER = {
    "request_id": "r1",
    "model": "tiny",
    "version": 1,
    "label": "red",
    "probability": 0.75,
    "predictions": [{"label": "red", "probability": 0.75}],
    "degraded": False,
    "modalities": {"audio": {"status": "ok", "certainty": 0.9, "weight": 1.0, "label": "red", "probability": 0.9}},
    "fused_head": None,
    "timings_ms": {"queue": 0.0, "decode": 1.0, "encode": 1.0, "fuse": 0.1, "total": 2.2},
}


def refusal(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"it is {code}", "request_id": "r1", **more}}


@dataclass
class Scripted:
    """What to answer, request by request (the last one for ever), and what came in."""

    answers: list[tuple[int, dict[str, str], Any]]
    bodies: list[bytes] = field(default_factory=list)
    hang_s: float = 0.0
    #: Between one byte of the answer's body and the next.
    byte_every_s: float = 0.0
    url: str = ""


@contextmanager
def http_server(
    *answers: tuple[int, dict[str, str], Any], hang_s: float = 0.0, byte_every_s: float = 0.0
) -> Iterator[Scripted]:
    script = Scripted(list(answers), hang_s=hang_s, byte_every_s=byte_every_s)
    stopping = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            script.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            if script.hang_s:
                stopping.wait(script.hang_s)
            status, headers, body = script.answers[min(len(script.bodies), len(script.answers)) - 1]
            text = body if isinstance(body, (str, bytes)) else json.dumps(body)
            data = text if isinstance(text, bytes) else text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if not script.byte_every_s:
                self.wfile.write(data)
                return
            # A client that has had enough is gone: what is written then goes nowhere.
            with suppress(OSError):
                for at in range(len(data)):
                    self.wfile.write(data[at : at + 1])
                    if stopping.wait(script.byte_every_s):
                        return

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield script
        finally:
            stopping.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FullThenFine(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # untyped stubs
    """Refuses the first calls with a code, then answers as ``tiny_media`` would."""

    def __init__(self, refusals: int, code: grpc.StatusCode, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.calls = 0
        self._refusals, self._code, self._metadata = refusals, code, metadata

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        self.calls += 1
        if self.calls <= self._refusals:
            context.set_trailing_metadata(self._metadata)
            context.abort(self._code, "refused for now")
        response = pb.ModelInferResponse(model_name=request.model_name, model_version="3", id=request.id)
        status = b"unusable:silent"
        for name, raw in {
            "PROBABILITIES": np.array([[0.2, 0.8]], "<f4").tobytes(),
            "LOGITS": np.zeros((1, 2), "<f4").tobytes(),
            "CERTAINTY": np.array([[0.0, 0.9, 0.0]], "<f4").tobytes(),
            "WEIGHTS": np.array([[0.0, 1.0, 0.0]], "<f4").tobytes(),
            "STATUS": len(status).to_bytes(4, "little") + status + b"\x02\x00\x00\x00ok",
        }.items():
            response.outputs.add(name=name)
            response.raw_output_contents.append(raw)
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's name
        assert (request.name, request.version) == ("tiny_media", "3")
        response = pb.ModelConfigResponse()
        for key, value in {
            "labels": ["a", "b"],
            "modalities": ["audio", "visual"],
            "heads": ["audio", "visual", "fused"],
            "tensors": {"audio": "WAVEFORM", "visual": "FRAMES"},
        }.items():
            response.config.parameters[key].string_value = json.dumps(value)
        return response


@contextmanager
def grpc_server(servicer: Any) -> Iterator[str]:
    """A gRPC server of one servicer; yields its URL."""
    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
