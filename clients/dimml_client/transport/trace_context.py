"""The caller's W3C trace context, if it uses OpenTelemetry; otherwise nothing is loaded."""

from __future__ import annotations

import sys


def trace_context() -> dict[str, str]:
    """Return ``traceparent``, and ``tracestate`` if any, of the span open in this thread; else nothing.

    Names are in lower case, so that they serve as HTTP headers and as gRPC metadata.
    """
    # A caller with an open span has loaded OpenTelemetry.
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier
