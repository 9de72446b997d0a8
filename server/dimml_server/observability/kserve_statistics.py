"""Counts and times of inference requests per model and version, in the shape of Triton's statistics extension.

A request that names a model and version that exist counts there once: as ``success``, or as ``fail`` where it was
refused or went wrong. An entry model's request does not count for the encoders that it runs; their own time is in
``dimml_stage_seconds`` of ``/metrics``. There is no response cache, so ``cache_hit`` and ``cache_miss`` stay 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import time
from typing import Any


@dataclass(frozen=True, slots=True)
class Durations:
    """Nanoseconds of one answered request: waiting for a permit, decoding the tensors, running, selecting outputs."""

    queue: int
    compute_input: int
    compute_infer: int
    compute_output: int


@dataclass(slots=True)
class _Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns

    def as_dict(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _ModelCounts:
    last_inference_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: _Duration = field(default_factory=_Duration)
    fail: _Duration = field(default_factory=_Duration)
    stages: dict[str, _Duration] = field(default_factory=lambda: {stage: _Duration() for stage in _STAGES})
    batches: dict[int, dict[str, _Duration]] = field(default_factory=dict)


class Statistics:
    """Counters since the server started. Used from the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], _ModelCounts] = {}

    def succeeded(self, model: str, version: int, *, batch: int, durations: Durations, total_ns: int) -> None:
        """Count one answered request of ``batch`` rows."""
        counts = self._of(model, version)
        counts.last_inference_ms = int(time() * 1000)
        counts.inferences += batch
        counts.executions += 1
        counts.success.add(total_ns)
        by_batch = counts.batches.setdefault(batch, {stage: _Duration() for stage in _STAGES[1:]})
        for stage in _STAGES:
            ns = getattr(durations, stage)
            counts.stages[stage].add(ns)
            if stage in by_batch:
                by_batch[stage].add(ns)

    def failed(self, model: str, version: int, *, total_ns: int) -> None:
        """Count one request that got an error."""
        self._of(model, version).fail.add(total_ns)

    def model_stats(self, model: str, version: int) -> dict[str, Any]:
        """One ``ModelStatistics`` message as a dictionary (the same for JSON and protobuf)."""
        counts = self._of(model, version)
        unused = _Duration().as_dict()
        return {
            "name": model,
            "version": str(version),
            "last_inference": counts.last_inference_ms,
            "inference_count": counts.inferences,
            "execution_count": counts.executions,
            "inference_stats": {
                "success": counts.success.as_dict(),
                "fail": counts.fail.as_dict(),
                **{stage: duration.as_dict() for stage, duration in counts.stages.items()},
                "cache_hit": unused,
                "cache_miss": unused,
            },
            "batch_stats": [
                {"batch_size": batch, **{stage: duration.as_dict() for stage, duration in stages.items()}}
                for batch, stages in sorted(counts.batches.items())
            ],
        }

    def all_stats(self) -> list[dict[str, Any]]:
        """All messages of models that were asked for."""
        return [self.model_stats(model, version) for model, version in self._counts]

    def _of(self, model: str, version: int) -> _ModelCounts:
        return self._counts.setdefault((model, version), _ModelCounts())


def merged_stats(processes: Iterable[Iterable[Mapping[str, Any]]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Add up the messages of several processes, by model and version."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for messages in processes:
        for message in messages:
            key = message["name"], message["version"]
            merged[key] = _added(merged[key], message) if key in merged else dict(message)
    return merged


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    batches = {batch["batch_size"]: batch for batch in one["batch_stats"]}
    for batch in other["batch_stats"]:
        known = batches.get(batch["batch_size"])
        batches[batch["batch_size"]] = (
            batch if known is None else {**_sums(known, batch), "batch_size": batch["batch_size"]}
        )
    return {
        **one,
        "last_inference": max(one["last_inference"], other["last_inference"]),
        "inference_count": one["inference_count"] + other["inference_count"],
        "execution_count": one["execution_count"] + other["execution_count"],
        "inference_stats": _sums(one["inference_stats"], other["inference_stats"]),
        "batch_stats": [batches[size] for size in sorted(batches)],
    }


def _sums(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add up two tables of counts and nanoseconds by stage."""
    return {
        stage: {unit: one[stage][unit] + other[stage][unit] for unit in ("count", "ns")}
        for stage in one
        if isinstance(one[stage], Mapping)
    }
