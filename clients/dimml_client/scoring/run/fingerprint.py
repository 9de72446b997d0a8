"""Fingerprint of the run that a table belongs to: runs with another bundle, setting or input are never mixed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from dimml import __version__
from dimml.errors import ConfigurationError
from dimml_client.scoring.inputs.listing import Listing
from dimml_client.scoring.inputs.locations import is_url
from dimml_client.scoring.table.schema import SCHEMA_VERSION, ScoredBundle


def run_record(bundle: ScoredBundle, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Build the record that must be equal to continue a run: the exact bundle, dimml's version, the settings."""
    described = {**asdict(bundle), "labels": list(bundle.labels), "modalities": list(bundle.modalities)}
    if not bundle.sets:
        del described["sets"]  # As in the records of before.
    return {
        "schema_version": SCHEMA_VERSION,
        "dimml_version": __version__,
        "bundle": described,
        "settings": dict(settings),
    }


def refuse_other_run(there: Mapping[str, Any], ours: Mapping[str, Any], where: Path) -> None:
    """Raise ConfigurationError naming the first difference between two records."""
    for name, was, now in _differences(there, ours):
        raise ConfigurationError(
            f"{where} belongs to another run: {name} was {was!r} and is now {now!r}; "
            "remove it, or choose another --out",
            field="--out",
        )


def _differences(there: Mapping[str, Any], ours: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys((*there, *ours)):
        was, now = there.get(name), ours.get(name)
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            yield from _differences(was, now, f"{path}{name}.")
        elif was != now:
            yield path + name, was, now


def refuse_other_inputs(there: Listing, ours: Listing, where: Path) -> None:
    """Raise ConfigurationError if the inputs differ from those with which the run began.

    They differ if there is a new input, or if one is not listed any more although its file still exists. A file that
    vanished in the meantime gets its row.
    """
    if there.table.equals(ours.table):
        return
    before, now = _entries(there.table), _entries(ours.table)
    for entry in now.keys() - before.keys():
        raise _other_inputs(where, f"{now[entry]} was not among them")
    for entry in before.keys() - now.keys():
        path = before[entry]
        if path is None or is_url(path) or Path(path).exists():
            raise _other_inputs(where, f"{path} is not among them any more")


def _entries(table: pa.Table) -> dict[tuple[Any, ...], str | None]:
    """Return every entry with all its columns, and its path."""
    filled = [name for name in table.column_names if table[name].null_count < len(table)]
    columns = [table[name].to_pylist() for name in filled]
    return dict(
        zip(
            (tuple(zip(filled, row, strict=True)) for row in zip(*columns, strict=True)),
            table["path"].to_pylist(),
            strict=True,
        )
    )


def _other_inputs(where: Path, example: str) -> ConfigurationError:
    return ConfigurationError(
        f"{where} belongs to a run over other inputs: {example}; remove it, or choose another --out", field="--out"
    )
