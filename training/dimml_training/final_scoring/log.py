"""The log of every scoring of the sealed families: JSON lines, kept in the repository beside what was scored.

A line ``begun`` is written before clips are damaged, a line ``scored`` after the cells are there. What has been scored
is never scored again; what was only begun, because the process was killed, may go on as it was begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dimml.errors import SetupError

LOG: Final = "final.jsonl"


class Entry(BaseModel):
    """One training, and the methods that were scored on it under the families of one seal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: Literal["begun", "scored"]
    #: UTC, as in cells.
    date: str
    commit: str | None
    dirty: bool | None
    #: SHA-256 of the list of hashes of the families' files.
    seal: str
    split: str
    data: str
    data_digest: str
    repeat: int
    methods: tuple[str, ...]
    training: str
    config_hash: str
    versions: dict[str, str]
    #: SHA-256 of each cell, by path under the results folder; empty while begun.
    cells: dict[str, str] = {}

    def is_of(self, other: Entry) -> bool:
        """Whether both are of the same clips and repeat under the same families, however they were trained."""
        same_data = self.data == other.data or self.data_digest == other.data_digest
        return same_data and (self.seal, self.split, self.repeat) == (other.seal, other.split, other.repeat)


def read_log(path: Path) -> list[Entry]:
    """Read all entries; none if there is no log yet. Raises SetupError that names the line which is not an entry."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(Entry.model_validate_json(line))
        except ValidationError as error:
            raise SetupError(
                f"{path}, line {number}, is no entry of the log of final scorings; restore it from version control"
            ) from error
    return found


def append(path: Path, entry: Entry) -> None:
    """Add an entry at the end. Raises SetupError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(entry.model_dump_json() + "\n")
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}") from error


def scored_before(entries: Sequence[Entry], wanted: Entry) -> dict[str, Entry]:
    """Of the methods of ``wanted``, those that were scored, each with the entry that says so."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.event == "scored" and entry.is_of(wanted):
            found |= {method: entry for method in entry.methods if method in wanted.methods}
    return found


def begun_otherwise(entries: Sequence[Entry], wanted: Entry) -> tuple[int, Entry] | None:
    """The first line, from 1, that began methods of ``wanted`` which are not scored yet with anything else than it has.

    Training, config and commit count: whatever was begun may have shown how it does before it was killed.
    """
    left = set(wanted.methods) - scored_before(entries, wanted).keys()
    same = (wanted.training, wanted.config_hash, wanted.commit)
    for number, entry in enumerate(entries, start=1):
        begun = entry.event == "begun" and entry.is_of(wanted) and left.intersection(entry.methods)
        if begun and (entry.training, entry.config_hash, entry.commit) != same:
            return number, entry
    return None
