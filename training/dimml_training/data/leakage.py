"""The same recording in several splits, under whatever name: figures would be too good."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from dimml_training.data.manifest import NAMED, Clip


def repeated_content(keys: Sequence[str], clips: Sequence[Clip]) -> list[str]:
    """Problems: clips of one content key that stand in several splits.

    Those of one path are left to the manifest's own check, which sees them without reading a file.
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
    """A warning, if ranges of one recording (a file's SHA-256, for any modality) overlap across splits.

    ``contents`` are the SHA-256 of each clip's file per modality. A clip without a range is all of its recording;
    ranges are taken with their margin.
    """
    within: dict[str, list[Clip]] = defaultdict(list)
    for content, clip in zip(contents, clips, strict=True):
        for digest in set(content.values()):
            within[digest].append(clip)
    pairs: dict[tuple[int, int], None] = {}
    for found in within.values():
        # In the order of their starts; of each split, the clip that reaches farthest so far.
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
