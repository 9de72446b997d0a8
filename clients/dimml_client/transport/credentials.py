"""A client's credentials and the authorities it trusts: API key, client certificate, CA file."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dimml.errors import ConfigurationError
from dimml.system.files import StrPath

API_KEY_VARIABLE: Final = "DIMML_API_KEY"
#: HTTP header and, in lower case, gRPC metadata key.
API_KEY_HEADER: Final = "X-API-Key"
_GRPC_OPTIONS: Final = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client's API key and TLS files. Built by ``checked_credentials``.

    ``ca`` is a PEM file of authorities trusted instead of the machine's; ``certificate`` and ``certificate_key`` are
    PEM files of the client's own certificate, for mutual TLS.
    """

    api_key: str | None = None
    ca: Path | None = None
    certificate: Path | None = None
    certificate_key: Path | None = None

    def __repr__(self) -> str:
        """Omit the key, since objects end up in logs."""
        return f"Credentials(api_key={'***' if self.api_key else None}, ca={self.ca}, certificate={self.certificate})"

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers to send with every request."""
        return {} if self.api_key is None else {API_KEY_HEADER: self.api_key}

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata to send with every gRPC call."""
        return tuple((name.lower(), value) for name, value in self.headers.items())

    def ssl_context(self) -> ssl.SSLContext:
        """Make a context for TLS 1.2 or newer that verifies the server. Raises ConfigurationError naming the file."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(f"{self.ca}: no certificates in PEM can be read there", field="ca") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            try:
                # Without a passphrase prompt: a client may have no terminal.
                context.load_cert_chain(self.certificate, self.certificate_key, password="")
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"{self.certificate} and {self.certificate_key}: no certificate and key in PEM, unencrypted",
                    field="certificate",
                ) from error
        return context

    def channel(self, address: str, *, secure: bool) -> Any:
        """Open a gRPC channel to ``host:port``. Raises ConfigurationError naming the file."""
        import grpc

        return self.channel_opener(address, secure=secure)(grpc)

    def channel_opener(self, address: str, *, secure: bool) -> Callable[[Any], Any]:
        """Read the files; return a function that opens a channel of the module it is given: grpc or grpc.aio.

        Raises ConfigurationError naming the file.
        """
        import grpc

        if not secure:
            return lambda module: module.insecure_channel(address, options=_GRPC_OPTIONS)
        self.ssl_context()  # gRPC accepts any bytes, and fails later without a reason.
        read = [None if path is None else path.read_bytes() for path in self._grpc_files]
        tls = grpc.ssl_channel_credentials(*read)
        return lambda module: module.secure_channel(address, tls, options=_GRPC_OPTIONS)

    @property
    def _grpc_files(self) -> tuple[Path | None, Path | None, Path | None]:
        system = ssl.get_default_verify_paths().cafile
        # gRPC has its own list of authorities; use the machine's, which the HTTP transport trusts.
        return self.ca or (Path(system) if system else None), self.certificate_key, self.certificate


def checked_credentials(
    *,
    api_key: str | None = None,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    certificate_key: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Credentials:
    """Build and check credentials; the key defaults to ``DIMML_API_KEY``. Raises ConfigurationError."""
    if api_key is None:
        api_key = (os.environ if environment is None else environment).get(API_KEY_VARIABLE) or None
    if api_key is not None and not (api_key.isascii() and api_key.isprintable() and " " not in api_key and api_key):
        raise ConfigurationError(
            f"the API key (api_key, {API_KEY_VARIABLE}) must be one line of ASCII without spaces", field="api_key"
        )
    if (certificate is None) != (certificate_key is None):
        raise ConfigurationError("a client certificate and its key go together", field="certificate")
    paths = [None if path is None else Path(path) for path in (ca, certificate, certificate_key)]
    return Credentials(api_key, *paths)


def read_key_file(path: StrPath) -> str:
    """Read the API key from a file that holds nothing else. Raises ConfigurationError naming only the file."""
    path = Path(path)
    try:
        return path.read_text("ascii").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", field="api_key_file") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} holds no API key", field="api_key_file") from error
