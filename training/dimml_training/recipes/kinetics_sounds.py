"""Kinetics-Sounds (Arandjelović and Zisserman 2017): the classes of Kinetics-400 that can be both seen and heard.

Layout: the official ``train.csv``, ``validate.csv`` (or ``val.csv``) and, if you have it with labels, ``test.csv``,
with columns label, youtube_id, time_start, time_end, split; and clips ``{youtube_id}_{start:06d}_{end:06d}.mp4`` (or
``.mkv``, ``.webm``) in any folders beneath the root.

The 34 classes of 2017 were named after a draft of Kinetics; 31 of them are in the published Kinetics-400, and these are
commonly used. Another list can be given.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dimml.errors import DataError
from dimml_training.recipes.splitting import hold_out
from dimml_training.recipes.table import Listing, Row, folder, read_csv, read_lines

CLASSES = (
    "blowing nose",
    "blowing out candles",
    "bowling",
    "chopping wood",
    "dribbling basketball",
    "laughing",
    "mowing lawn",
    "playing accordion",
    "playing bagpipes",
    "playing bass guitar",
    "playing clarinet",
    "playing drums",
    "playing guitar",
    "playing harmonica",
    "playing keyboard",
    "playing organ",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin",
    "playing xylophone",
    "ripping paper",
    "shoveling snow",
    "shuffling cards",
    "singing",
    "stomping grapes",
    "tap dancing",
    "tapping guitar",
    "tapping pen",
    "tickling",
)
SUFFIXES = {".mp4", ".mkv", ".webm"}
VALIDATION_SHARE = 0.1
_COLUMNS = ("label", "youtube_id", "time_start", "time_end")


def list_kinetics_sounds(
    root: Path, *, annotations: Path | None = None, classes: Path | None = None, seed: int = 0
) -> Listing:
    """List one row per clip of the classes: ``media`` beneath root, label, split, and the video as ``subject``.

    ``annotations`` is the folder of the CSV files, by default root; ``classes`` a file with a class per line. With a
    labelled test.csv the official splits are taken as they are; without it, the official validation split becomes the
    test split and 10 % of each class's training clips become the validation split.
    Raises DataError if a file cannot be read, or a class has no clip.
    """
    lists = root if annotations is None else annotations
    wanted: Sequence[str] = CLASSES if classes is None else read_lines(classes, "the classes")
    files = {path.stem: path for path in sorted(folder(root).rglob("*")) if path.suffix.lower() in SUFFIXES}
    sources = {"train": lists / "train.csv", "validation": _existing(lists, ("validate.csv", "val.csv"))}
    if (lists / "test.csv").is_file():
        sources["test"] = lists / "test.csv"
    rows = [row for split, path in sources.items() for row in _rows(path, split, wanted, root, files)]
    warnings = []
    if "test" not in sources:
        for row in rows:
            row["split"] = "test" if row["split"] == "validation" else "train"
        hold_out(rows, VALIDATION_SHARE, seed=seed)
        warnings.append("no test.csv: the official validation split is the test split, validation is taken from train")
    lacking = sorted(set(wanted) - {row["label"] for row in rows})
    if lacking:
        raise DataError(f"{lists}: no clip of class {', '.join(map(repr, lacking))}", field="--annotations")
    return Listing(rows, ["media"], warnings)


def _rows(path: Path, split: str, wanted: Sequence[str], root: Path, files: dict[str, Path]) -> list[Row]:
    rows: list[Row] = []
    for line in read_csv(path, "an annotation of Kinetics", _COLUMNS):
        label = line["label"]
        if label not in wanted:
            continue
        try:
            name = f"{line['youtube_id']}_{int(line['time_start']):06d}_{int(line['time_end']):06d}"
        except ValueError as error:
            raise DataError(f"{path}: bad times of {line['youtube_id']}", field=str(path)) from error
        file = files.get(name)
        media = f"{split}/{label}/{name}.mp4" if file is None else str(file.relative_to(root))
        rows.append({"media": media, "label": label, "split": split, "subject": line["youtube_id"]})
    return rows


def _existing(folder_of: Path, names: Sequence[str]) -> Path:
    """Path of the first of the files that exists, or of the first one if none does."""
    return next((folder_of / name for name in names if (folder_of / name).is_file()), folder_of / names[0])
