"""Series in a Parquet table: columns of lists of numbers read as .npy files; other lists are not taken for them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dimml.tables.cells import MediaCell
from dimml.tables.parquet import ParquetTable

NESTED = [[[1.5, 2.0], [3.0, None]], [[4.0, 5.0]], None]
FLAT = [[1, 2, 3], [None, 5], None]


def write(path: Path, **columns: pa.Array) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def array(data: bytes | None) -> npt.NDArray[Any]:
    assert data is not None
    return np.asarray(np.load(io.BytesIO(data)))


@pytest.mark.parametrize("inner", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)])
def test_lists_of_lists_are_arrays_of_two_axes(tmp_path: Path, inner: pa.DataType) -> None:
    path = write(tmp_path / "t.parquet", imu=pa.array(NESTED, pa.list_(inner)), label=pa.array(["a", "b", "c"]))
    kept: list[bytes] = []
    with ParquetTable(path) as table:
        assert table.series_columns == ["imu"]
        assert table.media_columns == []
        cells = list(table.rows(["imu", "label"]))
        assert [row["imu"] for row in cells] == [MediaCell("imu", 0), MediaCell("imu", 1), None]
        assert [row["label"] for row in cells] == ["a", "b", "c"]
        np.testing.assert_array_equal(array(table.content(MediaCell("imu", 0))), [[1.5, 2.0], [3.0, np.nan]])
        np.testing.assert_array_equal(array(table.content(MediaCell("imu", 1))), [[4.0, 5.0]])

        def keep(content: bytes) -> str:
            kept.append(content)
            return str(len(kept))

        assert [row["imu"] for row in table.rows(["imu"], keep)] == ["1", "2", None]
    np.testing.assert_array_equal(array(kept[1]), [[4.0, 5.0]])


def test_lists_are_arrays_of_one_axis(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", imu=pa.array(FLAT, pa.list_(pa.int16())))
    with ParquetTable(path) as table:
        np.testing.assert_array_equal(array(table.content(MediaCell("imu", 0))), [1, 2, 3])
        np.testing.assert_array_equal(array(table.content(MediaCell("imu", 1))), [np.nan, 5])


def test_rows_of_unequal_length_are_no_array(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", imu=pa.array([[[1.0, 2.0], [3.0]]], pa.list_(pa.list_(pa.float32()))))
    with ParquetTable(path) as table:
        assert table.content(MediaCell("imu", 0)) == b""


@pytest.mark.parametrize(
    "values",
    [
        pa.array([["a"]], pa.list_(pa.string())),
        pa.array([[True]], pa.list_(pa.bool_())),
        pa.array([[[[1.0]]]], pa.list_(pa.list_(pa.list_(pa.float32())))),
        pa.array([1.0]),
    ],
)
def test_other_columns_hold_no_series(tmp_path: Path, values: pa.Array) -> None:
    with ParquetTable(write(tmp_path / "t.parquet", it=values)) as table:
        assert table.series_columns == []
        with pytest.raises(LookupError, match="no column 'it' of recordings"):
            table.content(MediaCell("it", 0))
