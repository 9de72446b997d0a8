"""Files of one run of Triton beside the installed server: this dimml's core, and the backends."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from venv import EnvBuilder

import dimml
from dimml.system.outbound import quiet_environment
from dimml_server.triton_server.installation import Installation, runtime_file


class RunFolder:
    """A folder that exists as long as the run."""

    def __init__(self, folder: Path, installation: Installation) -> None:
        self.folder = folder
        self.backends = folder / "backends"
        self._venv = folder / "venv"
        folder.mkdir(mode=0o700)
        self._make_environment(installation)
        self._make_backends(installation)

    def environment(self, installation: Installation, inherited: dict[str, str]) -> dict[str, str]:
        """Build the server's environment variables. Its stub runs the first ``python3`` on PATH."""
        kept = {name: value for name, value in inherited.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        libraries = [str(installation.host.library_folder), inherited.get("LD_LIBRARY_PATH", "")]
        return quiet_environment(kept) | {
            "PATH": f"{self._venv / 'bin'}:{inherited.get('PATH', '/usr/bin:/bin')}",
            "LD_LIBRARY_PATH": ":".join(path for path in libraries if path),
        }

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_environment(self, installation: Installation) -> None:
        """Make a Python environment with a copy of this dimml's core, over the installed packages.

        A copy, since core's own folder may hold another numpy; one per run, since two checkouts may share one installed
        server.
        """
        EnvBuilder(symlinks=True, with_pip=False).create(self._venv)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        site_packages = self._venv / "lib" / f"python{version}" / "site-packages"
        core = Path(dimml.__file__).parent
        shutil.copytree(core, site_packages / "dimml", ignore=shutil.ignore_patterns("__pycache__"))
        (site_packages / "fetched.pth").write_text(f"{installation.site_packages}\n")

    def _make_backends(self, installation: Installation) -> None:
        self.backends.mkdir()
        (self.backends / "python").symlink_to(installation.python_backend)
        for source in runtime_file("backends").iterdir():
            # Copied, not linked: Triton refuses a model.py that leads out of its backend's folder.
            shutil.copytree(source, self.backends / source.name, ignore=shutil.ignore_patterns("__pycache__"))
