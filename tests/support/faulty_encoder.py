"""``model.py`` of an encoder for Triton's Python backend that does its work, until a file beside it says otherwise.

The file ``fault`` in the model's folder holds ``raise``, ``nan`` or ``sleep SECONDS``; empty or missing, all is well.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

_OUTPUTS = ("FEATURES", "LOGITS")


class TritonPythonModel:
    """The encoder of ``model.onnx``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load it."""
        folder = Path(args["model_repository"])
        self._fault = folder / "fault"
        self._session = ort.InferenceSession(folder / args["model_version"] / "model.onnx")

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request, as the fault has it."""
        kind, _, seconds = (self._fault.read_text() if self._fault.exists() else "").partition(" ")
        if kind == "raise":
            raise RuntimeError("told to raise")
        if kind == "sleep":
            time.sleep(float(seconds))
        return [self._answer(request, nan=kind == "nan") for request in requests]

    def _answer(self, request: Any, *, nan: bool) -> Any:
        (tensor,) = request.inputs()
        arrays = self._session.run(list(_OUTPUTS), {tensor.name(): tensor.as_numpy()})
        if nan:
            arrays = [np.full_like(array, np.nan) for array in arrays]
        tensors = [pb_utils.Tensor(name, array) for name, array in zip(_OUTPUTS, arrays, strict=True)]
        return pb_utils.InferenceResponse(output_tensors=tensors)
