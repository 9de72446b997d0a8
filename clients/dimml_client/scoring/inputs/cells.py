"""Recordings that stand in a Parquet table, as URLs: ``parquet://<column>/<row>::<the table's location>``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import fsspec

from dimml.errors import UnreadableError
from dimml.tables.cells import MediaCell
from dimml.tables.parquet import ParquetTable, content_at
from dimml_client.scoring.inputs.recent import Recent, file_state

_SCHEME: Final = "parquet://"
_LINK: Final = "::"
#: Row groups whose recordings stay in memory. ``datasets`` writes 10 to 1000 rows to a group.
_GROUPS: Final = 2
#: Tables that stay open for their index of row groups.
_TABLES: Final = 8


def is_cell(location: str) -> bool:
    """Whether a location is a cell of a Parquet table."""
    return location.startswith(_SCHEME) and _LINK in location


def cell_location(table: str, cell: MediaCell) -> str:
    """Return the URL of a cell of a table, which is a path or a URL."""
    outer = table if "://" in table else f"file://{table}"
    return f"{_SCHEME}{quote(cell.column, safe='')}/{cell.row}{_LINK}{outer}"


def copy_cell(location: str, to: Path, max_bytes: int) -> int:
    """Write a cell's bytes to a file, unless they are more than ``max_bytes``; return how many they are.

    Raises UnreadableError for a cell that is not there, and what the table's file system or pyarrow raises.
    """
    first, _, table = location.removeprefix(_SCHEME).partition(_LINK)
    column, _, number = first.rpartition("/")
    try:
        cell = MediaCell(unquote(column), int(number))
        content = _content(table, cell)
    except (LookupError, ValueError) as error:
        raise UnreadableError(f"cannot read {location}: {error}", field=location) from error
    if content is None:
        raise UnreadableError(f"cannot read {location}: the cell is empty", field=location)
    if len(content) <= max_bytes:
        to.write_bytes(content)
    return len(content)


def _open(table: str) -> ParquetTable:
    opened = fsspec.open(table, "rb")
    return ParquetTable(opened.open(), owner=opened)


_tables: Final[Recent[ParquetTable]] = Recent(_TABLES)
_groups: Final[Recent[Any]] = Recent(_GROUPS)


def _content(table: str, cell: MediaCell) -> bytes | None:
    key = (table, file_state(table))
    with _tables.using(key, lambda: _open(table)) as opened:
        group, row = opened.place(cell.row)

    def read() -> Any:
        with _tables.using(key, lambda: _open(table)) as opened:
            return opened.column_of_group(group, cell.column)

    with _groups.using((key, group, cell.column), read) as recordings:
        return content_at(recordings, row)
