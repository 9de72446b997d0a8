"""Tracing interface of the transports, beyond the core's spans: a span per request, with the caller's trace context."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from dimml.spans import Attributes, NoSpan, NoSpans, Span, Spans, status_attribute

if TYPE_CHECKING:
    from dimml_server.observability.request_context import RequestContext
    from dimml_server.settings.settings import ServerSettings


class RequestSpan(Span, Protocol):
    """The span of a whole request."""

    @property
    def trace_id(self) -> str:
        """Trace id of 32 hexadecimal digits; empty if nothing is traced."""
        ...

    def rename(self, name: str) -> None:
        """Give the span a name that was not known at its start."""
        ...


class Tracer(Spans, Protocol):
    """Makes the spans of one server."""

    def request(
        self, name: str, headers: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[RequestSpan]:
        """Open a span around one request; a child of the caller's span if ``headers`` hold W3C trace context."""
        ...

    def close(self) -> None:
        """Send the remaining spans, within a time limit; blocks."""
        ...


class _NoRequestSpan(NoSpan):
    trace_id = ""

    def rename(self, name: str) -> None:
        """Do nothing."""


class _NoTracer(NoSpans):
    def request(
        self, name: str, headers: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[RequestSpan]:
        return _NOBODY_SEES

    def close(self) -> None:
        pass


_NOBODY_SEES: Final = nullcontext(_NoRequestSpan())
NO_TRACER: Final = _NoTracer()


def open_tracer(settings: ServerSettings) -> Tracer:
    """Open the tracer of the settings; without ``traces_endpoint`` it does nothing, and OpenTelemetry is not loaded.

    Raises ConfigurationError if OpenTelemetry is not installed, or the address is invalid.
    """
    if settings.traces_endpoint is None:
        return NO_TRACER
    from dimml_server.observability.otel import OtelTracer

    return OtelTracer(settings.traces_endpoint, settings.traces_ratio)


def describe(span: RequestSpan, request_context: RequestContext) -> None:
    """Set the attributes of a request's span that are known at its end."""
    span.set("dimml.request_id", request_context.request_id)
    record = request_context.record
    if record is not None:
        if record.model:
            span.set("dimml.bundle", record.model)
            span.set("dimml.version", int(record.version))
        if record.answered:
            span.set("dimml.degraded", record.degraded)
    for name, status in request_context.modalities.items():
        span.set(status_attribute(name), status)
    if request_context.outcome:
        span.set("error.type", request_context.outcome)
