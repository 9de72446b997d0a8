"""Finished cells of a comparison in one file per data set, for version control.

::

    <out>/cells/<data>.jsonl.gz                      packed: a line per cell
    <out>/cells/<data>/<method>__<repeat>.json       loose, as ``dimml compare`` writes them; overrides a packed one

Packing loses nothing: ``unpack`` writes the files that ``write_cell`` wrote. The same cells give the same bytes.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from dimml.errors import SetupError
from dimml.system.files import write_atomically
from dimml_training.compare.cells import CELLS, Cell, cell_path, read_cell, write_cell

SUFFIX = ".jsonl.gz"


def packed_path(out: Path, data: str) -> Path:
    """Path of the packed cells of one data set."""
    return out / CELLS / f"{data}{SUFFIX}"


def read_cells(out: Path) -> Iterator[Cell]:
    """Read every cell under ``out``, packed or loose, by data set and then by file name.

    Raises SetupError that names the file which cannot be read.
    """
    for data in _data_sets(out):
        yield from _cells(out, data)


def find_cell(out: Path, data: str, method: str, repeat: int) -> Cell | None:
    """Find one cell, or return None. Raises SetupError that names the file which cannot be read."""
    loose = cell_path(out, data, method, repeat)
    if loose.is_file():
        return read_cell(loose)
    line = _packed_lines(out, data).get(loose.name)
    return None if line is None else _parse(line, packed_path(out, data))


def pack(out: Path) -> list[Path]:
    """Pack all loose cells under ``out`` together with those packed before; return the files written.

    A loose file is removed once its cell has been read back from the packed one. Not to be called while
    ``dimml compare`` writes to ``out``. Raises SetupError naming the file that cannot be read or written.
    """
    written = []
    for data in _data_sets(out):
        loose = sorted((out / CELLS / data).glob("*.json"))
        if not loose:
            continue
        cells = list(_cells(out, data))
        _write(packed_path(out, data), cells)
        kept = {cell_path(out, data, cell.method, cell.repeat).name: cell for cell in _packed(out, data)}
        for path in loose:
            if kept.get(path.name) == read_cell(path):
                path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        written.append(packed_path(out, data))
    return written


def unpack(out: Path, to: Path) -> list[Path]:
    """Write every packed cell under ``out`` as a loose one under ``to``; return the files written."""
    return [write_cell(to, cell) for data in _data_sets(out) for cell in _packed(out, data)]


def _data_sets(out: Path) -> list[str]:
    packed = {path.name.removesuffix(SUFFIX) for path in (out / CELLS).glob(f"*{SUFFIX}")}
    return sorted(packed | {path.parent.name for path in (out / CELLS).glob("*/*.json")})


def _cells(out: Path, data: str) -> Iterator[Cell]:
    lines = _packed_lines(out, data)
    loose = {path.name: path for path in (out / CELLS / data).glob("*.json")}
    for name in sorted(lines.keys() | loose.keys()):
        yield read_cell(loose[name]) if name in loose else _parse(lines[name], packed_path(out, data))


def _packed(out: Path, data: str) -> Iterator[Cell]:
    path = packed_path(out, data)
    for line in _packed_lines(out, data).values():
        yield _parse(line, path)


def _packed_lines(out: Path, data: str) -> Mapping[str, bytes]:
    """Lines of a packed file by the name of the loose file; empty if the packed file does not exist."""
    path = packed_path(out, data)
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unreadable(path) from error
    return _lines_of(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)  # `dimml compare` asks cell by cell, and again while it waits for other processes.
def _lines_of(path: Path, mtime_ns: int, size: int) -> Mapping[str, bytes]:
    found = {}
    try:
        for line in gzip.decompress(path.read_bytes()).splitlines():
            head = json.loads(line)
            found[cell_path(path.parent, head["data"], head["method"], head["repeat"]).name] = line
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise _unreadable(path) from error
    return found


def _parse(line: bytes, path: Path) -> Cell:
    try:
        return Cell.model_validate_json(line)
    except ValidationError as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> SetupError:
    return SetupError(f"{path} is no file of packed cells; restore it from version control, or delete it")


def _write(path: Path, cells: Iterable[Cell]) -> None:
    lines = (json.dumps(cell.document(), separators=(",", ":")) for cell in cells)
    text = "".join(f"{line}\n" for line in lines)
    try:
        write_atomically(path, gzip.compress(text.encode(), 9, mtime=0))
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from error
