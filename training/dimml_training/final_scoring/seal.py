"""The seal of the final corruption families: a list of their files' SHA-256, made before anything else was changed.

``sealed.sha256`` beside the files is as ``sha256sum`` writes and checks it. Only what it names may be scored as final.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import dimml_training.corruptions.final as sealed_room
from dimml.errors import SetupError

FOLDER: Final = Path(sealed_room.__file__).parent
SEAL: Final = "sealed.sha256"


def unbroken_seal(folder: Path = FOLDER) -> str:
    """Check the files of the final families against their seal; return the seal's own SHA-256, 64 hex digits.

    Raises SetupError that names the files which have changed, are missing, or were added after sealing.
    """
    path = folder / SEAL
    try:
        lines = [line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines()]
        listed = {name: digest for digest, _, name in lines}
        found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*.py"))}
        seal = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot read the seal {path}; restore it from version control") from error
    broken = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    if broken:
        raise SetupError(
            f"the final corruption families are sealed, and {', '.join(broken)} in {folder} differ from {SEAL}: "
            "restore them from version control; a changed family needs another name, and a seal of its own"
        )
    return seal
