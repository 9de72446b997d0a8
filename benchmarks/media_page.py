"""What ``media_matrix.py`` finds, as a page in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Final

from media_by_ffmpeg import run_ffmpeg
from media_pairs import Pair

#: What a figure is held against, and its unit.
EXPECTED: Final = {
    "length": ("of pictures 3 s, of sound what ffmpeg decodes of the same file", "ms"),
    "offset": ("the tone begins where ffmpeg decodes it", "ms"),
    "level": ("the tone is as loud as ffmpeg decodes it", "dB"),
    "pictures": ("at time t, the one numbered 25 t", "pictures"),
    "colour": ("as ffmpeg converts the same file, by channel", "of 255"),
}
#: Lengths are within a frame and this, a millisecond of rounding at either end; ``pictures`` within one.
BOUNDS: Final = {"length": 2.0, "offset": 10.0, "level": 1.0, "pictures": 1.01, "colour": 3.0}
#: Said of a file of which ffmpeg decodes nothing either.
UNREAD: Final = "the ffmpeg program decodes nothing of it"


@dataclass(frozen=True)
class Outcome:
    """What came of one pair: ``right``, ``refused`` or ``wrong``, the figures by their names, and faults or reason."""

    pair: Pair
    verdict: str
    words: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def page(outcomes: Sequence[Outcome]) -> str:
    """The results as a page in Markdown: a row for each container and track, then each wrong and refused pair."""
    found = Counter(outcome.verdict for outcome in outcomes)
    unread = sum(outcome.verdict == "refused" and UNREAD in outcome.words for outcome in outcomes)
    ffmpeg = run_ffmpeg("-version").stdout.decode().split()[2]
    lines = [
        "# Containers and codecs that were tried",
        "`python benchmarks/media_matrix.py --out docs/media_matrix.md` makes this page: every pair of container and",
        "codec of `benchmarks/media_pairs.py` that the ffmpeg program can write is written, decoded and compared.",
        f"Written by ffmpeg {ffmpeg}; read by PyAV {version('av')}, soundfile {version('soundfile')}, Pillow",
        f"{version('pillow')} and OpenCV {version('opencv-python-headless')}.",
        "",
        f"**{len(outcomes)} pairs: {found['right']} right, {found['refused']} refused, {found['wrong']} wrong.**",
        f"Of {unread} of those refused, the ffmpeg program itself decodes nothing.",
        "",
        "A clip of 3 s goes into every file: 75 numbered pictures at 25 per second, and silence for 1 s, then a tone",
        "of 1 kHz at -12 dBFS. Expected, and the bound within which a pair is right:",
        "",
        "| figure | expected | bound |",
        "|---|---|---|",
        *(
            f"| {name} | {expected} | {'a frame and ' * (name == 'length')}{BOUNDS[name]:g} {unit} |"
            for name, (expected, unit) in EXPECTED.items()
        ),
        "",
        "Orientation is part of it: `rotate90.mp4` and its like carry a display matrix, and pictures are read after",
        "the turn. The columns say the greatest deviation among the pairs that are right.",
        "",
        f"| container | track | right | {' | '.join(f'{name}, {unit}' for name, (_, unit) in EXPECTED.items())} |",
        f"|---|---|---|{'---|' * len(EXPECTED)}",
    ]
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.verdict == "right":
            groups.setdefault((outcome.pair.track, outcome.pair.ending), []).append(outcome)
    for (track, ending), right in sorted(groups.items(), key=lambda group: group[0][0], reverse=True):
        codecs = ", ".join(dict.fromkeys(outcome.pair.content for outcome in right))
        lines.append(f"| {ending} | {track} | {codecs} | {' | '.join(_worst(right, name) for name in EXPECTED)} |")
    wrong = [outcome for outcome in outcomes if outcome.verdict == "wrong"]
    if wrong:
        lines += ["", "## Wrong", *(f"- {outcome.pair.name}: {outcome.words}" for outcome in wrong)]
    refused: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.verdict == "refused":
            refused.setdefault((outcome.pair.ending, outcome.words), []).append(outcome.pair.content)
    if refused:
        lines += ["", "## Refused", "| container | codecs | why |", "|---|---|---|"]
        lines += [f"| {ending} | {', '.join(codecs)} | {words} |" for (ending, words), codecs in refused.items()]
    return "\n".join(lines) + "\n"


def _worst(outcomes: Sequence[Outcome], name: str) -> str:
    figures = [outcome.figures[name] for outcome in outcomes if name in outcome.figures]
    return f"{max(figures, key=abs):+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0") if figures else ""
