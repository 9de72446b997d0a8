"""A worker's reply as JSON, and the rows as bare numbers behind it, which are written from where they are and read into
where they stay."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.windows import WindowDecoded
from dimml.media.sandbox.sandbox import Isolation
from dimml.media.types import Decoded, DecodedTrack
from dimml.media.workers.channel import ALIGNMENT, MalformedReplyError
from dimml.media.workers.messages import Answer, AnswersReply, Broke, OutOfMemory, Ready, Reply, Told, WindowsReply
from dimml.status import ModalityStatus

#: Of a text of a worker's that is shown or logged.
_MOST_SAID: Final = 500
#: Of what a worker says of itself, or of what broke.
_MOST_TOLD: Final = 20_000
#: Windows of one recording: three years of one a tenth of a second apart.
_MOST_WINDOWS: Final = 10**9
#: Of the contract (``dimml.modality``).
_DTYPES: Final[Mapping[str, np.dtype[Any]]] = {"float32": np.dtype(np.float32), "uint8": np.dtype(np.uint8)}
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
    """Text and rows of a message. Raises ValueError or TypeError where JSON cannot have it."""
    rows: list[npt.NDArray[Any]] = []
    return json.dumps(_document(reply, rows), allow_nan=False).encode(), rows


def read_reply(text: bytes | bytearray, rows: npt.NDArray[np.uint8]) -> Reply:
    """Inverse of ``encode_reply``: rows of the reply are views of ``rows``, all of it. Raises MalformedReplyError."""
    try:
        return _reply(json.loads(text, parse_constant=_no_number), rows)
    except Exception as error:
        # Whatever it is that nobody thought of: the text is a stranger's.
        raise MalformedReplyError(f"{type(error).__name__}: {error}"[:_MOST_SAID]) from error


def _document(reply: Reply, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """``reply`` as JSON has it; its rows are added to ``rows``."""
    match reply:
        case AnswersReply(answers):
            return {"answers": [_told_document(one.told, rows) | {"seconds": one.seconds} for one in answers]}
        case WindowsReply(windows, done):
            return {"windows": [_window_document(window, rows) for window in windows], "done": done}
        case Ready(isolation):
            return {"ready": {"enforced": isolation.enforced, "missing": isolation.missing}}
    return _told_document(reply, rows)


def _told_document(told: Told, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    match told:
        case Decoded():
            return {"decoded": _decoded_document(told, rows)}
        case OutOfMemory():
            return {"out_of_memory": True}
        case Broke(details):
            return {"broke": details[-_MOST_TOLD:]}
    name = type(told).__name__
    if name not in _ERRORS:
        return {"broke": f"decoding raised {name}: {told}"}
    statuses = {modality: str(status) for modality, status in told.statuses.items()}
    return {"error": name, "message": told.message, "field": told.field, "statuses": statuses}


def _decoded_document(decoded: Decoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    tracks = {}
    for name, track in decoded.tracks.items():
        tracks[name] = {"status": str(track.status), "times_s": track.times_s}
        if track.row is not None:
            rows.append(np.ascontiguousarray(track.row))
            tracks[name] |= {"dtype": track.row.dtype.name, "shape": track.row.shape}
    return {"tracks": tracks, "start_s": decoded.start_s, "end_s": decoded.end_s}


def _window_document(one: WindowDecoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    window, span = (None if it is None else (it.start_s, it.end_s) for it in (one.window, one.span))
    decoded = _decoded_document(one.decoded, rows)
    return {"number": one.number, "count": one.count, "window": window, "span": span, "decoded": decoded}


def _reply(document: dict[str, Any], rows: npt.NDArray[np.uint8]) -> Reply:
    """Inverse of ``_document``. Raises what Python does where it is none."""
    source = _Rows(rows)
    reply: Reply
    if "answers" in document:
        reply = AnswersReply([Answer(_told(one, source), _seconds(one["seconds"])) for one in document["answers"]])
    elif "windows" in document:
        reply = WindowsReply([_window(one, source) for one in document["windows"]], done=document["done"] is True)
    elif "ready" in document:
        told = document["ready"]
        reply = Ready(
            Isolation(*(tuple(_text(t, _MOST_TOLD) for t in told[which]) for which in ("enforced", "missing")))
        )
    else:
        reply = _failed(document)
    if source.left:
        raise ValueError(f"{source.left} bytes of rows belong to nothing")
    return reply


def _told(document: dict[str, Any], rows: _Rows) -> Told:
    return _decoded(document["decoded"], rows) if "decoded" in document else _failed(document)


def _failed(document: dict[str, Any]) -> DimmlError | OutOfMemory | Broke:
    if "error" in document:
        return _error(document)
    if "out_of_memory" in document:
        return OutOfMemory()
    return Broke(_text(document["broke"], _MOST_TOLD))


class _Rows:
    """Rows, one after the other."""

    def __init__(self, content: npt.NDArray[np.uint8]) -> None:
        self._content = content
        self._taken = 0

    @property
    def left(self) -> int:
        """Bytes that no row has taken."""
        return len(self._content) - self._taken

    def take(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The next row. Raises ValueError where it is not there."""
        size = dtype.itemsize * math.prod(shape)
        if size > self.left or min(shape, default=0) < 0:
            raise ValueError(f"a row of {shape} is not there")
        row = self._content[self._taken : self._taken + size].view(dtype).reshape(shape)
        self._taken += size + -size % ALIGNMENT
        return row


def _decoded(document: dict[str, Any], rows: _Rows) -> Decoded:
    tracks = {}
    for name, told in document["tracks"].items():
        track = DecodedTrack(ModalityStatus.parse(told["status"]), times_s=tuple(map(_number, told["times_s"])))
        if "shape" in told:
            track.row = rows.take(_DTYPES[told["dtype"]], tuple(_whole(extent, 2**62) for extent in told["shape"]))
        tracks[name] = track
    start_s, end_s = (None if it is None else _number(it) for it in (document["start_s"], document["end_s"]))
    return Decoded(tracks, start_s, end_s)


def _window(document: dict[str, Any], rows: _Rows) -> WindowDecoded:
    window, span = (
        None if told is None else Window(_number(told[0]), _number(told[1]))
        for told in (document["window"], document["span"])
    )
    count = _whole(document["count"], _MOST_WINDOWS)
    return WindowDecoded(
        _whole(document["number"], count - 1), count, window, span, _decoded(document["decoded"], rows)
    )


def _error(document: dict[str, Any]) -> DimmlError:
    kind, message, field = _ERRORS[document["error"]], _text(document["message"], _MOST_TOLD), document["field"]
    field = None if field is None else _text(field, _MOST_SAID)
    if issubclass(kind, DataError):
        return kind(message, field=field)
    statuses = {name: ModalityStatus.parse(told) for name, told in document["statuses"].items()}
    return kind(message, field=field, statuses=statuses)


def _number(told: object) -> float:
    if isinstance(told, bool) or not isinstance(told, (int, float)) or not math.isfinite(number := float(told)):
        raise ValueError(f"{told!r} is no number")
    return number


def _seconds(told: object) -> float:
    if (seconds := _number(told)) < 0.0:
        raise ValueError(f"{seconds} seconds are none")
    return seconds


def _whole(told: object, most: int) -> int:
    if type(told) is not int or not 0 <= told <= most:
        raise ValueError(f"{told!r} is no number from 0 to {most}")
    return told


def _text(told: object, most: int) -> str:
    if not isinstance(told, str):
        raise TypeError(f"{type(told).__name__} is no text")
    told.encode()  # Raises for half a surrogate pair, which no log and no answer takes.
    return told[:most]


def _no_number(constant: str) -> float:
    raise ValueError(f"{constant} is no number")
