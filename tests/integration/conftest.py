"""One real Triton server for all tests that need one: starting it takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from support.data import REPOSITORY_ROOT
from support.triton_faults import Faults, make_faulty_bundle
from support.triton_process import running_triton


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """A Triton server with the demo bundle and a tiny bundle whose encoders can be made to fail."""
    repository = tmp_path_factory.mktemp("triton") / "models"
    shutil.copytree(REPOSITORY_ROOT / "model_repository", repository)
    bundle = make_faulty_bundle(repository)
    with running_triton(repository) as server:
        yield Faults(server, repository, bundle)
