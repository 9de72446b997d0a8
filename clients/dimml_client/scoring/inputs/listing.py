"""Listing of the recordings named on the command line: one entry for each."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa

from dimml.errors import DataError, UnreadableError
from dimml_client.scoring.inputs import manifest
from dimml_client.scoring.inputs.archives import (
    NO_RECORDINGS,
    contents_of,
    ending_of,
    member,
    sample_key,
    scheme_of,
    whole_archive,
)
from dimml_client.scoring.inputs.cells import is_cell
from dimml_client.scoring.inputs.locations import GLOB, LINK, filesystem, in_words, is_url, suffix
from dimml_client.scoring.recording import MEDIA_PART, Recording

#: Endings of files in a folder that are not recordings: tables may lie beside them; hidden files are skipped too.
_NO_RECORDINGS: Final = manifest.SUFFIXES | {".json"}
#: Lists of arguments, one a line.
_LISTS: Final = frozenset({".txt", ".lst"})
#: How many problems an error lists.
_SPELT_OUT: Final = 10
_BATCH: Final = 1024
_PATH: Final = "path_"
#: Columns that only a listing has in which a recording's track is named: others keep the form, and the hash, they had.
_TRACKS: Final = ("audio_track", "video_track")

Found = TypeVar("Found")


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
    name = " + ".join(map(_shown, dict.fromkeys(line.parts.values()))) or f"line {line.number}"
    if line.start_s is not None or line.end_s is not None:
        name += f"@{line.start_s or 0.0:g}-{'' if line.end_s is None else f'{line.end_s:g}'}"
    name += "".join(f"@{track}" for track in (line.audio_track, line.video_track) if track is not None)
    return name if count == 1 else f"{name}#{count}"


def _shown(location: str) -> str:
    """Return a location as the command line names it."""
    archive = whole_archive(location)
    return location if archive is None else archive.removeprefix("file://")


def _lines(
    arguments: Iterable[str], columns: Mapping[str, str], root: str | None, *, listed: bool = False
) -> Iterator[tuple[manifest.Line, str]]:
    for argument in arguments:
        if suffix(argument) in _LISTS and not listed and not GLOB & set(argument):
            yield from _lines(manifest.read_list(argument, root), columns, root, listed=True)
            continue
        nothing = True
        for table in _tables(argument):
            for line in manifest.read_lines(table, columns, root):
                nothing = False
                yield line, f"line {line.number} of {table}"
        for path in _recordings_in(argument):
            for line in _in_archive(path, columns) if scheme_of(path) is not None else [_recording(path)]:
                nothing = False
                yield line, path
        if nothing:
            raise DataError(f"no recordings in {argument}", field=argument)


def _recording(path: str) -> manifest.Line:
    shown = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    problem = None if shown == path else f"the name of {shown} is not UTF-8; rename it"
    return manifest.Line(0, {MEDIA_PART: shown}, None, None, None, None, problem)


def _tables(argument: str) -> list[str]:
    """List the manifests that an argument names: itself, or what its glob finds."""
    if suffix(argument) not in manifest.SUFFIXES:
        return []
    if not GLOB & set(argument):
        return [argument]
    if is_url(argument):
        files, path = filesystem(argument)
        return sorted(_unstripped(files, name, argument) for name in _asked(argument, lambda: files.glob(path)))
    return sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern


def _recordings_in(argument: str) -> Iterable[str]:
    if suffix(argument) in manifest.SUFFIXES:
        return []
    if is_cell(argument):
        return [argument]
    if (archive := whole_archive(argument)) is not None:
        return [archive]
    return _in_store(argument) if is_url(argument) else _in_folders(argument)


def _in_archive(archive: str, columns: Mapping[str, str]) -> Iterator[manifest.Line]:
    """List the recordings of a tar or zip file, and one line more if it is damaged.

    ``--column path=mp4`` names the endings of a WebDataset sample's files, of which one line is made.
    """
    contents = contents_of(archive)
    names = [name for name in contents.names if _may_be_recording(name.rpartition("/")[2])]
    names = [name for name in names if ending_of(name).rpartition(".")[2] not in NO_RECORDINGS]
    endings = {theirs.lower(): ours for ours, theirs in columns.items() if ours == "path" or ours.startswith(_PATH)}
    samples: dict[str, dict[str, str]] = {}
    for name in names:
        ours = endings.get(ending_of(name), None if endings else "path")
        if ours is not None:
            key = sample_key(name) if endings else name
            part = MEDIA_PART if ours == "path" else ours.removeprefix(_PATH)
            samples.setdefault(key, {})[part] = member(archive, name)
    for key, parts in samples.items():
        label = contents.labels.get(key if endings else sample_key(key))
        yield manifest.Line(0, parts, None, None, None, label, None)
    if contents.error is not None:
        yield manifest.Line(0, {MEDIA_PART: member(archive, "")}, None, None, None, None, None)


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
    try:
        files, path = filesystem(url)
        if GLOB & set(path):
            found = _asked(url, lambda: _recordings_of(name for name in files.glob(path) if not files.isdir(name)))
        elif _asked(url, lambda: files.isdir(path)):
            found = _asked(url, lambda: _recordings_of(files.find(path)))
        else:
            # Even if it does not exist: its row then says so.
            found = [path]
    except UnreadableError:
        if GLOB & set(url):
            raise
        # A host or an archive that does not open: its row says so.
        yield url
        return
    yield from (_unstripped(files, name, url) for name in found)


def _asked(url: str, ask: Callable[[], Found]) -> Found:
    """Ask a store. Raises UnreadableError."""
    try:
        return ask()
    except Exception as error:
        # Every store has exceptions of its own, without a common base.
        raise UnreadableError(f"cannot list {url}: {in_words(error)}", field=url) from error


def _unstripped(files: Any, name: str, url: str) -> str:
    """Return the URL of a name that the store of ``url`` listed."""
    _, link, rest = url.partition(LINK)
    whole: str = files.unstrip_protocol(name)
    return f"{whole}{link}{rest}"


def _recordings_of(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if _may_be_recording(name.rpartition("/")[2]))
