"""Public Python names for autodoc, and the described fields of pydantic models among them."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock

#: Imported by what is described here, costly, and not described: their classes are stand-ins while this site is built.
MOCKED = ["torch", "pytorch_lightning", "transformers", "sklearn", "scipy", "matplotlib", "tensorboard"]


def markdown(names: str) -> str:
    """Directives for ``names``, such as ``dimml_client.Client``, separated by spaces; of ``NAME-`` without members."""
    return "\n".join(["```{eval-rst}", *(_directive(name) for name in names.split()), "```"])


def _directive(name: str) -> str:
    module, _, attribute = name.rstrip("-").rpartition(".")
    with mock(MOCKED):
        value = getattr(import_module(module), attribute)
    if not inspect.isclass(value):
        return f".. autofunction:: {module}.{attribute}\n"
    lines = [f".. autoclass:: {module}.{attribute}"]
    if not name.endswith("-"):
        lines.append("   :members:")
    return "\n".join(lines) + "\n"


def add_fields(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:  # noqa: PLR0917 - Sphinx's
    """Append a pydantic model's fields and what their definitions say about them to its docstring."""
    if not (what == "class" and isinstance(obj, type) and issubclass(obj, BaseModel)):
        return
    for field, info in obj.model_fields.items():
        described = f": {info.description}" if info.description else ""
        lines.append(f"* ``{field}``{described}")
    lines.append("")
