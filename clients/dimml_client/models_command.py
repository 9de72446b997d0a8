"""``dimml models``: what a server has loaded, and loading, rolling back and unloading whole bundles on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dimml_client.options import DEFAULT_URL, ApiKeyFile, Ca, Certificate, CertificateKey, given_credentials

if TYPE_CHECKING:
    from dimml_client.credentials import Credentials
    from dimml_client.model_server import ModelServer

#: Loading may compile for long on some devices.
TIMEOUT_S = 600.0

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")]
Url = Annotated[str, typer.Option("--url", help="The server: http(s)://host:port or grpc(s)://host:port.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]


def build() -> typer.Typer:
    """The group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Load, roll back and unload bundles on a running server.")
    group.command("list")(list_models)
    group.command("load")(load)
    group.command("unload")(unload)
    return group


def list_models(
    *,
    url: Url = DEFAULT_URL,
    api_key_file: ApiKeyFile = None,
    ca: Ca = None,
    certificate: Certificate = None,
    certificate_key: CertificateKey = None,
    as_json: AsJson = False,
) -> None:
    """Show what a server's repository has and what is loaded."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from dimml_client.table import PIPE_WIDTH

    with _server(url, given_credentials(api_key_file, ca, certificate, certificate_key)) as server:
        entries = server.index()
    if as_json:
        typer.echo(json.dumps([asdict(entry) for entry in entries]))
        return
    table = Table("model", "version", "state", "reason")
    for entry in entries:
        table.add_row(entry.name, entry.version, entry.state, entry.reason)
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


def load(
    bundle: Bundle,
    *,
    version: Annotated[
        list[int] | None,
        typer.Option("--version", min=1, help="Version to serve, repeatable for several at once; else the newest."),
    ] = None,
    url: Url = DEFAULT_URL,
    repository: Annotated[
        Path | None,
        typer.Option("--repository", help="The server's repository as seen from here; Triton needs it at times."),
    ] = None,
    api_key_file: ApiKeyFile = None,
    ca: Ca = None,
    certificate: Certificate = None,
    certificate_key: CertificateKey = None,
    as_json: AsJson = False,
) -> None:
    """Serve these versions of a bundle and no others; an older one to roll back.

    Every part is loaded beside what is served before anything is let go. Where a part does not load, what was served
    stays whole, and the exit code is 1.
    """
    import json

    from dimml_client.bundle_loading import BundleLoader

    with _server(url, given_credentials(api_key_file, ca, certificate, certificate_key)) as server:
        now = BundleLoader(server, repository).load(bundle, version or ())
    if as_json:
        typer.echo(json.dumps({"bundle": bundle, "versions": list(now)}))
    else:
        typer.echo(f"{bundle}: version {', '.join(map(str, now))} is served")


def unload(
    bundle: Bundle,
    *,
    url: Url = DEFAULT_URL,
    api_key_file: ApiKeyFile = None,
    ca: Ca = None,
    certificate: Certificate = None,
    certificate_key: CertificateKey = None,
    as_json: AsJson = False,
) -> None:
    """Unload every model of a bundle."""
    import json

    from dimml_client.bundle_loading import BundleLoader

    with _server(url, given_credentials(api_key_file, ca, certificate, certificate_key)) as server:
        BundleLoader(server).unload(bundle)
    typer.echo(json.dumps({"bundle": bundle, "versions": []}) if as_json else f"{bundle}: unloaded")


@contextmanager
def _server(url: str, shown: Credentials) -> Iterator[ModelServer]:
    from dimml_client.model_server import model_server

    server = model_server(url, shown, timeout_s=TIMEOUT_S)
    try:
        yield server
    finally:
        server.close()
