"""TLS and mutual TLS from the settings, the same for HTTP and gRPC: version 1.2 or newer."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from dimml.errors import ConfigurationError
from dimml_server.settings.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class ServerTls:
    """PEM files of the server. With ``client_ca``, callers must present a certificate of one of its authorities."""

    certificate: Path
    key: Path
    client_ca: Path | None

    def context(self) -> ssl.SSLContext:
        """Make the TLS context for HTTP. Raises ConfigurationError naming the setting."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load_into(context)
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable("tls_client_ca", self.client_ca, error, "holds no certificates in PEM") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """Load the files' current certificate into a context; connections made from then on use it."""
        for setting, path in (("tls_certificate", self.certificate), ("tls_key", self.key)):
            try:
                path.open("rb").close()
            except OSError as error:
                raise _unreadable(setting, path, error, "") from error
        try:
            # An empty password instead of a prompt, since a server may have no terminal.
            context.load_cert_chain(self.certificate, self.key, password="")
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(
                f"tls_certificate {self.certificate} and tls_key {self.key}: {_why(error)}", field="tls_certificate"
            ) from error

    def grpc_credentials(self) -> Any:
        """Make the credentials for gRPC, from files that ``context`` has checked."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            root_certificates=None if self.client_ca is None else self.client_ca.read_bytes(),
            require_client_auth=self.client_ca is not None,
        )


def server_tls(settings: ServerSettings) -> ServerTls | None:
    """Return the TLS files of the settings; None without TLS. Raises ConfigurationError if only some are set."""
    if settings.tls_certificate is None and settings.tls_key is None:
        if settings.tls_client_ca is not None:
            raise ConfigurationError(
                "tls_client_ca needs a tls_certificate and a tls_key of the server", field="tls_client_ca"
            )
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        missing = "tls_key" if settings.tls_key is None else "tls_certificate"
        raise ConfigurationError(f"tls_certificate and tls_key go together: {missing} is not set", field=missing)
    return ServerTls(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _unreadable(setting: str, path: Path, error: Exception, otherwise: str) -> ConfigurationError:
    why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else otherwise
    return ConfigurationError(f"{setting}: {path}: {why}", field=setting)


def _why(error: Exception) -> str:
    text = str(error)
    if "KEY_VALUES_MISMATCH" in text:
        return "the key is another certificate's"
    if "BAD_DECRYPT" in text or "password" in text.lower():
        return "the key is encrypted; store it unencrypted, readable to the server alone"
    return "these are not a certificate and its private key in PEM"
