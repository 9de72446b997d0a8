"""Binding of addresses to listen on, with errors that a person can act on."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass

from dimml.errors import ConfigurationError

BACKLOG = 2048


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, as ``host:port``."""

    http: str
    grpc: str


def authority(host: str, port: int) -> str:
    """Format ``host:port``, with IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int, setting: str, *, from_environment: bool = True) -> socket.socket:
    """Open a listening TCP socket. ``setting`` is the port's setting, which a ConfigurationError names.

    ``from_environment``: whether the setting can also be given as an environment variable.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Every address means those of both families, as it does for gRPC.
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except socket.gaierror as error:
        raise ConfigurationError(f"host {host!r} is not an address of this machine", field="host") from error
    except OSError as error:
        flag = f"--{setting.replace('_', '-')}" + (f" (DIMML_{setting.upper()})" if from_environment else "")
        why = {
            errno.EADDRINUSE: "is taken by another program",
            errno.EACCES: "needs more rights than this user has",
            errno.EADDRNOTAVAIL: "cannot be had: the host is not an address of this machine",
        }.get(error.errno or 0, f"cannot be had: {error.strerror}")
        raise ConfigurationError(f"port {port} on {host} {why}; choose another with {flag}", field=setting) from error
