"""Placing decoded sound by its time stamps, which containers round and recorders take from other clocks.

A container rounds a stamp to its tick (1 ms in Matroska and FLV), and some stamps are off for one frame only. Within a
tick, frames therefore follow one another; further off, a frame moves by what its own stamp and the next one agree on.
Small moves stretch the frame, so that a clock which runs a little fast or slow leaves neither gaps nor clicks.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dimml.media.decoders.mixing import Sound

#: Samples from the recording's start at which sound begins, None: not known; and the sound.
Placed = tuple[int | None, Sound]

#: A frame is stretched or squeezed by at most this share of its length; a larger move leaves a gap or overlaps.
STRETCH: Final = 0.1
#: A jump before the last frame of a track, which no other stamp confirms, is believed if it is longer.
UNCONFIRMED_S: Final = 0.04


class SoundClock:
    """Places the frames of one track at ``rate_hz``; stamps are rounded to ``tick_s``.

    Each frame waits for the stamp of the next one.
    """

    def __init__(self, rate_hz: int, tick_s: float) -> None:
        self._rate_hz = rate_hz
        self._rounding = tick_s * rate_hz + 1.0
        self._waiting: tuple[Sound, float | None] | None = None
        self._next: int | None = None

    def add(self, sound: Sound, time_s: float | None) -> list[Placed]:
        """Add a frame with its stamp in seconds, None without one; return the frames that are placed by now."""
        placed = self._place(time_s)
        self._waiting = sound, time_s
        return placed

    def finish(self) -> list[Placed]:
        """Place the last frame."""
        return self._place(None)

    def _place(self, following_s: float | None) -> list[Placed]:
        if self._waiting is None:
            return []
        (sound, time_s), self._waiting = self._waiting, None
        at = self._next
        if time_s is None:
            move = 0
        elif at is None:
            at, move = round(time_s * self._rate_hz), 0
        else:
            move = self._move(time_s * self._rate_hz - at, following_s, at + len(sound))
        if move == 0:
            pass
        elif abs(move) <= STRETCH * len(sound):
            sound = _stretched(sound, len(sound) + move)
        elif at is not None:
            at += move
        self._next = None if at is None else at + len(sound)
        return [(at, sound)]

    def _move(self, early: float, following_s: float | None, follows_at: int) -> int:
        """Samples by which a frame moves that stands ``early`` by so many samples."""
        if abs(early) <= self._rounding:
            return 0
        if following_s is None:
            return round(early) if abs(early) > UNCONFIRMED_S * self._rate_hz else 0
        confirmed = following_s * self._rate_hz - follows_at
        if early * confirmed <= 0.0:
            return 0
        return round(early if abs(early) < abs(confirmed) else confirmed)


def _stretched(sound: Sound, length: int) -> Sound:
    if length == len(sound) or len(sound) < 2 or length < 1:
        return sound
    places = np.linspace(0.0, len(sound) - 1.0, length)
    stretched = np.stack([np.interp(places, np.arange(len(sound)), channel) for channel in sound.samples])
    return Sound(stretched.astype(np.float32), sound.layout)
