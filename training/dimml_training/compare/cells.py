"""A cell: the scores of one method on one repeat, as a small JSON from which its clips can be resampled later.

::

    <out>/cells/<data>/<method>__<repeat>.json

``packed_cells`` reads them, from such files and from packed ones.

A cell has a bit for each clip, condition and draw: whether the clip was answered correctly. Intervals and paired
differences between any two methods therefore need no model and no data.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from dimml.errors import SetupError
from dimml.system.files import write_atomically

BoolArray = npt.NDArray[np.bool_]
CELLS = "cells"
#: Format of dates in cells, UTC; sorts as text.
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
#: Confidences are stored in steps of 1/65535.
CONFIDENCE_STEPS = 2**16 - 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConditionRecord(_Record):
    """One method under one condition of the test clips; metrics are means over draws."""

    group: str
    seen: bool
    in_means: bool
    draws: int
    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    confidence: float
    #: AUROC of the confidence as a predictor of a correct answer; null if all or none are correct.
    auroc: float | None
    #: Bits ``[draws, clips]``, 1 for a correct answer; packed, deflated, base64.
    right: str

    def right_by_draw(self, clips: int) -> BoolArray:
        """Whether the answers were correct, ``[draws, clips]``."""
        return unpack_bits(self.right, (self.draws, clips))


class Cell(_Record):
    """Scores of one method on one repeat, and where they come from."""

    schema_version: Literal[2] = 2
    data: str
    method: str
    description: str
    repeat: int
    #: Config fields set by the repeat.
    fields: dict[str, Any]
    seed: int
    #: Key of the training, data included: cells with the same key come from the same run.
    training: str
    #: SHA-256 of the weights that the training started from (``stage1.start_from``), if it did.
    started_from: str | None = None
    #: Key of all that the answer depends on: training, rule, suite of conditions, choice of fusion.
    answer: str
    #: Key of the conditions: a table has only cells of one suite.
    suite: str
    config_hash: str
    data_digest: str
    commit: str | None
    dirty: bool | None
    trained_commit: str | None
    date: str
    seconds_training: float
    seconds_scoring: float
    modalities: tuple[str, ...]
    classes: int
    clips_train: int
    clips_validation: int
    clips: int
    #: Lines of the test clips in the clip table, uint32, deflated, base64: methods are paired by them.
    clip_lines: str
    versions: dict[str, str]
    #: Scores of the test clips by condition; clean comes first.
    conditions: dict[str, ConditionRecord]
    #: Accuracy on validation clips by condition, of single modalities (which one is better?) and of trials.
    validation: dict[str, float] | None = None
    #: Confidence of each clean answer, uint16 of 65535, deflated, base64.
    clean_confidence: str
    #: By head: AUROC of its certainty as a predictor of a correct vote, over clean and the development conditions in
    #: the means.
    certainty_auroc: dict[str, float | None] = {}
    #: Share of clean clips whose confidence rises when a modality is absent, by condition.
    confidence_rise: dict[str, float] = {}
    #: By conflict condition: AUROC of the disagreement, and mean confidence there.
    conflict: dict[str, dict[str, float]] = {}
    #: Report of the fusion that was chosen, if the method uses one.
    fusion: dict[str, Any] | None = None
    #: Bootstrap replicates by metric, float16, deflated, base64: see ``replicates``.
    replicates: dict[str, str]

    def document(self) -> dict[str, Any]:
        """The cell's fields as JSON; a cell that started from nothing is written as before there was that field."""
        return self.model_dump(mode="json", exclude={"started_from"} if self.started_from is None else None)

    def lines(self) -> npt.NDArray[np.uint32]:
        """Lines of the test clips in the clip table, ``[clips]``."""
        return np.frombuffer(_inflate(self.clip_lines), np.dtype("<u4"))

    def confidences(self) -> npt.NDArray[np.float64]:
        """Confidence of each clean answer, ``[clips]``, 0 to 1."""
        return np.frombuffer(_inflate(self.clean_confidence), np.dtype("<u2")) / CONFIDENCE_STEPS

    def samples(self, metric: str) -> npt.NDArray[np.float64] | None:
        """Bootstrap replicates of a metric, ``[S]``; None if this method does not have it."""
        text = self.replicates.get(metric)
        return None if text is None else np.frombuffer(_inflate(text), np.dtype("<f2")).astype(np.float64)


def cell_path(out: Path, data: str, method: str, repeat: int) -> Path:
    """Path of a loose cell."""
    return out / CELLS / data / f"{method.replace(':', '-')}__{repeat}.json"


def write_cell(out: Path, cell: Cell) -> Path:
    """Write a cell so that a reader never sees half of one. Raises SetupError."""
    return write_text(cell_path(out, cell.data, cell.method, cell.repeat), _text(cell))


def write_text(path: Path, text: str) -> Path:
    """Write a file of a comparison whole or not at all, even where processes beside this one write it, too.

    Raises SetupError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text.encode(), temporary=path.with_name(f".{path.name}.{os.getpid()}.part"))
    except OSError as error:
        raise SetupError(f"cannot write {path}: {error.strerror}; choose another place with --out") from error
    return path


def _text(cell: Cell) -> str:
    """JSON with a line per field and a line per condition: small, and a diff shows what changed."""
    document = cell.document()
    conditions = ",\n".join(f"  {json.dumps(name)}: {json.dumps(r)}" for name, r in document["conditions"].items())
    fields = {name: json.dumps(value) for name, value in document.items()}
    fields["conditions"] = f"{{\n{conditions}\n }}"
    return "{\n" + ",\n".join(f' "{name}": {text}' for name, text in fields.items()) + "\n}\n"


def read_cell(path: Path) -> Cell:
    """Read a cell. Raises SetupError naming the file if it is not a cell."""
    try:
        return Cell.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise SetupError(f"{path} is no cell of a comparison; delete it and it is made anew") from error


def pack_bits(bits: BoolArray) -> str:
    """Encode booleans of any shape as text; see ``unpack_bits``."""
    return _deflate(np.packbits(bits.reshape(-1)).tobytes())


def unpack_bits(text: str, shape: tuple[int, ...]) -> BoolArray:
    """Decode booleans of this shape from the text of ``pack_bits``."""
    flat = np.unpackbits(np.frombuffer(_inflate(text), np.uint8), count=int(np.prod(shape)))
    return flat.astype(np.bool_).reshape(shape)


def pack_lines(lines: npt.NDArray[np.integer[Any]]) -> str:
    """Encode line numbers as text."""
    return _deflate(lines.astype("<u4").tobytes())


def pack_confidences(confidences: npt.NDArray[np.floating[Any]]) -> str:
    """Encode numbers from 0 to 1 as text."""
    return _deflate(np.round(confidences.astype(np.float64) * CONFIDENCE_STEPS).astype("<u2").tobytes())


def pack_samples(samples_S: npt.NDArray[np.floating[Any]]) -> str:
    """Encode replicates as text, to three digits."""
    return _deflate(samples_S.astype("<f2").tobytes())


def _deflate(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode()


def _inflate(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))
