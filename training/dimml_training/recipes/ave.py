"""AVE, Audio-Visual Event Localization (Tian et al. 2018): 4143 events of 28 kinds in ten-second clips.

Layout: ``AVE/{video}.mp4``, and ``trainSet.txt``, ``valSet.txt``, ``testSet.txt`` with lines
``Church bell&---zaDCTaE&good&0&10``: class, video, quality, first and last second of the event. ``Annotations.txt``
holds all of them below a header line; it is compared with the three lists.
"""

from __future__ import annotations

from pathlib import Path

from dimml.errors import DataError
from dimml_training.recipes.table import Listing, Row, read_lines

LISTS = {"train": "trainSet.txt", "validation": "valSet.txt", "test": "testSet.txt"}


def list_ave(root: Path, *, lists: Path | None = None) -> Listing:
    """List one row per event: ``media`` beneath root, label, split, ``start_s``, ``end_s``, the video as ``subject``.

    ``lists`` is the folder of the official lists, by default root.
    Raises DataError if a list cannot be read or has a malformed line.
    """
    lists = root if lists is None else lists
    rows: list[Row] = []
    for split, name in LISTS.items():
        for label, video, start_s, end_s in _events(lists / name):
            rows.append(
                {
                    "media": f"AVE/{video}.mp4",
                    "label": label,
                    "split": split,
                    "subject": video,
                    "start_s": start_s,
                    "end_s": end_s,
                }
            )
    return Listing(rows, ["media"], [*_unlisted(lists, rows), *_shared(rows)])


def _events(path: Path) -> list[tuple[str, str, str, str]]:
    """Class, video, first and last second of every line."""
    events = []
    for line in read_lines(path, "a list of AVE"):
        # Names of classes may contain commas, names of videos dashes: & is the only separator.
        parts = line.split("&")
        if len(parts) != 5 or not (parts[3].isdigit() and parts[4].isdigit()) or int(parts[3]) >= int(parts[4]):
            raise DataError(f"{path}: {line!r} is not like 'Church bell&---zaDCTaE&good&0&10'", field=str(path))
        events.append((parts[0], parts[1], parts[3], parts[4]))
    return events


def _unlisted(lists: Path, rows: list[Row]) -> list[str]:
    path = lists / "Annotations.txt"
    if not path.is_file():
        return []
    videos = {line.split("&")[1] for line in read_lines(path, "the annotations")[1:] if line.count("&") == 4}
    unlisted = sorted(videos - {row["subject"] for row in rows})
    return [f"{len(unlisted)} videos of Annotations.txt are in no list, such as {unlisted[0]}"] if unlisted else []


def _shared(rows: list[Row]) -> list[str]:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["subject"], set()).add(row["split"])
    shared = sorted(video for video, found in splits.items() if len(found) > 1)
    if not shared:
        return []
    return [f"{len(shared)} videos stand in more than one of the official lists, such as {shared[0]}"]
