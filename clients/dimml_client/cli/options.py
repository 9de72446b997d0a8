"""Options and arguments shared by all commands that talk to a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dimml.cli import with_options

if TYPE_CHECKING:
    from dimml_client.models.repository_client import ModelServer
    from dimml_client.transport.credentials import Credentials

DEFAULT_URL = "http://127.0.0.1:8000"
#: Long, since loading compiles models on some devices.
MODELS_TIMEOUT_S = 600.0

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")]
Url = Annotated[str, typer.Option("--url", help="The server: http(s)://host:port or grpc(s)://host:port.")]


def _track_option(kind: Literal["audio", "video"]) -> Any:
    """Make an option that names a track; wrong usage where it names none."""

    def checked(text: str | None) -> str | None:
        from dimml.errors import InvalidParameterError
        from dimml.media.track_choice import parse_track

        try:
            parse_track(kind, text)
        except InvalidParameterError as error:
            raise typer.BadParameter(error.message) from error
        return text

    forms = "number from 0, language such as eng" + (", or loudest" if kind == "audio" else "")
    what = "sound" if kind == "audio" else "picture"
    return typer.Option(f"--{kind}-track", help=f"Which of several {what} tracks: {forms}.", callback=checked)


AudioTrack = Annotated[str | None, _track_option("audio")]
VideoTrack = Annotated[str | None, _track_option("video")]
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


#: Gives a command the options of ``CredentialFiles`` in place of its keyword parameter of that type.
with_credentials = with_options(CredentialFiles)


@contextmanager
def connected(url: str, credentials: Credentials) -> Iterator[ModelServer]:
    """Connect to the server at ``url`` for the block. Raises ConfigurationError."""
    from dimml_client.models.repository_client import model_server

    server = model_server(url, credentials, timeout_s=MODELS_TIMEOUT_S)
    try:
        yield server
    finally:
        server.close()
