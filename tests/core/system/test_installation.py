"""The command that adds extras to this very installation."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

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
    ],
)
def test_extras_come_from_where_dimml_came_from(
    recorded: dict[str, object] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = None if recorded is None else json.dumps(recorded)
    monkeypatch.setattr(installation, "distribution", lambda name: SimpleNamespace(read_text=lambda file: text))
    assert installation.install_command("serve") == command
