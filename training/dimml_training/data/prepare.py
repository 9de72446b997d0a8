"""Prepare a data set: check its table, decode clips that are not cached yet, and report all problems together."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dimml.bundle import file_sha256
from dimml.media import Decoded, DecodeRequest
from dimml.media.workers.pool import DecodePool
from dimml.modality import Kind
from dimml.status import Reason, Status, describe_statuses
from dimml.system.cores import usable_cores
from dimml.system.files import StrPath
from dimml_training.config import SPLITS, Split, TrainConfig, expand_path
from dimml_training.data.absence import absences, classes_without, too_few
from dimml_training.data.cache import CachedClip, ClipCache, clip_key
from dimml_training.data.leakage import overlapping_content, repeated_content
from dimml_training.data.loader import ClipRows, prepared_no_signal
from dimml_training.data.manifest import Clip, ClipTable, read_clip_table

logger = logging.getLogger(__name__)

#: Time limit of one clip: generous, since no caller is waiting for an answer.
DECODE_TIMEOUT_S = 120.0

#: Called after each clip with the number done and the total.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SplitData:
    """Clips of one split, in the order of the clip table, and their rows in the same order."""

    clips: list[Clip]
    rows: ClipRows


@dataclass(frozen=True)
class PreparedData:
    """Everything that training or evaluation needs from the data."""

    labels: tuple[str, ...]
    splits: dict[Split, SplitData]
    warnings: list[str]
    #: SHA-256 of the clips' content, labels and splits, in order: equal digests mean equal data.
    digest: str


def prepare(
    config: TrainConfig,
    cache_dir: StrPath,
    *,
    splits: Sequence[Split] = SPLITS,
    labels: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> PreparedData:
    """Prepare the rows of the wanted splits. ``labels`` are the classes of a finished run that is evaluated.

    Raises DataError that lists every problem of the table and of the media.
    """
    cache_dir = Path(cache_dir)
    table = read_clip_table(config.data, [m.name for m in config.inputs], cache_dir / "media")
    if labels is not None and set(table.labels) == set(labels):
        # The order is the run's: that of whole numbers was once that of their text.
        table.labels = labels
    path = expand_path(config.data.manifest)
    cache = ClipCache(cache_dir, config.inputs, config.clip_s, config.quality)
    wanted = [clip for clip in table.clips if clip.split in splits]
    entries, clips = _cached(config, cache, table, wanted, progress)
    if labels is not None and table.labels != labels:
        table.problems.append(f"its classes {', '.join(table.labels)} are not the run's: {', '.join(labels)}")
    names = [m.name for m in config.inputs]
    table.problems += too_few(names, entries, clips, splits)
    table.raise_problems(path)
    arrays = cache.arrays()
    data: dict[Split, SplitData] = {}
    for split in splits:
        chosen = [i for i, clip in enumerate(clips) if clip.split == split]
        of_split = [clips[i] for i in chosen]
        slots = np.array([entries[i].slot for i in chosen], dtype=np.int64)
        present = {name: np.array([name not in entries[i].absent for i in chosen], np.bool_) for name in names}
        lacking = {name: there for name, there in present.items() if not there.all()}
        data[split] = SplitData(of_split, ClipRows(arrays, slots, table.label_indices(of_split), lacking))
        table.warnings += absences(split, names, [entries[i] for i in chosen])
    if "train" in data:
        table.warnings += _lone_clips(table.labels, data["train"].rows)
        table.warnings += classes_without(table.labels, data["train"].rows)
    content = [(entry.key, clip.label, clip.split) for entry, clip in zip(entries, clips, strict=True)]
    digest = hashlib.sha256(json.dumps([table.labels, content]).encode()).hexdigest()
    return PreparedData(labels=table.labels, splits=data, warnings=table.warnings, digest=digest)


def _lone_clips(labels: Sequence[str], train: ClipRows) -> list[str]:
    counts = np.bincount(train.labels, minlength=len(labels))
    lone = [label for label, count in zip(labels, counts, strict=True) if count == 1]
    if not lone:
        return []
    return [
        f"only one training clip of {'class' if len(lone) == 1 else 'classes'} {', '.join(lone)}: it is its own class "
        "mean in dimension separation, and little can be learnt of it"
    ]


def _cached(
    config: TrainConfig, cache: ClipCache, table: ClipTable, clips: Sequence[Clip], progress: Progress | None
) -> tuple[list[CachedClip], list[Clip]]:
    """Look up or decode every clip; return the usable ones, as cached and as decoded; note problems of the others."""
    digests = _file_digests(clips, table.problems)
    clips = [clip for clip in clips if all(path in digests for path in clip.media.values())]
    contents = [{name: digests[path] for name, path in clip.media.items()} for clip in clips]
    margin_s = config.data.margin_s
    keys = [clip_key(c, clip.start_s, clip.end_s, margin_s) for c, clip in zip(contents, clips, strict=True)]
    table.problems += repeated_content(keys, clips)
    table.warnings += overlapping_content(contents, clips)
    found, damaged = cache.find(keys)
    if damaged:
        logger.warning("damaged clips in the cache %s, decoded again: %d", cache.folder, damaged)
    missing = {key: clip for key, clip in zip(keys, clips, strict=True) if key not in found}
    if missing:
        with cache.writing():
            # Another process may have decoded clips while this one waited for the lock.
            found |= cache.find(missing)[0]
            missing = {key: clip for key, clip in missing.items() if key not in found}
            for done, (key, clip, outcome) in enumerate(_decode_all(config, missing), start=1):
                problem = outcome if isinstance(outcome, str) else unusable(outcome)
                if problem is not None:
                    table.problems.append(f"{clip.where}: {problem}")
                elif isinstance(outcome, Decoded):
                    rows = {name: track.row for name, track in outcome.tracks.items() if track.row is not None}
                    absent = {name: str(track.status) for name, track in outcome.tracks.items() if not track.status.ok}
                    found[key] = cache.add(key, rows, clip.end_s, absent)
                if progress is not None:
                    progress(done, len(missing))
    there = [(found[key], clip) for key, clip in zip(keys, clips, strict=True) if key in found]
    return [entry for entry, _ in there], [replace(clip, end_s=entry.end_s) for entry, clip in there]


def _file_digests(clips: Sequence[Clip], problems: list[str]) -> dict[Path, str]:
    """SHA-256 of every readable file; the others are added to ``problems``."""
    paths = list(dict.fromkeys(path for clip in clips for path in clip.media.values()))

    def digest(path: Path) -> str | OSError:
        try:
            return file_sha256(path)
        except OSError as error:
            return error

    with ThreadPoolExecutor(usable_cores()) as pool:  # hashing leaves the interpreter lock
        results = dict(zip(paths, pool.map(digest, paths), strict=True))
    problems += [f"unreadable file {p}: {e.strerror}" for p, e in results.items() if isinstance(e, OSError)]
    return {path: result for path, result in results.items() if isinstance(result, str)}


def _decode_all(config: TrainConfig, clips: Mapping[str, Clip]) -> Iterator[tuple[str, Clip, Decoded | str]]:
    """Decode in worker processes; yield for each clip its key, the clip, and the result or an error message."""

    def request(clip: Clip) -> DecodeRequest:
        unique: dict[Path, Path] = {}  # modalities that share one Path object are read with a single open
        sources = {name: unique.setdefault(path, path) for name, path in clip.media.items()}
        # As serving does it: the margin may reach past the end of a recording, the labelled range may not.
        start_s, end_s = clip.labelled_s or (None, None)
        margin_s = config.data.margin_s
        return DecodeRequest(
            config.inputs, sources, config.clip_s, start_s, end_s, margin_s=margin_s, quality=config.quality
        )

    if not clips:
        return
    with DecodePool(min(usable_cores(), len(clips))) as pool:
        outcomes = pool.map(map(request, clips.values()), timeout_s=DECODE_TIMEOUT_S)
        for (key, clip), outcome in zip(clips.items(), outcomes, strict=True):
            yield key, clip, outcome if isinstance(outcome, Decoded) else outcome.message


def unusable(outcome: Decoded) -> str | None:
    """Describe what is wrong with a clip; None for a usable one, which may lack some of its modalities, but not all."""
    statuses = {name: track.status for name, track in outcome.tracks.items()}
    if not any(status.ok for status in statuses.values()):
        return describe_statuses(statuses)
    bad = {name: status for name, status in statuses.items() if status.status not in (Status.OK, Status.ABSENT)}
    return describe_statuses(bad) if bad else None


def quality_report(config: TrainConfig, train: ClipRows) -> dict[str, Any]:
    """Count false alarms of the signal check on training clips, and note how close any clip comes to a threshold.

    Frozen clips do not get this far: the decoder, which knows the times of the frames, refuses them.
    """
    report: dict[str, Any] = {"thresholds": config.quality.model_dump(mode="json"), "clips": len(train)}
    for modality in config.inputs:
        alarms = {reason.value: 0 for reason in ALARMS[modality.kind]}
        strength, lowest = STRENGTHS[modality.kind], float("inf")
        for clip in np.flatnonzero(train.has(modality.name)).tolist():
            row = train.rows(modality.name, [clip])[0]
            reason = prepared_no_signal(modality, row, config.quality)
            if reason is not None:
                alarms[reason.value] += 1
            lowest = min(lowest, strength.of(row))
        report[modality.name] = {"false_alarms": alarms, strength.name: round(strength.told_as(lowest), 2)}
    return report


@dataclass(frozen=True)
class Strength:
    """What the signal check holds against a threshold, and how the lowest of a split is reported."""

    name: str
    of: Callable[[npt.NDArray[Any]], float]
    told_as: Callable[[float], float] = float


_BRIGHTNESS: Final = Strength("lowest_mean", lambda row: float(row.mean()))
STRENGTHS: Final[Mapping[Kind, Strength]] = {
    "waveform": Strength(
        "lowest_peak_dbfs",
        lambda row: float(np.abs(row).max()),
        lambda peak: 20.0 * float(np.log10(max(peak, 1e-9))),
    ),
    "frames": _BRIGHTNESS,
    "flow": _BRIGHTNESS,
    "series": Strength("lowest_share_there", lambda row: float(np.isfinite(row).mean())),
}
_OF_MEDIA: Final = (Reason.SILENT, Reason.BLACK, Reason.FROZEN)
#: What the signal check may find of a kind.
ALARMS: Final[Mapping[Kind, Sequence[Reason]]] = {
    "waveform": _OF_MEDIA,
    "frames": _OF_MEDIA,
    "flow": _OF_MEDIA,
    "series": (Reason.FLAT, Reason.GAPS, Reason.SATURATED),
}
