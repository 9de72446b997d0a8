"""Python environments with pinned packages, in a cache folder outside the repository, made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dimml.system.files import exclusive_lock


def default_home() -> Path:
    """``dimml/benchmarks`` in the user's cache folder (XDG_CACHE_HOME, by default ~/.cache)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "dimml" / "benchmarks"


def environment(home: Path, name: str, requirements: Sequence[str], constraints: Sequence[str]) -> Path:
    """Its Python, installed if it is not there yet. Raises RuntimeError with pip's message if it cannot be."""
    key = hashlib.sha256("\n".join([sys.version, *requirements, *constraints]).encode()).hexdigest()[:12]
    folder = home / f"{name}-{key}"
    python = folder / "bin" / "python"
    home.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(home / f"{name}.lock"):
        if (folder / "complete").exists() and python.exists():
            return python
        print(f"making the environment of {name} in {folder}; this happens once", file=sys.stderr, flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)])
        (folder / "constraints.txt").write_text("\n".join(constraints))
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        _run([*pip, "--constraint", str(folder / "constraints.txt"), *requirements])
        (folder / "complete").touch()
    return python


def pins(constraints: Path, names: Sequence[str]) -> list[str]:
    """Lines ``name==version`` of a constraints file for these packages. Raises KeyError for one that it lacks."""
    found: Mapping[str, str] = {
        line.partition("==")[0].strip().lower(): line.strip()
        for line in constraints.read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    return [found[name] for name in names]


def clean_environment() -> dict[str, str]:
    """This process's variables less those that belong to its own Python."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DIMML_"))}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command[:6])} …: {(done.stderr or done.stdout).strip()[-2000:]}")
