"""``dimml serve --processes N``: ports, signals, the ready line on stdout, and exit."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import sys
import tempfile
from pathlib import Path

from dimml.repository import bundle_names
from dimml_server.observability.logs import configure_logging
from dimml_server.process.listeners import authority, bind, reserve
from dimml_server.processes.parent import CHILD, Parent
from dimml_server.processes.shares import check_processes, in_words
from dimml_server.settings.settings import ServerSettings

logger = logging.getLogger(__name__)


def run_processes(settings: ServerSettings, child: str = CHILD) -> None:
    """Serve with several processes until SIGTERM or SIGINT, each of which runs ``main`` of the module ``child``.

    Raises DimmlError if the server cannot start.
    """
    configure_logging(settings.log_level, settings.log_format)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Mistakes that can be found before anything is started.
    bundle_names(settings.repository)
    check_processes(settings)
    with (
        bind(settings.host, settings.http_port, "http_port") as listener,
        reserve(settings.host, settings.grpc_port, "grpc_port") as reserved,
        tempfile.TemporaryDirectory(prefix="dimml-uploads-", ignore_cleanup_errors=True) as uploads,
    ):
        asyncio.run(_serve(settings, listener, reserved, Path(uploads), child))
    logging.shutdown()
    sys.stdout.flush()


async def _serve(
    settings: ServerSettings, listener: socket.socket, reserved: socket.socket, uploads: Path, child: str
) -> None:
    http, grpc = (authority(settings.host, end.getsockname()[1]) for end in (listener, reserved))
    parent = Parent(settings, listener, reserved.getsockname()[1], uploads, child)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parent.stop)
    loop.add_signal_handler(signal.SIGHUP, parent.reload_keys)
    logger.info("%s", in_words(settings))
    await parent.run(lambda: print(f"ready http={http} grpc={grpc}", flush=True))
