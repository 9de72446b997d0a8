"""What a decode worker says to its parent: JSON, and the rows as bare numbers behind it.

Nothing of it is unpickled. A worker that a hostile file has taken over is shut in (``isolation``), and what its parent
reads is the one way out that is left: a pickle there would be any code, in the parent. It is also the cheaper way: rows
are written from where they are, and read into where they stay.

On the wire: the bytes of the JSON and of the rows (``_HEAD``), then the two. A row begins at a multiple of 8.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from dimml.media.isolation import Isolation
from dimml.media.ranges import Window
from dimml.media.types import Decoded, DecodedTrack
from dimml.media.windows import WindowDecoded
from dimml.modality import Modality
from dimml.status import ModalityStatus

_HEAD: Final = struct.Struct("<IQ")
_ALIGNMENT: Final = 8
_MAX_JSON_BYTES: Final = 16 * 2**20
_MAX_ROWS_BYTES: Final = 2 * 2**30
#: A worker that stops in the middle of a reply is given up after this.
_STALL_S: Final = 10
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


@dataclass(frozen=True, slots=True)
class Ready:
    """First message from a worker: everything is imported, and its limits stand as far as they could be had."""

    isolation: Isolation


@dataclass(frozen=True, slots=True)
class WindowsReply:
    """Some more windows; ``done`` where they are the last."""

    windows: Sequence[WindowDecoded]
    done: bool


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The request asked for more than ``decode_memory_bytes``."""


@dataclass(frozen=True, slots=True)
class Broke:
    """The decode function raised something that it should not; ``details`` is for the log only."""

    details: str


Reply = Ready | Decoded | WindowsReply | DimmlError | OutOfMemory | Broke


class MalformedReplyError(Exception):
    """No reply that a sound worker would send."""


def send_reply(descriptor: int, reply: Reply) -> None:
    """Write one. Raises OSError where nobody reads any more."""
    rows: list[npt.NDArray[Any]] = []
    content = json.dumps(_document(reply, rows)).encode()
    pieces = [content]
    size = 0
    for row in rows:
        pieces.append(memoryview(row).cast("B"))  # type: ignore[arg-type]  # any buffer will do
        padding = -row.nbytes % _ALIGNMENT
        pieces.append(bytes(padding))
        size += row.nbytes + padding
    left = [memoryview(piece) for piece in (_HEAD.pack(len(content), size), *pieces) if len(piece)]
    while left:
        written = os.writev(descriptor, left[: os.sysconf("SC_IOV_MAX")])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


class ReplyReader:
    """The parent's end of ``descriptor``, which stays its owner's."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        # Of the kernel, so that waiting for a whole reply is one call.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _STALL_S, 0))

    def read(self) -> Reply:
        """The reply that has begun to come. Raises EOFError, OSError, MalformedReplyError."""
        head = bytearray(_HEAD.size)
        self._fill(head)
        json_bytes, rows_bytes = _HEAD.unpack(head)
        if json_bytes > _MAX_JSON_BYTES or rows_bytes > _MAX_ROWS_BYTES:
            raise MalformedReplyError(f"{json_bytes} bytes of JSON, {rows_bytes} of rows")
        content = bytearray(json_bytes)
        self._fill(content)
        rows = np.empty(rows_bytes, np.uint8)
        self._fill(rows.data)
        try:
            return _reply(json.loads(content), rows)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise MalformedReplyError(f"{type(error).__name__}: {error}"[:1000]) from error

    def close(self) -> None:
        """Let go of it."""
        self._socket.close()

    def _fill(self, buffer: bytearray | memoryview) -> None:
        left = memoryview(buffer)
        while left:
            count = self._socket.recv_into(left, 0, socket.MSG_WAITALL)
            if count == 0:
                raise EOFError
            left = left[count:]


def check_rows(reply: Reply, modalities: Sequence[Modality]) -> None:
    """Raise MalformedReplyError where a row is not what its modality's encoder takes."""
    wanted = {modality.name: modality for modality in modalities}
    windows = reply.windows if isinstance(reply, WindowsReply) else ()
    for decoded in (reply,) if isinstance(reply, Decoded) else (window.decoded for window in windows):
        for name, track in decoded.tracks.items():
            modality = wanted.get(name)
            if modality is None or track.status.ok != (track.row is not None):
                raise MalformedReplyError(f"track {name!r} with status {track.status}")
            if track.row is not None and (track.row.shape, track.row.dtype) != (modality.shape, modality.dtype):
                raise MalformedReplyError(f"a row of {track.row.dtype} {track.row.shape} for {name!r}")


def _document(reply: Reply, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    """``reply`` as JSON has it; its rows are added to ``rows``."""
    match reply:
        case Decoded():
            return {"decoded": _decoded_document(reply, rows)}
        case WindowsReply(windows, done):
            return {"windows": [_window_document(window, rows) for window in windows], "done": done}
        case Ready(isolation):
            return {"ready": {"enforced": isolation.enforced, "missing": isolation.missing}}
        case OutOfMemory():
            return {"out_of_memory": True}
        case Broke(details):
            return {"broke": details}
    name = type(reply).__name__
    if name not in _ERRORS:
        return {"broke": f"decoding raised {name}: {reply}"}
    statuses = {modality: str(status) for modality, status in reply.statuses.items()}
    return {"error": name, "message": reply.message, "field": reply.field, "statuses": statuses}


def _decoded_document(decoded: Decoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    tracks = {}
    for name, track in decoded.tracks.items():
        tracks[name] = {"status": str(track.status), "times_s": track.times_s}
        if track.row is not None:
            rows.append(np.ascontiguousarray(track.row))
            tracks[name] |= {"dtype": track.row.dtype.name, "shape": track.row.shape}
    return {"tracks": tracks, "start_s": decoded.start_s, "end_s": decoded.end_s}


def _window_document(one: WindowDecoded, rows: list[npt.NDArray[Any]]) -> dict[str, Any]:
    ranges = {name: None if it is None else (it.start_s, it.end_s) for name, it in _ranges(one).items()}
    return {"number": one.number, "count": one.count, **ranges, "decoded": _decoded_document(one.decoded, rows)}


def _ranges(one: WindowDecoded) -> dict[str, Window | None]:
    return {"window": one.window, "span": one.span}


def _reply(document: dict[str, Any], rows: npt.NDArray[np.uint8]) -> Reply:
    """Inverse of ``_document``. Raises what Python does where it is none."""
    taken = 0

    def row(dtype: np.dtype[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        nonlocal taken
        size = dtype.itemsize
        for extent in shape:
            size *= extent
        if size < 0 or taken + size > len(rows) or min(shape, default=0) < 0:
            raise ValueError(f"a row of {shape} is not there")
        found = rows[taken : taken + size].view(dtype).reshape(shape)
        taken += size + -size % _ALIGNMENT
        return found

    if "decoded" in document:
        return _decoded(document["decoded"], row)
    if "windows" in document:
        return WindowsReply([_window(one, row) for one in document["windows"]], done=bool(document["done"]))
    if "error" in document:
        return _error(document)
    if "ready" in document:
        told = document["ready"]
        return Ready(Isolation(tuple(map(str, told["enforced"])), tuple(map(str, told["missing"]))))
    if "out_of_memory" in document:
        return OutOfMemory()
    return Broke(str(document["broke"]))


def _decoded(document: dict[str, Any], row: Callable[[np.dtype[Any], tuple[int, ...]], npt.NDArray[Any]]) -> Decoded:
    tracks = {}
    for name, told in document["tracks"].items():
        track = DecodedTrack(ModalityStatus.parse(told["status"]), times_s=tuple(map(float, told["times_s"])))
        if "shape" in told:
            track.row = row(_DTYPES[told["dtype"]], tuple(map(int, told["shape"])))
        tracks[name] = track
    return Decoded(tracks, _number(document["start_s"]), _number(document["end_s"]))


def _window(
    document: dict[str, Any], row: Callable[[np.dtype[Any], tuple[int, ...]], npt.NDArray[Any]]
) -> WindowDecoded:
    window, span = (
        None if told is None else Window(float(told[0]), float(told[1]))
        for told in (document["window"], document["span"])
    )
    return WindowDecoded(
        int(document["number"]), int(document["count"]), window, span, _decoded(document["decoded"], row)
    )


def _error(document: dict[str, Any]) -> DimmlError:
    kind, message, field = _ERRORS[document["error"]], str(document["message"]), document["field"]
    field = None if field is None else str(field)
    if issubclass(kind, DataError):
        return kind(message, field=field)
    statuses = {name: ModalityStatus.parse(told) for name, told in document["statuses"].items()}
    return kind(message, field=field, statuses=statuses)


def _number(told: object) -> float | None:
    return None if told is None else float(told)  # type: ignore[arg-type]  # raises where it is none
