"""A file of a series as a recording. The modality, not the file's first bytes, says that it is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
import soundfile

from dimml.media.decoders.audio import SoundFile
from dimml.media.decoders.file_type import HEAD_BYTES, identify
from dimml.media.decoders.series.array_file import MAGIC, ArrayFile
from dimml.media.decoders.series.csv_file import CsvFile, is_text
from dimml.media.decoders.series.resampling import margin_s, row_of
from dimml.media.decoders.series.series_file import SeriesFile, SeriesFileError, check_values
from dimml.media.decoders.signal_status import Tracks, checked
from dimml.media.decoders.time_range import Window
from dimml.media.types import DecodedTrack, DecodeRequest, Truncation, all_because
from dimml.modality import Series
from dimml.status import ModalityStatus, Reason

#: Sound formats that hold samples as they are; what others lose is not only what no ear misses.
_LOSSLESS: Final = frozenset({"wav", "flac", "aiff", "au", "caf", "w64"})
_FORMS: Final = "a series is an .npy file, CSV, or lossless sound of its channels"


class SeriesRecording:
    """Series of one source, read window by window; ``duration_s`` is None where nothing is read."""

    def __init__(
        self, stack: ExitStack, file: BinaryIO, size: int, modalities: Sequence[Series], request: DecodeRequest
    ) -> None:
        """Open the file for each of ``modalities``. Raises TooLargeError."""
        self.frame_s = 0.0
        self.truncations: Mapping[str, Truncation] = {}
        self.unreadable: Tracks = {}
        self._request = request
        self._opened: dict[str, tuple[Series, SeriesFile, float, npt.NDArray[np.int64]]] = {}
        ends: list[float] = []
        shared: dict[str, SeriesFile | Tracks] = {}
        for modality in modalities:
            # Only of an array does the modality say how it lies in the file.
            if modality.axes not in shared:
                shared[modality.axes] = _open(stack, file, size, modality)
            found = shared[modality.axes]
            if isinstance(found, dict):
                self.unreadable |= {modality.name: next(iter(found.values()))}
                continue
            columns = _columns(found, modality)
            if isinstance(columns, DecodedTrack):
                self.unreadable[modality.name] = columns
            elif found.samples == 0:
                self.unreadable |= all_because(Reason.EMPTY, [modality])
            else:
                rate_hz = found.rate_hz or modality.file_rate_hz or modality.sample_rate_hz
                self._opened[modality.name] = (modality, found, rate_hz, columns)
                times = found.times_s
                ends.append(found.samples / rate_hz if times is None else float(times[-1]) + 1.0 / rate_hz)
        self.duration_s = max(ends, default=None)

    def tracks(self, windows: Sequence[Window]) -> Iterator[Tracks]:
        """Yield the tracks of each window, in order, by name of the modality."""
        for window in windows:
            yield self.unreadable | {name: self._track(name, window) for name in self._opened}

    def _track(self, name: str, window: Window) -> DecodedTrack:
        modality, file, rate_hz, columns = self._opened[name]
        around_s = margin_s(modality, rate_hz)
        first_s, last_s = window.start_s - around_s, window.end_s + around_s
        if file.times_s is None:
            begin = max(0, int(first_s * rate_hz))
            end = max(begin, min(file.samples, int(last_s * rate_hz) + 2))
            times_N = np.arange(begin, end) / rate_hz
        else:
            begin, end = np.searchsorted(file.times_s, [first_s, last_s]).tolist()
            times_N = file.times_s[begin:end]
        try:
            values_NC = file.read(begin, end)[:, columns]
        except SeriesFileError as error:
            return DecodedTrack(ModalityStatus.because(Reason.UNDECODABLE, f"it is {error}"))
        inside_SC = row_of(values_NC, times_N, rate_hz, window, modality, even=file.times_s is None)
        missing = 1.0 - float(np.isfinite(inside_SC).mean()) if inside_SC.size else 1.0
        if missing > self._request.quality.gap_share:
            detail = f"{missing:.0%} of its values in the range are missing"
            return DecodedTrack(ModalityStatus.because(Reason.GAPS, detail))
        row = np.full(modality.shape, np.nan, np.float32)
        row[: len(inside_SC)] = inside_SC
        return checked(modality, row, (), self._request)


def _open(stack: ExitStack, file: BinaryIO, size: int, modality: Series) -> SeriesFile | Tracks:
    """Open the file, or say why it is not read."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    try:
        if head.startswith(MAGIC):
            return ArrayFile(file, size, modality.axes)
        if is_text(head):
            return CsvFile(file)
        file_type = identify(file)
        if file_type is not None and file_type.demuxer in _LOSSLESS:
            return _SoundSeries(stack, file)
    except SeriesFileError as error:
        return all_because(Reason.UNDECODABLE, [modality], f"it is {error}")
    except (soundfile.SoundFileError, OSError, ValueError):
        return all_because(Reason.UNDECODABLE, [modality], "it is sound that is damaged, or of a form that is not read")
    if file_type is None:
        return all_because(Reason.UNDECODABLE, [modality], f"its first bytes are those of neither: {_FORMS}")
    # A recording that was sent for all modalities, and has none of this one.
    return all_because(Reason.NO_TRACK, [modality], f"it is {file_type.name}; {_FORMS}")


def _columns(file: SeriesFile, modality: Series) -> npt.NDArray[np.int64] | DecodedTrack:
    """Find the file's channels of a modality, or say why they are not there."""
    if modality.names is not None and file.names is not None:
        absent = [name for name in modality.names if name not in file.names]
        if absent:
            detail = f"it has no column {absent[0][:60]!r} of {modality.name!r}"
            return DecodedTrack(ModalityStatus.because(Reason.NO_TRACK, detail))
        return np.array([file.names.index(name) for name in modality.names])
    if modality.pick is not None:
        if max(modality.pick) < file.channels:
            return np.array(modality.pick)
        wanted = f"number {max(modality.pick)} is picked"
    else:
        if file.channels == modality.channels:
            return np.arange(file.channels)
        wanted = f"{modality.name!r} has {modality.channels}"
    reason = Reason.NO_TRACK if isinstance(file, _SoundSeries) else Reason.UNDECODABLE
    return DecodedTrack(ModalityStatus.because(reason, f"it has {file.channels} channels, and {wanted}"))


class _SoundSeries:
    """The channels of a sound file: in units of full scale, or of a file of floating-point numbers as they are."""

    times_s: npt.NDArray[np.float64] | None = None
    names: tuple[str, ...] | None = None

    def __init__(self, stack: ExitStack, file: BinaryIO) -> None:
        self._sound = SoundFile(file)
        stack.callback(self._sound.close)
        self.rate_hz: float | None = float(self._sound.rate_hz)
        self.samples, self.channels = self._sound.samples, self._sound.channels

    def read(self, begin: int, end: int) -> npt.NDArray[np.float64]:
        """Read samples ``begin`` to ``end``, ``[samples, channels]``."""
        check_values(max(0, end - begin) * self.channels)
        try:
            return self._sound.read_channels(begin, end).astype(np.float64)
        except (soundfile.SoundFileError, OSError, ValueError):
            raise SeriesFileError("sound that is damaged, or cut off") from None
