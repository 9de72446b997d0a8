"""``dimml bundle``: sign the bundles of a repository, and check them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass

Repository = Annotated[Path, typer.Option("--repository", "-r", help="Model repository.")]
Version = Annotated[int | None, typer.Option(min=1, help="Version; by default the newest.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]

_DEFAULT = Path("model_repository")


def build() -> typer.Typer:
    """Build the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Sign bundles (Ed25519) and verify them.")
    group.command("keygen")(keygen)
    group.command("sign")(sign)
    group.command("verify")(verify)
    return group


def keygen(name: Annotated[Path, typer.Argument(metavar="NAME", help="Writes NAME.key and NAME.pub.")]) -> None:
    """Make a pair of keys: NAME.key signs and stays with you, NAME.pub goes to every server."""
    from dimml.signing import generate_keys

    private, public = name.with_name(name.name + ".key"), name.with_name(name.name + ".pub")
    generate_keys(private, public)
    typer.echo(f"{private}: signs (`dimml bundle sign --key`); keep it from servers\n{public}: for bundle_public_keys")


def sign(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="A bundle, by its entry's name.")],
    *,
    key: Annotated[Path, typer.Option("--key", help="Private key that `dimml bundle keygen` made.")],
    repository: Repository = _DEFAULT,
    version: Version = None,
    as_json: AsJson = False,
) -> None:
    """Check every file of a bundle against its manifest, and sign the manifest."""
    import json

    from dimml.bundle import MANIFEST_NAME
    from dimml.repository import load_bundle
    from dimml.signing import read_private_key
    from dimml.signing import sign as sign_manifest

    private = read_private_key(key)
    found = load_bundle(repository, bundle, version)
    place = sign_manifest(repository / bundle / str(found.version) / MANIFEST_NAME, private)
    if as_json:
        typer.echo(json.dumps({"bundle": bundle, "version": found.version, "signature": str(place)}))
    else:
        typer.echo(f"{bundle} version {found.version} is signed: {place}")


def verify(
    bundle: Annotated[
        str | None, typer.Argument(metavar="[BUNDLE]", help="By default all.", show_default=False)
    ] = None,
    *,
    public_key: Annotated[
        list[Path] | None,
        typer.Option(
            "--public-key",
            help="Public key whose signatures are accepted, repeatable; without it, only hashes are checked.",
        ),
    ] = None,
    repository: Repository = _DEFAULT,
    version: Annotated[int | None, typer.Option(min=1, help="By default all.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Check bundles: every file against the manifest's hashes, and the manifest's signature.

    Exit code 1 where anything is not as it should be.
    """
    import json

    from dimml.signing import read_public_keys
    from dimml_server.security.bundle_verdicts import verdicts_of

    verdicts = verdicts_of(repository, read_public_keys(public_key or ()), bundle, version)
    if as_json:
        typer.echo(json.dumps([asdict(verdict) for verdict in verdicts]))
    else:
        for verdict in verdicts:
            well = (
                f"{verdict.files} files as exported, {'signature good' if verdict.signed else 'signature not checked'}"
            )
            typer.echo(f"{verdict.bundle} version {verdict.version}: {verdict.problem or well}")
    if any(verdict.problem for verdict in verdicts):
        raise typer.Exit(1)
