"""A small real OTLP/HTTP collector: takes what an exporter posts, and reads it with opentelemetry-proto."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.waiting import wait_until


@dataclass(frozen=True)
class Seen:
    """One span; ids in hexadecimal."""

    name: str
    trace: str
    identity: str
    parent: str
    failed: bool
    server: bool
    state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]
    began_ns: int
    ended_ns: int


@dataclass
class Collector:
    """``url`` is what ``traces_endpoint`` must be."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    #: Everything that was posted, for what must not stand in it.
    raw: bytes = b""

    def trace(self, trace: str) -> list[Seen]:
        """Spans of one trace."""
        return [span for span in self.spans if span.trace == trace]

    def wait(self, trace: str, complete: Callable[[list[Seen]], bool], limit_s: float = 30.0) -> list[Seen]:
        """The spans of a trace, once they are ``complete``."""
        wait_until(
            lambda: complete(self.trace(trace)),
            limit_s,
            lambda: f"of trace {trace}: {[s.name for s in self.trace(trace)]}",
        )
        return self.trace(trace)

    def wait_for_request(self, trace: str, limit_s: float = 30.0) -> dict[str, Seen]:
        """The spans of one traced request by name; its own span ends last."""
        spans = self.wait(trace, lambda seen: any(span.server for span in seen), limit_s)
        found = {span.name: span for span in spans}
        assert len(found) == len(spans), f"a name twice: {[span.name for span in spans]}"
        return found


@contextmanager
def trace_collector() -> Iterator[Collector]:
    """A collector on a free port."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            with lock:
                collector.raw += body
                collector.spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10.0)


def _spans(request: ExportTraceServiceRequest) -> Iterator[Seen]:
    for of_resource in request.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Seen(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    identity=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                    server=span.kind == Span.SPAN_KIND_SERVER,
                    state=span.trace_state,
                    attributes=_attributes(span.attributes),
                    resource=_attributes(of_resource.resource.attributes),
                    began_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
