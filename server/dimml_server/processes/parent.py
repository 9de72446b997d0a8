"""The parent of several serving processes: it starts them, replaces them, and keeps what is true of all of them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from dimml.errors import BundleError, ConfigurationError, DimmlError, SetupError, UnavailableError
from dimml.system.child_process import start_python_child
from dimml_server.observability.history.report import History
from dimml_server.observability.merging import ServerMetrics, Snapshot
from dimml_server.processes.board import Board, make_board
from dimml_server.processes.changes import Changes
from dimml_server.processes.channel import Channel, ChannelClosedError
from dimml_server.processes.shares import settings_of, share
from dimml_server.processes.start import Start, send_start
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.repository_watch import RepositoryWatch

logger = logging.getLogger(__name__)

#: The module of a serving process.
CHILD: Final = "dimml_server.processes.child"
#: Time between two snapshots of a process's metrics: what it counted since the last one is lost if it is killed.
SNAPSHOT_S = 5.0
#: Longest wait for a snapshot; a process that is later has its last one.
SNAPSHOT_LIMIT_S = 1.0
#: Snapshots in a row without a word of a process, answers that come late included, until it is killed.
_SILENT_ROUNDS: Final = 12
#: A process that ends sooner than this after its start waits before it is replaced, longer every time.
_SHORT_LIFE_S: Final = 10.0
_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
#: Starts of one process that fail in a row until the server gives up.
_STARTS: Final = 5
#: Time beyond the grace period for a process to end.
_END_S: Final = 10.0


class ServingProcess:
    """One serving process, from its start to its end."""

    def __init__(self, index: int, channel: Channel, process: subprocess.Popen[bytes]) -> None:
        self.index = index
        self.channel = channel
        self.process = process
        self.began = time.monotonic()
        #: Whether it serves what the server serves, so that it is asked for every change.
        self.joined = False
        #: Whether it has said that it takes requests.
        self.ready = False
        self.snapshot: Snapshot | None = None
        self.failure: SetupError | None = None
        #: Messages from it by the last round of snapshots, and rounds without a new one.
        self.heard, self.silent = 0, 0

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call it. Raises DimmlError, ChannelClosedError."""
        return await self.channel.call(method, **arguments)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()


class Parent:
    """Supervisor of ``settings.processes`` serving processes. Lives in one event loop, of the main thread."""

    def __init__(
        self,
        settings: ServerSettings,
        listener: socket.socket,
        grpc_port: int,
        uploads: Path,
        child: str = CHILD,
    ) -> None:
        """``listener`` and ``grpc_port`` are where to serve, ``uploads`` a folder for large bodies.

        Raises ConfigurationError for a ``routing_file`` that cannot be read.
        """
        self._child = child
        self._settings = settings
        self._listener = listener
        self._grpc_port = grpc_port
        self._uploads = uploads
        self._board_descriptor = make_board(settings.processes)
        self._board = Board(self._board_descriptor, settings.processes)
        self._processes: dict[int, ServingProcess] = {}
        self._changes = Changes(lambda: self._joined, settings.routing_file)
        self._metrics = ServerMetrics(settings.drift_minimum)
        self._metrics.watch(lambda: len(self._joined))
        self._history = History(lambda: self._metrics.collect(self._snapshots))
        self._all_joined, self._all_ready = asyncio.Event(), asyncio.Event()
        self._stopping = asyncio.Event()
        self._failure: DimmlError | None = None
        self._collecting: asyncio.Future[None] | None = None
        self._reloaded = 0.0

    async def run(self, announce: Callable[[], None]) -> None:
        """Serve until ``stop``; ``announce`` is called once all processes take requests. Raises DimmlError."""
        watch = None
        if self._settings.watch:
            settings = self._settings
            watch = RepositoryWatch(self._changes, settings.repository, settings.models, settings.watch_interval_s)
            await watch.begin()
        places = [asyncio.ensure_future(self._keep(index)) for index in range(self._settings.processes)]
        beside = [asyncio.ensure_future(self._collect_often())]
        try:
            if await self._first(self._all_ready, self._stopping) is self._all_ready:
                announce()
                beside.append(asyncio.ensure_future(self._history.keep()))
                if watch is not None:
                    beside.append(asyncio.ensure_future(watch.run()))
                await self._stopping.wait()
        finally:
            for task in beside:
                task.cancel()
            await self._end(places)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let all processes finish their requests, and end."""
        self._stopping.set()

    def reload_keys(self) -> None:
        """Let all processes read their keys again."""
        self._reloaded = time.monotonic()
        for process in self._joined:
            process.process.send_signal(signal.SIGHUP)

    @property
    def _joined(self) -> list[ServingProcess]:
        return [process for process in self._processes.values() if process.joined]

    @staticmethod
    async def _first(*events: asyncio.Event) -> asyncio.Event:
        """Wait for the first of several events, and return it."""
        waits = {asyncio.ensure_future(event.wait()): event for event in events}
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return next(event for wait, event in waits.items() if wait in done)

    async def _keep(self, index: int) -> None:
        """Keep one place filled with a serving process, until the server stops."""
        try:
            await self._fill(index)
        except OSError as error:
            self._fail(UnavailableError(f"a serving process cannot be started: {error.strerror}"))
        except Exception:
            self._fail(UnavailableError("an internal error; the log says more"))
            logger.exception("serving process %d", index)

    async def _fill(self, index: int) -> None:
        failed, short = 0, 0
        while not self._stopping.is_set():
            process = await self._live(index)
            if self._stopping.is_set():
                return
            failed = 0 if process.ready else failed + 1
            why = process.failure or _early_end(process)
            if failed and (not self._all_joined.is_set() or failed == _STARTS):
                self._fail(why)
                return
            short = short + 1 if time.monotonic() - process.began < _SHORT_LIFE_S else 0
            pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (short - 2)) if short > 1 else 0.0
            logger.error(
                "serving process %d (pid %d) ended by itself%s; it is replaced in %g s",
                index,
                process.process.pid,
                f": {why.message}" if failed else f" ({_ending(process)})",
                pause_s,
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()

    async def _live(self, index: int) -> ServingProcess:
        """Start a serving process, and serve its channel until it has ended."""
        folder = self._uploads / str(index)
        folder.mkdir(exist_ok=True)
        ours, theirs = socket.socketpair()
        with theirs:
            # From the main thread: it dies with the thread that starts it.
            popen = start_python_child(self._child, theirs.fileno(), stdout=subprocess.DEVNULL)
        process = ServingProcess(index, Channel(lambda method, given: self._answer(process, method, given)), popen)
        self._processes[index] = process
        served = self._changes.served if self._all_joined.is_set() else None
        settings = settings_of(
            self._settings, index, http_port=self._listener.getsockname()[1], grpc_port=self._grpc_port
        )
        concurrency = sum(share(self._settings.concurrency, settings.processes, i) for i in range(settings.processes))
        start = Start(index, settings, concurrency, folder, None if served is None else served.as_json())
        try:
            with suppress(OSError):  # It ended at once.
                send_start(ours, start, self._listener, self._board_descriptor)
            await process.channel.run(ours)
        finally:
            # Its end of the channel is closed, so it has ended or is about to; what it held is free again after that.
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(popen.wait, _END_S)
            popen.kill()
            popen.wait()
            del self._processes[index]
            self._board.clear(index)
            shutil.rmtree(folder, ignore_errors=True)
        if process.joined and not self._stopping.is_set():
            self._metrics.lost(process.snapshot)
        return process

    def _fail(self, why: DimmlError) -> None:
        self._failure = self._failure or why
        self._stopping.set()

    async def _end(self, places: Sequence[asyncio.Future[None]]) -> None:
        """Let all processes end, at last by force."""
        self._stopping.set()
        self._listener.close()
        for process in self._processes.values():
            process.process.terminate()
        _, late = await asyncio.wait(places, timeout=self._settings.grace_s + _END_S)
        for process in self._processes.values():
            logger.error("serving process %d did not end, and is killed", process.index)
            process.kill()
        if late:
            await asyncio.wait(late)

    async def _answer(self, process: ServingProcess, method: str, arguments: dict[str, Any]) -> Any:
        if method == "join":
            return await self._join(process, arguments["served"])
        if method == "ready":
            process.ready = True
            if sum(one.ready for one in self._processes.values()) == self._settings.processes:
                self._all_ready.set()
            return None
        if method == "failed":
            kind = ConfigurationError if arguments["field"] else BundleError
            process.failure = kind(arguments["message"], field=arguments["field"])
            return None
        if method == "exposition":
            await self._collected()
            return self._metrics.exposition(self._snapshots).decode()
        if method == "now":
            await self._collected()
            return await self._history.report()
        if method == "statistics":
            await self._collected()
            return list(self._metrics.statistics(self._snapshots).values())
        if method == "split":
            return await self._changes.set_split(**arguments, origin=process)
        if method == "unload":
            return await self._changes.unload(**arguments, origin=process)
        return await self._changes.load(**arguments, origin=process)

    async def _join(self, process: ServingProcess, served: dict[str, Any]) -> dict[str, Any] | None:
        def joins() -> None:
            process.joined = True
            if self._reloaded > process.began:
                process.process.send_signal(signal.SIGHUP)
            if len(self._joined) == self._settings.processes:
                self._all_joined.set()

        wanted = await self._changes.join(served, joins)
        if wanted is None:
            # The first ones begin together: a caller that finds one ready finds all of them ready.
            await self._first(self._all_joined, self._stopping)
        return wanted

    async def _collect_often(self) -> None:
        while True:
            await asyncio.sleep(SNAPSHOT_S)
            await self._collected()
            for process in self._joined:
                process.silent = process.silent + 1 if process.heard == process.channel.received else 0
                process.heard = process.channel.received
                if process.silent >= _SILENT_ROUNDS:
                    logger.error("serving process %d hangs, and is killed", process.index)
                    process.kill()

    @property
    def _snapshots(self) -> list[Snapshot]:
        """The last ones of processes that have not ended; of those that have, the metrics know."""
        return [process.snapshot for process in self._joined if process.snapshot is not None]

    async def _collected(self) -> None:
        """Ask all processes for a snapshot; callers at the same time share one round."""
        if self._collecting is None or self._collecting.done():
            self._collecting = asyncio.ensure_future(self._collect())
        await asyncio.shield(self._collecting)

    async def _collect(self) -> None:
        await asyncio.gather(*(self._snapshot(process) for process in self._joined))

    @staticmethod
    async def _snapshot(process: ServingProcess) -> None:
        with suppress(TimeoutError, ChannelClosedError, UnavailableError):
            async with asyncio.timeout(SNAPSHOT_LIMIT_S):
                process.snapshot = await process.call("snapshot")


def _ending(process: ServingProcess) -> str:
    code = process.process.returncode
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _early_end(process: ServingProcess) -> DimmlError:
    return UnavailableError(f"a serving process ended before it could take requests ({_ending(process)})")
