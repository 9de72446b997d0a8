"""``dimml triton``: how it says no, and what it leaves behind when it is killed. No server here gets ready."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from dimml.errors import SetupError
from dimml_server.triton_server.failure import explain
from dimml_server.triton_server.host import check_host
from dimml_server.triton_server.installation import default_home, install
from dimml_server.triton_server.options import TritonOptions
from dimml_server.triton_server.ports import choose_ports
from dimml_server.triton_server.process import TritonProcess, server_command
from dimml_server.triton_server.run_folder import RunFolder
from dimml_server.triton_server.shared_memory import RunName
from support.data import unavailable
from support.tiny_bundle import make_tiny_bundle
from support.triton_process import refusal, triton_command
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three ONNX models, which starts quickly."""
    try:
        install(default_home(), check_host(), print)  # Now, so that no test's start has that to tell.
    except SetupError as error:
        unavailable(f"no Triton server can be had: {error.message}")
    repository = tmp_path_factory.mktemp("encoders")
    make_tiny_bundle(repository)
    shutil.rmtree(repository / "tiny_media")
    shutil.rmtree(repository / "tiny")
    return repository


def test_a_start_that_cannot_be(encoders: Path, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"error: model repository {tmp_path / 'none'} is not a folder"
    assert "has no such bundle or model" in refusal(encoders, model="other")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = refusal(encoders, grpc_port=port)
    assert message == (f"error: port {port} on 127.0.0.1 is taken by another program; choose another with --grpc-port")


def test_numpy_2_is_refused_by_the_server_that_corrupts_it(encoders: Path) -> None:
    import numpy as np

    assert np.__version__.startswith("2."), "these tests run with numpy 2"
    host = check_host()
    installation = install(default_home(), host, print)
    options = TritonOptions(encoders, default_home(), (), "127.0.0.1", 0, 0, 0)
    name = RunName()
    run = RunFolder(Path(tempfile.gettempdir()) / name.prefix, installation)
    (search_path,) = run.folder.glob("venv/lib/python*/site-packages/fetched.pth")
    search_path.write_text(f"{Path(np.__file__).parents[1]}\n")
    command = server_command(options, [], choose_ports(options), installation=installation, run=run, name=name)
    process = TritonProcess(command, run.environment(installation, dict(os.environ)), name.descriptor)
    try:
        wait_until(lambda: process.exit_code is not None, 120.0)
        reason = explain(process.log, process.stop())
    finally:
        process.stop()
        run.close()
        name.close()
    assert f"tiny_audio: this Triton server corrupts tensors of numpy {np.__version__}" in reason


def test_a_fetch_that_was_killed_is_done_again(tmp_path: Path) -> None:
    """With pip's part left out: what stands half done is never taken for whole."""
    home = tmp_path / "home"
    whole = install(default_home(), check_host(), print)
    left = home / f".partial-{whole.folder.name}"
    left.mkdir(parents=True)
    half = replace(whole, folder=home / whole.folder.name)
    half.folder.mkdir()
    (half.folder / "venv").symlink_to(whole.folder / "venv")
    done = subprocess.run(
        triton_command(tmp_path, home=home),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "cannot get nvidia-pytriton: ERROR: " in done.stderr
    assert not left.exists()
    assert not half.folder.exists(), "nothing that could be taken for whole"
