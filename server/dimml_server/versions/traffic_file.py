"""File that keeps the routing set by calls over restarts of the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dimml.errors import ConfigurationError
from dimml.system.files import write_atomically
from dimml.validation import first_fault
from dimml_server.versions.traffic_split import Routing

logger = logging.getLogger(__name__)


class _StoredRouting(BaseModel):
    model_config = ConfigDict(extra="forbid")

    split: dict[int, float] = Field(default_factory=dict)
    shadow: int | None = None


_FILE = TypeAdapter(dict[str, _StoredRouting])


def read_routing_file(path: Path) -> dict[str, Routing]:
    """Read the routing by bundle; empty if the file does not exist yet. Raises ConfigurationError."""
    try:
        entries = _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}", field="routing_file") from error
    except ValidationError as error:
        where, fault = first_fault(error, "the document")
        raise ConfigurationError(
            f"routing_file {path}: {where}: {fault}; mend it, or delete it to begin anew", field="routing_file"
        ) from error
    return {name: Routing(entry.split, entry.shadow) for name, entry in entries.items()}


def write_routing_file(path: Path, routing: Mapping[str, Routing]) -> None:
    """Replace the file as a whole, so that a crash leaves either the old or the new one. Raises OSError."""
    entries = {name: _StoredRouting(split=dict(one.split), shadow=one.shadow) for name, one in routing.items()}
    write_atomically(path, _FILE.dump_json(entries, indent=2) + b"\n", durable=True)


async def keep_routing(path: Path | None, routing: Mapping[str, Routing]) -> None:
    """Write a change of routing that is done to the file, if there is one; a failure is logged."""
    if path is None:
        return
    try:
        await asyncio.to_thread(write_routing_file, path, dict(routing))
    except OSError as error:
        # The operator must know that the change will not survive a restart.
        logger.error("cannot write routing_file %s: %s", path, error.strerror)  # noqa: TRY400
