"""Which code made a figure."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("dimml", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class Provenance:
    """Commit of the checkout that the running code stands in, and whether files differ from it; None outside one."""

    commit: str | None
    dirty: bool | None


@cache
def provenance() -> Provenance:
    """Ask git about the running code, once: ask before long work, for commits made meanwhile are not what runs."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return Provenance(None, None)
    # The code alone: notes and results that are being written do not change what is trained.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "core", "training")
    return Provenance(commit, bool(changed))


def versions() -> dict[str, str]:
    """Versions of the libraries that figures depend on."""
    return {library: version(library) for library in LIBRARIES}


def _git(*arguments: str) -> str | None:
    package = Path(__file__).parent
    top = ("git", "-C", str(package), "rev-parse", "--show-toplevel")
    try:
        root = subprocess.run(top, capture_output=True, text=True, check=True).stdout.strip()
        found = subprocess.run(("git", "-C", root, *arguments), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
