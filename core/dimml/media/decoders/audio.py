"""Mono sound on the recording's own clock, at the rate of a modality."""

from __future__ import annotations

import math
from contextlib import suppress
from types import SimpleNamespace
from typing import BinaryIO, Final

import numpy as np
import soundfile
import soxr

from dimml.media.decoders.mixing import (
    MONO,
    FloatArray,
    Layout,
    MonoRow,
    NoSuchChannelError,
    Sound,
    as_layout,
    file_layout,
    to_mono,
)
from dimml.media.decoders.time_range import Window
from dimml.modality import Waveform

#: Sound around the window that the resampler sees, so that the window's edges are not filtered against silence.
MARGIN_S: Final = 0.05
MIN_RATE_HZ: Final = 1000
MAX_RATE_HZ: Final = 768_000


class SoundBuffer:
    """Sound of one window and its margins at the file's own rate, by channel; zero where none was written."""

    def __init__(self, window: Window, rate_hz: int, layout: Layout = MONO) -> None:
        """Allocate the window. Raises ValueError for a rate outside ``MIN_RATE_HZ`` to ``MAX_RATE_HZ``."""
        if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
            raise ValueError(f"sample rate {rate_hz} Hz")
        self.rate_hz = rate_hz
        self._window = window
        self._margin = math.ceil(MARGIN_S * rate_hz)
        #: Index of the first sample, counted from the recording's start; may be negative.
        self.first = round(window.start_s * rate_hz) - self._margin
        #: Number of samples, margins included.
        self.length = math.ceil(window.seconds * rate_hz) + 2 * self._margin
        self._layout = layout
        self._samples = np.zeros((layout.channels, self.length), np.float32)
        self._next: int | None = None

    @property
    def full(self) -> bool:
        """Whether everything up to the end of the margin was written or passed."""
        return self._next is not None and self._next >= self.length

    def write(self, sound: Sound, time_s: float | None) -> int:
        """Write ``sound`` at ``time_s`` seconds (None: right after the last); return how many samples fit."""
        position = self._next or 0
        if time_s is not None:
            position = round(time_s * self.rate_hz) - self.first
        self._next = position + len(sound)
        begin, end = max(position, 0), min(self._next, self.length)
        if end <= begin:
            return 0
        samples = as_layout(sound, self._layout)
        self._samples[:, begin:end] = samples[:, begin - position : end - position]
        return end - begin

    def row(self, modality: Waveform) -> MonoRow:
        """Make the row of the modality's channel, chosen by this window's sound."""
        inside = slice(self._margin, self.length - self._margin)
        try:
            mono, channel = to_mono(self._samples, self._layout, modality.channel, inside)
        except NoSuchChannelError:
            return MonoRow(None, no_channel=True)
        return MonoRow(self._row(mono, modality), channel)

    def _row(self, sound: FloatArray, modality: Waveform) -> FloatArray | None:
        """Return float32 ``[samples]`` in [-1, 1], zero-padded at the end; None if samples are not finite."""
        if not np.isfinite(sound).all():
            return None
        margin = self._margin
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


class SoundFile:
    """Plain sound file, read through libsndfile.

    ``samples``: samples per channel that are there at most, if they were counted; libsndfile's own number otherwise.
    ``settling``: samples before the wanted ones to decode and drop, since a frame of MP3 is completed from the bytes of
    earlier ones, which libsndfile 1.2.2 does not read again after a seek.
    Raises soundfile.LibsndfileError if libsndfile does not read it.
    """

    def __init__(self, file: BinaryIO, samples: int | None = None, settling: int = 0) -> None:
        file.seek(0)

        def seek(offset: int, whence: int = 0) -> None:
            # To before the start, where a damaged header points: libsndfile sees by ``tell`` that nothing moved.
            with suppress(ValueError, OSError):
                file.seek(offset, whence)

        # Without the file's name: soundfile takes a file that is called .raw for one without a header.
        self._file = soundfile.SoundFile(SimpleNamespace(seek=seek, tell=file.tell, read=file.read))
        self._settling = settling
        self.samples = int(self._file.frames) if samples is None else min(samples, int(self._file.frames))

    @property
    def libsndfile_samples(self) -> int:
        """Samples per channel by libsndfile."""
        return int(self._file.frames)

    @property
    def duration_s(self) -> float:
        """Duration in seconds, by the number of samples."""
        return float(self.samples / self._file.samplerate)

    @property
    def channels(self) -> int:
        """How many there are. libsndfile does not say what they are."""
        return int(self._file.channels)

    @property
    def empty(self) -> bool:
        """Whether there is not one sample."""
        return self.samples == 0

    @property
    def rate_hz(self) -> int:
        """Samples per second and channel."""
        return int(self._file.samplerate)

    def read_channels(self, begin: int, end: int) -> FloatArray:
        """Read samples ``begin`` to ``end`` as they are, ``[samples, channels]``. Raises what ``read`` raises."""
        self._file.seek(begin)
        samples: FloatArray = self._file.read(max(0, end - begin), dtype="float32", always_2d=True)
        if len(samples) < end - begin:
            raise ValueError("fewer samples than the header promised")
        return samples

    def read(self, window: Window) -> SoundBuffer:
        """Read the window's sound. Raises ValueError or soundfile.LibsndfileError if it cannot be read."""
        buffer = SoundBuffer(window, int(self._file.samplerate), file_layout(self.channels))
        begin = max(0, buffer.first)
        end = min(buffer.first + buffer.length, self.samples)
        if end > begin:
            settling = min(begin, self._settling)
            self._file.seek(begin - settling)
            samples = self._file.read(settling + end - begin, dtype="float32", always_2d=True)[settling:]
            if len(samples) == 0:
                raise ValueError("no samples where the header promised some")
            buffer.write(Sound(samples.T, file_layout(self.channels)), begin / buffer.rate_hz)
        return buffer

    def close(self) -> None:
        """Close libsndfile's handle; the file itself stays open."""
        self._file.close()
