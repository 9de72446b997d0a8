"""Import of ONNX Runtime's tools for models, without what they do to the import path."""

from __future__ import annotations

import sys
from types import ModuleType

from dimml.system.outbound import import_quietly


def import_tool(name: str) -> ModuleType:
    """Import a module of ``onnxruntime.quantization`` or ``onnxruntime.transformers``; ``sys.path`` stays as it was.

    Both import modules of the latter's folder as top-level ones, for which the package appends that folder to the path.
    It holds modules as generic as ``benchmark`` and ``models``.
    """
    before = list(sys.path)
    try:
        folder = import_quietly("onnxruntime.transformers").__path__
        sys.path[:] = [*before, *folder]
        return import_quietly(name)
    finally:
        sys.path[:] = before
