"""Server addresses: ``http``, ``https``, ``grpc`` or ``grpcs`` URLs."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from dimml.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A parsed address. ``authority`` is ``host:port``; ``secure`` means TLS."""

    url: str
    authority: str
    grpc: bool
    secure: bool


def parse_address(url: str) -> ServerAddress:
    """Parse a server's address. Raises ConfigurationError if it is invalid."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"url {url!r}: {error}", field="url") from error
    grpc = parts.scheme in ("grpc", "grpcs")
    if not host or not (port or not grpc) or not (grpc or parts.scheme in ("http", "https")):
        raise ConfigurationError(
            f"url {url!r} is none of http://host:port, https://host:port, grpc://host:port, grpcs://host:port",
            field="url",
        )
    return ServerAddress(url, parts.netloc, grpc, parts.scheme.endswith("s"))
