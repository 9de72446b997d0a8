"""Calls that concern the whole server, which is one process or several: its models, its traffic, its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dimml_server.observability.metrics import Metrics
from dimml_server.versions.control import ModelControl
from dimml_server.versions.policy import VersionPolicy
from dimml_server.versions.traffic import UNCHANGED, Traffic, Unchanged


class WholeServer(Protocol):
    """What transports ask of the whole server; everything else they ask of their own process."""

    async def load(self, model: str, policy: VersionPolicy | None = None) -> None:
        """Serve the versions that ``policy`` chooses: ``ModelControl.load``."""
        ...

    async def unload(self, model: str) -> None:
        """Unload all versions of a bundle: ``ModelControl.unload``."""
        ...

    async def change(
        self,
        name: str,
        *,
        split: Mapping[int, float] | Unchanged = UNCHANGED,
        shadow: int | Unchanged | None = UNCHANGED,
    ) -> None:
        """Set a bundle's shares, its shadow, or both: ``Traffic.change``."""
        ...

    async def exposition(self) -> bytes:
        """Format all metrics in Prometheus's text format."""
        ...

    async def now(self) -> dict[str, Any]:
        """Return the last hour of the metrics, as JSON (``History.report``)."""
        ...

    async def model_stats(self, models: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Return a ``ModelStatistics`` message for each model and version."""
        ...


class OneProcess:
    """``WholeServer`` where this process is all of it."""

    def __init__(self, control: ModelControl, traffic: Traffic, metrics: Metrics) -> None:
        self._control, self._traffic, self._metrics = control, traffic, metrics

    async def load(self, model: str, policy: VersionPolicy | None = None) -> None:
        """Serve the versions that ``policy`` chooses. Raises RequestError."""
        await self._control.load(model, policy)

    async def unload(self, model: str) -> None:
        """Unload all versions of a bundle. Raises RequestError."""
        await self._control.unload(model)

    async def change(
        self,
        name: str,
        *,
        split: Mapping[int, float] | Unchanged = UNCHANGED,
        shadow: int | Unchanged | None = UNCHANGED,
    ) -> None:
        """Set a bundle's shares, its shadow, or both. Raises RequestError."""
        await self._traffic.change(name, split=split, shadow=shadow)

    async def exposition(self) -> bytes:
        """Format this process's metrics."""
        return self._metrics.exposition()

    async def now(self) -> dict[str, Any]:
        """Return the last hour of this process's metrics."""
        return await self._metrics.history.report()

    async def model_stats(self, models: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Return this process's counts of each model and version."""
        return [self._metrics.inference.model_stats(name, version) for name, version in models]
