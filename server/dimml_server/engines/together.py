"""All encoders of a request and its fusion, without the event loop in between.

Each encoder has a thread of its own, and that which ends last runs the fusion: the event loop, whose time bounds a
server, is woken once instead of once for each run. Where an encoder fails or is late the fusion is left to the caller.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from dimml.contract import FEATURES, LOGITS, fused_from
from dimml.engine import Encoded, EngineError
from dimml.fusion import Fused
from dimml.status import Reason
from dimml_server.engines.ort_session import ModelSession
from dimml_server.engines.runs import Outputs, Run


class RunsTogether:
    """``dimml.engine.Together`` over ONNX Runtime sessions. Made and awaited in one event loop.

    ``encoders`` are sessions and their inputs, by modality; ``missing`` stands for the other modalities.
    ``fusion_tensors`` makes the fusion's inputs of what all modalities gave.
    """

    def __init__(
        self,
        encoders: Mapping[str, tuple[ModelSession, Mapping[str, npt.NDArray[Any]]]],
        missing: Mapping[str, Encoded],
        fusion: ModelSession,
        fusion_tensors: Callable[[Mapping[str, Encoded]], Mapping[str, npt.NDArray[Any]]],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fusion, self._fusion_tensors = fusion, fusion_tensors
        self.outputs: dict[str, Encoded] = dict(missing)
        self.encode_s: dict[str, float] = {}
        self.fuse_s = 0.0
        self._done: asyncio.Future[Fused | None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[str, asyncio.Future[None]] = {}
        #: Guards what follows, and ``outputs``.
        self._lock = threading.Lock()
        self._failures: dict[str, EngineError] = {}
        self._left, self._sound = len(encoders), True
        #: Whether the caller goes on with each encoder by itself, and the run of the fusion once it has begun.
        self._apart = False
        self._fusing: Run | None = None
        self._began = perf_counter()
        self._runs = {
            name: session.start(tensors, partial(self._encoded, name, session))
            for name, (session, tensors) in encoders.items()
        }

    async def fused(self, until: float, latest: float) -> Fused | None:
        """Return the fusion; None where an encoder failed or has not ended by ``until``: then await ``encoded``."""
        self._timer = self._loop.call_at(until, self._encoders_are_due, latest)
        try:
            return await self._done
        except (asyncio.CancelledError, TimeoutError):
            self._stop()
            raise
        finally:
            self._timer.cancel()

    async def encoded(self, modality: str) -> Encoded:
        """Return what one encoder gives. Raises EngineError; cancelling it asks the run to stop."""
        if modality not in self.outputs and modality not in self._failures:
            # Its thread's news is heard only once this waits.
            self._waiting[modality] = self._loop.create_future()
            try:
                await self._waiting[modality]
            except asyncio.CancelledError:
                self._runs[modality].stop()
                raise
        if modality in self._failures:
            raise self._failures[modality]
        return self.outputs[modality]

    def _encoded(self, name: str, session: ModelSession, outcome: Outputs | EngineError) -> None:
        """Take one encoder's outcome, in its thread; go on to the fusion if it is the last."""
        seconds = perf_counter() - self._began
        encoded, sound = None, False
        if not isinstance(outcome, EngineError):
            try:
                encoded = Encoded(features=outcome[FEATURES], logits=outcome[LOGITS])
                sound = bool(np.isfinite(encoded.features).all() and np.isfinite(encoded.logits).all())
            except Exception as error:
                encoded, outcome = None, EngineError(Reason.ENCODER_ERROR, f"its outputs: {error!r}")
        with self._lock:
            self.encode_s[name] = seconds
            if isinstance(outcome, EngineError):
                self._failures[name] = outcome
            elif encoded is not None:
                self.outputs[name] = encoded
            self._sound &= sound
            self._left -= 1
            alone, last = self._apart, not self._left
            if last and not alone:
                if self._sound:
                    self._fusing = self._fusion.new_run()
                else:
                    self._apart = True
        if alone:
            session.tell(self._loop, self._heard, name)
        elif last:
            self._fusion.tell(self._loop, self._finish, None if self._fusing is None else self._fuse(self._fusing))

    def _fuse(self, run: Run) -> Fused | EngineError:
        began = perf_counter()
        try:
            outcome = run.here(self._fusion_tensors(self.outputs))
            self.fuse_s = perf_counter() - began
            return outcome if isinstance(outcome, EngineError) else fused_from(outcome)
        except Exception as error:
            return EngineError(Reason.ENCODER_ERROR, f"fusion: {error!r}")

    def _finish(self, outcome: Fused | EngineError | None) -> None:
        """Hear of the fusion, or that there is none since an encoder failed."""
        if self._fusing is not None:
            self._fusing.end()
        for run in self._runs.values():
            run.end()
        if self._done.done():
            return
        if isinstance(outcome, EngineError):
            self._done.set_exception(outcome)
        else:
            self._done.set_result(outcome)

    def _heard(self, name: str) -> None:
        """Hear that an encoder has ended that the caller awaits by itself, or has stopped."""
        self._runs[name].end()
        waiting = self._waiting.get(name)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _encoders_are_due(self, latest: float) -> None:
        """Leave the rest to the caller, unless the fusion has begun."""
        with self._lock:
            fusing = self._fusing is not None
            self._apart |= not fusing
        if fusing:
            self._timer = self._loop.call_at(latest, self._fusion_is_late)
        elif not self._done.done():
            self._done.set_result(None)

    def _fusion_is_late(self) -> None:
        if not self._done.done():
            self._done.set_exception(TimeoutError())

    def _stop(self) -> None:
        """Ask every run to stop that has not ended."""
        with self._lock:
            self._apart |= self._fusing is None
            running = [run for name, run in self._runs.items() if name not in self.encode_s]
            running += [] if self._fusing is None else [self._fusing]
        for run in running:
            run.stop()
