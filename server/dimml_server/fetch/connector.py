"""Connections of fetches: over TLS, to checked addresses alone, each fetch with its own.

Imported only if ``media_url_hosts`` or ``media_url_buckets`` is set.
"""

from __future__ import annotations

import socket
import ssl
from ipaddress import ip_address
from typing import Final

import aiohttp
from aiohttp.abc import ResolveResult

from dimml_server.fetch.addresses import is_global

#: For a connection to one address, and between two pieces of an answer.
_CONNECT_S: Final = 5.0
_READ_S: Final = 10.0
#: What is sent beside the target's own headers; nothing says which versions run here.
_HEADERS: Final = {"User-Agent": "dimml", "Accept": "*/*", "Accept-Encoding": "identity"}


class NotGlobalError(Exception):
    """A host has an address, at least one, that is not on the Internet."""


class CheckedResolver(aiohttp.ThreadedResolver):
    """Looks a host up once; what it returns is what is connected to."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Resolve a host. Raises NotGlobalError unless every address is global: a mixed answer is an attempt."""
        found = await super().resolve(host, port, family)
        for one in found:
            check_address(one["host"])
        return found


def check_address(address: str) -> None:
    """Raise NotGlobalError for an address, as text, that is not global."""
    if not is_global(address.partition("%")[0]):
        raise NotGlobalError


def check_literal(host: str) -> None:
    """Raise NotGlobalError for a host that is an address, which nothing resolves, unless it is global."""
    try:
        ip_address(host)
    except ValueError:
        return
    check_address(host)


def open_session(context: ssl.SSLContext, *, private: bool) -> aiohttp.ClientSession:
    """Open a session for one fetch, to be closed by the caller. ``private``: addresses are not checked.

    It takes no proxy and no password from the environment, keeps no cookies and no connections, and follows and unpacks
    nothing by itself.
    """
    connector = aiohttp.TCPConnector(
        ssl=context,
        resolver=aiohttp.ThreadedResolver() if private else CheckedResolver(),
        use_dns_cache=False,
        force_close=True,
        socket_factory=_open_socket if private else _open_checked_socket,
    )
    return aiohttp.ClientSession(
        connector=connector,
        trust_env=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S),
    )


def _open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = info
    return socket.socket(family, kind, protocol)


def _open_checked_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    # The last word, whatever led here: no socket is made for any other address.
    check_address(str(info[4][0]))
    return _open_socket(info)
