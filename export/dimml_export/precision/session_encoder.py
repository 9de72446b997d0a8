"""An exported encoder in the place of the trained one, so that whatever judges encoders judges exported ones."""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from dimml.contract import FEATURES, LOGITS
from dimml_export.parity import cpu_session


class SessionEncoder(nn.Module):
    """Maps ``[B, *modality.shape]`` in the modality's dtype to features ``[B, D]`` and logits ``[B, C]``, both FP32."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self._input = model.graph.input[0].name
        self._session = cpu_session(model)

    def forward(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        """``(features [B, D], logits [B, C])`` by ONNX Runtime on the processor."""
        features, logits = self._session.run([FEATURES, LOGITS], {self._input: tensor.numpy()})
        return torch.from_numpy(features), torch.from_numpy(logits)
