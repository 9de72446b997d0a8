"""A home folder with nothing in it, for processes that this one starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dimml.system.outbound import SWITCHES

#: Where one of these is set, ONNX Runtime and MLflow send nothing anyway: a test would see nothing to find fault with.
_CI_VARIABLES = (
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("CODEBUILD_BUILD_ARN", "BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER"),
)


def fresh_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home below ``folder``, no switch set and no sign of CI: what a new user of dimml has."""
    home = folder / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in (*_CI_VARIABLES, *(switch.variable for switch in SWITCHES)):
        monkeypatch.delenv(name, raising=False)
    return home


def files_below(folder: Path) -> list[str]:
    """Every file, by its path below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
