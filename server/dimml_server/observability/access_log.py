"""The one log line of each request, as text and as JSON."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote

from dimml_server.observability.request_context import RequestContext

access_logger = logging.getLogger("dimml_server.access")

#: Limit on the logged target, which a caller may make as long as a request's head.
_LONGEST_TARGET: Final = 512
#: Values that may appear in a text line unquoted: no space, which would begin the next field, and no control character.
_PLAIN: Final = "/:@!$&'()*+,;=~-._[]"


class AccessLine:
    """Access line of a finished request. ``str()`` is the text line."""

    def __init__(self, request_context: RequestContext) -> None:
        record = request_context.record
        http = request_context.transport == "http"
        target = request_context.target[:_LONGEST_TARGET]
        #: Every key is always present; null where it does not apply or is unknown.
        self.fields: dict[str, Any] = {
            "transport": request_context.transport,
            "method": request_context.method,
            "path": target or None if http else None,
            "model": None if http else target or None,
            "status": request_context.status,
            "code": request_context.outcome or None,
            "ms": round((perf_counter() - request_context.began) * 1000.0, 3),
            "bytes_in": request_context.bytes_in,
            "bundle": (record.model or None) if record else None,
            "version": int(record.version) if record and record.version else None,
            "degraded": record.degraded if record and record.answered else None,
            "modalities": request_context.modalities or None,
            "client": request_context.client or None,
            "request_id": request_context.request_id,
            "key": request_context.key or None,
            "trace_id": request_context.trace_id or None,
        }

    def __str__(self) -> str:
        f = self.fields
        target = quote(f["path"] or f["model"] or "-", safe=_PLAIN)
        words = [f["method"], target, str(f["status"])]
        if f["code"]:
            words.append(f["code"])
        words += [f"{f['ms']:.1f}ms", f"bytes_in={f['bytes_in']}"]
        if f["bundle"]:
            words.append(f"bundle={f['bundle']}/{f['version']}")
        if f["degraded"]:
            words.append("degraded")
        words += [f"{name}={status}" for name, status in (f["modalities"] or {}).items()]
        words += [f"{name}={quote(f[name], safe=_PLAIN)}" for name in _LAST if f[name]]
        return " ".join(words)


_LAST: Final = ("client", "request_id", "key", "trace_id")


def log_access(request_context: RequestContext) -> None:
    """Log the access line of a request."""
    if access_logger.isEnabledFor(logging.INFO):
        # What ``info`` does, without looking for the line of code that called it.
        line = AccessLine(request_context)
        access_logger.handle(access_logger.makeRecord(access_logger.name, logging.INFO, __file__, 0, line, (), None))
