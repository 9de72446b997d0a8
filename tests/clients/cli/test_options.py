"""Options that several commands share: each command that takes a server's address has all of them, in one order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from dimml.cli import build_app
from dimml.errors import ConfigurationError
from dimml_client.cli.options import CredentialFiles, with_credentials

WHO_CALLS = ["--api-key-file", "--ca", "--certificate", "--certificate-key"]


def options_by_command(command: Any, name: str = "") -> dict[str, list[str]]:
    """Long options of a command and of all beneath it, as they stand in its help."""
    own = {name: [parameter.opts[0] for parameter in command.params]}
    for word, child in getattr(command, "commands", {}).items():
        own |= options_by_command(child, f"{name} {word}".strip())
    return own


def test_every_command_that_takes_an_address_takes_credentials() -> None:
    options = options_by_command(typer.main.get_command(build_app()[0]))
    to_a_server = {name: given for name, given in options.items() if "--url" in given}
    models = {f"models {word}" for word in ("list", "load", "unload", "default", "split", "shadow")}
    assert set(to_a_server) == {"predict", "score", *models}
    for name, given in to_a_server.items():
        first = given.index(WHO_CALLS[0])
        assert given[first : first + len(WHO_CALLS)] == WHO_CALLS, name


def test_the_options_arrive_together_and_are_read_only_when_asked_for(tmp_path: Path) -> None:
    seen: list[tuple[list[str], CredentialFiles, bool]] = []
    app = typer.Typer()

    def shown(
        words: list[str], *, credentials: CredentialFiles, loud: Annotated[bool, typer.Option("--loud")] = False
    ) -> None:
        seen.append((words, credentials, loud))

    app.command()(with_credentials(shown))
    key, absent = tmp_path / "key", tmp_path / "absent"
    key.write_text("secret\n")
    run = CliRunner().invoke
    assert run(app, ["a", "b", "--api-key-file", str(key), "--ca", str(tmp_path / "ca"), "--loud"]).exit_code == 0
    assert run(app, ["a", "--api-key-file", str(absent)]).exit_code == 0
    assert run(app, ["a"]).exit_code == 0
    assert [(words, loud) for words, _, loud in seen] == [(["a", "b"], True), (["a"], False), (["a"], False)]
    read = seen[0][1].read()
    assert (read.api_key, read.ca, read.certificate) == ("secret", tmp_path / "ca", None)
    with pytest.raises(ConfigurationError, match="cannot read"):
        seen[1][1].read()
    assert seen[2][1] == CredentialFiles()
