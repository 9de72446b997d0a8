"""Explanation of failed TLS handshakes, from the messages of OpenSSL and of gRPC's BoringSSL."""

from __future__ import annotations

from typing import Final

_AUTHORITY: Final = "the server's certificate is not from a trusted authority; give that one as ca (--ca)"
_CERTIFICATE: Final = "it may want another client certificate (--certificate, --certificate-key)"
_TLS: Final = "it may want TLS (https://, grpcs://)"
_OWN: Final = "the server wants a client certificate (--certificate, --certificate-key)"
#: Their messages in lower case, and the meaning for this client. The first match counts.
_SIGNS: Final[dict[str, str]] = {
    "certificate has expired": "the server's certificate has expired",
    "hostname mismatch": "the server's certificate is for another host name",
    "ip address mismatch": "the server's certificate is for another address",
    "hostname verification check failed": "the server's certificate is for another host name",
    "self-signed certificate": _AUTHORITY,
    "self signed certificate": _AUTHORITY,
    "unable to get local issuer": _AUTHORITY,
    "certificate_verify_failed": "the server's certificate is not accepted",
    "certificate_required": _OWN,
    "certificate required": _OWN,
    "certificate expired": "the client certificate has expired",
    "certificate_expired": "the client certificate has expired",
    "unknown ca": "the server does not trust the client certificate's authority",
    "unknown_ca": "the server does not trust the client certificate's authority",
    "bad certificate": "the server does not accept the client certificate",
    "wrong_version_number": "it does not speak TLS; try http:// or grpc://",
}


#: How a server that requires a client certificate, or TLS at all, ends a connection; a crash looks the same.
_CLOSED: Final = ("server disconnected without sending", "socket closed", "connection reset")


def untrusted(text: str) -> str | None:
    """Explain a failed handshake to a person; None if ``text`` does not report one."""
    small = text.lower()
    return next((meaning for sign, meaning in _SIGNS.items() if sign in small), None)


def closed_hint(text: str, *, secure: bool) -> str:
    """Suggest a cause for a connection closed without an answer, to append to a message; empty if it was not.

    ``secure``: whether TLS was used.
    """
    if not any(sign in text.lower() for sign in _CLOSED):
        return ""
    return f"; if the server runs, {_CERTIFICATE if secure else _TLS}"
