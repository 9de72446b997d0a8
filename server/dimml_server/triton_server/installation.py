"""Installation of pip's Triton server and the Python environment of its models: done once, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Final

from dimml.errors import SetupError
from dimml.system.files import exclusive_lock
from dimml_server.triton_server.host import HostPython

CONSTRAINTS_NAME: Final = "constraints-triton.txt"
_SERVER_PACKAGE: Final = "nvidia-pytriton"
#: Imports of the Python ``onnxruntime`` backend, beside those of dimml's core.
_BACKEND_REQUIREMENTS: Final = ("onnxruntime",)
_PARTIAL: Final = ".partial-"
_STUB: Final = "triton_python_backend_stub"
_PACKAGE: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Installation:
    """An installed server. Its folder is never written to again."""

    folder: Path
    host: HostPython

    @property
    def server(self) -> Path:
        """The ``tritonserver`` program."""
        return self._tritonserver / "bin" / "tritonserver"

    @property
    def python_backend(self) -> Path:
        """Folder of Triton's Python backend, with the stub for this Python."""
        return self._tritonserver / "backends" / "python"

    @property
    def site_packages(self) -> Path:
        """Core's requirements and onnxruntime, at the versions of constraints-triton.txt."""
        return self.folder / "venv" / "lib" / f"python{self.host.version}" / "site-packages"

    @property
    def _tritonserver(self) -> Path:
        return self.folder / "server" / "pytriton" / "tritonserver"


def default_home() -> Path:
    """Return ``dimml/triton`` in the user's cache folder (XDG_CACHE_HOME, by default ~/.cache)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "dimml" / "triton"


def runtime_file(name: str) -> Path:
    """Find a file of ``server/triton_runtime``, or ``constraints-triton.txt``, in the checkout or the wheel."""
    checkout = _PACKAGE.parents[1]
    for folder in (checkout / "server" / "triton_runtime", checkout, _PACKAGE / "triton_runtime"):
        if (folder / name).exists():
            return folder / name
    raise SetupError(f"{name} is not part of this installation of dimml; install it again")


def install(home: Path, host: HostPython, say: Callable[[str], None]) -> Installation:
    """Return the server under ``home``, installing it if necessary; ``say`` is called with messages about slow steps.

    Concurrent calls wait for each other, and leftovers of a killed one are removed. Raises SetupError if pip cannot
    install it.
    """
    constraints = runtime_file(CONSTRAINTS_NAME)
    wanted = [*_core_requirements(), *_BACKEND_REQUIREMENTS]
    key = hashlib.sha256("\n".join([*wanted, str(host), constraints.read_text()]).encode()).hexdigest()[:12]
    installation = Installation(home / f"py{host.version}-{key}", host)
    if _usable(installation):
        return installation
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home / ".lock", say):
        for left in home.glob(f"{_PARTIAL}*"):
            shutil.rmtree(left, ignore_errors=True)
        if _usable(installation):
            return installation
        shutil.rmtree(installation.folder, ignore_errors=True)
        partial = Installation(home / f"{_PARTIAL}{key}", host)
        _fetch(partial, wanted, constraints, say)
        partial.folder.rename(installation.folder)
    return installation


def _usable(installation: Installation) -> bool:
    # The Python that the environment was made with may have been removed since.
    return installation.server.is_file() and (installation.folder / "venv" / "bin" / "python3").exists()


def _fetch(target: Installation, wanted: list[str], constraints: Path, say: Callable[[str], None]) -> None:
    say(f"fetching Triton's server and its Python environment into {target.folder.parent}; this happens once")
    venv = target.folder / "venv"
    _run([sys.executable, "-m", "venv", str(venv)], "make a Python environment")
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    pip += ["--constraint", str(constraints)]
    # Without dependencies: the server does not need those of its Python part, which would pull in a second numpy.
    _run([*pip, "--no-deps", "--target", str(target.folder / "server"), _SERVER_PACKAGE], f"get {_SERVER_PACKAGE}")
    _run([*pip, *wanted], "get what dimml's core needs")
    stub = target.folder / "server/pytriton/tritonserver/python_backend_stubs" / target.host.version / _STUB
    # Copied, not linked: Triton refuses links that lead out of its backend's folder.
    shutil.copy(stub, target.python_backend / _STUB)
    for program in (target.server, target.python_backend / _STUB):
        program.chmod(0o755)


def _run(command: list[str], purpose: str) -> None:
    # PYTHONPATH and the like belong to this Python, not to the new environment.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        raise SetupError(f"cannot {purpose}: {errors[0] if errors else f'exit code {done.returncode}'}")


def _core_requirements() -> list[str]:
    """List core's requirements, from the metadata of the installed dimml: those without an extra."""
    return sorted(line for line in requires("dimml") or [] if "extra ==" not in line)


@contextmanager
def _locked(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a file's lock; the kernel frees it when a process dies."""
    with ExitStack() as lock:
        if not lock.enter_context(exclusive_lock(path, wait=False)):
            say("another process is fetching Triton's server; waiting for it")
            lock.enter_context(exclusive_lock(path))
        yield
