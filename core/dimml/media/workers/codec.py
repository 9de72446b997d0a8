"""A worker's reply as JSON text, followed by the bytes of its rows.

Rows are written from where they are, and read into where they stay. The text's form: ``reply_schema``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydantic_core
from pydantic import ValidationError

from dimml.errors import (
    DataError,
    DimmlError,
    InvalidParameterError,
    RequestError,
    TooLargeError,
    UnreadableError,
    UnsupportedError,
    UnusableMediaError,
)
from dimml.media.decoders.time_range import Window, WindowDecoded
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodedTrack, Truncation
from dimml.media.workers.channel import ALIGNMENT, MalformedReplyError
from dimml.media.workers.messages import DecodeResult, Lost, Outcome, Ready, Reply, WindowsReply
from dimml.media.workers.reply_schema import (
    MAX_DETAIL_CHARS,
    REPLY,
    DecodedDocument,
    ErrorDocument,
    LostDocument,
    ReadyDocument,
    ResultDocument,
    ResultsDocument,
    RowDocument,
    StatusDocument,
    WindowDocument,
    WindowsDocument,
)
from dimml.status import OK, ModalityStatus, Reason
from dimml.validation import first_fault

#: Characters kept of a name, and of what is logged about a malformed reply.
_MAX_NAME_CHARS: Final = 500
#: Characters kept of a message, a traceback, or a part of the sandbox.
_MAX_MESSAGE_CHARS: Final = 20_000
#: Faults of a document beyond which only their number is reported: listing them costs more than finding them.
_MAX_LISTED_FAULTS: Final = 100
#: Of the contract (``dimml.modality``).
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "uint8": np.dtype(np.uint8)}
_STATUSES: Final = {str(status): status for status in (OK, *map(ModalityStatus.because, Reason))}
#: The errors that decoding raises; their messages are for the caller.
_ERRORS: Final[Mapping[str, type[DimmlError]]] = {
    kind.__name__: kind
    for kind in (
        RequestError,
        InvalidParameterError,
        UnusableMediaError,
        TooLargeError,
        UnsupportedError,
        DataError,
        UnreadableError,
    )
}


def encode_reply(reply: Reply) -> tuple[bytes, list[npt.NDArray[Any]]]:
    """Return text and rows of a message. Raises ValueError or TypeError if JSON cannot express the reply."""
    rows: list[npt.NDArray[Any]] = []
    document = _reply_document(reply, rows)
    with suppress(ValueError):
        text = pydantic_core.to_json(document, inf_nan_mode="constants")
        if b"NaN" not in text and b"Infinity" not in text:
            return text, rows
    # Slower, and it refuses numbers that are not finite, and writes half a character as an escape.
    return json.dumps(document, allow_nan=False, separators=(",", ":")).encode(), rows


def read_reply(text: bytes | bytearray, rows: npt.NDArray[np.uint8]) -> Reply:
    """Parse a reply; inverse of ``encode_reply``.

    The reply's rows are views of ``rows`` (uint8, the bytes behind the text), which they use up. Raises
    MalformedReplyError for everything that ``encode_reply`` does not write.
    """
    try:
        return _reply(REPLY.validate_json(text), _RowReader(rows))
    except ValidationError as error:
        raise MalformedReplyError(_describe(error)) from None
    except Exception as error:
        # The text is untrusted: an error that is not foreseen here must not end the thread that reads it.
        raise MalformedReplyError(f"{type(error).__name__}: {error}"[:_MAX_NAME_CHARS]) from error


def _describe(error: ValidationError) -> str:
    if error.error_count() > _MAX_LISTED_FAULTS:
        return f"{error.error_count()} faults in its text"
    fault = first_fault(error, "the text")
    # Both may quote the worker, which must not write lines of its own into the log.
    return ascii(f"{fault.field}: {fault.message}")[1:-1][:_MAX_NAME_CHARS]


def _reply_document(reply: Reply, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """Describe ``reply`` in the form of ``reply_schema``; append its rows to ``rows``."""
    match reply:
        case list():
            results = [{"outcome": _outcome_document(one.outcome, rows), "seconds": one.seconds} for one in reply]
            return {"kind": "results", "results": results}
        case WindowsReply(windows, done):
            return {"kind": "windows", "windows": [_window_document(one, rows) for one in windows], "done": done}
        case Ready(isolation):
            return {"kind": "ready", "enforced": isolation.enforced, "missing": isolation.missing}
    return _outcome_document(reply, rows)


def _outcome_document(outcome: Outcome, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    match outcome:
        case Decoded():
            return _decoded_document(outcome, rows)
        case Lost(reason, details):
            return {"kind": "lost", "reason": reason.value, "details": details[-_MAX_MESSAGE_CHARS:]}
    name = type(outcome).__name__
    if name not in _ERRORS:
        unexpected = f"decoding raised {name}: {outcome}"
        return {"kind": "lost", "reason": Reason.DECODER_CRASHED.value, "details": unexpected}
    return {
        "kind": "error",
        "error": name,
        "message": outcome.message,
        "field": outcome.field,
        "statuses": [{"modality": name, **_status_fields(status)} for name, status in outcome.statuses.items()],
    }


def _decoded_document(decoded: Decoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    tracks: list[dict[str, Any]] = []
    for name, track in decoded.tracks.items():
        row = None
        if track.row is not None:
            rows.append(np.ascontiguousarray(track.row))
            row = {"dtype": track.row.dtype.name, "shape": track.row.shape}
        document = {"modality": name, "times_s": track.times_s, "row": row, **_status_fields(track.status)}
        if track.truncation is not None:
            document["truncation"] = (track.truncation.held_s, track.truncation.promised_s)
        if track.channel is not None:
            document["channel"] = track.channel
        tracks.append(document)
    ends = {"start_s": decoded.start_s, "end_s": decoded.end_s}
    length = {} if decoded.duration_s is None else {"duration_s": decoded.duration_s}
    return {"kind": "decoded", "tracks": tracks, **ends, **length}


def _status_fields(status: ModalityStatus) -> dict[str, str]:
    found = {"status": str(status)}
    return found if status.detail is None else found | {"detail": status.detail[:MAX_DETAIL_CHARS]}


def _status(document: StatusDocument) -> ModalityStatus:
    """Parse a status. Raises ValueError for one that does not exist, or that has a detail and is ``ok``."""
    status = _STATUSES.get(document.status) or ModalityStatus.parse(document.status)
    if document.detail is None:
        return status
    if status.reason is None or not document.detail.isprintable():
        raise ValueError(f"{document.status} with a detail that is not for it")
    return ModalityStatus.because(status.reason, document.detail)


def _window_document(one: WindowDecoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    window, span = (None if it is None else (it.start_s, it.end_s) for it in (one.window, one.span))
    decoded = _decoded_document(one.decoded, rows)
    return {"number": one.number, "count": one.count, "window": window, "span": span, "decoded": decoded}


class _RowReader:
    """Reader of the rows in the bytes behind the text, one after the other."""

    def __init__(self, content: npt.NDArray[np.uint8]) -> None:
        self._content = content
        self._taken = 0

    def take(self, row: RowDocument) -> npt.NDArray[Any]:
        """Return the next row as a view. Raises ValueError if fewer bytes are left."""
        dtype = _DTYPES[row.dtype]
        size = dtype.itemsize * math.prod(row.shape)
        if size > self._left:
            raise ValueError(f"a row of {row.shape} is not there")
        array = self._content[self._taken : self._taken + size].view(dtype).reshape(row.shape)
        self._taken += size + -size % ALIGNMENT
        return array

    def finish(self) -> None:
        """Raise ValueError if bytes are left over."""
        if self._left:
            raise ValueError(f"{self._left} bytes of rows belong to nothing")

    @property
    def _left(self) -> int:
        return len(self._content) - self._taken


def _reply(
    document: ResultsDocument | WindowsDocument | ReadyDocument | ErrorDocument | LostDocument, rows: _RowReader
) -> Reply:
    """Build the message that a valid document describes. Raises ValueError for rows or names that do not fit."""
    reply: Reply
    match document:
        case ResultsDocument():
            reply = [_result(one, rows) for one in document.results]
        case WindowsDocument():
            reply = WindowsReply([_window(one, rows) for one in document.windows], document.done)
        case ReadyDocument():
            reply = Ready(Isolation(_texts(document.enforced), _texts(document.missing)))
        case ErrorDocument():
            reply = _error(document)
        case LostDocument():
            reply = _lost(document)
    rows.finish()
    return reply


def _result(document: ResultDocument, rows: _RowReader) -> DecodeResult:
    outcome: Outcome
    match document.outcome:
        case DecodedDocument():
            outcome = _decoded(document.outcome, rows)
        case ErrorDocument():
            outcome = _error(document.outcome)
        case LostDocument():
            outcome = _lost(document.outcome)
    return DecodeResult(outcome, document.seconds)


def _decoded(document: DecodedDocument, rows: _RowReader) -> Decoded:
    tracks = {
        track.modality: DecodedTrack(
            _status(track),
            None if track.row is None else rows.take(track.row),
            track.times_s,
            None if track.truncation is None else Truncation(*track.truncation),
            track.channel,
        )
        for track in document.tracks
    }
    if len(tracks) < len(document.tracks):
        raise ValueError("two tracks of one modality")
    return Decoded(tracks, document.start_s, document.end_s, document.duration_s)


def _window(document: WindowDocument, rows: _RowReader) -> WindowDecoded:
    if document.number >= document.count:
        raise ValueError(f"window {document.number} of {document.count}")
    window, span = (None if ends is None else Window(*ends) for ends in (document.window, document.span))
    return WindowDecoded(document.number, document.count, window, span, _decoded(document.decoded, rows))


def _error(document: ErrorDocument) -> DimmlError:
    kind, message = _ERRORS.get(document.error), document.message[:_MAX_MESSAGE_CHARS]
    if kind is None:
        raise ValueError(f"decoding does not raise {document.error!r}")
    field = None if document.field is None else document.field[:_MAX_NAME_CHARS]
    statuses = {one.modality: _status(one) for one in document.statuses}
    return kind(message, field=field) if issubclass(kind, DataError) else kind(message, field=field, statuses=statuses)


def _lost(document: LostDocument) -> Lost:
    return Lost(Reason(document.reason), document.details[:_MAX_MESSAGE_CHARS])


def _texts(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(text[:_MAX_MESSAGE_CHARS] for text in texts)
