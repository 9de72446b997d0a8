"""The three ports of a Triton server."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from dimml_server.process.listeners import bind
from dimml_server.triton_server.options import TritonOptions


@dataclass(frozen=True, slots=True)
class Ports:
    """Chosen ports, none of them 0."""

    http: int
    grpc: int
    metrics: int


def choose_ports(options: TritonOptions) -> Ports:
    """Choose the ports, each free at this moment. Raises ConfigurationError naming one that is not."""
    with ExitStack() as held:
        chosen = [
            held.enter_context(bind(options.host, port, setting, from_environment=False)).getsockname()[1]
            for setting, port in (
                ("http_port", options.http_port),
                ("grpc_port", options.grpc_port),
                ("metrics_port", options.metrics_port),
            )
        ]
    return Ports(*chosen)
