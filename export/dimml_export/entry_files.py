"""``model.py`` of the models that Triton's Python backend runs: a few lines, the same for every bundle and version."""

from __future__ import annotations

from typing import Final

from dimml.contract import Role

ENTRY_FILE_NAME: Final = "model.py"
_CLASSES: Final[dict[Role, tuple[str, str]]] = {
    "entry": ("dimml.triton.entry", "EntryModel"),
    "media": ("dimml.triton.media", "MediaModel"),
}


def entry_file(role: Role) -> str:
    """Text of the ``model.py`` of an entry or media model."""
    module, name = _CLASSES[role]
    return (
        '"""Written by `dimml export`, for Triton\'s Python backend; dimml\'s core must be installed there."""\n\n'
        f"from {module} import {name} as TritonPythonModel\n\n"
        '__all__ = ["TritonPythonModel"]\n'
    )
