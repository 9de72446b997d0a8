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


class Together(Protocol):
    """Encoders under way on one batch, with the fusion right after them; no caller has awaited any of them yet."""

    #: By modality, once there is a fusion: what went into it, and the seconds that each encoder took.
    outputs: Mapping[str, Encoded]
    encode_s: Mapping[str, float]
    #: Seconds that the fusion took.
    fuse_s: float

    async def fused(self, until: float, latest: float) -> Fused | None:
        """Return the fusion; None where an encoder failed or has not ended by ``until``: then await ``encoded``.

        Times are the event loop's. Raises EngineError if the fusion fails, TimeoutError if it is not there by
        ``latest``. Cancelling it stops all runs.
        """
        ...

    async def encoded(self, modality: str) -> Encoded:
        """Return what one encoder gives, as ``Engine.encode`` does. Raises EngineError."""
        ...


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


class EncodesTogether(Engine, Protocol):
    """An engine that needs no caller between the encoders and the fusion."""

    def together(
        self,
        bundle: Bundle,
        tensors: Mapping[str, npt.NDArray[Any]],
        missing: Mapping[str, Encoded],
        present_BM: BoolArray,
    ) -> Together | None:
        """Start the encoders of ``tensors``; ``missing`` stands for the other modalities in the fusion.

        None if the models should be called one by one now.
        """
        ...
