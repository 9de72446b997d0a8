"""From a table to a first config: inspect, decode a sample, choose sizes, measure, write."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from dimml.errors import ConfigurationError, DataError
from dimml.system.cores import usable_cores
from dimml.system.files import StrPath
from dimml_training.config import SPLITS, Split, TrainConfig, parse_config
from dimml_training.first_config.columns import MEDIA_ENDINGS, InspectedTable, inspect_table
from dimml_training.first_config.media_sample import (
    DecodedSample,
    MediaSample,
    decode_as_training,
    sample_media,
    sample_rows,
)
from dimml_training.first_config.rows import LeftOut, UsableRow, check_splits, usable_rows, with_splits
from dimml_training.first_config.sizes import Sizes, choose_sizes
from dimml_training.first_config.text import Described, config_text
from dimml_training.recipes.table import write_whole

if TYPE_CHECKING:
    from dimml_training.data.prepare import Progress
    from dimml_training.first_config.estimate import Estimate

#: Fewest epochs to which a training is shortened for its time.
LEAST_EPOCHS: Final = 10


@dataclass(frozen=True)
class FirstConfig:
    """What was found and written. ``rows`` are those that will be trained on."""

    table: InspectedTable
    config_path: Path
    config: TrainConfig
    #: The table written beside the config, if the given one cannot be trained on as it is.
    own_table: Path | None
    rows: Sequence[UsableRow]
    left_out: Sequence[LeftOut]
    left_out_path: Path | None
    #: Whether rows got a split here.
    splits_made: bool
    media: MediaSample
    sizes: Sizes
    estimate: Estimate
    warnings: Sequence[str]

    def clips(self, split: Split) -> int:
        """Number of rows of a split."""
        return sum(row.split == split for row in self.rows)


def write_first_config(
    table_path: StrPath,
    out: StrPath | None = None,
    *,
    label: str | None = None,
    media_root: StrPath | None = None,
    minutes: float = 30.0,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> FirstConfig:
    """Look at a table and write a config for it that ``dimml train`` takes as it stands.

    ``label`` is the column of the class, ``media_root`` the folder of the media, where the table leaves doubt. A
    training that would take longer than ``minutes`` gets fewer epochs. If rows cannot be used, or have no split, a
    table of those that can is written beside the config, and what was left out beside it.

    Raises DataError for a table without enough usable rows, ConfigurationError if several columns may be the class, or
    a file is in the way.
    """
    path = Path(table_path)
    table = inspect_table(path, label=label, media_root=None if media_root is None else Path(media_root))
    name = run_name(path)
    config_path = Path(f"{name}.yaml") if out is None else Path(out)
    beside = {what: config_path.with_suffix(f".{what}.csv") for what in ("clips", "left_out")}
    for target in (config_path, *beside.values()):
        if target.exists():
            raise ConfigurationError(f"{target} exists; remove it, or choose another name with --out", field="--out")
    rows, left_out = usable_rows(table)
    _some_usable(rows, left_out, path)
    placed = with_splits(rows)
    warnings = check_splits(placed, path)
    sampled = sample_rows(placed)
    tell(f"decoding {len(sampled)} of {len(placed)} clips")
    media = sample_media(sampled, table.columns.media, table.root, progress)
    train_clips = sum(row.split == "train" for row in placed)
    sizes = choose_sizes(
        media.columns,
        train_clips=train_clips,
        ranged=table.columns.start_s is not None,
        gpu=_gpu(),
        cores=usable_cores(),
    )
    if sizes.sound is None and sizes.pictures is None:
        raise DataError(f"most of the files that {path} names cannot be read", problems=_faults(media), field=str(path))
    config = _parsed(config_text(_described(name, table, path, placed, sizes), sizes), config_path)
    decoded = decode_as_training(config, sampled, table)
    unusable = {out.line for out in decoded.faults}
    usable = [row for row in rows if row.line not in unusable]
    left_out = sorted([*left_out, *decoded.faults], key=lambda one: one.line)
    _some_usable(usable, left_out, path)
    kept = placed
    if unusable:  # placed anew: of a small class, the one clip of a split may be among them
        kept = with_splits(usable)
        warnings = check_splits(kept, path)
        if len(sampled) < len(placed):
            warnings.append(
                f"{len(unusable)} of {len(sampled)} clips that were tried cannot be used; of the others `dimml train` "
                "will name such ones, to be taken out of the table"
            )
    own_table = beside["clips"] if left_out or kept != rows else None
    described = _described(name, table, own_table or path, kept, sizes, own=own_table is not None)
    config = _parsed(config_text(described, sizes), config_path)
    tell("measuring a few training steps")
    clips = {split: sum(row.split == split for row in kept) for split in SPLITS}
    measured = _estimate(config, decoded, clips, len(described.labels))
    if measured.seconds > 60.0 * minutes:
        spare_s = 60.0 * minutes - (measured.seconds - measured.stage1_s)
        epochs = max(LEAST_EPOCHS, min(sizes.epochs, int(spare_s / measured.epoch_s)))
        if epochs < sizes.epochs:
            warnings.append(
                f"{sizes.epochs} epochs would suit this data; {epochs} are set, for a training of some {minutes:g} min"
            )
            sizes = sizes.with_epochs(epochs)
            config = _parsed(config_text(described, sizes), config_path)
            measured = _estimate(config, decoded, clips, len(described.labels))
    remarks = [
        f"From {path}: {', '.join(f'{count} {split}' for split, count in clips.items())} clips.",
        f"Time on the machine it was written on: {measured.as_text()}.",
    ]
    if own_table is not None:
        _write_table(table, kept, own_table)
    if left_out:
        _write_left_out(left_out, beside["left_out"])
    write_whole(config_path, config_text(described, sizes, remarks).encode(), "--out")
    return FirstConfig(
        table=table,
        config_path=config_path,
        config=config,
        own_table=own_table,
        rows=kept,
        left_out=left_out,
        left_out_path=beside["left_out"] if left_out else None,
        splits_made=kept != usable,
        media=media,
        sizes=sizes,
        estimate=measured,
        warnings=warnings,
    )


def run_name(path: Path) -> str:
    """Name of a run for a table: its own, or its folder's where that is a word that any table may have."""
    general = {"labels", "clips", "table", "data", "manifest", "index", "metadata", "annotations", "train"}
    stem = path.resolve().parent.name if path.stem.lower() in general else path.stem
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    return re.sub(r"^[^a-z]+", "", name)[:63] or "mine"


def unlisted_files(table: InspectedTable) -> int:
    """Number of media files beside those of the table that it does not name."""
    named = {table.root / row.get(column, "") for _, row in table.lines for column in table.columns.media}
    folders = {path.parent for path in named}
    beside = {p for folder in folders if folder.is_dir() for p in folder.iterdir() if p.suffix.lower() in MEDIA_ENDINGS}
    return len(beside - named)


def _estimate(config: TrainConfig, decoded: DecodedSample, clips: Mapping[Split, int], classes: int) -> Estimate:
    from dimml_training.first_config.estimate import estimate

    return estimate(config, decoded.arrays, clips, classes, seconds_per_clip=decoded.seconds_per_clip)


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _some_usable(rows: Sequence[UsableRow], left_out: Sequence[LeftOut], path: Path) -> None:
    if not rows:
        raise DataError(
            f"{path} has no row that can be used for training",
            problems=[f"line {out.line}: {out.reason}" for out in left_out[:10]],
            field=str(path),
        )


def _faults(media: MediaSample) -> list[str]:
    return [
        f"line {line}: {', '.join(faults.values())}"
        for sample in media.columns.values()
        for line, faults in list(sample.faults.items())[:10]
    ]


def _described(
    name: str, table: InspectedTable, path: Path, rows: Sequence[UsableRow], sizes: Sizes, *, own: bool = False
) -> Described:
    columns = table.columns
    of = {"audio": sizes.sound, "visual": sizes.pictures}
    by_modality = {modality: size.column for modality, size in of.items() if size is not None}
    one = len(set(by_modality.values())) == 1
    given: dict[str, str] = {split: split if own else table.splits.get(split, split) for split in SPLITS}
    return Described(
        name=name,
        manifest=_as_written(path),
        media_root=_as_written(table.root),
        media=next(iter(by_modality.values())) if one else by_modality,
        label=columns.label,
        split=_split_column(table),
        splits=given,
        subject=columns.subject,
        start_s=columns.start_s,
        end_s=columns.end_s,
        labels=sorted({row.label for row in rows}),
    )


def _split_column(table: InspectedTable) -> str:
    """The table's own column, or a name that it does not use."""
    names = table.lines[0][1]
    return table.columns.split or next(name for name in ("split", "dimml_split") if name not in names)


def _as_written(path: Path) -> str:
    """A path as a config takes it: relative where it lies beneath the working directory."""
    here = Path.cwd()
    whole = path.resolve()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def _parsed(text: str, path: Path) -> TrainConfig:
    return parse_config(yaml.safe_load(text), str(path))


def _write_table(table: InspectedTable, rows: Sequence[UsableRow], out: Path) -> None:
    columns = table.columns
    written = []
    for row in rows:
        line = dict(zip(columns.media, row.files, strict=True))
        line |= {columns.label: row.label, _split_column(table): row.split or ""}
        if columns.subject is not None:
            line[columns.subject] = row.subject or ""
        if columns.start_s is not None and columns.end_s is not None:
            line |= {columns.start_s: str(row.start_s), columns.end_s: str(row.end_s)}
        written.append(line)
    _csv(written, out)


def _csv(rows: Sequence[Mapping[str, str]], out: Path) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_whole(out, text.getvalue().encode(), "--out")


def _write_left_out(left_out: Sequence[LeftOut], out: Path) -> None:
    _csv([{"line": str(one.line), "files": " ".join(one.files), "reason": one.reason} for one in left_out], out)


def reasons(left_out: Sequence[LeftOut]) -> Counter[str]:
    """Count rows by the reason for which they were left out, without the names of files."""
    return Counter("missing file" if out.reason.startswith("missing file") else out.reason for out in left_out)
