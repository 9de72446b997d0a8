"""Written by `dimml export`, for Triton's Python backend; dimml's core must be installed there."""

from dimml.triton.entry import EntryModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
