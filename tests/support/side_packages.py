"""Packages that tests read but that cannot or should not live in the tests' own environment."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from support.data import REPOSITORY_ROOT, unavailable

_FOLDER = REPOSITORY_ROOT / ".cache" / "side_packages"
_PIP_SECONDS = 110


def side_packages(*pins: str) -> Path:
    """A folder with these packages and nothing that they depend on, fetched once; skips where that fails."""
    folder = _FOLDER / hashlib.sha256("\n".join(pins).encode()).hexdigest()[:16]
    done = folder / ".done"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / f".{folder.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
            try:
                fetched = subprocess.run(
                    [*command, "--upgrade", "--target", str(folder), *pins],
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=_PIP_SECONDS,
                )
            except subprocess.TimeoutExpired:
                unavailable(f"pip did not fetch {', '.join(pins)} within {_PIP_SECONDS} s")
            else:
                if fetched.returncode != 0:
                    unavailable(f"pip cannot fetch {', '.join(pins)}: {fetched.stderr.strip()[-300:]}")
            done.touch()
    return folder
