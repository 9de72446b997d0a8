"""Counts of rows by status and error; and the exit code that follows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self, get_args

import pyarrow as pa

from dimml_client.scoring.table.rows import Row
from dimml_client.scoring.table.schema import AGGREGATE

FailOn = Literal["error", "degraded", "never"]
FAIL_ON: Final[tuple[FailOn, ...]] = get_args(FailOn)
#: Some rows match ``--fail-on``.
EXIT_ROWS: Final = 3


@dataclass
class Summary:
    """Counts of rows; aggregates are not counted, since their windows are."""

    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    degraded: int = 0
    #: By modality, then by status with its reason.
    statuses: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, row: Row, modalities: tuple[str, ...]) -> None:
        """Count one row."""
        if row.get("kind") == AGGREGATE:
            return
        self.rows += 1
        self.degraded += row.get("degraded") is True
        error = row.get("error")
        if isinstance(error, str):
            self.errors[error] += 1
        for name in modalities:
            status = row.get(f"{name}_status")
            if isinstance(status, str):
                self.statuses.setdefault(name, Counter())[status] += 1

    def add_batch(self, batch: pa.RecordBatch, modalities: tuple[str, ...]) -> None:
        """Count the rows of a batch of the table."""
        wanted = ["kind", "degraded", "error", *(f"{name}_status" for name in modalities)]
        for row in batch.select(wanted).to_pylist():
            self.add(row, modalities)

    @property
    def failed(self) -> int:
        """Rows without an answer."""
        return self.errors.total()

    def exit_code(self, fail_on: FailOn) -> int:
        """Return 0, or 3 if there are rows that ``fail_on`` names."""
        failed = self.failed if fail_on != "never" else 0
        if fail_on == "degraded":
            failed += self.degraded
        return EXIT_ROWS if failed else 0

    def as_dict(self) -> dict[str, Any]:
        """Convert to a dictionary for ``--json`` and for the table's metadata."""
        return {
            "rows": self.rows,
            "answered": self.rows - self.failed,
            "degraded": self.degraded,
            "errors": dict(self.errors.most_common()),
            "statuses": {name: dict(counts.most_common()) for name, counts in self.statuses.items()},
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Build from a dictionary of ``as_dict``."""
        return cls(
            rows=found["rows"],
            errors=Counter(found["errors"]),
            degraded=found["degraded"],
            statuses={name: Counter(counts) for name, counts in found["statuses"].items()},
        )
