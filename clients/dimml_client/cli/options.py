"""Options and arguments that commands which talk to a server share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dimml_client.models.repository_client import ModelServer
    from dimml_client.transport.credentials import Credentials

DEFAULT_URL = "http://127.0.0.1:8000"
#: Loading may compile for long on some devices.
MODELS_TIMEOUT_S = 600.0

ApiKeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", help="File that holds the API key; else DIMML_API_KEY.", show_default=False),
]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", help="PEM file of authorities to trust; by default the machine's.", show_default=False),
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", help="PEM file of a client certificate.", show_default=False)
]
CertificateKey = Annotated[
    Path | None, typer.Option("--certificate-key", help="PEM file of its private key.", show_default=False)
]

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")]
Url = Annotated[str, typer.Option("--url", help="The server: http(s)://host:port or grpc(s)://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def given_credentials(
    api_key_file: Path | None, ca: Path | None, certificate: Path | None, certificate_key: Path | None
) -> Credentials:
    """Credentials out of the options. Raises ConfigurationError."""
    from dimml_client.transport.credentials import credentials, read_key_file

    api_key = None if api_key_file is None else read_key_file(api_key_file)
    return credentials(api_key=api_key, ca=ca, certificate=certificate, certificate_key=certificate_key)


@contextmanager
def connected(url: str, shown: Credentials) -> Iterator[ModelServer]:
    """The server at ``url``, for the block. Raises ConfigurationError."""
    from dimml_client.models.repository_client import model_server

    server = model_server(url, shown, timeout_s=MODELS_TIMEOUT_S)
    try:
        yield server
    finally:
        server.close()
