"""Leakage between splits: the same recording in several of them, under any name, would make metrics too good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dimml_training.data.manifest import NAMED, Clip


def repeated_content(keys: Sequence[str], clips: Sequence[Clip]) -> list[str]:
    """List a problem for each content key whose clips are in several splits.

    Clips of one path are left out: the check of the clip table finds them without reading a file.
    """
    alike: dict[str, list[Clip]] = defaultdict(list)
    for key, clip in zip(keys, clips, strict=True):
        alike[key].append(clip)
    problems = []
    for group in alike.values():
        splits = sorted({clip.split for clip in group})
        if len(splits) > 1 and len({tuple(clip.media.values()) for clip in group}) > 1:
            lines = ", ".join(str(clip.line) for clip in group)
            names = ", ".join(dict.fromkeys(str(path) for clip in group for path in clip.media.values()))
            problems.append(f"lines {lines}: the same content stands in {' and '.join(splits)}: {names}")
    return problems


def overlapping_content(contents: Sequence[Mapping[str, str]], clips: Sequence[Clip]) -> list[str]:
    """Warn if time ranges of one recording (same SHA-256, in any modality) overlap across splits.

    ``contents`` are the SHA-256 of each clip's file per modality. A clip without a range covers its whole recording;
    ranges include their margin. Returns at most one warning.
    """
    within: dict[str, list[Clip]] = defaultdict(list)
    for content, clip in zip(contents, clips, strict=True):
        for digest in set(content.values()):
            within[digest].append(clip)
    pairs: dict[tuple[int | str, int | str], None] = {}
    for found in within.values():
        # Sweep in order of start; keep, for each split, the clip with the latest end so far.
        farthest: dict[str, Clip] = {}
        for clip in sorted(found, key=_start_s):
            for split, before in farthest.items():
                if split != clip.split and _end_s(before) > _start_s(clip):
                    pairs[min(before.line, clip.line), max(before.line, clip.line)] = None
            if clip.split not in farthest or _end_s(clip) > _end_s(farthest[clip.split]):
                farthest[clip.split] = clip
    if not pairs:
        return []
    named = ", ".join(f"{one} and {other}" for one, other in sorted(pairs)[:NAMED])
    more = f" and {len(pairs) - NAMED} more" if len(pairs) > NAMED else ""
    return [f"ranges of one recording overlap across splits (lines {named}{more}): figures are too good"]


def _start_s(clip: Clip) -> float:
    return 0.0 if clip.start_s is None else clip.start_s


def _end_s(clip: Clip) -> float:
    return float("inf") if clip.end_s is None else clip.end_s
