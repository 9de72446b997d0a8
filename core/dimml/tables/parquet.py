"""Parquet tables of recordings: paths, or the media themselves as Hugging Face's ``datasets`` writes them.

Audio, Video and Image features are columns of type ``struct<bytes: binary, path: string>``: the bytes are the
recording, or without them the path is. A plain binary column holds recordings too. A column of lists of numbers, or of
lists of such lists, holds series, and reads as if each cell were an .npy file. pyarrow is imported when a table is
opened.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from dimml.tables.cells import MediaCell, class_names

_BYTES, _PATH = "bytes", "path"
#: Rows read at a time; fewer where each holds a recording.
_ROWS: Final = 4096
_ROWS_OF_MEDIA: Final = 16

#: Takes a recording's bytes and says where it put them.
KeepMedia = Callable[[bytes], str]


class ParquetTable(AbstractContextManager["ParquetTable"]):
    """A Parquet file, opened; ``owner`` is kept with it. Raises OSError, and pyarrow's ValueErrors for no Parquet."""

    def __init__(self, source: Path | IO[bytes], *, owner: object = None) -> None:
        import pyarrow.parquet

        self._owner = owner
        self._file: Any = pyarrow.parquet.ParquetFile(source)
        self._schema: Any = self._file.schema_arrow
        self.columns: tuple[str, ...] = tuple(self._schema.names)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close(force=True)

    @property
    def media_columns(self) -> list[str]:
        """Columns that hold recordings, as bytes or as ``{bytes, path}``."""
        return [name for name in self.columns if self._is_media(name)]

    @property
    def series_columns(self) -> list[str]:
        """Columns of lists of numbers: series, if a modality reads them, and vectors for other ends if none does."""
        return [name for name in self.columns if _list_depth(self._schema.field(name).type)]

    def class_names(self, column: str) -> tuple[str, ...] | None:
        """Names of a column's classes in order, if ``datasets`` wrote any."""
        return class_names(self._schema.metadata, column)

    def type_of(self, column: str) -> str | None:
        """Describe a column's type if its cells are neither one value nor a recording."""
        import pyarrow

        kind = self._schema.field(column).type
        kind = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
        return str(kind) if pyarrow.types.is_nested(kind) and not self._is_media(column) else None

    def rows(self, columns: Sequence[str], keep: KeepMedia | None = None) -> Iterator[dict[str, Any]]:
        """Read these columns row by row; a recording's bytes become a ``MediaCell``, or what ``keep`` returns for them.

        So does a series, whose bytes are those of an .npy file. Without ``keep``, no bytes are read where the file's
        statistics say which rows have any.
        """
        media = [name for name in columns if self._is_media(name) or name in self.series_columns]
        plain = [name for name in columns if name not in media]
        begin = 0
        for group in range(self._file.num_row_groups):
            about = self._file.metadata.row_group(group)
            there = {name: None if keep else self._all_or_none(about, name) for name in media}
            leaves = [*plain, *(leaf for name in media for leaf in self._leaves(name, read=there[name] is None))]
            size = _ROWS_OF_MEDIA if any(known is None for known in there.values()) else _ROWS
            number = begin
            for row in self._of_group(group, leaves, size, about.num_rows):
                for name in media:
                    row[name] = _media(row.get(name), MediaCell(name, number), there[name], keep)
                yield row
                number += 1
            begin += about.num_rows

    def content(self, cell: MediaCell) -> bytes | None:
        """Read one recording's bytes; the whole row group is read for it. Raises LookupError without such a cell."""
        group, row = self.place(cell.row)
        column = self.column_of_group(group, cell.column)
        return content_at(column, row)

    def place(self, row: int) -> tuple[int, int]:
        """Return a row's group and its place there. Raises LookupError."""
        for group in range(self._file.num_row_groups):
            count = self._file.metadata.row_group(group).num_rows
            if 0 <= row < count:
                return group, row
            row -= count
        raise LookupError("the table has no such row")

    def column_of_group(self, group: int, column: str) -> Any:
        """Read the recordings of one row group. Raises LookupError if the column holds none."""
        if column not in self.columns or not (self._is_media(column) or column in self.series_columns):
            raise LookupError(f"the table has no column {column!r} of recordings")
        return self._file.read_row_group(group, columns=self._leaves(column, read=True)[:1]).column(column)

    def _is_media(self, column: str) -> bool:
        import pyarrow

        kind = self._schema.field(column).type
        if pyarrow.types.is_struct(kind):
            names = [kind.field(index).name for index in range(kind.num_fields)]
            return _BYTES in names and _is_binary(kind.field(_BYTES).type)
        return _is_binary(kind)

    def _leaves(self, column: str, *, read: bool) -> list[str]:
        """Name the parts of a column of recordings to read; the bytes come first."""
        import pyarrow

        kind = self._schema.field(column).type
        if not pyarrow.types.is_struct(kind):
            return [column] if read else []
        paths = [f"{column}.{_PATH}"] if kind.get_field_index(_PATH) >= 0 else []
        return [*([f"{column}.{_BYTES}"] if read else []), *paths]

    def _all_or_none(self, about: Any, column: str) -> bool | None:
        """Whether all rows of a group have bytes (True) or none has (False); None if the statistics do not say."""
        for index in range(about.num_columns):
            chunk = about.column(index)
            if chunk.path_in_schema in (column, f"{column}.{_BYTES}"):
                found = chunk.statistics
                if found is None or not found.has_null_count:
                    return None
                return {0: True, about.num_rows: False}.get(found.null_count)
        return None

    def _of_group(self, group: int, leaves: Sequence[str], size: int, rows: int) -> Iterator[dict[str, Any]]:
        if not leaves:
            yield from ({} for _ in range(rows))
            return
        for batch in self._file.iter_batches(size, row_groups=[group], columns=list(leaves)):
            yield from batch.to_pylist()


def content_at(column: Any, row: int) -> bytes | None:
    """Return the bytes in a row of a column that ``column_of_group`` read."""
    value = column[row].as_py()
    found: bytes | None = value.get(_BYTES) if isinstance(value, dict) else value
    return _as_npy(found) if isinstance(found, list) else found


def _media(value: Any, cell: MediaCell, there: bool | None, keep: KeepMedia | None) -> str | MediaCell | None:
    """Return where a recording is: in the table, or at a path."""
    fields = value if isinstance(value, dict) else {_BYTES: value}
    content = fields.get(_BYTES)
    if isinstance(content, list) and keep is not None:
        content = _as_npy(content)
    if there or content is not None:
        return cell if keep is None or content is None else keep(content)
    return fields.get(_PATH) or None


def _as_npy(values: list[Any]) -> bytes:
    """Write numbers as an .npy file of FP64 ``[n]`` or ``[n, m]``, NaN for None; lists of unequal length as none."""
    import numpy as np

    buffer = io.BytesIO()
    rows = [values] if not values or not isinstance(values[0], list) else values
    widths = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(widths) == 1 and -1 not in widths:
        array = np.array([[np.nan if value is None else value for value in row] for row in rows], np.float64)
        np.save(buffer, array[0] if rows is not values else array)
    return buffer.getvalue()


def _list_depth(kind: Any) -> int:
    """How many lists, one or two, are around numbers; 0 for any other type."""
    import pyarrow

    types, depth = pyarrow.types, 0
    while types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        kind, depth = kind.value_type, depth + 1
    return depth if depth <= 2 and (types.is_integer(kind) or types.is_floating(kind)) else 0


def _is_binary(kind: Any) -> bool:
    import pyarrow

    types = pyarrow.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
