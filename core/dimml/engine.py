"""Where encoders run. ``ensemble`` talks to an engine only through this protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.status import Reason


@dataclass(frozen=True, slots=True)
class Encoded:
    """Output of one encoder: features ``[B, D]`` and its own head's logits ``[B, C]``, FP32."""

    features: FloatArray
    logits: FloatArray


class EngineError(Exception):
    """An encoder gave no output. ``reason`` becomes the modality's reason; the message goes to the log only."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Engine(Protocol):
    """Runs a bundle's models. All calls are concurrent; cancelling one stops the underlying run where possible."""

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        """Run one encoder on ``[B, *modality.shape]``. Raises EngineError."""
        ...

    async def fuse(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
    ) -> Fused:
        """Run the fusion graph. Every modality must be given; masked slots may hold anything. Raises EngineError."""
        ...
