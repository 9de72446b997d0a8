"""Shadow versions: they get a copy of what others have answered, when there is time, and nobody waits for them."""

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

#: Tensors that one shadow's queue may hold in memory.
MAX_QUEUED_BYTES: Final = 64 * 2**20


class Runner(Protocol):
    """Runs one bundle version for a shadow."""

    async def start(self) -> None:
        """Warm up. Raises BundleError, UnavailableError."""
        ...

    async def run(self, rows: Rows) -> EnsembleResult:
        """The ensemble on rows. Raises DimmlError."""
        ...

    def close(self) -> None:
        """Stop at once."""
        ...


class EngineRunner:
    """``Runner`` over an engine whose models run elsewhere: a shadow's calls then go there like any other."""

    def __init__(self, engine: Engine, bundle: Bundle) -> None:
        self._engine, self._bundle = engine, bundle

    async def start(self) -> None:
        """Nothing: the engine has it loaded."""

    async def run(self, rows: Rows) -> EnsembleResult:
        """The ensemble on rows. Raises DimmlError."""
        return await ensemble.run(
            self._engine, self._bundle, rows, timeout_s=RUN_LIMIT_S, deadlines_s=unhurried(self._bundle)
        )

    def close(self) -> None:
        """Nothing: the engine is its owner's."""


@dataclass(frozen=True, slots=True)
class _Answered:
    primary: Bundle
    rows: Rows
    result: EnsembleResult

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.rows.tensors.values())


class _Shadow:
    """One shadow, its queue, and the task that works it off one by one."""

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
                # Each is counted; the log has the first of a series.
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
        """``queue_length``: answered requests that may wait for a shadow; past it they are dropped and counted."""
        self._runner = runner
        self._metrics = metrics
        self._queue_length = queue_length
        self._shadows: dict[str, _Shadow] = {}

    async def prepare(self, bundle: Bundle) -> Runner:
        """Warm up what would run a shadow; for ``begin``, or to be closed. Raises BundleError, UnavailableError."""
        runner = self._runner(bundle)
        await runner.start()
        return runner

    def begin(self, bundle: Bundle, runner: Runner) -> None:
        """Make a bundle version the shadow of its bundle, which has none."""
        self._metrics.began(bundle)
        self._shadows[bundle.name] = _Shadow(bundle, runner, self._metrics, self._queue_length)

    def version(self, name: str) -> int | None:
        """The version of a bundle that is its shadow."""
        shadow = self._shadows.get(name)
        return None if shadow is None else shadow.bundle.version

    def offer(self, primary: Bundle, rows: Rows, result: EnsembleResult) -> None:
        """Hand on what a version has answered, for its bundle's shadow to answer, too. Returns at once."""
        shadow = self._shadows.get(primary.name)
        if shadow is not None and same_inputs(primary, shadow.bundle):
            shadow.offer(_Answered(primary, rows, result))

    async def end(self, name: str) -> None:
        """A bundle has no shadow any more. Nothing where it has none."""
        shadow = self._shadows.pop(name, None)
        if shadow is not None:
            self._metrics.ended(shadow.bundle)
            await shadow.close()

    async def close(self) -> None:
        """End all."""
        for name in list(self._shadows):
            await self.end(name)


def same_inputs(one: Bundle, other: Bundle) -> bool:
    """Whether rows decoded for one bundle version are rows for the other, too."""
    return (one.modalities, one.clip_s) == (other.modalities, other.clip_s)


def check_inputs(shadow: Bundle, answering: list[Bundle]) -> None:
    """Raise BundleError where a shadow cannot take what another version was sent."""
    for bundle in answering:
        if not same_inputs(bundle, shadow):
            raise BundleError(
                f"version {shadow.version} of {shadow.name!r} takes other tensors, or another stretch of media, than "
                f"version {bundle.version}: it cannot be its shadow, which is given what the other was",
                field="shadow",
            )
