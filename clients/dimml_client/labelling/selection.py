"""``selection.json``: what was chosen from a score table, and why. What comes back labelled is checked against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dimml.errors import ConfigurationError, DataError
from dimml.system.files import write_atomically
from dimml.validation import first_fault
from dimml_client.labelling.candidates import Candidates
from dimml_client.labelling.choosing import Choice, Reason

SELECTION_FILE: Final = "selection.json"


class Chosen(BaseModel):
    """One recording, or a range of it, to be labelled; ``key`` names it, once in a selection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    id: str
    parts: dict[str, str] = Field(min_length=1, description="Paths or URLs by modality, or media.")
    start_s: float | None = None
    end_s: float | None = None
    label: str = Field(description="The bundle's answer.")
    probability: float = Field(ge=0.0, le=1.0)
    reason: Reason

    @property
    def random(self) -> bool:
        """Whether it was drawn by lot."""
        return self.reason == "random"


class Selection(BaseModel):
    """A whole selection, with the bundle whose answers it was made of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    bundle: str
    version: int
    labels: tuple[str, ...] = Field(min_length=2)
    seed: int
    random_share: float = Field(ge=0.0, le=1.0)
    chosen: tuple[Chosen, ...]

    @model_validator(mode="after")
    def _unique(self) -> Selection:
        twice = [key for key, count in Counter(one.key for one in self.chosen).items() if count > 1]
        if twice:
            raise ValueError(f"chosen names {twice[0]!r} twice")
        return self

    @property
    def reasons(self) -> Counter[str]:
        """How many were chosen, by reason."""
        return Counter(one.reason for one in self.chosen)


def selection_of(candidates: Candidates, choices: Sequence[Choice], *, random_share: float, seed: int) -> Selection:
    """Make the record of what was chosen."""
    chosen = []
    for choice in choices:
        row = candidates.rows[choice.place]
        chosen.append(
            Chosen(
                key=row.key,
                id=row.id,
                parts=dict(row.parts),
                start_s=row.start_s,
                end_s=row.end_s,
                label=row.label,
                probability=min(1.0, max(0.0, row.probability)),
                reason=choice.reason,
            )
        )
    return Selection(
        bundle=candidates.bundle,
        version=candidates.version,
        labels=candidates.labels,
        seed=seed,
        random_share=random_share,
        chosen=tuple(chosen),
    )


def write_selection(path: Path, selection: Selection) -> None:
    """Write a selection. Raises ConfigurationError if it cannot be written."""
    try:
        write_atomically(path, (selection.model_dump_json(indent=1) + "\n").encode())
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}", field="--out") from error


def read_selection(path: Path) -> Selection:
    """Read a selection. Raises DataError that names the field at fault."""
    try:
        return Selection.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", field=str(path)) from error
    except ValidationError as error:
        where, fault = first_fault(error, "the document")
        raise DataError(f"{path}: {where}: {fault}", field=where) from error
