"""Candidates for a label: the rows of a score table that have an answer and no label yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dimml.errors import DataError
from dimml_client.scoring.recording import MEDIA_PART
from dimml_client.scoring.table.formats import read_metadata, read_rows
from dimml_client.scoring.table.schema import WINDOW, probability_column, schema_of_table

FloatArray = npt.NDArray[np.float32]

#: Why rows are left out, as they are counted.
NO_ANSWER, LABELLED, CHOSEN_BEFORE = "no answer", "labelled", "chosen before"
PART_OF_AGGREGATE: Final = "windows of aggregates"
_OK: Final = "ok"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row of the table: a recording, or a range of it.

    ``parts`` are paths or URLs by modality, or ``media``; ``doubt`` is the probability, 0 to 1, that the answer gives
    to all other labels, and ``disagreement`` the chance that two modalities stand by different votes.
    """

    key: str
    id: str
    parts: Mapping[str, str]
    start_s: float | None
    end_s: float | None
    label: str
    probability: float
    doubt: float
    disagreement: float
    abstained: bool


@dataclass(frozen=True)
class Candidates:
    """N candidates of one bundle's answers.

    ``vectors_ND`` (FP32) places each by what it looks like to the bundle: the square roots of the answer's
    distribution and of each modality's own vote, scaled so that the distance of two is at most 1.
    ``left_out`` counts the rows that are none, by reason.
    """

    bundle: str
    version: int
    labels: tuple[str, ...]
    rows: tuple[Candidate, ...]
    vectors_ND: FloatArray
    left_out: Mapping[str, int]


def read_candidates(table: Path, chosen_before: Collection[str] = ()) -> Candidates:
    """Read the candidates of a finished score table, in its order; those with a key in ``chosen_before`` are left out.

    Where a table has aggregates, they stand for their windows. Raises DataError if dimml did not write the table, or no
    row is a candidate.
    """
    metadata = read_metadata(table)
    if metadata is None:
        raise DataError(
            f"{table} is not a table that `dimml score` finished: {_hint(table)}",
            field=str(table),
        )
    schema, bundle = schema_of_table(metadata), metadata["bundle"]
    labels, modalities = tuple(bundle["labels"]), tuple(bundle["modalities"])
    aggregated = bool(metadata.get("settings", {}).get("aggregate"))
    left_out: Counter[str] = Counter()
    found: list[Candidate] = []
    vectors: list[FloatArray] = []
    for row in _rows(table, schema):
        if aggregated and row["kind"] == WINDOW:
            left_out[PART_OF_AGGREGATE] += 1
            continue
        reason = _unfit(row)
        if reason is None:
            candidate = _candidate(row, modalities)
            if candidate.key not in chosen_before:
                found.append(candidate)
                vectors.append(_vector(row, labels, modalities))
                continue
            reason = CHOSEN_BEFORE
        left_out[reason] += 1
    if not found:
        why = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "it has no rows"
        raise DataError(f"{table} has nothing to choose from: {why}", field=str(table))
    return Candidates(bundle["name"], int(bundle["version"]), labels, tuple(found), np.stack(vectors), dict(left_out))


def _rows(table: Path, schema: pa.Schema) -> Iterator[Mapping[str, Any]]:
    try:
        yield from read_rows(table, schema)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DataError(f"cannot read {table}: {' '.join(str(error).split())}", field=str(table)) from error


def _hint(table: Path) -> str:
    if not table.exists():
        return "it does not exist"
    if table.suffix.lower() == ".parquet":
        return "its metadata has no entry dimml"
    return f"{table.name}.meta.json is missing beside it, or damaged"


def _unfit(row: Mapping[str, Any]) -> str | None:
    if row.get("label") is None:
        return NO_ANSWER
    return None if row.get("truth") is None else LABELLED


def _candidate(row: Mapping[str, Any], modalities: Sequence[str]) -> Candidate:
    probability = float(row["probability"])
    start_s, end_s = row.get("start_s"), row.get("end_s")
    own = {name: str(row[f"path_{name}"]) for name in modalities if row.get(f"path_{name}")}
    # Several files are joined in ``path``; a recording that holds all modalities stands there alone.
    parts = own or {MEDIA_PART: str(row["path"])}
    return Candidate(
        key=f"{row['id']}@{start_s:g}-{end_s:g}" if row["kind"] == WINDOW else str(row["id"]),
        id=str(row["id"]),
        parts=parts,
        start_s=start_s,
        end_s=end_s,
        label=str(row["label"]),
        probability=probability,
        doubt=min(1.0, max(0.0, 1.0 - probability)),
        disagreement=_disagreement(row, modalities),
        abstained=str(row.get("abstained")).lower() == "true",
    )


def _disagreement(row: Mapping[str, Any], modalities: Sequence[str]) -> float:
    votes = [(str(label), probability) for label, probability in _votes(row, modalities).values()]
    return max(
        (one[1] * other[1] for one, other in combinations(votes, 2) if one[0] != other[0]),
        default=0.0,
    )


def _votes(row: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, tuple[str, float]]:
    """Label and probability of each modality that is ok; gRPC carries none."""
    return {
        name: (str(row[f"{name}_label"]), float(row[f"{name}_probability"]))
        for name in modalities
        if row.get(f"{name}_status") == _OK
        and row.get(f"{name}_label") is not None
        and row.get(f"{name}_probability") is not None
    }


def _vector(row: Mapping[str, Any], labels: Sequence[str], modalities: Sequence[str]) -> FloatArray:
    """Place a row: the distance of two distributions' square roots is sqrt(2) times Hellinger's, at most sqrt(2)."""
    blocks = [[float(row.get(probability_column(label)) or 0.0) for label in labels]]
    votes = _votes(row, modalities)
    for name in modalities:
        block = [0.0] * len(labels)
        if name in votes and votes[name][0] in labels:
            label, probability = votes[name]
            # What a vote leaves is not known by label; spread evenly, it is the same for all that vote alike.
            block = [(1.0 - probability) / max(1, len(labels) - 1)] * len(labels)
            block[labels.index(label)] = probability
        blocks.append(block)
    vector = np.sqrt(np.maximum(np.array(blocks, np.float32), 0.0)).ravel()
    return np.asarray(vector / np.sqrt(np.float32(2 * len(blocks))), np.float32)
