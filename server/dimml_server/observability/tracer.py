"""What the transports ask of tracing beyond the core's spans: a span per request, with trace context from outside."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from dimml.spans import Attributes, NoSpan, NoSpans, Span, Spans, status_attribute

if TYPE_CHECKING:
    from dimml_server.observability.request_context import RequestNote
    from dimml_server.settings.settings import ServerSettings


class RequestSpan(Span, Protocol):
    """The span of a whole request."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits; empty where nothing is traced."""
        ...

    def rename(self, name: str) -> None:
        """Give it a name that was not known at its start."""
        ...


class Tracer(Spans, Protocol):
    """Makes the spans of one server."""

    def request(
        self, name: str, headers: Mapping[str, str], attributes: Attributes
    ) -> AbstractContextManager[RequestSpan]:
        """Around one request; a child of the caller's span where ``headers`` have W3C trace context."""
        ...

    def close(self) -> None:
        """Send what is left, within a bound of time; blocks."""
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
    """The tracer of the settings; without ``traces_endpoint`` one that does nothing, and OpenTelemetry is not loaded.

    Raises ConfigurationError where OpenTelemetry is not installed, or the address is none.
    """
    if settings.traces_endpoint is None:
        return NO_TRACER
    from dimml_server.observability.otel import OtelTracer

    return OtelTracer(settings.traces_endpoint, settings.traces_ratio)


def describe(span: RequestSpan, note: RequestNote) -> None:
    """Say on a request's span what is known at its end."""
    span.set("dimml.request_id", note.request_id)
    record = note.record
    if record is not None:
        if record.model:
            span.set("dimml.bundle", record.model)
            span.set("dimml.version", int(record.version))
        if record.answered:
            span.set("dimml.degraded", record.degraded)
    for name, status in note.modalities.items():
        span.set(status_attribute(name), status)
    if note.outcome:
        span.set("error.type", note.outcome)
