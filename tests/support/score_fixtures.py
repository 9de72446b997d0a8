"""Fixtures that the tests of ``dimml score`` share: a bundle that loads in milliseconds, recordings good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.scoring import mixed_folder
from support.tiny_bundle import make_tiny_bundle


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_folder(tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("made"))
