"""Spans of a real server as a real OTLP collector gets them: their tree, the caller's trace, faults, no content."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc
from opentelemetry.sdk.trace import TracerProvider
from tritonclient.utils import InferenceServerException

from dimml.system.installation import install_command
from dimml_client import Client
from dimml_server.observability.otel import FLUSH_S, OtelTracer
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import marked, tiny_clip
from support.trace_collector import Collector, Seen, trace_collector

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
MARKER = b"what-the-recording-holds"
FILE_NAME = "name-of-the-file.mp4"
GRPC_INFER = "inference.GRPCInferenceService/ModelInfer"
HTTP_PREDICT = "POST /v1/predict"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    make_tiny_bundle(folder)
    make_tiny_bundle(folder, name="stalls", stall="audio", deadline_ms=400)
    return folder


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with trace_collector() as it:
        yield it


@pytest.fixture(scope="module")
def server(repository: Path, collector: Collector) -> Iterator[ServerProcess]:
    settings = {"traces_endpoint": collector.url, "decode_workers": 1}
    with running_server(repository, environment=SOON, fresh=False, **settings) as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return marked(tiny_clip(tmp_path_factory.mktemp("clip"), 1), MARKER)


class Caller:
    """A caller's span, as it goes over the wire."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.headers = {
            "traceparent": f"00-{self.trace}-{self.span}-{'01' if sampled else '00'}",
            "tracestate": "vendor=opaque",
        }


def predict(server: ServerProcess, clip: bytes, headers: dict[str, str], **fields: str) -> httpx.Response:
    files = {"media": (FILE_NAME, clip)}
    return httpx.post(f"{server.url}/v1/predict", files=files, data=fields, headers=headers, timeout=30.0)


def infer(server: ServerProcess, clip: bytes, headers: dict[str, str], model: str = "tiny_media") -> Any:
    tensor = tritonclient.grpc.InferInput("MEDIA", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([clip], np.object_))
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        return client.infer(model, [tensor], headers=headers, client_timeout=30.0)


def check_tree(spans: dict[str, Seen], request: str, caller: Caller, *stages: str) -> Seen:
    assert set(spans) == {request, *stages}
    root = spans[request]
    assert (root.parent, root.server, root.state) == (caller.span, True, "vendor=opaque")
    for stage in stages:
        span = spans[stage]
        assert span.parent == root.identity, stage
        assert root.began_ns <= span.began_ns <= span.ended_ns <= root.ended_ns, stage
        assert (span.attributes["dimml.bundle"], span.attributes["dimml.version"]) == ("tiny", 1)
    return root


STAGES = ("queue", "decode", "encode audio", "encode visual", "fuse")


def test_an_http_request_is_a_tree_below_the_callers_span(
    server: ServerProcess, collector: Collector, clip: bytes
) -> None:
    caller = Caller()
    answer = predict(server, clip, caller.headers | {"X-Request-Id": "traced-1"}, model="tiny")
    assert answer.status_code == 200
    spans = collector.wait_for_request(caller.trace)
    root = check_tree(spans, HTTP_PREDICT, caller, *STAGES)
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "dimml.request_id": "traced-1",
        "dimml.bundle": "tiny",
        "dimml.version": 1,
        "dimml.degraded": False,
        "dimml.modality.audio.status": "ok",
        "dimml.modality.visual.status": "ok",
    }
    encode = spans["encode audio"].attributes
    assert (encode["dimml.modality"], encode["dimml.status"], encode["dimml.rows"]) == ("audio", "ok", 1)
    assert root.resource["service.name"] == "dimml"
    assert not any(span.failed for span in spans.values())
    server.wait_for_log(f"trace_id={caller.trace}")


def test_so_is_a_grpc_call(server: ServerProcess, collector: Collector, clip: bytes) -> None:
    caller = Caller()
    infer(server, clip, caller.headers | {"x-request-id": "traced-2"})
    root = check_tree(collector.wait_for_request(caller.trace), GRPC_INFER, caller, *STAGES)
    assert root.attributes["dimml.request_id"] == "traced-2"
    assert root.attributes["rpc.response.status_code"] == "OK"
    assert root.attributes["dimml.modality.audio.status"] == "ok"


def test_a_modality_without_signal_has_no_encoder_span(
    server: ServerProcess, collector: Collector, tmp_path: Path
) -> None:
    caller = Caller()
    assert predict(server, tiny_clip(tmp_path, 1, sound="silence"), caller.headers, model="tiny").status_code == 200
    spans = collector.wait_for_request(caller.trace)
    root = check_tree(spans, HTTP_PREDICT, caller, "queue", "decode", "encode visual", "fuse")
    assert root.attributes["dimml.degraded"] is True
    assert root.attributes["dimml.modality.audio.status"] == "unusable:silent"
    assert spans["decode"].attributes["dimml.modality.audio.status"] == "unusable:silent"


def test_a_late_encoder_is_a_failed_span_of_an_answered_request(
    server: ServerProcess, collector: Collector, clip: bytes
) -> None:
    caller = Caller()
    assert predict(server, clip, caller.headers, model="stalls").status_code == 200
    spans = collector.wait_for_request(caller.trace)
    late = spans["encode audio"]
    assert late.failed
    assert (late.attributes["dimml.status"], late.attributes["dimml.reason"]) == ("timeout", "deadline")
    assert not spans[HTTP_PREDICT].failed
    assert not spans["encode visual"].failed
    assert late.ended_ns - late.began_ns > 300e6


def test_errors_are_told_the_callers_from_the_servers(server: ServerProcess, collector: Collector, clip: bytes) -> None:
    caller = Caller()
    assert predict(server, clip, caller.headers, model="none").status_code == 404
    (root,) = collector.wait_for_request(caller.trace).values()
    assert (root.failed, root.attributes["error.type"]) == (False, "not_found")
    caller = Caller()
    # The only encoder that may answer is late.
    assert predict(server, clip, caller.headers, model="stalls", modalities="audio").status_code == 504
    spans = collector.wait_for_request(caller.trace)
    assert spans[HTTP_PREDICT].failed
    assert spans[HTTP_PREDICT].attributes["error.type"] == "deadline_exceeded"
    assert "fuse" not in spans
    caller = Caller()
    with pytest.raises(InferenceServerException):
        infer(server, clip, caller.headers, model="none")
    (root,) = collector.wait_for_request(caller.trace).values()
    assert (root.failed, root.attributes["rpc.response.status_code"]) == (False, "NOT_FOUND")


def test_the_caller_decides_on_sampling_and_probes_are_not_traced(
    server: ServerProcess, collector: Collector, clip: bytes
) -> None:
    unsampled, probe, later = Caller(sampled=False), Caller(), Caller()
    assert predict(server, clip, unsampled.headers, model="tiny").status_code == 200
    assert httpx.get(f"{server.url}/health/ready", headers=probe.headers).status_code == 200
    assert predict(server, clip, later.headers, model="tiny").status_code == 200
    collector.wait_for_request(later.trace)
    assert not collector.trace(unsampled.trace)
    assert not collector.trace(probe.trace)
    server.wait_for_log(f"trace_id={unsampled.trace}")


def test_a_malformed_trace_context_begins_a_trace_of_its_own(server: ServerProcess, clip: bytes) -> None:
    for number, parent in enumerate(("00-xyz-1-01", "ff-" + "1" * 32 + "-" + "2" * 16 + "-01", "x" * 4000)):
        identity = f"malformed-{number}"
        answer = predict(server, clip, {"traceparent": parent, "X-Request-Id": identity}, model="tiny")
        assert answer.status_code == 200
        server.wait_for_log(f"request_id={identity} trace_id=")


@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_our_client_passes_its_callers_span_on(
    server: ServerProcess, collector: Collector, clip: bytes, transport: str
) -> None:
    url = server.url if transport == "http" else f"grpc://{server.grpc}"
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with Client(url) as client:
        with tracer.start_as_current_span("caller") as span:
            client.predict(clip, model="tiny")
        context = span.get_span_context()
        trace = f"{context.trace_id:032x}"

        def done(seen: list[Seen]) -> bool:
            return any(s.name in (HTTP_PREDICT, GRPC_INFER) for s in seen)

        spans = collector.wait(trace, done)
        assert {s.parent for s in spans if s.server} == {f"{context.span_id:016x}"}
        before = len(collector.trace(trace))
        client.predict(clip, model="tiny")  # No span is open: no part of that trace.
        assert len(collector.trace(trace)) == before


def test_nothing_of_a_recording_is_in_a_span_or_in_the_log(server: ServerProcess, collector: Collector) -> None:
    assert len(collector.spans) > 20, "this test looks at what the others have made"
    for forbidden in (MARKER, FILE_NAME.encode()):
        assert forbidden not in collector.raw
        assert forbidden not in server.log.encode()


def test_the_gateway_passes_trace_context_on(repository: Path, collector: Collector, clip: bytes) -> None:
    """What answers in Triton's place is `dimml serve` itself, which shows in its own spans what it was sent."""
    settings = {"traces_endpoint": collector.url, "decode_workers": 1, "models": "tiny"}
    behind = SOON | {"OTEL_SERVICE_NAME": "behind"}
    with (
        running_server(repository, environment=behind, fresh=False, **settings) as models,
        running_server(
            repository, environment=SOON, fresh=False, engine="triton", triton_url=models.grpc, **settings
        ) as gateway,
    ):
        caller = Caller()
        assert predict(gateway, clip, caller.headers).status_code == 200

        def whole(seen: list[Seen]) -> bool:
            there = [s.name for s in seen if s.resource["service.name"] == "behind"]
            return there.count(GRPC_INFER) == 3 and any(s.name == HTTP_PREDICT for s in seen)

        spans = collector.wait(caller.trace, whole)
        ours = {s.name: s for s in spans if s.resource["service.name"] == "dimml"}
        check_tree(ours, HTTP_PREDICT, caller, *STAGES)
        there = [s for s in spans if s.resource["service.name"] == "behind" and s.name == GRPC_INFER]
        assert {s.parent for s in there} == {ours[n].identity for n in ("encode audio", "encode visual", "fuse")}


def test_the_last_spans_go_out_when_the_server_stops(repository: Path, collector: Collector, clip: bytes) -> None:
    caller = Caller()
    # By itself a batch would leave after a minute.
    late = {"OTEL_BSP_SCHEDULE_DELAY": "60000"}
    settings = {"traces_endpoint": collector.url, "decode_workers": 1, "models": "tiny"}
    with running_server(repository, environment=late, fresh=False, **settings) as server:
        assert predict(server, clip, caller.headers).status_code == 200
        assert not collector.trace(caller.trace)
    check_tree(collector.wait_for_request(caller.trace, 0.0), HTTP_PREDICT, caller, *STAGES)


@pytest.mark.parametrize("collector_is", ["not there", "silent"])
def test_a_collector_that_fails_costs_neither_answers_nor_the_way_out(
    repository: Path, clip: bytes, collector_is: str
) -> None:
    with ExitStack() as stuck, socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if collector_is == "not there":
            listener.close()  # Else it takes connections and never answers.
        settings = {"traces_endpoint": endpoint, "decode_workers": 1, "models": "tiny"}
        with running_server(repository, environment=SOON, fresh=False, **settings) as server:
            assert predict(server, clip, {}).status_code == 200
            if collector_is == "silent":
                listener.settimeout(30.0)
                stuck.enter_context(listener.accept()[0])
            else:
                time.sleep(0.5)  # For an attempt, of which nothing is written.
            assert predict(server, clip, {}).status_code == 200
            server.process.terminate()
            began = time.monotonic()
            server.process.wait(30.0)
            assert time.monotonic() - began < FLUSH_S + 15.0
        if collector_is == "silent":
            assert "did not take the last spans" in server.log
        assert "Traceback" not in server.log


def test_a_share_of_requests_is_traced_where_no_caller_decides(collector: Collector) -> None:
    tracer = OtelTracer(collector.url, 0.0)
    caller = Caller()
    with tracer.request("undecided", {}, {}) as undecided:
        pass
    with tracer.request("decided", caller.headers, {}):
        assert dict(tracer.outgoing())["traceparent"].startswith(f"00-{caller.trace}-")
    tracer.close()
    assert [span.name for span in collector.trace(caller.trace)] == ["decided"]
    assert not collector.trace(undecided.trace_id)


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)


def test_without_the_setting_opentelemetry_is_not_loaded() -> None:
    # FastAPI loads OpenTelemetry's API by itself where it is installed, nothing of its SDK or exporters.
    server = (
        "import dimml_server.process.lifecycle\n"
        "from dimml_server.observability.tracer import open_tracer\n"
        "from dimml_server.settings.settings import load_settings\n"
        "open_tracer(load_settings()).close()\n"
    )
    client = (
        "import dimml_client, dimml_client.transport.http, dimml_client.transport.grpc\n"
        "from dimml_client.transport.trace_context import trace_context\n"
        "assert trace_context() == {}\n"
    )
    for code, unwanted in ((server, ("opentelemetry.sdk", "opentelemetry.exporter")), (client, ("opentelemetry",))):
        done = run(f"{code}\nimport sys\nassert not [m for m in sys.modules if m.startswith({unwanted})]\n")
        assert done.returncode == 0, done.stderr


def test_without_the_extra_the_setting_says_what_to_install(repository: Path) -> None:
    code = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from dimml.cli import main\n"
        f"sys.exit(main(['serve', '--repository', {str(repository)!r}, '--http-port=0', '--grpc-port=0', "
        "'--set', 'traces_endpoint=http://127.0.0.1:9']))"
    )
    done = run(code)
    assert done.returncode != 0
    assert install_command("otel") in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
