"""The process in which a shadow version runs: it takes rows from a pipe and answers with the ensemble's result.

A process, because one that may only have what the others leave of the processor must not hold this interpreter's lock
meanwhile. It leaves when the pipe closes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final

from dimml import ensemble
from dimml.bundle import Bundle
from dimml.errors import DimmlError
from dimml_server.engines.onnxruntime import LocalEngine

#: Nobody waits for a shadow: its encoders have no deadlines of their own.
RUN_LIMIT_S: Final = 60.0
_NICEST: Final = 19


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """First message to the process."""

    bundle: Bundle
    repository: Path
    device: str
    intra_op_threads: int | None


@dataclass(frozen=True, slots=True)
class Ready:
    """Its answer, once the bundle is warmed up; a DimmlError where it is not."""


Reply = ensemble.EnsembleResult | DimmlError


def main(descriptor: int) -> None:
    """Serve rows from the pipe behind ``descriptor`` until it closes."""
    # The parent decides when it ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _give_way()
    logging.disable(logging.CRITICAL)  # What a shadow says of itself is in its metrics.
    with Connection(descriptor) as connection, asyncio.Runner() as runner, suppress(EOFError, ConnectionError):
        settings = connection.recv()
        engine = LocalEngine(concurrency=1, device=settings.device, intra_op_threads=settings.intra_op_threads)
        try:
            # The files may be others than those that the server has loaded.
            settings.bundle.verify(settings.repository)
            runner.run(engine.load(settings.bundle, settings.repository))
        except DimmlError as error:
            connection.send(error)
            return
        connection.send(Ready())
        while True:
            connection.send(runner.run(_answer(engine, settings.bundle, connection.recv())))


async def _answer(engine: LocalEngine, bundle: Bundle, rows: ensemble.Rows) -> Reply:
    try:
        return await ensemble.run(engine, bundle, rows, timeout_s=RUN_LIMIT_S, deadlines_s=unhurried(bundle))
    except DimmlError as error:
        return error


def unhurried(bundle: Bundle) -> dict[str, float]:
    """Deadlines of encoders that nobody waits for."""
    return dict.fromkeys((modality.name for modality in bundle.modalities), RUN_LIMIT_S)


def _give_way() -> None:
    """Take the processor only where nobody else wants it; before any thread is started, which then does so too."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # Some containers do not allow it.
        os.nice(_NICEST)
