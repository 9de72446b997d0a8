"""What one window takes of a track: fed with decoded sound or pictures, asked for rows at the end."""

from __future__ import annotations

from collections.abc import Sequence

from dimml.media.decoders.audio import SoundBuffer
from dimml.media.decoders.mixing import MonoRow, Sound
from dimml.media.decoders.packet_index import TrackIndex
from dimml.media.decoders.time_range import Window
from dimml.media.decoders.video import EPSILON_S, Picture, PictureRow
from dimml.modality import Flow, Frames, Waveform


class SoundStretch:
    """The sound of one window. Times given to it are seconds from the recording's start."""

    def __init__(self, window: Window, index: TrackIndex, zero_s: float) -> None:
        self._window = window
        self._index = index
        #: On the container's clock.
        self.begin_s = zero_s + window.start_s
        self._due = 0
        self._buffer: SoundBuffer | None = None
        self._written = 0

    def write(self, sound: Sound, rate_hz: int, time_s: float | None) -> None:
        """Sound that may lie anywhere. Raises ValueError where no sane recording has such a rate."""
        if self._buffer is None:
            self._buffer = SoundBuffer(self._window, rate_hz, sound.layout)
        self._written += self._buffer.write(sound, time_s)

    @property
    def done(self) -> bool:
        """Whether later sound adds nothing."""
        return self._buffer is not None and self._buffer.full

    def close(self) -> None:
        """Count what was due, once every packet of the window is known."""
        self._due = self._index.packets_between(self.begin_s, self.begin_s + self._window.seconds)

    def row(self, modality: Waveform) -> MonoRow:
        """The modality's row; None where sound was due in the window and none could be decoded."""
        if self._written == 0 and self._due:
            return MonoRow(None)
        # No sound here at all: the track ended earlier or starts later.
        return (self._buffer or SoundBuffer(self._window, modality.sample_rate_hz)).row(modality)


class PictureStretch:
    """The pictures of one window: a row for each modality that comes from them."""

    def __init__(self, window: Window, modalities: Sequence[Frames | Flow], index: TrackIndex, zero_s: float) -> None:
        self.rows = [PictureRow(modality, window) for modality in modalities]
        self._index = index
        self._due = 0
        #: The first and the last frame that are wanted, on the container's clock.
        self.begin_s = zero_s + min(row.first_wanted_s for row in self.rows)
        self.last_wanted_s = zero_s + max(row.last_wanted_s for row in self.rows)
        self._seen_inside = 0

    def see(self, time_s: float) -> None:
        """A picture was decoded whose time, on the container's clock, is this."""
        self._seen_inside += self.begin_s < time_s <= self.last_wanted_s

    def show(self, picture: Picture, following: Picture | None) -> None:
        """``picture`` is on screen until ``following`` is."""
        for row in self.rows:
            row.show(picture, following)

    @property
    def done(self) -> bool:
        """Whether every frame of every row is there."""
        return all(row.done for row in self.rows)

    def close(self) -> None:
        """Count what was due, once every packet of the window is known."""
        self._due = self._index.packets_between(self.begin_s + EPSILON_S, self.last_wanted_s)

    @property
    def pictures(self) -> int:
        """How many different ones are on screen from the first to the last frame wanted."""
        return 1 + self._seen_inside

    @property
    def decoded(self) -> bool:
        """Whether there is a picture, and not just one from before where several were due and did not decode."""
        return self.done and (self._seen_inside > 0 or self._due < 2)
