"""Checks of environment variables that change what the libraries beneath do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from dimml.errors import ConfigurationError
from dimml_server.doctor.finding import Finding
from dimml_server.settings.libraries import check_metrics_folder, grpc_proxy, metrics_folder
from dimml_server.settings.settings import ServerSettings

_CHECK: Final = "environment"


def library_findings(settings: ServerSettings) -> Iterator[Finding]:
    """Make a finding for each variable that is set and hurts, or one that says that none is."""
    found = list(_findings(settings))
    yield from found or [Finding(_CHECK, "ok", "no variable of a library beneath changes what the server does")]


def _findings(settings: ServerSettings) -> Iterator[Finding]:
    if (metrics := metrics_folder(os.environ)) is not None:
        name, folder = metrics
        try:
            check_metrics_folder(os.environ)
        except ConfigurationError as error:
            yield Finding(_CHECK, "mend", error.message, f"unset {name}")
        else:
            found = (
                f"{name}={folder}: metrics are kept in files there, by process id; a server that gets the id of an "
                "earlier one, as in a container, goes on with its figures, gauges included"
            )
            yield Finding(_CHECK, "note", found, f"unset {name}: the server counts by itself")
    host = settings.triton_url.rpartition(":")[0].strip("[]")
    if settings.engine == "triton" and (proxy := grpc_proxy(os.environ, host)) is not None:
        yield Finding(_CHECK, "note", f"{proxy} is set: gRPC connects to Triton through that proxy", f"no_proxy={host}")
    if "*" in os.environ.get("FORWARDED_ALLOW_IPS", "").split(","):
        yield Finding(
            _CHECK,
            "note",
            "FORWARDED_ALLOW_IPS=*: every caller may name the address in the log, by X-Forwarded-For",
            "set it to the addresses of your proxies",
        )
