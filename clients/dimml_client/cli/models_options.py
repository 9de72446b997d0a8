"""What every command of ``dimml models`` has: its arguments and options, and the connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from dimml_client.models.repository_client import ModelServer
    from dimml_client.transport.credentials import Credentials

#: Loading may compile for long on some devices.
TIMEOUT_S = 600.0

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")]
Url = Annotated[str, typer.Option("--url", help="The server: http(s)://host:port or grpc(s)://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


@contextmanager
def connected(url: str, shown: Credentials) -> Iterator[ModelServer]:
    """The server at ``url``, for the block. Raises ConfigurationError."""
    from dimml_client.models.repository_client import model_server

    server = model_server(url, shown, timeout_s=TIMEOUT_S)
    try:
        yield server
    finally:
        server.close()
