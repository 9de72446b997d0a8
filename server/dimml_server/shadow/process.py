"""Parent side of a shadow's process: starts it, sends it one batch of rows at a time, replaces it when it is lost."""

from __future__ import annotations

import asyncio
import subprocess
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from time import monotonic
from typing import Any, Final

from dimml.bundle import Bundle
from dimml.ensemble import EnsembleResult, Rows
from dimml.errors import BundleError, DimmlError, UnavailableError
from dimml.system.child_process import start_python_child
from dimml_server.shadow.worker import RUN_LIMIT_S, Ready, WorkerSettings

#: Long, since on a busy machine the process gets little of the processor.
START_LIMIT_S: Final = 300.0
_RESTART_PAUSE_S: Final = 5.0
#: Time from the end of a run's own limit until the process is given up.
_GRACE_S: Final = 5.0


class ShadowProcess:
    """``dimml_server.shadow.shadow.Runner`` in a process of the lowest priority. One call at a time."""

    def __init__(self, bundle: Bundle, repository: Path, *, device: str, intra_op_threads: int | None) -> None:
        self._settings = WorkerSettings(bundle, repository.absolute(), device, intra_op_threads)
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._started_at = -_RESTART_PAUSE_S
        self._closed = False

    async def start(self) -> None:
        """Start the process and warm the bundle up. Raises BundleError, and UnavailableError if it is lost or late."""
        try:
            reply = await asyncio.to_thread(self._start)
        except asyncio.CancelledError:
            self.close()  # A thread of this object may be about to start the process.
            raise
        except BaseException:
            self._kill()
            raise
        if not isinstance(reply, Ready):
            self._kill()
            raise reply if isinstance(reply, DimmlError) else BundleError("the shadow's process did not start")

    async def run(self, rows: Rows) -> EnsembleResult:
        """Run the ensemble on rows. Raises DimmlError: the ensemble's, or UnavailableError if the process is lost.

        A lost process is started again for the next rows, at most every few seconds.
        """
        if self._pipe is None:
            await asyncio.sleep(max(0.0, self._started_at + _RESTART_PAUSE_S - monotonic()))
            await self.start()
        try:
            reply = await asyncio.to_thread(self._exchange, rows, RUN_LIMIT_S + _GRACE_S)
        except BaseException:
            self._kill()
            raise
        if isinstance(reply, DimmlError):
            raise reply
        result: EnsembleResult = reply
        return result

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        self._kill()

    def _start(self) -> Any:
        self._started_at = monotonic()
        ours, theirs = Pipe()
        with theirs:
            # It dies with the thread that starts it: one of the loop's executor, which lives as long as the loop.
            process = start_python_child("dimml_server.shadow.worker", theirs.fileno(), stdout=subprocess.DEVNULL)
        self._process, self._pipe = process, ours
        if self._closed:  # Closed meanwhile by the event loop's thread.
            self._kill()
        return self._exchange(self._settings, START_LIMIT_S)

    def _exchange(self, message: object, limit_s: float) -> Any:
        pipe = self._pipe
        if pipe is None:
            raise UnavailableError("the shadow's process is gone")
        try:
            pipe.send(message)
            if pipe.poll(limit_s):
                return pipe.recv()
        except (OSError, EOFError) as error:
            raise UnavailableError("the shadow's process was lost") from error
        raise UnavailableError(f"the shadow's process did not answer for {limit_s:g} s")

    def _kill(self) -> None:
        process, self._process, self._pipe = self._process, None, None
        if process is not None:
            process.kill()
            process.wait()
