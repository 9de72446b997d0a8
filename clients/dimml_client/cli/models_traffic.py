"""``dimml models default | split | shadow``: which version answers requests that name none, and which shadows it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dimml_client.cli.options import (
    DEFAULT_URL,
    AsJson,
    Bundle,
    CredentialFiles,
    Url,
    connected,
    with_credentials,
)

if TYPE_CHECKING:
    from dimml_client.transport.credentials import Credentials


def add_to(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("default")(default)
    group.command("split")(split)
    group.command("shadow")(shadow)


@with_credentials
def default(
    bundle: Bundle,
    version: Annotated[
        int | None, typer.Argument(min=1, help="A version that is loaded.", metavar="VERSION", show_default=False)
    ] = None,
    *,
    newest: Annotated[bool, typer.Option("--newest", help="Instead of a version: the newest loaded one.")] = False,
    url: Url = DEFAULT_URL,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Let one version answer every request that names no version."""
    if (version is None) != newest:
        raise typer.BadParameter("give a version, or --newest", param_hint="VERSION")
    _change(
        bundle, {"split": {} if version is None else {str(version): 100.0}}, url, credentials.read(), as_json=as_json
    )


@with_credentials
def split(
    bundle: Bundle,
    shares: Annotated[list[str], typer.Argument(metavar="VERSION=PERCENT...", help="100 percent in all.")],
    *,
    url: Url = DEFAULT_URL,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Spread the requests that name no version over several: `dimml models split grid 1=90 2=10`.

    The same route key or request id gets the same version.
    """
    given: dict[str, float] = {}
    for share in shares:
        number, _, percent = share.partition("=")
        try:
            key, value = str(int(number)), float(percent.removesuffix("%"))
        except ValueError:
            raise typer.BadParameter(f"{share!r} is not VERSION=PERCENT", param_hint="SHARES") from None
        if not math.isfinite(value):
            raise typer.BadParameter(f"{share!r} is not VERSION=PERCENT", param_hint="SHARES")
        if key in given:
            raise typer.BadParameter(f"version {key} is there twice", param_hint="SHARES")
        given[key] = value
    _change(bundle, {"split": given}, url, credentials.read(), as_json=as_json)


@with_credentials
def shadow(
    bundle: Bundle,
    version: Annotated[
        int | None, typer.Argument(min=1, help="A version that is loaded.", metavar="VERSION", show_default=False)
    ] = None,
    *,
    off: Annotated[bool, typer.Option("--off", help="Instead of a version: no shadow any more.")] = False,
    url: Url = DEFAULT_URL,
    credentials: CredentialFiles,
    as_json: AsJson = False,
) -> None:
    """Send a version a copy of answered requests, when there is time; its own answers are not used."""
    if (version is None) != off:
        raise typer.BadParameter("give a version, or --off", param_hint="VERSION")
    _change(bundle, {"shadow": version}, url, credentials.read(), as_json=as_json)


def _change(bundle: str, change: dict[str, Any], url: str, credentials: Credentials, *, as_json: bool) -> None:
    import json

    with connected(url, credentials) as server:
        now = server.routing(bundle, change)
    if as_json:
        typer.echo(json.dumps(now))
        return
    shares = ", ".join(f"version {version} answers {share:g} %" for version, share in now["split"].items())
    looking = "" if now["shadow"] is None else f"; shadow is version {now['shadow']}"
    answering = shares or f"the newest, version {now['default']}, answers"
    typer.echo(f"{bundle}: {answering}{looking}")
