"""CREMA-D (Cao et al. 2014): 7442 clips of 91 actors, six emotions acted.

Layout: ``AudioWAV/{clip}.wav`` and ``VideoFlash/{clip}.flv``; a clip is called ActorID_Sentence_Emotion_Level, such as
``1001_DFA_ANG_XX``.

By default the actors are split, 70/15/15: no actor is in two splits. The lists on which the paper (and OGM-GE before
it) trains and tests, ``train.csv`` and ``test.csv`` with lines ``1041_TIE_NEU_XX,NEU``, have all 91 actors in both:
metrics on them say little about other people.
"""

from __future__ import annotations

import re
from pathlib import Path

from dimml.errors import DataError
from dimml_training.recipes.splitting import by_subject, hold_out
from dimml_training.recipes.table import Listing, Row, count_warning, folder, read_lines

#: Number of published clips.
CLIPS = 7442
SHARES = {"train": 0.7, "validation": 0.15, "test": 0.15}
#: Share of the paper's training list, which has no validation split.
VALIDATION_SHARE = 0.1
EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
_CLIP = re.compile(rf"(?P<actor>\d{{4}})_[A-Z]{{3}}_(?P<emotion>{'|'.join(EMOTIONS)})_[A-Z]{{2}}")


def list_crema_d(root: Path, *, seed: int = 0, paper_lists: Path | None = None) -> Listing:
    """List one row per clip: ``sound`` and ``video`` beneath root, label, split, and the actor as ``subject``.

    A clip with only one of its two files is listed, and the other file is later reported as missing. With
    ``paper_lists``, a folder that holds train.csv and test.csv, exactly the clips that they name are listed.
    Raises DataError if these cannot be read or have a malformed line.
    """
    if paper_lists is not None:
        return _paper(paper_lists, seed)
    sound, video = folder(root, "AudioWAV"), folder(root, "VideoFlash")
    found = {path.stem for path in (*sound.glob("*.wav"), *video.glob("*.flv"))}
    clips = {name: match for name in sorted(found) if (match := _CLIP.fullmatch(name)) is not None}
    split_of = by_subject([match["actor"] for match in clips.values()], SHARES, seed=seed)
    rows = [_row(name, match["actor"], match["emotion"], split_of[match["actor"]]) for name, match in clips.items()]
    ignored = sorted(found - set(clips))
    warnings = [f"{len(ignored)} files are not named as clips and left out, such as {ignored[0]}"] if ignored else []
    return Listing(rows, ["sound", "video"], warnings + count_warning(len(clips), CLIPS, "clips"))


def _paper(lists: Path, seed: int) -> Listing:
    rows: list[Row] = []
    for split in ("train", "test"):
        path = lists / f"{split}.csv"
        for line in read_lines(path, "the paper's list"):
            name, _, emotion = line.partition(",")
            match = _CLIP.fullmatch(name)
            if match is None or emotion != match["emotion"]:
                raise DataError(f"{path}: {line!r} is not like '1041_TIE_NEU_XX,NEU'", field=str(path))
            rows.append(_row(name, match["actor"], emotion, split))
    hold_out(rows, VALIDATION_SHARE, seed=seed)
    actors = [{row["subject"] for row in rows if row["split"] == split} for split in ("train", "test")]
    both = len(actors[0] & actors[1])
    return Listing(
        rows,
        ["sound", "video"],
        [
            f"{both} of {len(actors[0] | actors[1])} actors stand in both train and test of the paper's lists: figures "
            "say little about new people"
        ],
    )


def _row(name: str, actor: str, emotion: str, split: str) -> Row:
    return {
        "sound": f"AudioWAV/{name}.wav",
        "video": f"VideoFlash/{name}.flv",
        "label": EMOTIONS[emotion],
        "split": split,
        "subject": actor,
    }
