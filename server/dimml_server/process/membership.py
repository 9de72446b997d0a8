"""What the life cycle of a serving process needs to know where it is one of several of a server."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Protocol

from dimml_server.counts import Counts
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.service import PredictionService
from dimml_server.prediction.whole_server import WholeServer
from dimml_server.versions.served import Served


class Membership(Protocol):
    """One process's part in a server of several."""

    @property
    def listener(self) -> socket.socket:
        """The listening HTTP socket, which all processes share."""
        ...

    @property
    def upload_folder(self) -> Path:
        """The only folder from which recordings are read."""
        ...

    @property
    def counts(self) -> Counts:
        """Counts over all processes."""
        ...

    @property
    def concurrency(self) -> int:
        """Requests that all processes work on at once."""
        ...

    @property
    def whole(self) -> WholeServer:
        """Calls about all processes."""
        ...

    @property
    def served(self) -> Served | None:
        """What a process serves that replaces another; it takes connections only then. None for the first ones."""
        ...

    def attach(self, service: PredictionService, metrics: Metrics) -> None:
        """Answer the calls of the parent with these from now on."""
        ...

    async def join(self) -> None:
        """Wait until this process may take requests: its models are the server's."""
        ...

    def accepts(self, accepts: bool) -> None:
        """Let the other processes know whether this one takes connections."""
        ...

    def freer_elsewhere(self) -> bool:
        """Whether another process should take the next connection."""
        ...
