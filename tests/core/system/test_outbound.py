"""Switches of libraries that send by themselves: set before the first import, and never over what a user has set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dimml.system.outbound import SWITCHES, Switch, quiet_environment, set_quiet_defaults, switch_values
from support.data import REPOSITORY_ROOT

VARIABLES = [switch.variable for switch in SWITCHES]


def test_an_empty_environment_gets_every_switch_and_each_stops_its_library() -> None:
    given = {"PATH": "/bin", SWITCHES[0].variable: ""}
    quiet = quiet_environment(given)
    assert quiet.keys() == {"PATH", *VARIABLES}
    assert given[SWITCHES[0].variable] == ""
    assert all(switch.stopped_by(quiet) for switch in SWITCHES)
    assert not any(switch.stopped_by({}) for switch in SWITCHES)


@pytest.mark.parametrize("switch", SWITCHES, ids=VARIABLES)
def test_what_a_user_has_set_wins(switch: Switch, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "")
    for value in ("0", "1", "something else"):
        monkeypatch.setenv(switch.variable, value)
        set_quiet_defaults()
        assert os.environ[switch.variable] == value
    assert {**quiet_environment({}), switch.variable: "something else"} == switch_values()
    # The environment of the process itself, which is what a C library reads.
    code = f"import os; print(os.environ[{switch.variable!r}])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "something else\n"


def test_importing_it_changes_nothing() -> None:
    code = "import os; before = dict(os.environ); import dimml.system.outbound; assert os.environ == before"
    bare = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    subprocess.run([sys.executable, "-c", code], env=bare, check=True)


@pytest.mark.parametrize("variable", VARIABLES)
def test_the_documentation_has_every_switch(variable: str) -> None:
    assert f"`{variable}" in (REPOSITORY_ROOT / "docs" / "security.md").read_text()
