"""Life cycle of the server process: listen, load, become ready; on a signal finish requests in flight and stop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from dimml.errors import ConfigurationError
from dimml.repository import bundle_names
from dimml_server.counts import CONNECTIONS, Counts, OwnCount
from dimml_server.http.connection.early_refusal import FullQueue
from dimml_server.http.connection.protocol import BoundedConnection
from dimml_server.kserve.grpc.server import create_server
from dimml_server.observability.metrics import Metrics
from dimml_server.observability.tracer import open_tracer
from dimml_server.prediction.decoder import Decoder
from dimml_server.prediction.service import PredictionService
from dimml_server.process.acceptor import Acceptor
from dimml_server.process.http_app import create_app
from dimml_server.process.listeners import BACKLOG, Addresses, authority, bind, is_loopback
from dimml_server.process.membership import Membership
from dimml_server.process.wiring import build_service
from dimml_server.security.guard import Guard
from dimml_server.security.tls import ServerTls, server_tls
from dimml_server.settings.libraries import check_metrics_folder
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def run_server(
    settings: ServerSettings,
    *,
    announce: Callable[[Addresses], None],
    decoder: Decoder | None = None,
    member: Membership | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    ``announce`` is called once requests are taken. ``decoder`` replaces the decode workers of the settings, and is
    closed at the end. ``member`` is this process's part in a server of several. Raises SetupError, or UnavailableError
    for the decode workers, if the server cannot start.
    """
    bundle_names(settings.repository)  # The most common mistake is reported before anything is started.
    stopping = asyncio.Event()
    for number in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    counts = OwnCount if member is None else member.counts
    guard, tls = Guard(settings, counts), server_tls(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, guard.reload)
    check_metrics_folder(os.environ)
    metrics = Metrics(settings.drift)
    async with AsyncExitStack() as stack:
        tracer = open_tracer(settings)
        stack.push_async_callback(asyncio.to_thread, tracer.close)
        if member is None:
            folder = tempfile.TemporaryDirectory(prefix="dimml-uploads-", ignore_cleanup_errors=True)
            uploads = Path(stack.enter_context(folder))
        else:
            uploads = member.upload_folder
        whole = None if member is None else member.whole
        service = build_service(settings, metrics, decoder, uploads, tracer, counts=counts, whole=whole)
        if member is not None:
            member.attach(service, metrics)
        # Unwound in reverse order: listeners end while engine and workers can still answer their requests.
        stack.push_async_callback(service.close)
        app = create_app(service, metrics, settings, guard, None if member is None else member.concurrency)
        full_queue = FullQueue(service, metrics, settings, guard)
        replaces = member is not None and member.served is not None
        if replaces and not await _started(service, member, stopping):
            return
        http = await stack.enter_async_context(
            _http_listener(app, settings, full_queue, tls, counts=counts, member=member)
        )
        grpc_address = await stack.enter_async_context(_grpc_listener(service, metrics, settings, guard, tls))
        _warn_if_open(settings, guard)
        if replaces or await _started(service, member, stopping):
            if member is None:  # Of several processes, their parent keeps it.
                keeping = asyncio.ensure_future(metrics.history.keep())
                stack.callback(keeping.cancel)
            announce(Addresses(http.address, grpc_address))
            await stopping.wait()
        service.accepting = False
        http.stop_accepting()
        http.should_exit = True  # Now, so that both listeners close at once and share the grace period.
        logger.info("stopping; requests in flight have %g s", settings.grace_s)


def _warn_if_open(settings: ServerSettings, guard: Guard) -> None:
    if not (guard.closed or settings.tls_client_ca or is_loopback(settings.host)):
        logger.warning(
            "everybody who reaches %s may send requests: no API keys (api_keys_file) and no client certificates "
            "(tls_client_ca) are configured",
            settings.host,
        )


async def _start(service: PredictionService, member: Membership | None) -> None:
    if member is None:
        await service.start()
        return
    await service.load(member.served)
    await member.join()
    service.accepting = True


async def _started(service: PredictionService, member: Membership | None, stopping: asyncio.Event) -> bool:
    """Load and warm up; return False if a signal to stop came first."""
    starting = asyncio.ensure_future(_start(service, member))
    stop = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not starting.done():
        starting.cancel()
        return False
    starting.result()
    return True


class _HttpServer(uvicorn.Server):
    """uvicorn without its signal handlers: two servers share this process, and both must stop.

    ``member`` has the listening socket of one of several processes; connections are then taken by an ``Acceptor``.
    """

    def __init__(self, config: uvicorn.Config, address: str, member: Membership | None) -> None:
        super().__init__(config)
        self.address = address
        self._member = member
        self._acceptor = None if member is None else Acceptor(member.listener, member.freer_elsewhere)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self._acceptor is not None and self._member is not None:
            protocol = self.config.http_protocol_class
            made = {"config": self.config, "server_state": self.server_state, "app_state": self.lifespan.state}
            self._acceptor.begin(partial(protocol, **made), self.config.ssl)
            self._member.accepts(True)

    def stop_accepting(self) -> None:
        """Take no more connections, where other processes share the socket: they take them."""
        if self._acceptor is not None and self._member is not None:
            self._member.accepts(False)
            self._acceptor.close()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _http_listener(
    app: FastAPI,
    settings: ServerSettings,
    full_queue: FullQueue,
    tls: ServerTls | None,
    *,
    counts: Counts,
    member: Membership | None,
) -> AsyncIterator[_HttpServer]:
    context = None if tls is None else tls.context()
    listener = bind(settings.host, settings.http_port, "http_port") if member is None else member.listener
    protocol = partial(
        BoundedConnection, settings=settings, full_queue=full_queue, open_connections=counts(CONNECTIONS)
    )
    config = uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]  # called like the class
        ws="none",
        log_config=None,
        access_log=False,
        # uvicorn reads WEB_CONCURRENCY otherwise, and fails where it is no number; this server is one process.
        workers=1,
        lifespan="off",
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.http_keepalive_s,  # type: ignore[arg-type]  # given to call_later
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
    )
    config.load()
    config.ssl = context
    server = _HttpServer(config, authority(settings.host, listener.getsockname()[1]), member)
    serving = asyncio.ensure_future(server.serve(sockets=[listener] if member is None else []))
    try:
        yield server
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def _grpc_listener(
    service: PredictionService, metrics: Metrics, settings: ServerSettings, guard: Guard, tls: ServerTls | None
) -> AsyncIterator[str]:
    if settings.processes == 1:  # Otherwise the parent has reserved the port.
        # gRPC reports only that it failed; a plain socket reports why.
        bind(settings.host, settings.grpc_port, "grpc_port").close()
    stopping = asyncio.Event()
    server = create_server(service, metrics, settings, guard, stopping)
    try:
        address = authority(settings.host, settings.grpc_port)
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, tls.grpc_credentials())
    except RuntimeError as error:
        raise ConfigurationError(f"gRPC cannot listen on port {settings.grpc_port}", field="grpc_port") from error
    await server.start()
    try:
        yield authority(settings.host, port)
    finally:
        stopping.set()
        await server.stop(settings.grace_s)
