"""A series as text: one line for each sample, its channels, and its time if a column is named for it."""

from __future__ import annotations

from array import array
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from dimml.media.decoders.series.series_file import MOST_CHANNELS, SeriesFileError, check_values

_SEPARATORS: Final = (",", ";", "\t")
#: Longest line, so that a file without line ends is not read whole to find that out.
_LINE_BYTES: Final = 2**17
#: Columns of times, by their name in small letters, and what their unit is in seconds.
_TIMES: Final = {"time": 1.0, "time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6, "time_ns": 1e-9}
#: Longest series that is read, some thirty years, and the highest rate that its times may amount to: what is allocated
#: follows from both.
_LONGEST_S: Final = 1e9
_HIGHEST_HZ: Final = 1e6
_MISSING: Final = frozenset({"", "nan", "na", "null", "none"})
_NAN: Final = float("nan")


def is_text(head: bytes) -> bool:
    """Whether a file that begins with ``head`` may be text: UTF-8 without control characters."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # A character may be cut at the end of the head.
        if error.reason != "unexpected end of data" or error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8-sig")
    return bool(text.strip()) and all(letter.isprintable() or letter in "\t\r\n" for letter in text)


class CsvFile:
    """Numbers separated by commas, semicolons or tabs; an empty cell, ``nan`` and ``null`` are missing values.

    The first line may name the columns. One called ``time``, ``time_s``, ``time_ms``, ``time_us`` or ``time_ns`` holds
    the times of the samples; of several at one time the last one counts. Without it, samples follow each other at the
    modality's ``file_rate_hz``. Read whole, up to ``MOST_VALUES`` values.
    """

    rate_hz: float | None = None
    times_s: npt.NDArray[np.float64] | None = None
    names: tuple[str, ...] | None = None

    def __init__(self, file: BinaryIO) -> None:
        """Raises SeriesFileError, which names the line, and TooLargeError."""
        file.seek(0)
        first = _line(file, 1).removeprefix("\ufeff")
        separator = max(_SEPARATORS, key=first.count)
        width = first.count(separator) + 1
        if width > MOST_CHANNELS:
            raise SeriesFileError(f"text of {width} columns, of which {MOST_CHANNELS} are read")
        cells = [cell.strip().strip('"') for cell in first.split(separator)]
        header = any(_number(cell) is None for cell in cells)
        values = array("d")
        number = 1
        if header:
            number, first = 2, _line(file, 2)
        while first:
            row = [_number(cell) for cell in first.split(separator)] if first.strip() else []
            if row and (len(row) != width or None in row):
                following = _line(file, number + 1)
                if not following and not first.endswith("\n"):
                    break  # The last line is cut off.
                raise SeriesFileError(
                    f"text whose line {number} has {len(row)} cells where the first has {width}"
                    if len(row) != width
                    else f"text whose line {number} has a cell that is no number"
                )
            values.extend(cell for cell in row if cell is not None)
            check_values(len(values))
            number += 1
            first = _line(file, number)
        table = np.frombuffer(values, np.float64).reshape(-1, width) if values else np.zeros((0, width))
        names = tuple(cells) if header else None
        timed = next((n for n, name in enumerate(names or ()) if name.lower() in _TIMES), None)
        if timed is not None and names is not None:
            table = self._at_times(table, timed, _TIMES[names[timed].lower()])
            names = names[:timed] + names[timed + 1 :]
        self._table, self.names = table, names
        self.samples, self.channels = table.shape

    def read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Read samples ``begin`` to ``end``, ``[samples, channels]``."""
        return self._table[begin:end]

    def _at_times(self, table: npt.NDArray[np.float64], column: int, unit_s: float) -> npt.NDArray[np.float64]:
        """Take the column of times out; keep the last sample of each time."""
        times = table[:, column]
        if not np.isfinite(times).all():
            raise SeriesFileError("text with a sample without a time")
        with np.errstate(over="ignore"):
            steps, seconds = np.diff(times), (times - times[:1]) * unit_s
        if (steps < 0.0).any():
            raise SeriesFileError("text whose times do not rise")
        if not (seconds <= _LONGEST_S).all():
            raise SeriesFileError(f"text whose times span more than {_LONGEST_S:.0e} s; is its unit right?")
        last = np.append(steps > 0.0, True)[: len(times)]
        self.times_s = seconds[last]
        steps_s = np.diff(self.times_s)
        self.rate_hz = 1.0 / max(float(np.median(steps_s)), 1.0 / _HIGHEST_HZ) if len(steps_s) else None
        return np.delete(table[last], column, axis=1)


def _line(file: BinaryIO, number: int) -> str:
    data = file.readline(_LINE_BYTES)
    if len(data) == _LINE_BYTES:
        raise SeriesFileError(f"text whose line {number} has {_LINE_BYTES} bytes or more")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SeriesFileError(f"text whose line {number} is not UTF-8") from None


def _number(cell: str) -> float | None:
    """Parse a cell: NaN where a value is missing, None for what is no number."""
    cell = cell.strip()
    try:
        return float(cell)
    except ValueError:
        return _NAN if cell.strip('"').lower() in _MISSING else None
