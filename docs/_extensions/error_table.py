"""Errors as a Markdown table: code, HTTP and gRPC status and Python class, from the tables that the transports use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dimml import errors
from dimml.errors import DimmlError, SetupError
from dimml_server.kserve.grpc.server import STATUS_CODES
from dimml_server.prediction.error_status import HTTP_STATUS


def markdown(kind: str) -> str:
    """Rows of the errors of a request (``request``), or of those that a person at a terminal can fix (``setup``)."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DimmlError)]
    if kind == "setup":
        rows = [f"| `{error.code}` | `{error.__name__}` | {_meaning(error)} |" for error in kinds if _setup(error)]
        return "\n".join(["| code | Python | meaning |", "|---|---|---|", *rows])
    rows = [
        f"| `{error.code}` | {_closest(error, HTTP_STATUS)} | `{_closest(error, STATUS_CODES).name}` "
        f"| `{error.__name__}` | {_meaning(error)} |"
        for error in kinds
        if error is not DimmlError and not _setup(error)
    ]
    return "\n".join(["| code | HTTP | gRPC | Python | meaning |", "|---|---|---|---|---|", *rows])


def _closest(error: type[DimmlError], table: Mapping[type[DimmlError], Any]) -> Any:
    return next(table[kind] for kind in error.__mro__ if kind in table)


def _setup(error: type[DimmlError]) -> bool:
    return issubclass(error, SetupError)


def _meaning(error: type[DimmlError]) -> str:
    return " ".join((error.__doc__ or "").split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
