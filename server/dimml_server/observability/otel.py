"""OpenTelemetry spans, sent over OTLP (HTTP, protobuf). Imported only if ``traces_endpoint`` is set."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from dimml import __version__
from dimml.engine import EngineError
from dimml.errors import ConfigurationError, DimmlError
from dimml.spans import Attributes
from dimml.status import Reason
from dimml.system.installation import install_command

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise ConfigurationError(
        f"traces_endpoint needs {error.name}, which is not installed: {install_command('otel')}",
        field="traces_endpoint",
    ) from error

logger = logging.getLogger(__name__)

#: How long the server waits at its stop for the last spans to be sent.
FLUSH_S: Final = 1.5
_TRACES_PATH: Final = "/v1/traces"


class OtelSpan:
    """``dimml.spans.Span`` and ``RequestSpan`` over an OpenTelemetry span."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, name: str, value: str | int | bool) -> None:
        """Set an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, kind: str) -> None:
        """Mark the span as failed, without message or traceback: they may hold what a caller sent."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)

    @property
    def trace_id(self) -> str:
        """Id of this span's trace, sampled or not; empty if ``OTEL_SDK_DISABLED`` is set."""
        context = self._span.get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else ""

    def rename(self, name: str) -> None:
        """Rename the span."""
        self._span.update_name(name)


class OtelTracer:
    """``dimml_server.observability.tracer.Tracer``, with a provider of its own.

    ``endpoint`` is a collector's base URL (``http://host:4318``). ``ratio`` is the share of requests traced among those
    without a sampled parent. A thread sends spans in batches; if the collector is unreachable they are dropped, and
    requests never wait.
    """

    def __init__(self, endpoint: str, ratio: float) -> None:
        url = endpoint.rstrip("/")
        self._exporter = OTLPSpanExporter(endpoint=url if url.endswith(_TRACES_PATH) else url + _TRACES_PATH)
        own = Resource({"service.name": "dimml", "service.version": __version__})
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)),
            # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence over ours.
            resource=own.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("dimml", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[OtelSpan]:
        """Open a span around one stage."""
        with self._tracer.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as inner:
            span = OtelSpan(inner)
            try:
                yield span
            except BaseException as error:
                span.fail(_kind(error))
                raise

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str], attributes: Attributes) -> Iterator[OtelSpan]:
        """Open a span around one request. ``headers`` are by lower-case name."""
        with self._tracer.start_as_current_span(
            name,
            context=self._propagator.extract(headers, context=Context()),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as inner:
            yield OtelSpan(inner)

    def outgoing(self) -> tuple[tuple[str, str], ...]:
        """Return ``traceparent``, and ``tracestate`` if the caller sent one."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return tuple(carrier.items())

    def close(self) -> None:
        """Send the remaining spans, within ``FLUSH_S``."""
        # The provider's own limit is half a minute, more than a server has after SIGTERM.
        flushing = threading.Thread(target=self._provider.shutdown, name="dimml-last-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)
        if flushing.is_alive():
            logger.warning("the collector did not take the last spans within %g s: they are lost", FLUSH_S)


def _kind(error: BaseException) -> str:
    if isinstance(error, DimmlError):
        return error.code
    if isinstance(error, EngineError):
        return error.reason.value
    if isinstance(error, TimeoutError):
        return Reason.DEADLINE.value
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "internal"
