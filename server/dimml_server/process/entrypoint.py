"""``dimml serve`` as a process: logging, event loop, the ready line on stdout, and exit."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import sys

import uvloop

from dimml_server.observability.logs import configure_logging
from dimml_server.prediction.decoder import Decoder
from dimml_server.process.lifecycle import run_server
from dimml_server.process.listeners import Addresses
from dimml_server.settings.settings import ServerSettings


def run_until_stopped(settings: ServerSettings, decoder: Decoder | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then end the process with 0. Raises SetupError if the server cannot start."""
    configure_logging(settings.log_level, settings.log_format)
    # Connections and spooled bodies are open files: raise the limit as far as this user may.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_server(settings, announce=_announce, decoder=decoder))
    # Everything of ours is closed. A thread still inside ONNX Runtime or gRPC cannot be ended, and finalising the
    # interpreter beneath it sometimes aborts the process (seen): so skip finalisation.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _announce(addresses: Addresses) -> None:
    print(f"ready http={addresses.http} grpc={addresses.grpc}", flush=True)
