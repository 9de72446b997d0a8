"""HTTP/1.1 request parser that ignores offers to upgrade the protocol, as RFC 9110, section 7.8, allows a server to.

httptools stops at the end of a head with ``Upgrade`` and leaves everything after it to the new protocol: the request
would lose its body, and the body's bytes would be read as the next request. Clients that send the offer with ordinary
requests include Java's HttpClient and ``curl --http2``.
"""

from __future__ import annotations

from typing import Any

import httptools

_UPGRADE = b"upgrade"
_CONNECT = b"CONNECT"


class PlainRequestParser:
    """``httptools.HttpRequestParser`` without upgrades.

    A head with an offer is parsed again without its ``Upgrade`` fields before ``on_headers_complete`` is called.
    ``protocol`` gets every callback once, and every header field, ``Upgrade`` included.
    """

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        #: Whether the head that was just parsed offers an upgrade, and whether it is being parsed again without.
        self._offered = self._repeating = False
        self._parser = self._new_parser()

    def feed_data(self, data: bytes) -> None:
        """Parse the next bytes. Raises HttpParserError if they are not HTTP, or for CONNECT: this is no proxy."""
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
            except httptools.HttpParserUpgrade as offer:
                head_end: int = offer.args[0]
                if not self._offered or self._parser.get_method() == _CONNECT:
                    raise httptools.HttpParserError("a request without a path") from offer
            else:
                return
            head = self._head_without_offer()
            self._offered, self._repeating = False, True
            self._parser = self._new_parser()
            self._parser.feed_data(head)
            rest = rest[head_end:]

    def get_method(self) -> bytes:
        """Method of the current request."""
        return self._parser.get_method()

    def get_http_version(self) -> str:
        """Version of the current request, such as ``1.1``."""
        return self._parser.get_http_version()

    def should_keep_alive(self) -> bool:
        """Whether the connection may carry another request."""
        return self._parser.should_keep_alive()

    def should_upgrade(self) -> bool:
        """Whether the protocol changes after this request: never."""
        return False

    def on_message_begin(self) -> None:
        if not self._repeating:
            self._url, self._fields = b"", []
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._repeating:
            self._url += url
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._repeating:
            self._fields.append((name, value))
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        self._repeating = False
        self._offered = self._parser.should_upgrade()
        if not self._offered:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        if not self._offered:
            self._protocol.on_message_complete()

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # As uvicorn does: a request after ``Connection: close`` must not cost the one before it its answer.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _head_without_offer(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [self._parser.get_method() + b" " + self._url + b" HTTP/" + version]
        lines += [name + b": " + value for name, value in self._fields if name.lower() != _UPGRADE]
        return b"\r\n".join([*lines, b"", b""])
