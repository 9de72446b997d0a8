"""A TCP relay between a client and a server that keeps every byte of each side: what a client really sends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

_PIECE_BYTES = 65_536


@dataclass
class Connection:
    """Both sides of one TCP connection, in full."""

    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)


class Recorder:
    """Listens on a free loopback port; ``address`` is its ``host:port``."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections: list[Connection] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        """Cut every connection, and stop."""
        for one in [self._listener, *self._sockets]:
            # Wakes the threads that wait for it, which close alone does not.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in [self._listener, *self._sockets]:
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                server = socket.create_connection(self._target)
                self._sockets.append(server)
                connection = Connection()
                self.connections.append(connection)
                for one in (client, server):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for ends in ((client, server, connection.sent), (server, client, connection.received)):
                    thread = threading.Thread(target=_relay, args=ends, daemon=True)
                    self._threads.append(thread)
                    thread.start()


def _relay(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while piece := source.recv(_PIECE_BYTES):
            kept += piece
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def recording(target: str) -> Iterator[Recorder]:
    """A recorder before ``target``, ``host:port``."""
    recorder = Recorder(target)
    try:
        yield recorder
    finally:
        recorder.close()


def messages_in(stream: bytes) -> list[bytes]:
    """Cut one side of an HTTP/1.1 connection into its messages; the last may not be whole. None is about HEAD."""
    found = []
    while stream:
        head, separator, rest = stream.partition(b"\r\n\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        chunked = b"chunked" in fields.get(b"transfer-encoding", b"")
        size = _chunked_bytes(rest) if chunked else int(fields.get(b"content-length", b"0"))
        end = len(head) + len(separator) + size
        found.append(stream[:end])
        stream = stream[end:]
    return found


def _chunked_bytes(rest: bytes) -> int:
    """Length of the chunked body with which ``rest`` begins; no client here sends trailers."""
    at = 0
    while at < len(rest):
        line_end = rest.index(b"\r\n", at)
        size = int(rest[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if size == 0:
            break
    return at
