"""The local engine: encoders and fusion with ONNX Runtime in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dimml.bundle import Bundle
from dimml.contract import FEATURES, LOGITS, fused_from, fusion_inputs, model_specs
from dimml.engine import Encoded, EngineError
from dimml.fusion import BoolArray, FloatArray, Fused
from dimml.status import Reason
from dimml.system.cores import usable_cores
from dimml.system.cpu import int8_instructions
from dimml_server.engines.batcher import Batcher, BatchLimits
from dimml_server.engines.graph_cache import GraphCache, content_of
from dimml_server.engines.low_priority import at_low_priority
from dimml_server.engines.ort_session import ModelSession, providers
from dimml_server.engines.together import RunsTogether

logger = logging.getLogger(__name__)

#: Share of an encoder's deadline that a call may wait for others to share its run.
MOST_WAIT = 0.25
#: Hears of each run that several requests may share: bundle, modality, rows, and seconds that each request waited.
BatchObserver = Callable[[Bundle, str, int, Sequence[float]], None]


class OnnxRuntimeEngine:
    """``dimml.engine.Engine`` over one ONNX Runtime session per model.

    ``concurrency`` is the number of requests that run at a time. ``intra_op_threads`` None shares the cores among a
    bundle's encoders, which run concurrently, and among ``processes`` that serve. ``graphs`` keeps optimised graphs.
    Calls of an encoder that come together share runs within ``batches``. A run of more than ``keep_rows`` rows gives
    its memory back. ``deadlines_s`` are encoders' limits by modality, in the place of the bundle's, by which stalled
    ones are known; None: none is taken to stall. Sessions are looked up by bundle name and version.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        device: str = "auto",
        intra_op_threads: int | None = None,
        max_stray_runs: int = 4,
        deadlines_s: Mapping[str, float] | None = None,
        processes: int = 1,
        graphs: GraphCache | None = None,
        batches: BatchLimits | None = None,
        on_batch: BatchObserver = lambda bundle, modality, rows, waits_s: None,
        keep_rows: int | None = None,
    ) -> None:
        self._providers = providers(device)
        self._concurrency = concurrency
        self._intra_op_threads = intra_op_threads
        self._processes = processes
        self._max_stray_runs = max_stray_runs
        self._deadlines_s = deadlines_s
        self._graphs = graphs
        self._batches, self._on_batch = batches or BatchLimits(), on_batch
        self._keep_rows = keep_rows
        self._batchers: dict[tuple[str, int], Batcher] = {}
        self._sessions: dict[tuple[str, int], ModelSession] = {}

    @property
    def stray_runs(self) -> int:
        """Cancelled runs, over all models, that have not ended yet."""
        return sum(session.stray_runs for session in self._sessions.values())

    async def load(self, bundle: Bundle, repository: Path, *, must_run: bool = True) -> None:
        """Make the sessions of a bundle, and run each once. On failure nothing is kept, and BundleError is raised."""
        if bundle.precision == "int8" and self._providers[0] == "CPUExecutionProvider" and int8_instructions() == ():
            logger.warning(
                "bundle %s version %d has int8 encoders, and this processor has neither VNNI nor AMX: it may answer "
                "slower than in fp32; serve its fp32 version here",
                bundle.name,
                bundle.version,
            )
        # Making a session optimises its graph, which keeps a core busy, hence the low priority; but threads that a
        # session starts would keep that priority, and where sessions have threads, there are more cores anyway.
        elsewhere = at_low_priority if self._threads(bundle) == 1 else asyncio.to_thread
        sessions = await elsewhere(self._make_sessions, bundle, repository)
        try:
            for session in sessions.values():
                await session.warm_up()
        except BaseException:
            for session in sessions.values():
                session.close()
            raise
        self.unload(bundle)  # Requests in flight may still hold the sessions of a bundle that was just unloaded.
        self._sessions.update({(name, bundle.version): session for name, session in sessions.items()})
        self._batchers.update(self._make_batchers(bundle, sessions))

    def unload(self, bundle: Bundle) -> None:
        """Release a bundle's sessions; their memory is freed once their last runs have ended."""
        for spec in model_specs(bundle):
            batcher = self._batchers.pop((spec.name, bundle.version), None)
            if batcher is not None:
                batcher.close()
            session = self._sessions.pop((spec.name, bundle.version), None)
            if session is not None:
                session.close()

    def ready(self, bundle: Bundle, model: str | None = None) -> bool:
        """Whether the bundle is loaded."""
        return (model or bundle.fusion_model, bundle.version) in self._sessions

    async def close(self) -> None:
        """Cancel stray runs, and let all threads end."""
        for batcher in self._batchers.values():
            batcher.close()
        for session in self._sessions.values():
            session.close()

    async def encode(self, bundle: Bundle, modality: str, tensor: npt.NDArray[Any]) -> Encoded:
        """Run one encoder on ``[B, *modality.shape]``. Raises EngineError."""
        tensors, model = {bundle.encoder(modality).modality.tensor: tensor}, bundle.encoder_model(modality)
        session, batcher = self._session(bundle, model), self._batchers.get((model, bundle.version))
        outputs = await (session if batcher is None else batcher).run(tensors)
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
        return fused_from(await self._session(bundle, bundle.fusion_model).run(tensors))

    def together(
        self,
        bundle: Bundle,
        tensors: Mapping[str, npt.NDArray[Any]],
        missing: Mapping[str, Encoded],
        present_BM: BoolArray,
    ) -> RunsTogether | None:
        """Start the encoders of ``tensors`` with the fusion after them; None if one must be refused, or is batched."""
        if any((bundle.encoder_model(name), bundle.version) in self._batchers for name in tensors):
            return None

        def fusion_tensors(outputs: Mapping[str, Encoded]) -> Mapping[str, npt.NDArray[Any]]:
            features = {name: one.features for name, one in outputs.items()}
            return fusion_inputs(bundle, features, {name: one.logits for name, one in outputs.items()}, present_BM)

        try:
            fusion = self._session(bundle, bundle.fusion_model)
            encoders = {
                name: (
                    self._session(bundle, bundle.encoder_model(name)),
                    {bundle.encoder(name).modality.tensor: tensor},
                )
                for name, tensor in tensors.items()
            }
            for session in (fusion, *(session for session, _ in encoders.values())):
                session.check_room()
        except EngineError:
            return None
        return RunsTogether(encoders, missing, fusion, fusion_tensors)

    def _session(self, bundle: Bundle, model: str) -> ModelSession:
        session = self._sessions.get((model, bundle.version))
        if session is None:
            raise EngineError(Reason.ENCODER_GONE, f"{model} version {bundle.version} is not loaded")
        return session

    def _late_after_s(self, bundle: Bundle, modality: str | None) -> float | None:
        if self._deadlines_s is None or modality is None:
            return None
        return self._deadlines_s.get(modality, bundle.encoder(modality).deadline_ms / 1000.0)

    def _make_batchers(self, bundle: Bundle, sessions: Mapping[str, ModelSession]) -> dict[tuple[str, int], Batcher]:
        rows = min(self._batches.rows, bundle.max_batch_size)
        if rows < 2:
            return {}
        made = {}
        for encoder in bundle.encoders:
            modality = encoder.modality.name
            # Waiting must not use up what the run itself needs.
            wait_s = min(self._batches.wait_s, MOST_WAIT * encoder.deadline_ms / 1000.0)
            made[bundle.encoder_model(modality), bundle.version] = Batcher(
                sessions[bundle.encoder_model(modality)],
                BatchLimits(rows, wait_s),
                partial(self._on_batch, bundle, modality),
            )
        return made

    def _threads(self, bundle: Bundle) -> int:
        return self._intra_op_threads or max(1, usable_cores() // self._processes // len(bundle.encoders))

    def _make_sessions(self, bundle: Bundle, repository: Path) -> dict[str, ModelSession]:
        threads = self._threads(bundle)
        sessions = {}
        for spec in model_specs(bundle):
            if spec.role not in ("encoder", "fusion"):
                continue
            sessions[spec.name] = ModelSession(
                bundle.model_file(repository, spec.name),
                spec,
                # On a GPU its sums of squares would be in TF32, and it is too small to gain anything there.
                providers=self._providers if spec.role == "encoder" else ["CPUExecutionProvider"],
                threads=threads if spec.role == "encoder" else 1,
                concurrency=self._concurrency,
                max_stray_runs=self._max_stray_runs,
                late_after_s=self._late_after_s(bundle, spec.modality),
                graphs=self._graphs,
                content=content_of(bundle, repository, spec.name),
                keep_rows=None if self._keep_rows is None else min(self._keep_rows, bundle.max_batch_size),
            )
        return sessions
