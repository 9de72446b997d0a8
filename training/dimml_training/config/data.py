"""Section ``data``: where the labelled clips are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dimml_training.config.base import SPLITS, Section, Split


class ColumnsConfig(Section):
    """Names of the clip table's columns."""

    media: str | dict[str, str] = Field(
        default="media", description="One column for a recording with every track, or one column per modality name."
    )
    label: str = Field(default="label", description="The class.")
    split: str = Field(default="split", description="The clip's split; see data.splits.")
    subject: str | None = Field(default=None, description="Who or what was recorded; used to find overlapping splits.")
    start_s: str | None = Field(default=None, description="Start of the clip in the recording, seconds.")
    end_s: str | None = Field(default=None, description="End of the clip in the recording, seconds.")

    @model_validator(mode="after")
    def _range_is_whole(self) -> ColumnsConfig:
        if (self.start_s is None) != (self.end_s is None):
            raise ValueError("start_s and end_s come together")
        return self


class DataConfig(Section):
    """Location and columns of the clip table, and how it is split."""

    manifest: str = Field(
        description="Table of clips, a CSV or Parquet file; ${VAR:-default} is expanded, and a relative path starts in "
        "the working directory. With {split} in its name, each split has tables of its own, and a glob names several."
    )
    media_root: str | None = Field(
        default=None, description="Folder that media paths are relative to; by default the folder of the clip table."
    )
    columns: ColumnsConfig = Field(default=ColumnsConfig(), description="Names of the clip table's columns.")
    margin_s: float = Field(default=0.0, ge=0.0, description="Seconds added before start_s and after end_s.")
    splits: dict[Split, str] = Field(
        default={split: split for split in SPLITS}, description="Names of the splits in the clip table."
    )
    labels: tuple[str, ...] | None = Field(
        default=None,
        min_length=2,
        description="Classes in output order; by default those of the train split, sorted; whole numbers by "
        "value, named classes of a Parquet file in their order.",
    )
    split_by: Literal["subject"] | None = Field(
        default=None, description="'subject': a subject in two splits is an error; otherwise it is a warning."
    )

    @model_validator(mode="after")
    def _fits(self) -> DataConfig:
        if set(self.splits) != set(SPLITS) or len(set(self.splits.values())) != len(SPLITS):
            raise ValueError("splits must give train, validation and test a name each, all different")
        if self.split_by == "subject" and self.columns.subject is None:
            raise ValueError("split_by: subject needs columns.subject")
        repeated = sorted({label for label in self.labels or () if (self.labels or ()).count(label) > 1})
        if repeated:
            raise ValueError(f"labels must be unique; more than once: {', '.join(repeated)}")
        if self.margin_s > 0.0 and self.columns.start_s is None:
            raise ValueError("margin_s needs columns.start_s and columns.end_s")
        return self
