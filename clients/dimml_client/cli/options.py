"""Options and arguments shared by all commands that talk to a server."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from dimml_client.models.repository_client import ModelServer
    from dimml_client.transport.credentials import Credentials

DEFAULT_URL = "http://127.0.0.1:8000"
#: Long, since loading compiles models on some devices.
MODELS_TIMEOUT_S = 600.0

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")]
Url = Annotated[str, typer.Option("--url", help="The server: http(s)://host:port or grpc(s)://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """Options for the caller's credentials and the authorities to trust; added by ``with_credentials``."""

    api_key_file: Annotated[
        Path | None,
        typer.Option(
            "--api-key-file", help="File that holds the API key; by default DIMML_API_KEY.", show_default=False
        ),
    ] = None
    ca: Annotated[
        Path | None,
        typer.Option("--ca", help="PEM file of authorities to trust; by default the machine's.", show_default=False),
    ] = None
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="PEM file of a client certificate.", show_default=False)
    ] = None
    certificate_key: Annotated[
        Path | None, typer.Option("--certificate-key", help="PEM file of its private key.", show_default=False)
    ] = None

    def read(self) -> Credentials:
        """Read the credentials from the files. Raises ConfigurationError."""
        from dimml_client.transport.credentials import checked_credentials, read_key_file

        api_key = None if self.api_key_file is None else read_key_file(self.api_key_file)
        return checked_credentials(
            api_key=api_key, ca=self.ca, certificate=self.certificate, certificate_key=self.certificate_key
        )


def with_credentials(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of ``CredentialFiles`` in place of its keyword parameter of that type.

    Typer reads a command's options from its signature, one for each parameter.
    """
    hints = get_type_hints(CredentialFiles, include_extras=True)
    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(CredentialFiles)
    ]
    signature = inspect.signature(command, eval_str=True)
    (place,) = (name for name, own in signature.parameters.items() if own.annotation is CredentialFiles)
    parameters = [p for name, own in signature.parameters.items() for p in (options if name == place else [own])]

    @wraps(command)
    def run(*arguments: Any, **given: Any) -> None:
        files = CredentialFiles(**{option.name: given.pop(option.name) for option in options})
        command(*arguments, **given, **{place: files})

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


@contextmanager
def connected(url: str, credentials: Credentials) -> Iterator[ModelServer]:
    """Connect to the server at ``url`` for the block. Raises ConfigurationError."""
    from dimml_client.models.repository_client import model_server

    server = model_server(url, credentials, timeout_s=MODELS_TIMEOUT_S)
    try:
        yield server
    finally:
        server.close()
