"""``model.py`` for Triton's Python backend: an encoder whose every run takes ``STALL_S`` longer."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from dimml.contract import FEATURES, LOGITS
from dimml.system.outbound import import_quietly
from peer_servers.pipeline import STALL_S


class TritonPythonModel:
    """The encoder of ``model.onnx``."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load it."""
        ort = import_quietly("onnxruntime")
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self._session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One late answer for each request."""
        answers = []
        for request in requests:
            (tensor,) = request.inputs()
            time.sleep(STALL_S)
            arrays = self._session.run([FEATURES, LOGITS], {tensor.name(): tensor.as_numpy()})
            tensors = [pb_utils.Tensor(name, array) for name, array in zip((FEATURES, LOGITS), arrays, strict=True)]
            answers.append(pb_utils.InferenceResponse(output_tensors=tensors))
        return answers
