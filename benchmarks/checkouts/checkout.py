"""A checkout whose commands and servers are run, by its own code and entry points, in a folder made for it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.server_process import ServerProcess, running_server

COMPONENTS = ("core", "training", "export", "server", "clients")
REPOSITORY, SAMPLES = "model_repository", "samples"
LIMIT_S = 300.0
#: The console script, by whatever module the checkout's own entry point names.
_CONSOLE = (
    "import sys; from importlib.metadata import entry_points; sys.argv[0] = 'dimml'; "
    "next(iter(entry_points(group='console_scripts', name='dimml'))).load()()"
)
_LOCATE = (
    "import importlib; "
    "print(*(importlib.import_module(name).__path__[0] for name in "
    "('dimml', 'dimml_training', 'dimml_export', 'dimml_server', 'dimml_client')), sep='\\n')"
)
#: Width of every table and help text, no colours, and a thread for each library: sums keep their order.
_ENVIRONMENT = {
    "COLUMNS": "160",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore",
    "SOURCE_DATE_EPOCH": "0",  # which matplotlib writes into pictures
}


@dataclass(frozen=True)
class Checkout:
    """``folder`` is where its commands run: copies of the same samples and model repository, and what they write."""

    path: Path
    python: str
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What puts this checkout's code and metadata before all that is installed (a ``.pth`` comes later)."""
        paths = [self.folder / "metadata", *(self.path / component for component in COMPONENTS)]
        path = os.pathsep.join(map(str, paths))
        return _ENVIRONMENT | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(self.folder / "cache")}

    def python_run(self, program: str, *words: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a Python program to its end; ``path`` comes after the checkout's own on the module path."""
        environment = os.environ | self.environment
        if path is not None:
            environment["PYTHONPATH"] += os.pathsep + str(path)
        return subprocess.run(
            [self.python, "-P", "-c", program, *words],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=LIMIT_S,
        )

    def dimml(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command ``dimml`` to its end."""
        return self.python_run(_CONSOLE, *words)

    def must(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``dimml``. Raises RuntimeError with what it printed unless its exit code is 0."""
        done = self.dimml(*words)
        if done.returncode != 0:
            raise RuntimeError(f"{self.path}: dimml {' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
        return done

    def packages(self) -> dict[str, str]:
        """Version of every package that is installed beside dimml."""
        program = (
            "import json; from importlib.metadata import distributions; "
            "print(json.dumps(dict(sorted((d.name.lower(), d.version) for d in distributions()))))"
        )
        found: dict[str, str] = json.loads(self.python_run(program).stdout)
        return {name: version for name, version in found.items() if name != "dimml"}

    @contextmanager
    def server(self, **settings: object) -> Iterator[ServerProcess]:
        """Serve ``folder/model_repository`` on free ports; encoders with one thread, so that sums keep their order."""
        given = {"intra_op_threads": 1, "decode_workers": 1, **settings}
        with running_server(
            self.folder / REPOSITORY, python=self.python, environment=self.environment, **given
        ) as server:
            yield server


def prepare(path: Path, folder: Path, inputs: Path, python: str | None) -> Checkout:
    """A checkout ready to run on the samples and the model repository of ``inputs``.

    Raises SystemExit where its packages do not come from the checkout itself.
    """
    own = path / ".venv" / "bin" / "python"
    python = python or (str(own) if own.exists() else sys.executable)
    folder.mkdir(parents=True)
    for name in (REPOSITORY, SAMPLES):
        shutil.copytree(inputs / name, folder / name)
    write_metadata(path, folder / "metadata")
    checkout = Checkout(path, python, folder)
    found = checkout.python_run(_LOCATE)
    strangers = [line for line in found.stdout.splitlines() if not Path(line).is_relative_to(path)]
    if found.returncode != 0 or strangers:
        raise SystemExit(f"{path}: its packages cannot be loaded from it: {found.stderr.strip() or strangers}")
    return checkout


def write_metadata(path: Path, folder: Path) -> None:
    """Write what installing the checkout would: an installed ``dist-info`` names modules of when it was installed."""
    project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
    version = re.search(r'__version__ = "(.+)"', (path / "core" / "dimml" / "__init__.py").read_text())
    if version is None:
        raise SystemExit(f"{path}: core/dimml/__init__.py has no __version__")
    requires = [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        requires += [f"Provides-Extra: {extra}"]
        requires += [f"Requires-Dist: {requirement} ; extra == '{extra}'" for requirement in requirements]
    groups = {"console_scripts": project["scripts"], **project["entry-points"]}
    sections = (f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in of.items()) for group, of in groups.items())
    info = folder / f"dimml-{version[1]}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "\n".join(["Metadata-Version: 2.1", "Name: dimml", f"Version: {version[1]}", *requires, ""])
    )
    (info / "entry_points.txt").write_text("\n".join(sections))
