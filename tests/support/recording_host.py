"""A host of recordings on loopback, over TLS, that answers each path as a test says, and remembers what was asked."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.certificates import Pair


@dataclass(frozen=True)
class Page:
    """One answer. ``Content-Length`` is that of the body, unless ``headers`` say otherwise."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Sent in chunks, without Content-Length.
    chunked: bool = False
    #: After its first half, and until the host's ``release`` is set, nothing more comes.
    held: bool = False
    #: Sent instead of an answer in HTTP.
    raw: bytes | None = None


@dataclass
class RecordingHost:
    """What the host answers by path (without query), and what came in."""

    port: int
    pages: dict[str, Page] = field(default_factory=dict)
    #: Requests as they were written, and their headers.
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    #: Connections, before TLS; and names that callers gave in TLS.
    connections: int = 0
    names: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    @property
    def origin(self) -> str:
        """Its address, by name."""
        return f"localhost:{self.port}"

    def url(self, path: str) -> str:
        """Address of a page."""
        return f"https://{self.origin}{path}"


@contextmanager
def recording_host(pair: Pair) -> Iterator[RecordingHost]:
    """Run a host with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)

    def notice(_socket: Any, name: str | None, _context: Any) -> None:
        host.names.append(name)

    context.sni_callback = notice

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            host.connections += 1
            # In the connection's own thread: a caller that breaks off the handshake delays no other.
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def do_GET(self) -> None:
            host.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            page = host.pages.get(self.path.partition("?")[0], Page(status=404))
            # A caller that has had enough is gone: what is written then goes nowhere.
            with suppress(OSError):
                self._answer(page)

        def _answer(self, page: Page) -> None:
            if page.raw is not None:
                self.wfile.write(page.raw)
                return
            self.send_response(page.status)
            length = {"Transfer-Encoding": "chunked"} if page.chunked else {"Content-Length": str(len(page.body))}
            for name, value in {**length, **page.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            half = len(page.body) // 2 if page.held else len(page.body)
            self._write(page.body[:half], page)
            if page.held:
                self.wfile.flush()
                host.release.wait(60.0)
                self._write(page.body[half:], page)
            if page.chunked:
                self.wfile.write(b"0\r\n\r\n")

        def _write(self, data: bytes, page: Page) -> None:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data) if page.chunked else data)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *args: Any) -> None:
            """Callers that refuse the certificate are expected."""

    with Server(("127.0.0.1", 0), Handler) as server:
        host = RecordingHost(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield host
        finally:
            host.release.set()
            server.shutdown()
            thread.join()
