"""Process of a shadow version: it reads rows from a pipe and writes the ensemble's results.

It is a process because work of the lowest priority must not hold the server's interpreter lock while it waits for the
processor. It exits when the pipe closes, and dies with its parent.
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
from dimml_server.engines.onnxruntime import OnnxRuntimeEngine

#: No caller waits for a shadow, so its encoders have no deadlines of their own.
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
    """First answer of the process, once the bundle is warmed up; in case of failure it is a DimmlError."""


Reply = ensemble.EnsembleResult | DimmlError


def main(descriptor: int) -> None:
    """Serve rows from the pipe behind ``descriptor`` until it closes."""
    # The parent decides when the process ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _give_way()
    logging.disable(logging.CRITICAL)  # A shadow is monitored by its metrics.
    with Connection(descriptor) as connection, asyncio.Runner() as runner, suppress(EOFError, ConnectionError):
        settings = connection.recv()
        try:
            engine = OnnxRuntimeEngine(
                concurrency=1, device=settings.device, intra_op_threads=settings.intra_op_threads
            )
            # The files may have changed since the server loaded them.
            settings.bundle.verify(settings.repository)
            runner.run(engine.load(settings.bundle, settings.repository))
        except DimmlError as error:
            connection.send(error)
            return
        connection.send(Ready())
        while True:
            connection.send(runner.run(_answer(engine, settings.bundle, connection.recv())))


async def _answer(engine: OnnxRuntimeEngine, bundle: Bundle, rows: ensemble.Rows) -> Reply:
    try:
        return await ensemble.run(engine, bundle, rows, timeout_s=RUN_LIMIT_S, deadlines_s=unhurried(bundle))
    except DimmlError as error:
        return error


def unhurried(bundle: Bundle) -> dict[str, float]:
    """Return generous deadlines for encoders that no caller waits for."""
    return dict.fromkeys((modality.name for modality in bundle.modalities), RUN_LIMIT_S)


def _give_way() -> None:
    """Use the processor only when it is idle; called before any thread is started, so that threads inherit it."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except OSError:  # Some containers forbid it.
        os.nice(_NICEST)
