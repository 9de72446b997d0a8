"""Core's own tests in the environment that Triton's models run in: numpy 1.26 and OpenCV 4.11."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from pathlib import Path

import pytest

from dimml.errors import DimmlError
from dimml_server.triton_server.host import check_host
from dimml_server.triton_server.installation import default_home, install
from support.data import REPOSITORY_ROOT, unavailable

#: What runs tests, and needs no numpy of its own.
TEST_PACKAGES = ("pytest", "pytest-timeout", "hypothesis", "pluggy", "iniconfig", "packaging", "sortedcontainers")
#: Left out: the command's tests need dimml installed with its entry points; the decode pool's, the attacks' and the
#: containers' are about processes and FFmpeg, which are the same in both environments, and slow.
MODULES = (
    "test_bundle",
    "test_ensemble",
    "test_signal_check",
    *(f"fusion/test_{name}" for name in ("reliability", "weighting")),
    *(f"media/decoders/test_{name}" for name in ("audio", "flow_file", "time_range", "video")),
)


@pytest.mark.timeout(600)
def test_core_in_triton_s_environment(tmp_path: Path) -> None:
    try:
        installation = install(default_home(), check_host(), print)
    except DimmlError as error:
        unavailable(f"no Triton server can be had: {error.message}")
        return
    for package in TEST_PACKAGES:
        for file in importlib.metadata.files(package) or []:
            top = file.parts[0]
            link = tmp_path / top
            if top not in ("..", "__pycache__") and not link.exists():
                link.symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    python = installation.folder / "venv" / "bin" / "python"
    paths = [str(REPOSITORY_ROOT / "core"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    versions = subprocess.run(
        [python, "-c", "import numpy, cv2, dimml; print(numpy.__version__, cv2.__version__, dimml.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    ).stdout.split()
    assert versions == ["1.26.4", "4.11.0", str(REPOSITORY_ROOT / "core" / "dimml" / "__init__.py")]
    tests = [f"tests/core/{name}.py" for name in MODULES]
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
