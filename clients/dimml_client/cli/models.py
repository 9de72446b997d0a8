"""``dimml models``: list what a server has loaded; load, roll back and unload whole bundles on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dimml_client.cli import models_traffic
from dimml_client.cli.options import (
    DEFAULT_URL,
    AsJson,
    Bundle,
    CredentialFiles,
    Url,
    connected,
    with_credentials,
)


def build() -> typer.Typer:
    """Build the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Load, roll back and unload bundles on a running server.")
    group.command("list")(list_models)
    group.command("load")(load)
    group.command("unload")(unload)
    models_traffic.add_to(group)
    return group


@with_credentials
def list_models(
    *,
    url: Url = DEFAULT_URL,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Show a server's repository, what is loaded, and which versions answer requests that name none.

    Only `dimml serve`, over HTTP, reports which versions answer, and the precision of their encoders.
    """
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from dimml_client.cli.table import PIPE_WIDTH

    with connected(url, credentials.read()) as server:
        entries, shares = server.index(), server.shares()
    if as_json:
        rows = []
        for entry in entries:
            share = shares.get((entry.name, entry.version))
            of_share = {}
            if share is not None:
                of_share = {"share_percent": share.percent, "shadow": share.shadow, "precision": share.precision}
            rows.append({**asdict(entry), **of_share})
        typer.echo(json.dumps(rows))
        return
    table = Table("model", "version", "state", "precision", "requests", "reason")
    for entry in entries:
        share = shares.get((entry.name, entry.version))
        requests = "" if share is None else "shadow" if share.shadow else f"{share.percent:g} %"
        precision = "" if share is None else share.precision
        table.add_row(entry.name, entry.version, entry.state, precision, requests, entry.reason)
    console = Console()
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


@with_credentials
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
        typer.Option(
            "--repository", help="The server's repository as this machine sees it; sometimes needed for Triton."
        ),
    ] = None,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Serve these versions of a bundle and no others; name an older one to roll back.

    Every part is loaded beside the served versions before anything is unloaded. If a part does not load, what was
    served stays whole, and the exit code is 1.
    """
    import json

    from dimml_client.models.bundle_loader import BundleLoader

    with connected(url, credentials.read()) as server:
        now = BundleLoader(server, repository).load(bundle, version or ())
    if as_json:
        typer.echo(json.dumps({"bundle": bundle, "versions": list(now)}))
    else:
        typer.echo(f"{bundle}: version {', '.join(map(str, now))} is served")


@with_credentials
def unload(
    bundle: Bundle,
    *,
    url: Url = DEFAULT_URL,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Unload every model of a bundle."""
    import json

    from dimml_client.models.bundle_loader import BundleLoader

    with connected(url, credentials.read()) as server:
        BundleLoader(server).unload(bundle)
    typer.echo(json.dumps({"bundle": bundle, "versions": []}) if as_json else f"{bundle}: unloaded")
