"""A repository that holds one version of one bundle, so that every contender serves it without being given its name."""

from __future__ import annotations

import shutil
from pathlib import Path

from dimml.bundle import Bundle
from dimml.contract import model_specs


def with_one_version(repository: Path, bundle: Bundle, folder: Path) -> Path:
    """Copy the models of ``bundle``, at its version alone, to the new ``folder``; return it."""
    for spec in model_specs(bundle):
        source, target = repository / spec.name, folder / spec.name
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file():
                shutil.copy2(path, target)
        shutil.copytree(source / str(bundle.version), target / str(bundle.version))
    return folder
