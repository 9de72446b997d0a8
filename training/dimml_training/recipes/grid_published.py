"""GRID corpus as it is published: recordings ``*.mpg`` and word alignments ``*.align`` of one talker or of several.

The archives unpack to different folders, so both kinds of files are looked for anywhere beneath root, and paired by
talker (the folder ``s1`` to ``s34``, if there is one on the way) and name. A name such as ``bbaf2n`` spells the
sentence: command, colour, preposition, letter, digit, adverb. An alignment has a line for each word, such as
``23750 29500 bin``: its first and last moment in 1/25000 s, the clock of the corpus's sound.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Final

from dimml.errors import DataError
from dimml_training.recipes.splitting import hold_out
from dimml_training.recipes.table import Listing, Row, folder, read_lines

#: Words of a sentence, in order.
SENTENCE: Final = ("command", "colour", "preposition", "letter", "digit", "adverb")
#: Stands for every word of a sentence, each a row of its own.
ALL_WORDS: Final = "all"
#: Moments of alignments in a second.
CLOCK_HZ: Final = 25_000
#: Shares of each class that test and validate; the corpus has no published split.
TEST_SHARE: Final = 0.15
VALIDATION_SHARE: Final = 0.15
_NAME: Final = re.compile(r"[blps][bgrw][abiw][a-z][z1-9][anps]")
_TALKER: Final = re.compile(r"s\d{1,2}")
#: Characters of names that are not their word's first letter.
_CODES: Final = {
    word: str(number)
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), start=1)
}
#: What an alignment calls a pause.
_PAUSES: Final = frozenset({"sil", "sp"})


def list_published_grid(root: Path, word: str, *, seed: int = 0) -> Listing:
    """List one row per clip: ``media`` beneath root, the word, its times, and ``split``; with ``all`` one per word.

    Of each class about 15 % of the clips are the test split and 15 % of the others validate, by ``seed``; all words of
    a sentence are in one split. A clip without an alignment is left out with a warning. Raises DataError if there is no
    clip, or if an alignment is malformed or belongs to another sentence than its name.
    """
    videos, alignments = (_by_clip(folder(root), root, suffix) for suffix in ("mpg", "align"))
    wanted = slice(None) if word == ALL_WORDS else slice(SENTENCE.index(word), SENTENCE.index(word) + 1)
    rows: list[Row] = [
        {
            "media": str(videos[clip].relative_to(root)),
            "label": label,
            "split": "train",
            "start_s": f"{start_s:g}",
            "end_s": f"{end_s:g}",
        }
        for clip in sorted(videos.keys() & alignments.keys())
        for label, start_s, end_s in _words(alignments[clip], clip[1])[wanted]
    ]
    if not rows:
        raise DataError(
            f"beneath {root} there is neither a labels.csv nor a pair of NAME.mpg and NAME.align; see docs/data.md",
            field="--root",
        )
    by = "media" if word == ALL_WORDS else None
    hold_out(rows, TEST_SHARE, seed=seed, by=by)
    for row in rows:
        if row["split"] == "validation":
            row["split"] = "test"
    hold_out(rows, VALIDATION_SHARE, seed=seed + 1, by=by)
    return Listing(rows, ["media"], _warnings(videos.keys(), alignments.keys()))


def _warnings(videos: Set[tuple[str, str]], alignments: Set[tuple[str, str]]) -> list[str]:
    warnings = []
    unaligned = sorted(name for _, name in videos - alignments)
    if unaligned:
        warnings.append(f"{len(unaligned)} clips have no alignment and are left out, such as {unaligned[0]}")
    talkers = {talker for talker, _ in videos & alignments}
    if len(talkers) > 1:
        warnings.append(
            f"clips of each of the {len(talkers)} talkers are in all splits: figures are not of new talkers"
        )
    return warnings


def _by_clip(top: Path, root: Path, suffix: str) -> Mapping[tuple[str, str], Path]:
    """Map talker and name to the file of each sentence."""
    found: dict[tuple[str, str], Path] = {}
    for path in sorted(top.rglob(f"*.{suffix}")):
        if _NAME.fullmatch(path.stem):
            talkers = [part for part in path.relative_to(root).parts[:-1] if _TALKER.fullmatch(part)]
            found.setdefault((talkers[-1] if talkers else "", path.stem), path)
    return found


def _words(path: Path, name: str) -> list[tuple[str, float, float]]:
    """Read the six words of an alignment with their first and last second."""
    words: list[tuple[str, float, float]] = []
    for line in read_lines(path, "an alignment of GRID"):
        parts = line.split()
        if len(parts) != 3 or not (parts[0].isdigit() and parts[1].isdigit()) or int(parts[0]) >= int(parts[1]):
            raise DataError(f"{path}: {line!r} is not like '23750 29500 bin'", field=str(path))
        if parts[2] not in _PAUSES:
            words.append((parts[2], int(parts[0]) / CLOCK_HZ, int(parts[1]) / CLOCK_HZ))
    spelt = "".join(_CODES.get(word, word[:1]) for word, _, _ in words)
    if len(words) != len(SENTENCE) or spelt != name:
        raise DataError(f"{path}: {' '.join(w for w, _, _ in words)!r} is not the sentence {name}", field=str(path))
    return words
