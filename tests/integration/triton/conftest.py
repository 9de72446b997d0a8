"""The one Triton server that the tests here share, and the gateway before it: starting one takes seconds."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc

from dimml.bundle import MANIFEST_NAME, read_bundle
from dimml.modality import Frames
from dimml_server.triton_server.installation import default_home
from support.data import REPOSITORY_ROOT
from support.fresh_home import fresh_home
from support.gateway import QUEUE_SIZE, encoders_and_fusion, gateway
from support.kserve_clients import Face, face
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_sets import SETS, tiny_sets, tiny_unknown
from support.triton_faults import Faults, make_faulty_bundle
from support.triton_process import TritonServer, running_triton

#: Bundles of the gateway, beside ``faulty``, and of its embedded twin. The others are of one test or file each.
BEHIND_THE_GATEWAY = ("avdigits", "tiny", "stalls", "nans", "large")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundle, and tiny ones.

    ``tiny`` is whole, ``stalls`` has a picture encoder that stalls, as has ``queued``, whose queue one test fills;
    ``sets`` has prediction sets, ``sets_later`` in its second version alone, ``sets_before`` in its first; ``nans``
    gives NaN, ``large`` takes large pictures; ``faulty`` obeys ``Faults``, and new versions are made of ``versions``
    and ``rollout``.
    """
    folder = tmp_path_factory.mktemp("triton") / "models"
    shutil.copytree(REPOSITORY_ROOT / "model_repository", folder)
    make_tiny_bundle(folder)
    queue = f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {QUEUE_SIZE} }} }}"
    for name in ("stalls", "queued"):
        make_tiny_bundle(folder, name=name, stall="visual", deadline_ms=500)
        config = folder / f"{name}_visual" / "config.pbtxt"
        config.write_text(re.sub(r"dynamic_batching \{\s*\}", queue, config.read_text()))
    make_tiny_bundle(folder, name="nans", nan="audio")
    make_tiny_bundle(folder, name="large", modalities=(Frames(name="visual", frames=16, height=300, width=300),))
    make_faulty_bundle(folder, name="faulty", media=True)
    with_sets = tiny_sets(**SETS, unknown=tiny_unknown())
    make_tiny_bundle(folder, name="sets", prediction_sets=with_sets)
    for name, versions in (("sets_later", (None, with_sets)), ("sets_before", (with_sets, None))):
        for sets in versions:
            make_tiny_bundle(folder, name=name, prediction_sets=sets)
    make_tiny_bundle(folder, name="versions")
    make_tiny_bundle(folder, name="rollout")
    return folder


@pytest.fixture(scope="session")
def home_of_triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the shared server's home."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def triton(repository: Path, home_of_triton: Path) -> Iterator[TritonServer]:
    """The demo bundle, those of sets and ``faulty`` whole; of others, what a gateway or `dimml models` needs.

    A new user has started it: with an empty home, and no switch that keeps a library from sending.
    """
    entries = [
        "avdigits",
        "sets",
        "sets_later",
        "sets_before",
        "faulty_audio",
        "faulty_visual",
        "faulty_fusion",
        "queued_visual",
    ]
    others = encoders_and_fusion(repository, "tiny", "stalls", "nans", "large", "versions", "rollout")
    fetched = default_home()
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as environment:
            fresh_home(home_of_triton, environment)
            server = stack.enter_context(running_triton(repository, model=[*entries, *others], home=fetched))
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
            client.load_model(
                "faulty"
            )  # By name it is the entry alone; `--model faulty` would want the media model, too.
        yield server


@pytest.fixture(scope="session")
def faults(repository: Path, triton: TritonServer) -> Faults:
    """A bundle on the shared server whose encoders can be made to fail."""
    return Faults(triton, repository, read_bundle(repository / "faulty" / "1" / MANIFEST_NAME))


@pytest.fixture(scope="session")
def server(repository: Path, triton: TritonServer) -> Iterator[ServerProcess]:
    """`dimml serve --engine triton`."""
    models = ",".join((*BEHIND_THE_GATEWAY, "faulty"))
    with gateway(repository, triton.grpc, models=models, model_control="explicit") as server:
        yield server


@pytest.fixture(scope="session")
def embedded(repository: Path) -> Iterator[ServerProcess]:
    """`dimml serve` on the same bundles, with its own engine."""
    with running_server(repository, models=",".join(BEHIND_THE_GATEWAY), decode_workers=1) as server:
        yield server


@pytest.fixture
def control(triton: TritonServer) -> Iterator[Any]:
    """A client of Triton itself."""
    with tritonclient.grpc.InferenceServerClient(triton.grpc) as client:
        yield client


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Face]:
    """A client of the gateway."""
    with face("grpc", server.http, server.grpc) as client:
        yield client
