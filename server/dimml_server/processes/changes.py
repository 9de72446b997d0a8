"""Model control and traffic of a server of several processes, in their parent: a change is made in all or none."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from dimml.errors import DimmlError, UnavailableError
from dimml_server.processes.channel import ChannelClosedError
from dimml_server.versions.served import Served, split_of
from dimml_server.versions.traffic_file import keep_routing, read_routing_file
from dimml_server.versions.traffic_split import Routing

logger = logging.getLogger(__name__)


class Process(Protocol):
    """A serving process, as changes see it."""

    async def call(self, method: str, /, **arguments: Any) -> Any:
        """Call it. Raises DimmlError, ChannelClosedError."""
        ...

    def kill(self) -> None:
        """End it at once; another takes its place, and serves what the others do."""
        ...


class Changes:
    """What all processes serve. Lives in the parent's event loop.

    ``processes`` returns those that take requests.
    """

    def __init__(self, processes: Callable[[], Sequence[Process]], routing_file: Path | None) -> None:
        """``routing_file``, if given, stores what calls set. Raises ConfigurationError."""
        self._processes = processes
        self._file = routing_file
        self._lock = asyncio.Lock()
        self._versions: dict[str, dict[int, str]] = {}
        self._splits: dict[str, dict[int, float]] = {}
        self._known = False
        self._by_calls = {} if routing_file is None else read_routing_file(routing_file)

    @property
    def served(self) -> Served | None:
        """What is served; None before the first process has joined."""
        return Served(self._versions, self._splits) if self._known else None

    def serves(self, name: str, version: int) -> bool:
        """Whether a bundle version takes requests."""
        return version in self._versions.get(name, {})

    async def join(self, served: dict[str, Any], joins: Callable[[], None]) -> dict[str, Any] | None:
        """Let a process join that serves this, or return what it must serve before. The first one decides.

        ``joins`` is called while no change is under way.
        """
        async with self._lock:
            if not self._known:
                first = Served.of_json(served)
                self._versions = {name: dict(versions) for name, versions in first.versions.items()}
                self._splits = {name: dict(split) for name, split in first.splits.items()}
                # What the file has of others could not be done at the start, as the log says.
                self._by_calls = {
                    name: routing
                    for name, routing in self._by_calls.items()
                    if routing.split == self._splits.get(name, {})
                }
                self._known = True
            wanted = Served(self._versions, self._splits).as_json()
            if served != wanted:
                return wanted
            joins()
            return None

    async def load(self, model: str, policy: Mapping[str, Any] | None = None, *, origin: Process | None = None) -> None:
        """Serve the versions that ``policy`` chooses, in all processes; ``origin`` is the one that was asked.

        Raises RequestError, UnavailableError.
        """
        await self._change(origin, "load", model=model, policy=policy)

    async def unload(self, model: str, *, origin: Process | None = None) -> None:
        """Unload all versions of a bundle in all processes. Raises RequestError, UnavailableError."""
        await self._change(origin, "unload", model=model)

    async def drop(self, name: str, version: int) -> None:
        """Stop serving a version that was removed from the repository. Raises RequestError, UnavailableError."""
        await self._change(None, "drop", name=name, version=version)

    async def set_split(self, name: str, split: Mapping[str, float], *, origin: Process) -> None:
        """Set a bundle's shares in all processes. Raises RequestError, UnavailableError."""
        async with self._lock:
            first, *others = self._in_order(origin)
            await _called(first, "check_split", name=name, split=split)
            await self._everywhere([first, *others], "set_split", name=name, split=split)
            self._splits[name] = split_of(split)
            await self._keep(name, by_call=True)
        logger.info("requests of %s: shares %s", name, self._splits[name] or "all to the newest version")

    async def _change(self, origin: Process | None, kind: str, **arguments: Any) -> None:
        async with self._lock:
            first, *others = self._in_order(origin)
            try:
                plan = await _called(first, "prepare", kind=kind, **arguments)
                name, versions = plan["name"], plan["versions"]
                async with asyncio.TaskGroup() as group:
                    for other in others:
                        group.create_task(_called(other, "prepare", kind="exactly", name=name, versions=versions))
            except BaseException as error:
                await self._discard([first, *others])
                if isinstance(error, BaseExceptionGroup):
                    raise error.exceptions[0] from None
                raise
            splits = await self._everywhere([first, *others], "commit")
            self._versions[name] = {int(version): sha256 for version, sha256 in versions.items()}
            self._splits[name] = split_of(next(iter(splits), {}))
            await self._keep(name, by_call=False)

    def _in_order(self, origin: Process | None) -> list[Process]:
        """List the processes, the one first that was asked. Raises UnavailableError."""
        processes = list(self._processes())
        if not processes:
            raise UnavailableError("no serving process is ready; try again")
        return sorted(processes, key=lambda process: process is not origin)

    async def _everywhere(self, processes: Collection[Process], method: str, **arguments: Any) -> list[Any]:
        """Make the switch in all processes; return their results. One that does not make it is replaced."""
        results = await asyncio.gather(
            *(process.call(method, **arguments) for process in processes), return_exceptions=True
        )
        for process, result in zip(processes, results, strict=True):
            if isinstance(result, BaseException):
                if not isinstance(result, ChannelClosedError):
                    logger.error("a serving process did not %s, and is replaced: %s", method, result)
                process.kill()
        return [result for result in results if not isinstance(result, BaseException)]

    async def _discard(self, processes: Collection[Process]) -> None:
        failures: list[Any] = []
        for process in processes:
            with suppress(DimmlError, ChannelClosedError):
                failures = await process.call("discard", failures=failures)

    async def _keep(self, name: str, *, by_call: bool) -> None:
        """Store the routing that calls have set, as ``dimml_server.versions.traffic.Traffic`` does."""
        routing = Routing(self._splits.get(name, {}))
        if not by_call:
            if self._by_calls.get(name, routing) == routing:
                return
            logger.warning(
                "a version with a share of %s has gone; shares are %s", name, routing.split or "the newest's"
            )
        self._by_calls[name] = routing
        await keep_routing(self._file, self._by_calls)


async def _called(process: Process, method: str, **arguments: Any) -> Any:
    try:
        return await process.call(method, **arguments)
    except ChannelClosedError:
        raise UnavailableError("a serving process was lost, so nothing was changed; try again") from None
