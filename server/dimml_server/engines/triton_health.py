"""Health of a Triton server, checked in the background instead of in every request: which models run there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from enum import Enum
from typing import Final

import grpc

from dimml.bundle import Bundle
from dimml.contract import ModelSpec, model_specs
from dimml_server.engines.triton_channel import TritonChannel

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
#: Checks that a busy server may leave unanswered before it counts as gone.
MISSES_ALLOWED: Final = 3


class ModelState(Enum):
    """State of one model version on the Triton server."""

    UNKNOWN = "not seen yet"
    READY = "ready"
    GONE = "not loaded"
    UNFIT = "not the model of the manifest"


@dataclass(slots=True)
class _WatchedModel:
    spec: ModelSpec
    version: int
    state: ModelState = ModelState.UNKNOWN
    why: str = ""


class TritonWatch:
    """Checks the encoders and the fusion of every bundle added once a second. Lives in one event loop."""

    def __init__(self, channel: TritonChannel) -> None:
        self._channel = channel
        self._watched: dict[tuple[str, int], _WatchedModel] = {}
        self._misses = 0
        self._live: bool | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, bundle: Bundle) -> None:
        """Watch a bundle version's models from now on."""
        for spec in model_specs(bundle):
            if spec.role in ("encoder", "fusion"):
                self._watched.setdefault((spec.name, bundle.version), _WatchedModel(spec, bundle.version))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_forever())

    def remove(self, bundle: Bundle) -> None:
        """Stop watching a bundle version."""
        for spec in model_specs(bundle):
            self._watched.pop((spec.name, bundle.version), None)

    def ready(self, model: str, version: int) -> bool:
        """Whether the model was ready, and the manifest's, at the last check."""
        watched = self._watched.get((model, version))
        return watched is not None and watched.state is ModelState.READY

    def unfit(self, model: str, version: int) -> bool:
        """Whether a different model runs under this name and version."""
        watched = self._watched.get((model, version))
        return watched is not None and watched.state is ModelState.UNFIT

    def unready(self, bundle: Bundle, *, unfit: bool = False) -> list[str]:
        """List the models of a bundle version that are not ready, each with its reason; ``unfit``: only unfit ones."""
        found = [self._watched.get((spec.name, bundle.version)) for spec in model_specs(bundle)]
        states = [ModelState.UNFIT] if unfit else [state for state in ModelState if state is not ModelState.READY]
        return [f"{w.spec.name}: {w.why or w.state.value}" for w in found if w is not None and w.state in states]

    async def look(self) -> None:
        """Check everything that is watched once."""
        try:
            live = await self._channel.live()
        except grpc.aio.AioRpcError as error:
            if not self._forgiven(error):
                self._lost(error.details() or error.code().name)
            return
        if live is not self._live:
            self._live = live
            logger.info("triton at %s is %s", self._channel.url, "live" if live else "not live")
        for watched in list(self._watched.values()):
            try:
                await self._look_at(watched)
            except grpc.aio.AioRpcError as error:
                if not self._forgiven(error):
                    self._set_state(watched, ModelState.GONE, error.details() or error.code().name)
        self._misses = 0

    async def close(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self.look()
            except Exception:
                logger.exception("checking triton")

    async def _look_at(self, watched: _WatchedModel) -> None:
        name, version = watched.spec.name, watched.version
        if not await self._channel.model_ready(name, version):
            self._set_state(watched, ModelState.GONE, f"version {version} is not ready on {self._channel.url}")
        elif watched.state is not ModelState.READY:
            # Compared only when it becomes ready: a model does not change without a reload, and the manifest's hashes
            # rule out another model reloaded under the same version number.
            difference = await self._channel.difference(watched.spec, version)
            if difference is None:
                self._set_state(watched, ModelState.READY, "")
            else:
                self._set_state(watched, ModelState.UNFIT, f"version {version} on {self._channel.url}: {difference}")

    def _forgiven(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether a busy server may simply not have answered in time."""
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return False
        self._misses += 1
        return self._misses < MISSES_ALLOWED

    def _lost(self, why: str) -> None:
        if self._live is not False:
            self._live = False
            logger.warning("triton at %s does not answer: %s", self._channel.url, why)
        for watched in self._watched.values():
            watched.state, watched.why = ModelState.GONE, f"{self._channel.url} does not answer"

    def _set_state(self, watched: _WatchedModel, state: ModelState, why: str) -> None:
        if state is not watched.state:
            level = logging.INFO if state is ModelState.READY else logging.WARNING
            about = f": {why}" if why else ""
            logger.log(
                level, "triton model %s version %d is %s%s", watched.spec.name, watched.version, state.value, about
            )
        watched.state, watched.why = state, why
