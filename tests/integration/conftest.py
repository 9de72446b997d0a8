"""Real servers that several files share: starting one takes seconds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimml.modality import Frames
from support.data import REPOSITORY_ROOT
from support.gateway import QUEUE_SIZE, encoders_and_fusion, gateway
from support.server_process import ServerProcess
from support.tiny_bundle import make_tiny_bundle
from support.triton_faults import Faults, make_faulty_bundle
from support.triton_process import TritonServer, running_triton


@pytest.fixture(scope="session")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    """A Triton server with the demo bundle and a tiny bundle whose encoders can be made to fail."""
    repository = tmp_path_factory.mktemp("triton") / "models"
    shutil.copytree(REPOSITORY_ROOT / "model_repository", repository)
    bundle = make_faulty_bundle(repository)
    with running_triton(repository) as server:
        yield Faults(server, repository, bundle)


@pytest.fixture(scope="session")
def gateway_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundle, and tiny ones: whole, with a picture encoder that stalls, with NaN, with large pictures."""
    folder = tmp_path_factory.mktemp("behind") / "models"
    shutil.copytree(REPOSITORY_ROOT / "model_repository", folder)
    make_tiny_bundle(folder)
    make_tiny_bundle(folder, name="stalls", stall="visual", deadline_ms=500)
    config = folder / "stalls_visual" / "config.pbtxt"
    queue = f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {QUEUE_SIZE} }} }}"
    config.write_text(re.sub(r"dynamic_batching \{\s*\}", queue, config.read_text()))
    make_tiny_bundle(folder, name="nans", nan="audio")
    make_tiny_bundle(folder, name="large", modalities=(Frames(name="visual", frames=16, height=300, width=300),))
    return folder


@pytest.fixture(scope="session")
def gateway_triton(gateway_repository: Path) -> Iterator[TritonServer]:
    """What stands behind the gateway: encoders and fusions alone."""
    with running_triton(gateway_repository, model=encoders_and_fusion(gateway_repository)) as server:
        yield server


@pytest.fixture(scope="session")
def gateway_server(gateway_repository: Path, gateway_triton: TritonServer) -> Iterator[ServerProcess]:
    """`dimml serve --engine triton`."""
    with gateway(gateway_repository, gateway_triton.grpc, model_control="explicit") as server:
        yield server
