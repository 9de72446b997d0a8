"""What each of several processes gets of a server's limits."""

from __future__ import annotations

import os
from typing import Final

from dimml.errors import ConfigurationError
from dimml_server.settings.libraries import metrics_folder
from dimml_server.settings.settings import ServerSettings
from dimml_server.versions.traffic_file import read_routing_file

#: Settings that are totals of the server, and divided; every process gets at least 1.
DIVIDED: Final = ("concurrency", "decode_workers", "max_stray_runs", "media_url_fetches")


def check_processes(settings: ServerSettings) -> None:
    """Raise ConfigurationError for what a server of several processes does not do."""
    found = metrics_folder(os.environ)
    if found is not None:
        raise ConfigurationError(
            f"{found[0]} is set: prometheus_client would go on with the counts of processes that have ended, which "
            "this server adds itself; unset it",
            field="processes",
        )
    way_out = "run it with --processes 1, or without the shadow"
    if settings.shadows:
        raise ConfigurationError(f"a shadow needs a server of one process: {way_out}", field="shadows")
    for name, routing in ({} if settings.routing_file is None else read_routing_file(settings.routing_file)).items():
        if routing.shadow is not None:
            raise ConfigurationError(
                f"routing_file {settings.routing_file} gives {name!r} a shadow, which needs a server of one process: "
                f"{way_out}",
                field="routing_file",
            )


def share(total: int, processes: int, index: int) -> int:
    """Return the part of process ``index`` of a total: all parts add up to it, but none is below 1."""
    return max(1, total // processes + (index < total % processes))


def settings_of(settings: ServerSettings, index: int, *, http_port: int, grpc_port: int) -> ServerSettings:
    """Return the settings of process ``index``. What is not divided here is counted over all, or limits no work."""
    count = settings.processes
    threads = settings.intra_op_threads
    return settings.model_copy(
        update={
            **{name: share(getattr(settings, name), count, index) for name in DIVIDED},
            "intra_op_threads": None if threads is None else max(1, threads // count),
            # Each has the last rows of its own; all of them together are compared with the reference.
            "drift_window": max(share(settings.drift_window, count, index), settings.drift_minimum),
            # The parent watches.
            "watch": False,
            "http_port": http_port,
            "grpc_port": grpc_port,
        }
    )


def in_words(settings: ServerSettings) -> str:
    """Describe how the totals are divided, for the log."""
    parts = []
    for name in DIVIDED[:2]:
        shares = [share(getattr(settings, name), settings.processes, index) for index in range(settings.processes)]
        parts.append(f"{name} {'+'.join(map(str, shares))}")
    return f"{settings.processes} processes: {', '.join(parts)}; one queue of {settings.queue_length}"
