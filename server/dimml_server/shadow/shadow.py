"""Shadow versions: they get a copy of requests that other versions answered, when there is time; no caller waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.engine import Engine
from dimml.ensemble import EnsembleResult, Rows
from dimml.errors import BundleError, DimmlError
from dimml_server.observability.shadow_metrics import ShadowMetrics
from dimml_server.shadow.worker import RUN_LIMIT_S, unhurried

logger = logging.getLogger(__name__)

#: Bytes of tensors that one shadow's queue may hold in memory.
MAX_QUEUED_BYTES: Final = 64 * 2**20


class Runner(Protocol):
    """Runs one bundle version for a shadow."""

    async def start(self) -> None:
        """Warm the bundle up. Raises BundleError, UnavailableError."""
        ...

    async def run(self, rows: Rows) -> EnsembleResult:
        """Run the ensemble on rows. Raises DimmlError."""
        ...

    def close(self) -> None:
        """Stop at once."""
        ...


class EngineRunner:
    """``Runner`` over an engine whose models run elsewhere: a shadow's calls then go there like any other call."""

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self._engine, self._bundle = engine, bundle

    async def start(self) -> None:
        """Do nothing: the engine has the bundle loaded."""

    async def run(self, rows: Rows) -> EnsembleResult:
        """Run the ensemble on rows. Raises DimmlError."""
        return await ensemble.run(
            self._engine, self._bundle, rows, timeout_s=RUN_LIMIT_S, deadlines_s=unhurried(self._bundle)
        )

    def close(self) -> None:
        """Do nothing: the engine belongs to its owner."""


@dataclass(frozen=True, slots=True)
class _Answered:
    primary: Bundle
    rows: Rows
    result: EnsembleResult

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.rows.tensors.values())


class _Shadow:
    """One shadow, its queue, and the task that processes the queue one by one."""

    def __init__(self, bundle: Bundle, runner: Runner, metrics: ShadowMetrics, queue_length: int) -> None:
        self.bundle = bundle
        self._runner = runner
        self._metrics = metrics
        self._queue_length = queue_length
        self._queue: deque[_Answered] = deque()
        self._queued_bytes = 0
        self._filled = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    def offer(self, answered: _Answered) -> None:
        if len(self._queue) >= self._queue_length or self._queued_bytes + answered.bytes > MAX_QUEUED_BYTES:
            self._metrics.dropped(self.bundle)
            return
        self._queue.append(answered)
        self._queued_bytes += answered.bytes
        self._filled.set()

    async def close(self) -> None:
        for _ in self._queue:
            self._metrics.dropped(self.bundle)
        self._queue.clear()
        self._runner.close()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _work(self) -> None:
        failing = False
        while True:
            await self._filled.wait()
            if not self._queue:
                self._filled.clear()
                continue
            answered = self._queue.popleft()
            self._queued_bytes -= answered.bytes
            try:
                result = await self._runner.run(answered.rows)
            except DimmlError as error:
                # Every failure is counted; only the first of a series is logged.
                level = logging.DEBUG if failing else logging.WARNING
                logger.log(level, "shadow %s version %d: %s", self.bundle.name, self.bundle.version, error.message)
                failing = True
                self._metrics.failed(self.bundle)
            except Exception:
                logger.exception("shadow %s version %d", self.bundle.name, self.bundle.version)
                self._metrics.failed(self.bundle)
            else:
                failing = False
                self._metrics.answered(answered.primary, answered.result, self.bundle, result)


class Shadows:
    """At most one shadow of each bundle. Lives in one event loop."""

    def __init__(self, runner: Callable[[Bundle], Runner], metrics: ShadowMetrics, queue_length: int) -> None:
        """``queue_length``: answered requests that may wait for a shadow; beyond it they are dropped and counted."""
        self._runner = runner
        self._metrics = metrics
        self._queue_length = queue_length
        self._shadows: dict[str, _Shadow] = {}

    async def prepare(self, bundle: Bundle) -> Runner:
        """Warm up a runner for a shadow, to be passed to ``begin`` or closed. Raises BundleError, UnavailableError."""
        runner = self._runner(bundle)
        await runner.start()
        return runner

    def begin(self, bundle: Bundle, runner: Runner) -> None:
        """Make a bundle version the shadow of its bundle, which must have none."""
        self._metrics.began(bundle)
        self._shadows[bundle.name] = _Shadow(bundle, runner, self._metrics, self._queue_length)

    def version(self, name: str) -> int | None:
        """Return the version of a bundle's shadow, or None."""
        shadow = self._shadows.get(name)
        return None if shadow is None else shadow.bundle.version

    def offer(self, primary: Bundle, rows: Rows, result: EnsembleResult) -> None:
        """Pass an answered request on to the bundle's shadow, if it has one. Returns at once."""
        shadow = self._shadows.get(primary.name)
        if shadow is not None and same_inputs(primary, shadow.bundle):
            shadow.offer(_Answered(primary, rows, result))

    async def end(self, name: str) -> None:
        """End a bundle's shadow, if it has one."""
        shadow = self._shadows.pop(name, None)
        if shadow is not None:
            self._metrics.ended(shadow.bundle)
            await shadow.close()

    async def close(self) -> None:
        """End all shadows."""
        for name in list(self._shadows):
            await self.end(name)


def same_inputs(one: Bundle, other: Bundle) -> bool:
    """Whether rows decoded for one bundle version are valid rows for the other."""
    return (one.modalities, one.clip_s) == (other.modalities, other.clip_s)


def check_inputs(shadow: Bundle, answering: list[Bundle]) -> None:
    """Raise BundleError if a shadow cannot take the inputs of an answering version."""
    for bundle in answering:
        if not same_inputs(bundle, shadow):
            raise BundleError(
                f"version {shadow.version} of {shadow.name!r} takes other tensors, or another stretch of media, than "
                f"version {bundle.version}: it cannot be its shadow, which is given what the other was",
                field="shadow",
            )
