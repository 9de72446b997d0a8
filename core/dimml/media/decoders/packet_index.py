"""One pass over a file's packets, without decoding: its real duration, and where decoding has to begin.

Durations in headers cannot be relied on: fragmented files have absurd ones, truncated files keep that of the whole,
recorded WebM has none. The packets are what a decoder will meet.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dimml.media.decoders.container import UNREADABLE

#: A frame of MP3 is completed from the bytes of up to so many before it.
MP3_SETTLING_FRAMES: Final = 10


@dataclass(slots=True)
class TrackIndex:
    """Times of one stream's packets, in seconds on the container's own clock."""

    start_s: float | None = None
    end_s: float = -math.inf
    packets: int = 0
    #: Presentation times in ascending order; for pictures one per frame.
    times_s: list[float] = field(default_factory=list)
    keyframes_s: list[float] = field(default_factory=list)
    #: Sound that the decoder needs before it is right, where that is longer than for most.
    settling_s: float = 0.0

    def keyframe_before(self, time_s: float) -> float | None:
        """Find the last keyframe at or before ``time_s``; None without one."""
        position = bisect.bisect_right(self.keyframes_s, time_s)
        return self.keyframes_s[position - 1] if position else None

    def packets_between(self, first_s: float, last_s: float) -> int:
        """Count the packets with times from ``first_s`` to ``last_s``, both included."""
        return bisect.bisect_right(self.times_s, last_s) - bisect.bisect_left(self.times_s, first_s)

    def note(self, time_s: float) -> None:
        """Add a packet of a track that is read as it arrives, without a scan."""
        bisect.insort(self.times_s, time_s)

    def forget(self, before_s: float) -> None:
        """Drop packets before this time, but keep the two that ``frame_s`` needs."""
        del self.times_s[: min(bisect.bisect_left(self.times_s, before_s), max(0, len(self.times_s) - 2))]

    @property
    def frame_s(self) -> float:
        """Mean time between packets, 0 for fewer than two."""
        if len(self.times_s) < 2:
            return 0.0
        return (self.times_s[-1] - self.times_s[0]) / (len(self.times_s) - 1)


@dataclass(slots=True)
class ContainerIndex:
    """Times of all scanned streams: the recording begins at ``zero_s`` on the container's clock."""

    zero_s: float
    duration_s: float
    tracks: dict[int, TrackIndex]


def scan(container: Any, streams: Sequence[Any]) -> ContainerIndex:
    """Read all packets of ``streams``; a broken container ends with the last readable one. Raises MemoryError."""
    tracks = {stream.index: TrackIndex() for stream in streams}
    if not streams:
        # PyAV would take no streams for all of them.
        return ContainerIndex(0.0, 0.0, tracks)
    ticks = {stream.index: float(stream.time_base or 0) for stream in streams}
    try:
        for packet in container.demux(*streams):
            # Some containers show new streams on the way.
            track = tracks.get(packet.stream_index)
            if packet.size == 0 or track is None:
                continue
            tick = ticks[packet.stream_index]
            track.packets += 1
            pts = packet.pts if packet.pts is not None else packet.dts
            if pts is None:
                continue
            time_s = pts * tick
            track.times_s.append(time_s)
            track.end_s = max(track.end_s, time_s + (packet.duration or 0) * tick)
            if packet.is_keyframe:
                track.keyframes_s.append(time_s)
    except MemoryError:
        raise
    except UNREADABLE:
        # The rest cannot be read; the packets before it still count.
        pass
    for stream in streams:
        track = tracks[stream.index]
        track.times_s.sort()
        track.keyframes_s.sort()
        if track.times_s:
            if stream.codec_context.name.startswith("mp3"):
                track.settling_s = MP3_SETTLING_FRAMES * track.frame_s
            if track.end_s <= track.times_s[-1]:
                # The last packet does not say how long it lasts.
                track.end_s = track.times_s[-1] + track.frame_s
            # Sound that a decoder drops (encoder delay) lies before the stream's start.
            first_s = track.times_s[0]
            declared_s = first_s if stream.start_time is None else stream.start_time * ticks[stream.index]
            track.start_s = max(first_s, declared_s)
    starts = [track.start_s for track in tracks.values() if track.start_s is not None]
    # Nothing is presented before 0 in MP4 and Matroska; transport streams start anywhere above it.
    zero_s = max(0.0, min(starts, default=0.0))
    end_s = max((track.end_s for track in tracks.values()), default=0.0)
    return ContainerIndex(zero_s, max(0.0, end_s - zero_s), tracks)
