"""Environment variables of the libraries beneath that change what a server does (docs/deploy.md has the table)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final
from urllib.request import proxy_bypass

from dimml.errors import ConfigurationError

#: prometheus_client keeps metrics in files of this folder if one of them is set.
_METRICS_FOLDER: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
#: What gRPC takes a proxy from, the first that is set.
_GRPC_PROXY: Final = ("grpc_proxy", "https_proxy", "http_proxy")


def metrics_folder(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the variable that makes prometheus_client keep metrics in files, and its folder; None without one."""
    return next(((name, environment[name]) for name in _METRICS_FOLDER if name in environment), None)


def check_metrics_folder(environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError if prometheus_client is to keep metrics in a folder that it cannot write to."""
    found = metrics_folder(environment)
    if found is not None and not os.access(found[1], os.W_OK | os.X_OK):
        name, folder = found
        raise ConfigurationError(
            f"{name}={folder}: not a folder that can be written to, and prometheus_client keeps metrics there; unset "
            "it, since this server is one process",
            field=name,
        )


def grpc_proxy(environment: Mapping[str, str], host: str) -> str | None:
    """Return the variable that makes gRPC connect to ``host`` through a proxy; None without one."""
    exempt = environment.get("no_grpc_proxy") or environment.get("no_proxy", "")
    variable = next((name for name in _GRPC_PROXY if environment.get(name)), None)
    return None if variable is None or proxy_bypass(host, {"no": exempt}) else variable
