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


def reserve(host: str, port: int, setting: str) -> socket.socket:
    """Reserve a TCP port for processes of this user that listen on it with SO_REUSEPORT; 0 takes a free one.

    No connection arrives at the socket itself. Raises ConfigurationError, as ``bind`` does.
    """
    with bind(host, port, setting) as probe:  # Not shared, so that a port of another program is an error.
        port = probe.getsockname()[1]
        family = probe.family
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        reserved.bind((host, port))
    except OSError as error:
        reserved.close()
        raise ConfigurationError(f"port {port} on {host} cannot be had: {error.strerror}", field=setting) from error
    return reserved
