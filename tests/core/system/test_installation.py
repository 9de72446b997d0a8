"""The command that adds extras to this very installation."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from dimml.system import installation


@pytest.mark.parametrize(
    ("recorded", "command"),
    [
        (None, "pip install 'dimml[serve]'"),
        ({"url": "file:///src/a%20b", "dir_info": {"editable": True}}, "pip install -e '/src/a b[serve]'"),
        ({"url": "file:///src/dimml", "dir_info": {}}, "pip install '/src/dimml[serve]'"),
        (
            {"url": "file:///tmp/dimml-1-py3-none-any.whl", "archive_info": {"hash": "sha256=00"}},
            "pip install 'dimml[serve] @ file:///tmp/dimml-1-py3-none-any.whl'",
        ),
        (
            {
                "url": "https://git.example.org/dimml.git",
                "vcs_info": {"vcs": "git", "requested_revision": "main", "commit_id": "0f" * 20},
            },
            f"pip install 'dimml[serve] @ git+https://git.example.org/dimml.git@{'0f' * 20}'",
        ),
        (
            {
                "url": "ssh://git@git.example.org/all.git",
                "vcs_info": {"vcs": "git", "commit_id": "0f" * 20},
                "subdirectory": "apps/dimml",
            },
            f"pip install 'dimml[serve] @ git+ssh://git@git.example.org/all.git@{'0f' * 20}#subdirectory=apps/dimml'",
        ),
        (
            {"url": "https://example.org/all.tar.gz", "archive_info": {}, "subdirectory": "dimml"},
            "pip install 'dimml[serve] @ https://example.org/all.tar.gz#subdirectory=dimml'",
        ),
    ],
)
def test_extras_come_from_where_dimml_came_from(
    recorded: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if recorded is None else json.dumps(recorded)
    monkeypatch.setattr(installation, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    found = installation.install_command("serve")
    assert found == command
    words = shlex.split(found)
    assert words[:2] == ["pip", "install"]
    if " @ " in words[-1]:
        asked = Requirement(words[-1])  # pip reads it so
        assert (asked.name, asked.extras, asked.url) == ("dimml", {"serve"}, words[-1].partition(" @ ")[2])
