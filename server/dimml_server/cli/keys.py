"""``dimml keys``: make API keys."""

from __future__ import annotations

from typing import Annotated

import typer


def build() -> typer.Typer:
    """Build the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Make API keys for `dimml serve`.")
    group.command("new")(new)
    group.callback()(lambda: None)  # Without a callback, typer would replace a group of one command by that command.
    return group


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key's owner, shown in the access log.")],
    *,
    admin: Annotated[bool, typer.Option("--admin", help="The key may also load and unload bundles.")] = False,
    concurrent: Annotated[
        int | None,
        typer.Option(min=1, help="Concurrent requests allowed; by default key_concurrency.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: name, key, line.")] = False,
) -> None:
    """Make a key of 256 random bits and show it, once: it is stored nowhere.

    The line goes into the server's keys file (api_keys_file) or into DIMML_API_KEYS, the key to the caller.
    """
    import json

    from dimml_server.security.keys import new_key

    secret, key = new_key(name, admin=admin, concurrent=concurrent)
    if as_json:
        typer.echo(json.dumps({"name": key.name, "key": secret, "line": key.line}))
    else:
        typer.echo(f"for the caller, shown only now:\n  {secret}\nfor the server's keys file:\n  {key.line}")
