"""The one log line of each request, as text and as JSON."""

from __future__ import annotations

import logging
from time import perf_counter
from typing import Any, Final
from urllib.parse import quote

from dimml_server.observability.request_context import RequestNote

access_logger = logging.getLogger("dimml_server.access")

#: Of what a caller may make as long as a request's head.
_LONGEST_TARGET: Final = 512
#: May stand in a text line as it is: no blank, which would begin the next field, and no control character.
_PLAIN: Final = "/:@!$&'()*+,;=~-._[]"


class AccessLine:
    """What is said of a request that is done. ``str()`` is the text line."""

    def __init__(self, note: RequestNote) -> None:
        record = note.record
        http = note.transport == "http"
        target = note.target[:_LONGEST_TARGET]
        #: Every key is always there; null where it does not apply or is not known.
        self.fields: dict[str, Any] = {
            "transport": note.transport,
            "method": note.method,
            "path": target or None if http else None,
            "model": None if http else target or None,
            "status": note.status,
            "code": note.outcome or None,
            "ms": round((perf_counter() - note.began) * 1000.0, 3),
            "bytes_in": note.bytes_in,
            "bundle": (record.model or None) if record else None,
            "version": int(record.version) if record and record.version else None,
            "degraded": record.degraded if record and record.answered else None,
            "modalities": note.modalities or None,
            "client": note.client or None,
            "request_id": note.request_id,
            "key": note.key or None,
            "trace_id": note.trace_id or None,
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


def log_access(note: RequestNote) -> None:
    """Write the line."""
    if access_logger.isEnabledFor(logging.INFO):
        access_logger.info(AccessLine(note))
