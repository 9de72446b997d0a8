"""Where the real data is, which stays outside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


def unavailable(reason: str) -> None:
    """Skip the running test with ``reason``; in CI, where everything is meant to be there, fail it instead."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"needed in CI: {reason}")
    pytest.skip(reason)


def shared_data(name: str) -> Path:
    """A folder of the shared data (``DIMML_DATA``, by default ``../shared/data``); skips where it is absent."""
    root = Path(os.environ.get("DIMML_DATA", REPOSITORY_ROOT.parent / "shared" / "data"))
    folder = root / name
    if not folder.exists():
        unavailable(f"{folder} is not there; set DIMML_DATA to a folder that holds {name}")
    return folder
