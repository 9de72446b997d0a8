"""Logging of the ``dimml serve`` process: one line per event on stderr, stdout left to the ready line.

Whatever a caller or a library puts into a message, it stays within its line.
"""

from __future__ import annotations

import json
import logging
import time
from typing import Any, Literal

from dimml_server.observability.access_log import AccessLine
from dimml_server.observability.request_context import current_note


def configure_logging(level: str, form: Literal["text", "json"] = "text") -> None:
    """Set up the root logger. Called once, by the command."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # Theirs say the same as ours, or things of no interest to an operator.
    for noisy in ("uvicorn", "asyncio", "python_multipart", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # A collector that is away: one line for each batch that is lost, not for each attempt.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)


class TextFormatter(logging.Formatter):
    """A line for people. A traceback's lines are indented, so that none can pass for a line of the log."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and below it a traceback where there is one."""
        text = f"{_timestamp(record)} {record.levelname} {record.name}: {_printable(record.getMessage())}"
        note = current_note()
        if note is not None and not isinstance(record.msg, AccessLine):
            text += f" request_id={note.request_id}"
            if note.trace_id:
                text += f" trace_id={note.trace_id}"
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            text += "".join(f"\n    {_printable(line)}" for line in lines)
        return text


class JsonFormatter(logging.Formatter):
    """A JSON object per line; ASCII alone, so that no reader sees a line's end where there is none."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        document: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if isinstance(record.msg, AccessLine):
            document |= {"message": "request", **record.msg.fields}
        else:
            document["message"] = record.getMessage()
            note = current_note()
            if note is not None:
                document |= {"request_id": note.request_id, "trace_id": note.trace_id or None}
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def _timestamp(record: logging.LogRecord) -> str:
    """UTC, RFC 3339."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
