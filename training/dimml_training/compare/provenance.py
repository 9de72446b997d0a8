"""Provenance of metrics: the commit and the library versions that made them."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from dimml.errors import SetupError

LIBRARIES = ("dimml", "numpy", "torch", "transformers")


@dataclass(frozen=True)
class Provenance:
    """Commit of the checkout of the running code, and whether files differ from it; None outside a checkout."""

    commit: str | None
    dirty: bool | None


@cache
def provenance() -> Provenance:
    """Ask git about the running code, once; call it before long work, since later commits are not what runs."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return Provenance(None, None)
    # Only folders of code count: notes and results being written do not change what is trained.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", "core", "training")
    return Provenance(commit, bool(changed))


def repository_root() -> Path | None:
    """Top folder of the checkout of the running code; None outside a checkout."""
    found = _git("rev-parse", "--show-toplevel")
    return None if found is None else Path(found)


def uncommitted(root: Path, script: str) -> list[str]:
    """Paths of a checkout that no commit names, sorted: changed code or ``script``, and modules that git does not have.

    Stricter than ``dirty``: an added module may be what runs, even one that git is asked to ignore. Raises SetupError
    where ``root`` is no checkout.
    """
    changed = _git("diff", "--name-only", "HEAD", "--", "core", "training", script, root=root)
    added = _git("ls-files", "--others", "--", "core/*.py", "training/*.py", script, root=root)
    if changed is None or added is None:
        raise SetupError(f"git does not say what was changed in {root}: run in a checkout with at least one commit")
    return sorted({*changed.splitlines(), *added.splitlines()})


def versions() -> dict[str, str]:
    """Versions of the libraries that metrics depend on."""
    return {library: version(library) for library in LIBRARIES}


def _git(*arguments: str, root: Path | None = None) -> str | None:
    """What git says in ``root``, by default the top of the checkout of the running code; None where it fails."""
    package = Path(__file__).parent
    top = ("git", "-C", str(package), "rev-parse", "--show-toplevel")
    try:
        place = root or subprocess.run(top, capture_output=True, text=True, check=True).stdout.strip()
        found = subprocess.run(("git", "-C", str(place), *arguments), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
