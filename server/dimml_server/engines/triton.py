"""The Triton engine: encoders and fusion run on a Triton server over gRPC; everything else stays in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, ModelSpec, fused_from, fusion_inputs, model_specs
from dimml.engine import Encoded, EngineError
from dimml.errors import BundleError
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.status import Reason
from dimml_server.engines.triton_channel import TritonChannel
from dimml_server.engines.triton_health import TritonWatch

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 0.2


class TritonEngine:
    """``dimml_server.engines.protocol.ServingEngine`` over one ``TritonChannel``.

    Models are requested by the bundle's version, never by Triton's default one. While Triton is unreachable every
    modality is ``failed:encoder_gone`` at once; it is used again as soon as it is back. ``wait_s`` bounds how long the
    start waits for it, over all bundles.
    """

    def __init__(self, channel: TritonChannel, *, wait_s: float) -> None:
        self._channel = channel
        self._watch = TritonWatch(channel)
        self._wait_s = wait_s
        self._wait_end: float | None = None
        self._specs: dict[tuple[str, int], ModelSpec] = {}

    @property
    def stray_runs(self) -> int:
        """Always 0: an abandoned call is cancelled, and Triton deals with the rest."""
        return 0

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool) -> None:
        """Check that Triton has this version of the bundle's encoders and fusion, with the manifest's tensors.

        Unless ``must_run``, a model that is not ready within the start's time is awaited while serving. Raises
        BundleError for tensors that differ and, with ``must_run``, for every model that is not ready.
        """
        self._watch.add(bundle)
        try:
            await self._settled(bundle, must_run=must_run)
        except BaseException:
            self._watch.remove(bundle)
            raise
        for missing in self._watch.unready(bundle):
            logger.warning("serving without a model until it is there: %s", missing)
        self._specs.update({(spec.name, bundle.version): spec for spec in model_specs(bundle)})

    def unload(self, bundle: Bundle) -> None:
        """Stop using a bundle. On Triton it stays as it is."""
        self._watch.remove(bundle)
        for spec in model_specs(bundle):
            self._specs.pop((spec.name, bundle.version), None)

    def ready(self, bundle: Bundle, model: str | None = None) -> bool:
        """Whether the models were ready at the last check, at most a second or so ago."""
        if model is not None:
            return self._watch.ready(model, bundle.version)
        encoders = [bundle.encoder_model(modality.name) for modality in bundle.modalities]
        return self._watch.ready(bundle.fusion_model, bundle.version) and any(
            self._watch.ready(name, bundle.version) for name in encoders
        )

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        """Run one encoder on ``[B, *modality.shape]``. Raises EngineError."""
        tensors = {bundle.encoder(modality).modality.tensor: tensor}
        outputs = await self._infer(bundle, bundle.encoder_model(modality), tensors)
        return Encoded(features=outputs[FEATURES], logits=outputs[LOGITS])

    async def fuse(
        self,
        bundle: Bundle,
        features: Mapping[str, FloatArray],
        logits: Mapping[str, FloatArray],
        present_BM: BoolArray,
    ) -> Fused:
        """Run the fusion graph. Raises EngineError."""
        tensors = fusion_inputs(bundle, features, logits, present_BM)
        return fused_from(await self._infer(bundle, bundle.fusion_model, tensors))

    async def close(self) -> None:
        """Stop watching, and close the connection."""
        await self._watch.close()
        await self._channel.close()

    async def _settled(self, bundle: Bundle, *, must_run: bool) -> None:
        loop = asyncio.get_running_loop()
        if self._wait_end is None:
            self._wait_end = loop.time() + self._wait_s
        await self._watch.look()
        while not must_run and self._may_come(bundle) and loop.time() < self._wait_end:
            await asyncio.sleep(_LOOK_AGAIN_S)
            await self._watch.look()
        bad = self._watch.unready(bundle, unfit=not must_run)
        if bad:
            raise BundleError(f"bundle {bundle.name!r} version {bundle.version} on Triton: {'; '.join(bad)}")

    def _may_come(self, bundle: Bundle) -> bool:
        """Whether waiting may help: some model is not ready, and none differs from the manifest's."""
        return bool(self._watch.unready(bundle)) and not self._watch.unready(bundle, unfit=True)

    async def _infer(
        self, bundle: Bundle, model: str, tensors: Mapping[str, npt.NDArray[Any]]
    ) -> dict[str, npt.NDArray[Any]]:
        spec = self._specs.get((model, bundle.version))
        if spec is None:
            raise EngineError(Reason.ENCODER_GONE, f"{model} version {bundle.version} is not loaded")
        if self._watch.unfit(model, bundle.version):
            raise EngineError(Reason.ENCODER_ERROR, f"{model} on Triton is not the model of the manifest")
        return await self._channel.infer(spec, bundle.version, tensors)
