"""The caller's W3C trace context, where it traces with OpenTelemetry; without it nothing is loaded."""

from __future__ import annotations

import sys


def trace_context() -> dict[str, str]:
    """``traceparent``, and ``tracestate`` where there is one, of the span that is open in this thread; else nothing.

    By lower-case name, so that they serve as HTTP headers and as gRPC metadata.
    """
    # Who has a span open has loaded it.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier
