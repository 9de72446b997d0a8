"""One serving process's part in a server of several: it answers its parent's calls, and forwards callers' to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dimml.errors import UnavailableError, UnsupportedError
from dimml_server.observability.kserve_statistics import Statistics
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.service import PredictionService
from dimml_server.processes.board import ACCEPTING, CONCURRENCY, Board
from dimml_server.processes.channel import Channel, ChannelClosedError
from dimml_server.processes.start import Start
from dimml_server.versions.control import Change
from dimml_server.versions.policy import VersionPolicy
from dimml_server.versions.replicate import serve_exactly, served_by
from dimml_server.versions.served import Served, split_json, split_of, versions_json
from dimml_server.versions.traffic import UNCHANGED, Unchanged


class Member:
    """``Membership`` and ``WholeServer`` of one serving process. Lives in its event loop."""

    def __init__(self, start: Start, listener: socket.socket, board: Board) -> None:
        self.listener = listener
        self.upload_folder: Path = start.upload_folder
        self.counts = board.count
        self.concurrency = start.concurrency
        self.served = None if start.served is None else Served.of_json(start.served)
        self.channel = Channel(self._answer)
        self._board = board
        self._board.set(CONCURRENCY, start.settings.concurrency)
        self._service: PredictionService | None = None
        self._metrics: Metrics | None = None
        self._change: Change | None = None
        self._ready: asyncio.Future[None] | None = None
        self._methods: Mapping[str, Callable[..., Awaitable[Any]]] = {
            "prepare": self._prepare,
            "commit": self._commit,
            "discard": self._discard,
            "check_split": self._check_split,
            "set_split": self._set_split,
            "snapshot": self._snapshot,
        }

    @property
    def whole(self) -> Member:
        """Calls about the whole server go to the parent."""
        return self

    def attach(self, service: PredictionService, metrics: Metrics) -> None:
        """Answer the parent's calls with these from now on."""
        self._service, self._metrics = service, metrics

    async def join(self) -> None:
        """Return once the parent counts this process as one that takes requests, serving what the others do."""
        service = self._attached()
        while True:
            reply = await self.channel.call("join", served=served_by(service.registry).as_json())
            if reply is None:
                return
            served = Served.of_json(reply)
            await serve_exactly(served, service.control, service.registry, service.traffic)

    def say_ready(self) -> None:
        """Let the parent know that this process takes requests: the server is ready once all do."""
        self._ready = asyncio.ensure_future(self._say_ready())

    def accepts(self, accepts: bool) -> None:
        """Let the other processes know whether this one takes connections."""
        self._board.set(ACCEPTING, int(accepts))

    def freer_elsewhere(self) -> bool:
        """Whether another process should take the next connection."""
        return self._board.freer_elsewhere()

    async def load(self, model: str, policy: VersionPolicy | None = None) -> None:
        """Load in all processes, or in none. Raises RequestError."""
        fields = None if policy is None else {"latest": policy.latest, "specific": policy.specific}
        await self._ask("load", model=model, policy=fields)

    async def unload(self, model: str) -> None:
        """Unload in all processes. Raises RequestError."""
        await self._ask("unload", model=model)

    async def change(
        self,
        name: str,
        *,
        split: Mapping[int, float] | Unchanged = UNCHANGED,
        shadow: int | Unchanged | None = UNCHANGED,
    ) -> None:
        """Set a bundle's shares in all processes. Raises RequestError; there is no shadow."""
        service = self._attached()
        service.registry.check_loaded()
        service.registry.bundle(name)
        if not (shadow is None or isinstance(shadow, Unchanged)):
            raise UnsupportedError(
                "a shadow needs a server of one process: this one was started with --processes", field="shadow"
            )
        if not isinstance(split, Unchanged):
            await self._ask("split", name=name, split=split_json(split))

    async def exposition(self) -> bytes:
        """Format the metrics of all processes as those of one."""
        text: str = await self._ask("exposition")
        return text.encode()

    async def now(self) -> dict[str, Any]:
        """Return the last hour of the metrics of all processes."""
        report: dict[str, Any] = await self._ask("now")
        return report

    async def model_stats(self, models: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Return the counts of all processes for each model and version."""
        found = {(stats["name"], stats["version"]): stats for stats in await self._ask("statistics")}
        return [found.get((name, str(v))) or Statistics().model_stats(name, v) for name, v in models]

    async def _say_ready(self) -> None:
        with suppress(ChannelClosedError):  # The server is stopping.
            await self.channel.call("ready")

    async def _ask(self, method: str, **arguments: Any) -> Any:
        try:
            return await self.channel.call(method, **arguments)
        except ChannelClosedError:
            raise UnavailableError("the server is stopping; try again") from None

    async def _answer(self, method: str, arguments: dict[str, Any]) -> Any:
        return await self._methods[method](**arguments)

    async def _prepare(self, kind: str, **arguments: Any) -> dict[str, Any]:
        """Prepare a change of served versions; return what will be served. There is one at a time."""
        control = self._attached().control
        if kind == "load":
            fields = arguments["policy"]
            policy = None if fields is None else VersionPolicy(fields["latest"], tuple(fields["specific"]))
            change = await control.prepare_load(arguments["model"], policy)
        elif kind == "unload":
            change = await control.prepare_unload(arguments["model"])
        elif kind == "drop":
            change = await control.prepare_drop(arguments["name"], arguments["version"])
        else:
            versions = {int(version): sha256 for version, sha256 in arguments["versions"].items()}
            change = await control.prepare_exactly(arguments["name"], versions)
        self._change = change
        return {"name": change.name, "versions": versions_json(control.versions_after(change))}

    async def _commit(self) -> dict[str, float]:
        """Switch to what was prepared; return the bundle's split after that."""
        service, change = self._attached(), self._change
        self._change = None
        if change is None:
            return {}
        await service.control.commit(change)
        return split_json(service.registry.routing(change.name).split)

    async def _discard(self, failures: list[tuple[str, int, str]]) -> list[tuple[str, int, str]]:
        """Release what was prepared; take over why versions did not load elsewhere, and return all that is known."""
        control = self._attached().control
        change, self._change = self._change, None
        if change is not None:
            control.discard(change)
        control.failures.update({(name, version): why for name, version, why in failures})
        return [(name, version, why) for (name, version), why in control.failures.items()]

    async def _check_split(self, name: str, split: dict[str, float]) -> None:
        self._attached().traffic.checked(name, split_of(split))

    async def _set_split(self, name: str, split: dict[str, float]) -> None:
        self._attached().traffic.adopt(name, split_of(split))

    async def _snapshot(self) -> dict[str, Any] | None:
        return None if self._metrics is None else self._metrics.snapshot()

    def _attached(self) -> PredictionService:
        if self._service is None:
            raise UnavailableError("the server is starting; try again")
        return self._service
