"""What the media of a table are like: a sample of its rows, decoded as training decodes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dimml.media import Decoded, DecodeRequest, MediaLimits
from dimml.media.decoders.container import UNREADABLE, open_container
from dimml.media.decoders.file_type import identify
from dimml.media.decoders.images.image import decode_image
from dimml.media.decoders.source import opened
from dimml.media.workers.pool import DecodePool
from dimml.modality import Frames, Modality, Waveform
from dimml.status import Reason, describe_statuses
from dimml.system.cores import usable_cores
from dimml_training.config import TrainConfig
from dimml_training.first_config.columns import InspectedTable
from dimml_training.first_config.rows import LeftOut, UsableRow

if TYPE_CHECKING:
    # It imports torch, for which a question about the table must not wait.
    from dimml_training.data.prepare import Progress

#: Most rows that are decoded; of a longer table, as many spread evenly over it.
SAMPLE_ROWS: Final = 64
#: Time limit of one clip: a person is waiting.
DECODE_LIMIT_S: Final = 60.0
#: Longest stretch of a recording that is decoded.
SAMPLE_S: Final = 10.0
SOUND, PICTURES = "sound", "pictures"
_PROBES: Final[tuple[Modality, ...]] = (
    Waveform(name=SOUND, sample_rate_hz=16_000, samples=round(SAMPLE_S * 16_000)),
    Frames(name=PICTURES, frames=16, height=64, width=64),
)
#: Share of a column's sampled files that must have a track for it to be a modality.
_MOST: Final = 0.5


@dataclass(frozen=True)
class Header:
    """What a file is made of; None for what it lacks. Height and width are of the upright picture."""

    rate_hz: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None


@dataclass
class ColumnSample:
    """The sampled files of one media column."""

    headers: list[Header] = field(default_factory=list)
    #: Seconds of the recordings, or of the given ranges; empty for media without time.
    lengths_s: list[float] = field(default_factory=list)
    files: int = 0
    #: Files with the track, usable or not, by ``SOUND`` and ``PICTURES``.
    tracks: Counter[str] = field(default_factory=Counter)
    #: Why sampled files cannot be used, by line.
    faults: dict[int | str, dict[str, str]] = field(default_factory=dict)

    def has(self, track: str) -> bool:
        """Whether most files have sound, or pictures."""
        return self.tracks[track] > _MOST * self.files

    def typical(self, name: str) -> float | None:
        """Median of a field of the headers; None where no file has it."""
        values = [value for header in self.headers if (value := getattr(header, name)) is not None]
        return float(median(values)) if values else None


@dataclass(frozen=True)
class MediaSample:
    """Sampled rows by media column, and the processor's time for a row with all its files."""

    columns: Mapping[str, ColumnSample]
    rows: int
    seconds_per_row: float


def sample_rows(rows: Sequence[UsableRow], most: int = SAMPLE_ROWS) -> list[UsableRow]:
    """Take at most ``most`` rows, spread evenly over the table."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    return [rows[index] for index in chosen]


def sample_media(
    rows: Sequence[UsableRow], columns: Sequence[str], root: Path, progress: Progress | None = None
) -> MediaSample:
    """Decode the files of some rows in worker processes, and read the headers of those that decode."""
    found = {name: ColumnSample() for name in columns}
    jobs = [(row, name, root / file) for row in rows for name, file in zip(columns, row.files, strict=True) if file]
    requests = (
        DecodeRequest(_PROBES, {SOUND: path, PICTURES: path}, SAMPLE_S, row.start_s, row.end_s) for row, _, path in jobs
    )
    with DecodePool(usable_cores()) as pool:
        pool.warm_up()
        began = time.monotonic()
        outcomes = pool.map(requests, timeout_s=DECODE_LIMIT_S)
        for done, ((row, name, path), outcome) in enumerate(zip(jobs, outcomes, strict=True), start=1):
            sample = found[name]
            sample.files += 1
            if isinstance(outcome, Decoded):
                _note(sample, row, path, outcome)
            else:
                sample.faults[row.line] = {"": outcome.message}
            if progress is not None:
                progress(done, len(jobs))
        spent_s = time.monotonic() - began
    return MediaSample(found, len(rows), spent_s / max(1, len(rows)))


def _note(sample: ColumnSample, row: UsableRow, path: Path, decoded: Decoded) -> None:
    faults = {}
    for name, track in decoded.tracks.items():
        if track.status.reason is not Reason.NO_TRACK:
            sample.tracks[name] += 1
        if not track.status.ok:
            faults[name] = describe_statuses({name: track.status})
    if faults:
        sample.faults[row.line] = faults
    if len(faults) == len(decoded.tracks):
        return
    sample.headers.append(read_header(path))
    if row.start_s is not None and row.end_s is not None:
        sample.lengths_s.append(row.end_s - row.start_s)
    elif decoded.start_s is not None and decoded.end_s is not None:
        # Cut from the middle of the recording, so that its start and end add up to the recording's length.
        sample.lengths_s.append(decoded.start_s + decoded.end_s)


def read_header(path: Path, limits: MediaLimits = MediaLimits()) -> Header:  # noqa: B008  # frozen
    """Read what a file is made of, in this process: only of a file that a decode worker has read."""
    with ExitStack() as stack:
        file, _ = stack.enter_context(opened(path, limits.max_bytes))
        file_type = identify(file)
        if file_type is None or file_type.kind == "flow":
            return Header()
        if file_type.kind == "image":
            file.seek(0)
            rgb = decode_image(file.read(), file_type.demuxer, limits, None, None)
            return Header() if rgb is None else Header(height=rgb.shape[0], width=rgb.shape[1])
        container = open_container(file, file_type.demuxer, limits)
        if container is None:
            return Header()
        with container:
            try:
                return _header_of(container)
            except UNREADABLE:
                return Header()


def _header_of(container: Any) -> Header:
    sound, video = container.streams.audio, container.streams.video
    rate_hz = int(sound[0].rate) if sound and sound[0].rate else None
    if not video:
        return Header(rate_hz=rate_hz)
    frame = next(iter(container.decode(video[0])))
    height, width = frame.height, frame.width
    if abs(frame.rotation) % 180 == 90:
        height, width = width, height
    rate = video[0].average_rate
    return Header(rate_hz, height, width, float(rate) if rate else None)


@dataclass(frozen=True)
class DecodedSample:
    """Rows of the sample as training makes them, ``[N, *shape]`` by modality, and the clips that give none."""

    arrays: Mapping[str, npt.NDArray[Any]]
    faults: Sequence[LeftOut]
    seconds_per_clip: float


def decode_as_training(config: TrainConfig, rows: Sequence[UsableRow], table: InspectedTable) -> DecodedSample:
    """Decode rows with the settings of a config, as ``prepare`` does."""
    # It imports torch, which a question about the table does not wait for.
    from dimml_training.data.prepare import unusable

    columns = config.data.columns.media
    place = {
        m.name: table.columns.media.index(columns if isinstance(columns, str) else columns[m.name])
        for m in config.inputs
    }
    margin_s = config.data.margin_s

    def request(row: UsableRow) -> DecodeRequest:
        sources = {name: table.root / row.files[index] for name, index in place.items() if row.files[index]}
        start_s = None if row.start_s is None else max(0.0, row.start_s - margin_s)
        return DecodeRequest(config.inputs, sources, config.clip_s, start_s, row.end_s, quality=config.quality)

    found: dict[str, list[npt.NDArray[Any]]] = {m.name: [] for m in config.inputs}
    faults = []
    with DecodePool(usable_cores()) as pool:
        pool.warm_up()
        began = time.monotonic()
        outcomes = pool.map(map(request, rows), timeout_s=DECODE_LIMIT_S)
        for row, outcome in zip(rows, outcomes, strict=True):
            if not isinstance(outcome, Decoded):
                faults.append(LeftOut(row.line, row.files, outcome.message))
                continue
            fault = unusable(outcome)
            if fault is not None:
                faults.append(LeftOut(row.line, row.files, fault))
                continue
            for name, track in outcome.tracks.items():
                if track.row is not None:
                    found[name].append(track.row)
        spent_s = time.monotonic() - began
    # Clips may lack a modality; its rows are repeated, since how many of them there are is all that counts.
    most = max(map(len, found.values()))
    arrays = {name: np.stack([of[index % len(of)] for index in range(most)]) for name, of in found.items() if of}
    return DecodedSample(arrays, faults, spent_s / max(1, len(rows)))
