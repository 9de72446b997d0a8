"""``model.py`` for Triton's Python backend: the first step of a classic ensemble, a recording's bytes to rows.

``parameters`` of the model's configuration name the repository, the bundle and the decoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from dimml.contract import PRESENT
from dimml.repository import load_bundle
from peer_servers.pipeline import DECODERS


class TritonPythonModel:
    """Decodes in the process of its instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the bundle's manifest."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._bundle = load_bundle(Path(parameters["repository"]["string_value"]), parameters["bundle"]["string_value"])
        self._decode = DECODERS[parameters["decoder"]["string_value"]]

    def execute(self, requests: list[Any]) -> list[Any]:
        """One answer for each request: a row for each modality, zeros where it is missing, and which are there."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        data = pb_utils.get_input_tensor_by_name(request, "MEDIA").as_numpy()
        rows = self._decode(self._bundle, data.reshape(-1)[0])
        modalities = self._bundle.modalities
        tensors = []
        for modality in modalities:
            row = rows[modality.name]
            array = np.zeros(modality.shape, modality.dtype) if row is None else row
            tensors.append(pb_utils.Tensor(modality.tensor, np.ascontiguousarray(array[None], modality.dtype)))
        present = np.array([[rows[modality.name] is not None for modality in modalities]])
        return pb_utils.InferenceResponse([*tensors, pb_utils.Tensor(PRESENT, present)])
