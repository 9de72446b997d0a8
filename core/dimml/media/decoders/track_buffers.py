"""The part of a track that one window covers: filled with decoded sound or pictures, then turned into rows."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from dimml.media.decoders.audio import SoundBuffer
from dimml.media.decoders.mixing import MonoRow, Sound
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.streams.hold import off_screen
from dimml.media.decoders.streams.sound_clock import Placed, SoundClock
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.video import EPSILON_S, Picture, PictureRow
from dimml.modality import Flow, Frames, Waveform
from dimml.status import Reason


class SoundSegment:
    """Sound of one window. Times passed in are seconds from the start of the recording, rounded to ``tick_s``."""

    def __init__(self, window: Window, index: TrackIndex, zero_s: float, tick_s: float) -> None:
        self._window = window
        self._index = index
        #: On the container's clock.
        self.begin_s = zero_s + window.start_s
        self._tick_s = tick_s
        self._due = 0
        self._clock: SoundClock | None = None
        self._buffer: SoundBuffer | None = None
        self._written = 0

    def write(self, sound: Sound, rate_hz: int, time_s: float | None) -> None:
        """Add sound; what lies outside the window is dropped. Raises ValueError for an absurd rate."""
        if self._clock is None or self._buffer is None:
            self._clock = SoundClock(rate_hz, self._tick_s)
            self._buffer = SoundBuffer(self._window, rate_hz, sound.layout)
        self._write(self._buffer, self._clock.add(sound, time_s))

    @property
    def done(self) -> bool:
        """Whether the window is complete."""
        return self._buffer is not None and self._buffer.full

    def close(self) -> None:
        """Count the packets of the window, once all of them are known."""
        if self._clock is not None and self._buffer is not None and not self._buffer.full:
            self._write(self._buffer, self._clock.finish())
        self._due = self._index.packets_between(self.begin_s, self.begin_s + self._window.seconds)

    @property
    def absent(self) -> Reason | None:
        """Reason why the track has no sound in this window; None if it has, or pauses."""
        first_s, last_s = self._index.first_s, self._index.last_s
        if self._written or self._due or first_s is None or last_s is None:
            return None
        if self.begin_s > max(self._index.end_s, last_s + self._index.frame_s):
            return Reason.TRACK_ENDED
        return Reason.TRACK_NOT_STARTED if self.begin_s + self._window.seconds < first_s else None

    def _write(self, buffer: SoundBuffer, placed: Sequence[Placed]) -> None:
        for at, sound in placed:
            self._written += buffer.write(sound, None if at is None else at / buffer.rate_hz)

    def row(self, modality: Waveform) -> MonoRow:
        """Make the modality's row; one of None if the window had sound and none of it could be decoded."""
        if self._written == 0 and self._due:
            return MonoRow(None)
        # Without any sound here, the track ended earlier or starts later.
        return (self._buffer or SoundBuffer(self._window, modality.sample_rate_hz)).row(modality)


class PictureSegment:
    """Pictures of one window, with a row for each modality that is made of them."""

    def __init__(self, window: Window, modalities: Sequence[Frames | Flow], index: TrackIndex, zero_s: float) -> None:
        self.rows = [PictureRow(modality, window) for modality in modalities]
        self._index = index
        self._zero_s = zero_s
        self._due = 0
        #: Times of the first and the last wanted frame, on the container's clock.
        self.begin_s = zero_s + min(row.first_wanted_s for row in self.rows)
        self.last_wanted_s = zero_s + max(row.last_wanted_s for row in self.rows)
        self._seen_inside = 0

    def see(self, time_s: float) -> None:
        """Count a decoded picture with this time on the container's clock."""
        self._seen_inside += self.begin_s < time_s <= self.last_wanted_s

    def show(self, picture: Picture, following: Picture | None) -> None:
        """Show ``picture`` until ``following`` begins; None: to the end."""
        for row in self.rows:
            row.show(picture, following)

    def shown_times(self) -> frozenset[float]:
        """Times in the index of the pictures that its rows are made of, of each the next one too where it counts."""
        times_s, last = self._index.times_s, len(self._index.times_s) - 1
        shown: set[float] = set()
        for row in self.rows:
            following = isinstance(row.modality, Flow)
            for wanted_s in row.wanted_s:
                # On either side of the tolerance, where rounding decides.
                first = bisect.bisect_right(times_s, self._zero_s + wanted_s) - 1
                position = bisect.bisect_right(times_s, self._zero_s + wanted_s + 2 * EPSILON_S) - 1
                shown.update(times_s[max(0, first) : max(0, min(position + following, last)) + 1])
        return frozenset(shown)

    @property
    def done(self) -> bool:
        """Whether every frame of every row is there."""
        return all(row.done for row in self.rows)

    def close(self) -> None:
        """Count the packets of the window, once all of them are known."""
        self._due = self._index.packets_between(self.begin_s + EPSILON_S, self.last_wanted_s)

    @property
    def pictures(self) -> int:
        """How many different ones are on screen from the first to the last frame wanted."""
        return 1 + self._seen_inside

    @property
    def decoded(self) -> bool:
        """Whether the rows can be used: complete, and of pictures in the window if several were due there."""
        return self.done and (self._seen_inside > 0 or self._due < 2)

    def off_screen(self, row: PictureRow) -> Reason | None:
        """Reason why the track shows no picture for most of a row; None if it does."""
        wanted_s = [self._zero_s + time_s for time_s in row.wanted_s]
        return off_screen(wanted_s, self._index, row.modality.hold_s)
