"""What is known of a Triton server without asking it in every request: which models of which bundles run there."""

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
#: Looks that a busy server may leave unanswered before it counts as gone.
MISSES_ALLOWED: Final = 3


class Fate(Enum):
    """What is known of one model version."""

    UNKNOWN = "not seen yet"
    READY = "ready"
    GONE = "not loaded"
    UNFIT = "not the model of the manifest"


@dataclass(slots=True)
class _Watched:
    spec: ModelSpec
    version: int
    fate: Fate = Fate.UNKNOWN
    why: str = ""


class TritonWatch:
    """Looks every second at the encoders and the fusion of every bundle added. Lives in one event loop."""

    def __init__(self, channel: TritonChannel) -> None:
        self._channel = channel
        self._watched: dict[tuple[str, int], _Watched] = {}
        self._misses = 0
        self._live: bool | None = None
        self._task: asyncio.Task[None] | None = None

    def add(self, bundle: Bundle) -> None:
        """Watch a bundle version's models from now on."""
        for spec in model_specs(bundle):
            if spec.role in ("encoder", "fusion"):
                self._watched.setdefault((spec.name, bundle.version), _Watched(spec, bundle.version))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look_forever())

    def remove(self, bundle: Bundle) -> None:
        """Watch a bundle version no more."""
        for spec in model_specs(bundle):
            self._watched.pop((spec.name, bundle.version), None)

    def ready(self, model: str, version: int) -> bool:
        """Whether the model was ready, and the manifest's, when last looked at."""
        watched = self._watched.get((model, version))
        return watched is not None and watched.fate is Fate.READY

    def unfit(self, model: str, version: int) -> bool:
        """Whether another model runs there under this name and version."""
        watched = self._watched.get((model, version))
        return watched is not None and watched.fate is Fate.UNFIT

    def unready(self, bundle: Bundle, *, unfit: bool = False) -> list[str]:
        """Models of a bundle version that are not ready, each with why; only the unfit ones where asked for."""
        found = [self._watched.get((spec.name, bundle.version)) for spec in model_specs(bundle)]
        fates = [Fate.UNFIT] if unfit else [fate for fate in Fate if fate is not Fate.READY]
        return [f"{w.spec.name}: {w.why or w.fate.value}" for w in found if w is not None and w.fate in fates]

    async def look(self) -> None:
        """Ask once for everything that is watched."""
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
                    self._note(watched, Fate.GONE, error.details() or error.code().name)
        self._misses = 0

    async def close(self) -> None:
        """Stop looking."""
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
                logger.exception("looking at triton")

    async def _look_at(self, watched: _Watched) -> None:
        name, version = watched.spec.name, watched.version
        if not await self._channel.model_ready(name, version):
            self._note(watched, Fate.GONE, f"version {version} is not ready on {self._channel.url}")
        elif watched.fate is not Fate.READY:
            # Once for each time it comes: what runs there does not change without being reloaded, and a reload of
            # another version under the same number is refused by the hashes of the manifest where it is exported.
            difference = await self._channel.difference(watched.spec, version)
            if difference is None:
                self._note(watched, Fate.READY, "")
            else:
                self._note(watched, Fate.UNFIT, f"version {version} on {self._channel.url}: {difference}")

    def _forgiven(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether a server that is busy may simply not have come to it."""
        if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            return False
        self._misses += 1
        return self._misses < MISSES_ALLOWED

    def _lost(self, why: str) -> None:
        if self._live is not False:
            self._live = False
            logger.warning("triton at %s is gone: %s", self._channel.url, why)
        for watched in self._watched.values():
            watched.fate, watched.why = Fate.GONE, f"{self._channel.url} does not answer"

    def _note(self, watched: _Watched, fate: Fate, why: str) -> None:
        if fate is not watched.fate:
            level = logging.INFO if fate is Fate.READY else logging.WARNING
            about = f": {why}" if why else ""
            logger.log(
                level, "triton model %s version %d is %s%s", watched.spec.name, watched.version, fate.value, about
            )
        watched.fate, watched.why = fate, why
