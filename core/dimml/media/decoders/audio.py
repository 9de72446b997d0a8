"""Mono sound on the recording's own clock, at the rate an encoder wants."""

from __future__ import annotations

import math
from typing import Any, BinaryIO, Final

import av
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from dimml.media.decoders.time_range import Window
from dimml.modality import Waveform

FloatArray = npt.NDArray[np.float32]

#: Sound around the window that the resampler sees, so that the window's edges are not filtered against silence.
MARGIN_S: Final = 0.05
MIN_RATE_HZ: Final = 1000
MAX_RATE_HZ: Final = 768_000
#: Sound of as many channels is interleaved before it becomes an array: PyAV's own conversion of planar frames has
#: crashed (18.1).
_INTERLEAVED_FROM: Final = 8


class SoundBuffer:
    """Native-rate mono sound of one window and the margin around it; what nobody wrote is zero."""

    def __init__(self, window: Window, rate_hz: int) -> None:
        """Raises ValueError where no sane recording has such a rate."""
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise ValueError(f"sample rate {rate_hz} Hz")
        self.rate_hz = rate_hz
        self._window = window
        self._margin = math.ceil(MARGIN_S * rate_hz)
        length = math.ceil(window.seconds * rate_hz) + 2 * self._margin
        self._samples = np.zeros(length, np.float32)
        self._next: int | None = None

    @property
    def first(self) -> int:
        """Index of the buffer's first sample, counted from the recording's start; may be negative."""
        return round(self._window.start_s * self.rate_hz) - self._margin

    @property
    def length(self) -> int:
        """Samples, margins included."""
        return len(self._samples)

    @property
    def full(self) -> bool:
        """Whether everything up to the end of the margin was written or passed."""
        return self._next is not None and self._next >= self.length

    def write(self, mono: FloatArray, time_s: float | None) -> int:
        """Place ``mono``, ``[n]``, at ``time_s`` (None: right after the last). Returns how many samples fell inside."""
        position = self._next or 0
        if time_s is not None:
            position = round(time_s * self.rate_hz) - self.first
        self._next = position + len(mono)
        begin, end = max(position, 0), min(self._next, self.length)
        if end <= begin:
            return 0
        self._samples[begin:end] = mono[begin - position : end - position]
        return end - begin

    def row(self, modality: Waveform) -> FloatArray | None:
        """``[samples]`` in [-1, 1], zero-padded at the end; None where the file holds numbers that are not finite."""
        if not np.isfinite(self._samples).all():
            return None
        sound, margin = self._samples, self._margin
        if self.rate_hz != modality.sample_rate_hz:
            sound = soxr.resample(sound, self.rate_hz, modality.sample_rate_hz)
            margin = round(margin * modality.sample_rate_hz / self.rate_hz)
            if not np.isfinite(sound).all():
                return None  # Finite, but so large that resampling was not.
        wanted = min(modality.samples, math.ceil(self._window.seconds * modality.sample_rate_hz - 1e-6))
        inside = sound[margin : margin + wanted]
        row = np.zeros(modality.samples, np.float32)
        row[: len(inside)] = np.clip(inside, -1.0, 1.0)
        return row


def mono_samples(frame: Any) -> FloatArray:
    """Mean of a PyAV audio frame's channels, ``[n]``, full scale 1. Raises ValueError for an unknown sample format."""
    channels = frame.layout.nb_channels
    if frame.format.is_planar and channels >= _INTERLEAVED_FROM:
        (frame,) = av.AudioResampler(format="flt").resample(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    if samples.dtype == np.uint8:
        mono = samples.mean(axis=0, dtype=np.float64) / 128.0 - 1.0
    elif np.issubdtype(samples.dtype, np.integer):
        mono = samples.mean(axis=0, dtype=np.float64) / -float(np.iinfo(samples.dtype).min)
    else:
        mono = samples.mean(axis=0, dtype=np.float32)
    return np.asarray(mono, np.float32)


class SoundFile:
    """A plain sound file through libsndfile. Raises soundfile.LibsndfileError where it is none."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._file = soundfile.SoundFile(file)

    @property
    def duration_s(self) -> float:
        """By the number of samples, which libsndfile has checked against the file."""
        return float(self._file.frames / self._file.samplerate)

    @property
    def empty(self) -> bool:
        """Whether there is not one sample."""
        return bool(self._file.frames == 0)

    def read(self, window: Window) -> SoundBuffer:
        """The window's sound. Raises ValueError or soundfile.LibsndfileError where it cannot be had."""
        buffer = SoundBuffer(window, int(self._file.samplerate))
        begin = max(0, buffer.first)
        end = min(buffer.first + buffer.length, int(self._file.frames))
        if end > begin:
            self._file.seek(begin)
            samples = self._file.read(end - begin, dtype="float32", always_2d=True)
            if len(samples) == 0:
                raise ValueError("no samples where the header promised some")
            buffer.write(samples.mean(axis=1, dtype=np.float32), begin / buffer.rate_hz)
        return buffer

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
