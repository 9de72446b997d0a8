"""The first message to a serving process: its part, and the sockets and memory that it shares."""

from __future__ import annotations

import pickle
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimml_server.settings.settings import ServerSettings

_LENGTH: Final = struct.Struct("<I")
_SHARED: Final = 2


@dataclass(frozen=True, slots=True)
class Start:
    """What a serving process is started with."""

    index: int
    settings: ServerSettings
    #: Requests that all processes work on at once.
    concurrency: int
    upload_folder: Path
    #: What the others serve, as JSON, for a process that replaces one; None for the first ones.
    served: dict[str, Any] | None


def send_start(end: socket.socket, start: Start, listener: socket.socket, board: int) -> None:
    """Send a start, with the listening socket and the board's descriptor. Raises OSError."""
    text = pickle.dumps(start)
    socket.send_fds(end, [_LENGTH.pack(len(text))], [listener.fileno(), board])
    end.sendall(text)


def receive_start(end: socket.socket) -> tuple[Start, socket.socket, int]:
    """Receive a start, the listening socket and the board's descriptor. Raises EOFError."""
    head, descriptors, _, _ = socket.recv_fds(end, _LENGTH.size, _SHARED)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    text = bytearray()
    while len(text) < length:
        piece = end.recv(length - len(text))
        if not piece:
            raise EOFError
        text += piece
    listener, board = descriptors
    return pickle.loads(text), socket.socket(fileno=listener), board  # noqa: S301 (our own parent's)
