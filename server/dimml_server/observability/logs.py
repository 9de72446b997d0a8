"""Logging of the ``dimml serve`` process: one line per event on stderr; stdout carries only the ready line.

A message stays on its line, whatever a caller or a library puts into it.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal

from dimml_server.observability.access_log import AccessLine
from dimml_server.observability.request_context import current_request


def configure_logging(level: str, form: Literal["text", "json"] = "text") -> None:
    """Set up the root logger. Called once, by the command."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Their messages repeat ours, or are of no interest to an operator.
    for noisy in ("uvicorn", "asyncio", "python_multipart", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # With the collector unreachable: one line for each lost batch, not for each attempt.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)


class TextFormatter(logging.Formatter):
    """Formats a line for people. Traceback lines are indented, so that none can pass for a log line."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the line, with any traceback below it."""
        text = f"{_timestamp(record)} {record.levelname} {record.name}: {_printable(record.getMessage())}"
        request_context = current_request()
        if request_context is not None and not isinstance(record.msg, AccessLine):
            text += f" request_id={request_context.request_id}"
            if request_context.trace_id:
                text += f" trace_id={request_context.trace_id}"
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {_printable(line)}" for line in lines)
        return text


class JsonFormatter(logging.Formatter):
    """Formats one JSON object per line; ASCII only, so that no reader mistakes a character for a line break."""

    def format(self, record: logging.LogRecord) -> str:
        """Format the JSON object."""
        document: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.msg, AccessLine):
            document |= {"message": "request", **record.msg.fields}
        else:
            document["message"] = record.getMessage()
            request_context = current_request()
            if request_context is not None:
                document |= {"request_id": request_context.request_id, "trace_id": request_context.trace_id or None}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def _timestamp(record: logging.LogRecord) -> str:
    """Format the record's time in UTC, as in RFC 3339."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
