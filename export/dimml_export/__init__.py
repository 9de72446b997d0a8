"""Export of a training run as a checked bundle in a Triton model repository.

The names below are its Python API (docs/python_api.md), imported when they are first used: they need torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dimml_export.export import Exported, export_run

__all__ = ["Exported", "export_run"]


def __getattr__(name: str) -> Any:
    """Import a name of the API. Raises AttributeError for any other."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("dimml_export.export"), name)
