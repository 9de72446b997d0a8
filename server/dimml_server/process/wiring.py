"""Wiring of a service from settings: the one place that puts engine, decode workers and prediction core together."""

from __future__ import annotations

from pathlib import Path

from dimml.bundle import Bundle
from dimml.media.workers.pool import DecodePool
from dimml_server.counts import Counts, OwnCount
from dimml_server.engines.batcher import BatchLimits
from dimml_server.engines.graph_cache import GraphCache
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine
from dimml_server.engines.protocol import ServingEngine
from dimml_server.engines.triton import TritonEngine
from dimml_server.engines.triton_channel import TritonChannel
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.tracer import NO_TRACER, Tracer
from dimml_server.prediction.decoder import Decoder
from dimml_server.prediction.service import PredictionService
from dimml_server.prediction.whole_server import WholeServer
from dimml_server.settings.settings import ServerSettings
from dimml_server.shadow.process import ShadowProcess
from dimml_server.shadow.shadow import EngineRunner, Runner


def build_service(
    settings: ServerSettings,
    metrics: Metrics,
    decoder: Decoder | None = None,
    upload_folder: Path | None = None,
    tracer: Tracer = NO_TRACER,
    *,
    counts: Counts = OwnCount,
    whole: WholeServer | None = None,
) -> PredictionService:
    """Build a service, not started yet; ``decoder`` replaces the decode workers of the settings.

    ``upload_folder`` is then the only folder with recordings; None means that they may be anywhere. ``counts`` and
    ``whole`` are for one of several processes.

    Raises ConfigurationError if the machine lacks the device.
    """
    engine = _triton_engine(settings, tracer) if settings.engine == "triton" else _local_engine(settings, metrics)
    if decoder is None:
        readable = None if upload_folder is None else [upload_folder]
        decoder = DecodePool(settings.decode_workers, decode_memory_bytes=settings.decode_memory, readable=readable)

    def shadow_runner(bundle: Bundle) -> Runner:
        if settings.engine == "triton":
            return EngineRunner(engine, bundle)
        return ShadowProcess(
            bundle, settings.repository, device=settings.device, intra_op_threads=settings.intra_op_threads
        )

    return PredictionService(
        engine,
        decoder,
        metrics,
        settings,
        shadow_runner=shadow_runner,
        upload_folder=upload_folder,
        tracer=tracer,
        counts=counts,
        whole=whole,
    )


def _local_engine(settings: ServerSettings, metrics: Metrics) -> ServingEngine:
    return OnnxRuntimeEngine(
        concurrency=settings.concurrency,
        device=settings.device,
        intra_op_threads=settings.intra_op_threads,
        max_stray_runs=settings.max_stray_runs,
        deadlines_s={name: ms / 1000.0 for name, ms in settings.deadlines_ms.items()},
        processes=settings.processes,
        batches=BatchLimits(settings.batch_rows, settings.batch_wait_ms / 1000.0),
        on_batch=metrics.batches.began,
        keep_rows=settings.batch_rows,
        graphs=graph_cache(settings.graph_cache, settings.graph_cache_bytes),
    )


def graph_cache(folder: Path | None, max_bytes: int) -> GraphCache | None:
    """Return the cache of optimised graphs, or None where there is none."""
    return None if folder is None or not max_bytes else GraphCache(folder.absolute(), max_bytes)


def _triton_engine(settings: ServerSettings, tracer: Tracer) -> ServingEngine:
    channel = TritonChannel(
        settings.triton_url,
        max_message_bytes=settings.triton_max_message_bytes,
        keepalive_s=settings.triton_keepalive_s,
        metadata=tracer.outgoing,
    )
    return TritonEngine(channel, wait_s=settings.triton_wait_s)
