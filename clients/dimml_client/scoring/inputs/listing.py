"""Listing of the recordings named on the command line: one entry for each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from dimml.errors import DataError
from dimml_client.scoring.inputs import manifest
from dimml_client.scoring.inputs.locations import GLOB, filesystem, is_url, suffix
from dimml_client.scoring.recording import MEDIA_PART, Recording

#: Endings of files in a folder that are not recordings: tables may lie beside them; hidden files are skipped too.
_NO_RECORDINGS: Final = manifest.SUFFIXES | {".json"}
#: How many problems an error lists.
_SPELT_OUT: Final = 10
_BATCH: Final = 1024
_PATH: Final = "path_"
#: Columns that only a listing has in which a recording's track is named: others keep the form, and the hash, they had.
_TRACKS: Final = ("audio_track", "video_track")


@dataclass(frozen=True, slots=True)
class Listing:
    """Recordings in order, stored as a table so that a million of them take little memory.

    Its columns are ``id``, ``path``, ``path_<modality>``, ranges, ``truth`` and ``problem``. ``repeated`` counts the
    entries that name a recording and range again.
    """

    table: pa.Table
    repeated: int = 0

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def own_files(self) -> tuple[str, ...]:
        """Modalities with files of their own."""
        return tuple(n.removeprefix(_PATH) for n in self.table.column_names if n.startswith(_PATH))

    @property
    def labelled(self) -> bool:
        """Whether any recording has a label."""
        return bool(self.table.column("truth").null_count < self.table.num_rows)

    def recordings(self, first: int = 0) -> Iterator[Recording]:
        """Iterate over the recordings from index ``first`` on."""
        index = first
        for batch in self.table.slice(first).to_batches(max_chunksize=_BATCH):
            for row in batch.to_pylist():
                yield recording_of(index, row)
                index += 1


def recording_of(index: int, row: Mapping[str, Any]) -> Recording:
    """Make the recording of one row of a listing's table."""
    parts = {MEDIA_PART: row["path"]} if row["path"] else {}
    parts |= {name.removeprefix(_PATH): path for name, path in row.items() if name.startswith(_PATH) and path}
    tracks = {name: row.get(name) for name in _TRACKS}
    return Recording(index, row["id"], parts, row["start_s"], row["end_s"], row["truth"], row["problem"], **tracks)


def list_inputs(
    arguments: Sequence[str],
    columns: Mapping[str, str],
    root: str | None,
    audio_track: str | None = None,
    video_track: str | None = None,
) -> Listing:
    """List files, folders, globs, manifests and URLs in the given order; contents of a folder or glob by name.

    ``audio_track`` and ``video_track`` are those of recordings whose manifest names none. Raises DataError if an
    argument gives nothing, an id occurs twice, or a folder or manifest cannot be read.
    """
    names = ("id", "path", "start_s", "end_s", "truth", "problem", *_TRACKS)
    columns_out: dict[str, list[Any]] = {name: [] for name in names}
    own: dict[str, list[str | None]] = {}
    ids: dict[str, str] = {}
    places: Counter[object] = Counter()
    problems: list[str] = []
    repeated = 0
    for line, where in _lines(arguments, columns, root):
        tracks = (line.audio_track or audio_track, line.video_track or video_track)
        place = (tuple(sorted(line.parts.items())), line.start_s, line.end_s, *tracks)
        places[place] += 1
        repeated += places[place] == 2 if line.id is None else 0
        name = line.id or _default_id(line, places[place])
        if name in ids and line.id is not None:
            problems.append(f"{where} has the id {name!r} of {ids[name]}")
        while name in ids:
            name += "'"
        ids[name] = where
        for modality in line.parts:
            if modality != MEDIA_PART and modality not in own:
                own[modality] = [None] * len(columns_out["id"])
        for modality, paths in own.items():
            paths.append(line.parts.get(modality))
        for column, value in (
            ("id", name),
            ("path", line.parts.get(MEDIA_PART)),
            ("start_s", line.start_s),
            ("end_s", line.end_s),
            ("truth", line.label),
            ("problem", line.problem),
            *zip(_TRACKS, tracks, strict=True),
        ):
            columns_out[column].append(value)
    if problems:
        more = [f"and {len(problems) - _SPELT_OUT} more"] if len(problems) > _SPELT_OUT else []
        raise DataError("ids must be unique, a row is found by its id", problems=problems[:_SPELT_OUT] + more)
    if not columns_out["id"]:
        raise DataError(f"no recordings in {', '.join(arguments)}", field=arguments[0])
    for column in _TRACKS:
        if not any(columns_out[column]):
            del columns_out[column]
    floats = {"start_s", "end_s"}
    arrays = {n: pa.array(v, pa.float64() if n in floats else pa.string()) for n, v in columns_out.items()}
    arrays |= {_PATH + modality: pa.array(paths, pa.string()) for modality, paths in own.items()}
    return Listing(pa.table(arrays), repeated)


def _default_id(line: manifest.Line, count: int) -> str:
    name = " + ".join(dict.fromkeys(line.parts.values())) or f"line {line.number}"
    if line.start_s is not None or line.end_s is not None:
        name += f"@{line.start_s or 0.0:g}-{'' if line.end_s is None else f'{line.end_s:g}'}"
    name += "".join(f"@{track}" for track in (line.audio_track, line.video_track) if track is not None)
    return name if count == 1 else f"{name}#{count}"


def _lines(
    arguments: Sequence[str], columns: Mapping[str, str], root: str | None
) -> Iterator[tuple[manifest.Line, str]]:
    for argument in arguments:
        if suffix(argument) in manifest.SUFFIXES and not GLOB & set(argument):
            for line in manifest.read_lines(argument, columns, root):
                yield line, f"line {line.number} of {argument}"
            continue
        found = _in_store(argument) if is_url(argument) else _in_folders(argument)
        nothing = True
        for path in found:
            nothing = False
            yield manifest.Line(0, {MEDIA_PART: path}, None, None, None, None, None), path
        if nothing:
            raise DataError(f"no recordings in {argument}", field=argument)


def _in_folders(argument: str) -> Iterator[str]:
    path = Path(argument)
    if path.is_dir():
        yield from _walk(path)
    elif GLOB & set(argument) and not path.exists():
        for match in sorted(glob.glob(argument, recursive=True)):  # noqa: PTH207  # Path.glob takes no absolute pattern
            if Path(match).is_dir():
                yield from _walk(Path(match))
            elif _may_be_recording(Path(match).name):
                yield match
    else:
        # Even if it does not exist: its row then says so.
        yield argument


def _walk(folder: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise DataError(f"cannot read the folder {error.filename}: {error.strerror}", field=str(error.filename))

    for here, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (str(Path(here) / name) for name in sorted(files) if _may_be_recording(name))


def _may_be_recording(name: str) -> bool:
    return not name.startswith(".") and suffix(name) not in _NO_RECORDINGS


def _in_store(url: str) -> Iterator[str]:
    files, path = filesystem(url)
    try:
        if GLOB & set(path):
            found = _recordings_of(name for name in files.glob(path) if not files.isdir(name))
        elif files.isdir(path):
            found = _recordings_of(files.find(path))
        else:
            # Even if it does not exist: its row then says so.
            found = [path]
    except Exception as error:
        # Every store has exceptions of its own, without a common base.
        raise DataError(f"cannot list {url}: {type(error).__name__}: {error}", field=url) from error
    yield from (files.unstrip_protocol(name) for name in found)


def _recordings_of(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _may_be_recording(name.rpartition("/")[2]))
