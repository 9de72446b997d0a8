"""One pass over a file's packets, without decoding: its real duration, and where decoding has to begin.

Durations in headers cannot be relied on: fragmented files have absurd ones, truncated files keep that of the whole,
recorded WebM has none. The packets are what a decoder will meet.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np

from dimml.media.decoders.container import UNREADABLE
from dimml.media.decoders.framing.mpeg_audio import MAX_SETTLING_FRAMES
from dimml.media.decoders.streams.last_packet import last_packet_s, packet_ends
from dimml.media.decoders.streams.orientation import Matrix, h264_header, read_orientation
from dimml.media.decoders.streams.splices import FREE_RUNNING, Shift, SpliceDetector, piece_offsets_s

#: Packets of more bytes are read a second time rather than held: several recordings are decoded side by side.
MAX_KEPT_BYTES: Final = 4 << 20


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
    #: Longest time from a packet's decoding to its presentation, of containers in which a seek goes by decoding times.
    lead_s: float = 0.0
    #: Corrections of stamps after splices; none in most recordings.
    shifts: list[Shift] = field(default_factory=list)
    #: Display matrices inside the stream, each with the time from which it applies, ascending.
    orientations: list[tuple[float, Matrix | None]] = field(default_factory=list)
    #: The first and the last presentation time.
    first_s: float | None = None
    last_s: float | None = None
    _longest_s: float | None = None
    #: Whether a packet's times of decoding and of presentation differ.
    reordered: bool = False
    #: Whether a picture that should have been shown did not come.
    unreliable: bool = False
    #: Keyframes that ``retreat`` drops the next time.
    _retreat: int = 1

    @property
    def timed(self) -> bool:
        """Whether at least half of the packets carry a time; what is read by the others' guesses stands anywhere."""
        return 2 * len(self.times_s) >= self.packets

    def keyframe_before(self, time_s: float) -> float | None:
        """Find the last keyframe at or before ``time_s``; None without one."""
        position = bisect.bisect_right(self.keyframes_s, time_s)
        return self.keyframes_s[position - 1] if position else None

    @property
    def retreated(self) -> bool:
        """Whether flags of keyframes were found to be wrong."""
        return self._retreat > 1

    def retreat(self, time_s: float) -> None:
        """Drop the keyframe at ``time_s``, which is flagged wrongly, and some before it: twice as many each time."""
        position = bisect.bisect_right(self.keyframes_s, time_s)
        del self.keyframes_s[max(0, position - self._retreat) : position]
        self._retreat *= 2

    def packets_between(self, first_s: float, last_s: float) -> int:
        """Count the packets with times from ``first_s`` to ``last_s``, both included."""
        return bisect.bisect_right(self.times_s, last_s) - bisect.bisect_left(self.times_s, first_s)

    def note(self, time_s: float) -> None:
        """Add a packet of a track that is read as it arrives, without a scan."""
        bisect.insort(self.times_s, time_s)
        self.packets += 1
        if self.last_s is not None:
            self._longest_s = max(self.longest_s, time_s - self.last_s)
        self.first_s = time_s if self.first_s is None else min(self.first_s, time_s)
        self.last_s = time_s if self.last_s is None else max(self.last_s, time_s)

    def note_orientation(self, time_s: float, packet: Any, header: bytes) -> None:
        """Add the display matrix in a keyframe of H.264, if it holds one."""
        found = read_orientation(memoryview(packet), header)
        if found is not None:
            self.orientations.append((time_s, *found))

    def note_matrix(self, time_s: float, matrix: Matrix) -> None:
        """Add the display matrix that a decoded picture carries, unless it applies already."""
        known = self.orientation_at(time_s)
        if known is None or not np.array_equal(known, matrix):
            bisect.insort(self.orientations, (time_s, matrix), key=lambda entry: entry[0])

    def orientation_at(self, time_s: float) -> Matrix | None:
        """Find the display matrix inside the stream that applies at ``time_s``; None without one."""
        if not self.orientations:
            return None
        position = bisect.bisect_right(self.orientations, time_s, key=lambda entry: entry[0])
        return self.orientations[position - 1][1] if position else None

    def forget(self, before_s: float) -> None:
        """Drop packets before this time, but keep the two that ``frame_s`` needs."""
        del self.times_s[: min(bisect.bisect_left(self.times_s, before_s), max(0, len(self.times_s) - 2))]

    @property
    def longest_s(self) -> float:
        """Longest time between two packets, 0 for fewer than two."""
        if self._longest_s is None:
            self._longest_s = max((later - time_s for time_s, later in pairwise(self.times_s)), default=0.0)
        return self._longest_s

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
    #: All packets of the scan and those that flush the decoders, in order; None unless they were kept.
    packets: Sequence[Any] | None = None


def scan(container: Any, streams: Sequence[Any], *, keep: bool = False) -> ContainerIndex:
    """Read all packets of ``streams``; a broken container ends with the last readable one. Raises MemoryError.

    With ``keep`` the packets are there to be decoded, if they are at most ``MAX_KEPT_BYTES`` and none is unreadable.
    """
    tracks = {stream.index: TrackIndex() for stream in streams}
    if not streams:
        # PyAV would take no streams for all of them.
        return ContainerIndex(0.0, 0.0, tracks)
    parts = {stream: [track] for stream, track in tracks.items()}
    ticks = {stream.index: float(stream.time_base or 0) for stream in streams}
    headers = {stream.index: h264_header(stream) for stream in streams}
    ends = packet_ends(streams)
    free_running = container.format.name in FREE_RUNNING
    splices = SpliceDetector(tracks) if free_running else None
    kept: list[Any] | None = [] if keep else None
    kept_bytes = 0
    try:
        for packet in container.demux(*streams):
            # Some containers show new streams on the way.
            number, size = packet.stream_index, packet.size
            if kept is not None:
                kept.append(packet)
                kept_bytes += size
                if kept_bytes > MAX_KEPT_BYTES:
                    kept = None
            track = tracks.get(number)
            if size == 0 or track is None:
                continue
            tick, pts, dts, duration = ticks[number], packet.pts, packet.dts, packet.duration or 0
            if pts is None:
                pts = dts
            if splices is not None and pts is not None:
                decoded_at = pts if dts is None else dts
                track.lead_s = max(track.lead_s, (pts - decoded_at) * tick)
                if splices.see(number, decoded_at * tick, duration * tick):
                    track = tracks[number] = TrackIndex()
                    parts[number].append(track)
            track.packets += 1
            if pts is None:
                continue
            if dts != pts:
                track.reordered = True
            time_s = pts * tick
            track.times_s.append(time_s)
            if number in ends:
                ends[number].append(packet)
            track.end_s = max(track.end_s, time_s + duration * tick)
            if packet.is_keyframe:
                track.keyframes_s.append(time_s)
                header = headers[number]
                if header is not None:
                    track.note_orientation(time_s, packet, header)
    except MemoryError:
        raise
    except UNREADABLE:
        # The rest cannot be read; the packets before it still count.
        kept = None
    if splices is not None:
        tracks = _joined(parts, splices.pieces, ticks)
    for stream in streams:
        track = tracks[stream.index]
        track.times_s.sort()
        track.keyframes_s.sort()
        track.orientations.sort(key=lambda entry: entry[0])
        if track.times_s:
            if stream.codec_context.name.startswith("mp3"):
                track.settling_s = MAX_SETTLING_FRAMES * track.frame_s
            track.first_s, track.last_s = track.times_s[0], track.times_s[-1]
            length_s = last_packet_s(stream, ends[stream.index]) if ends.get(stream.index) else None
            if length_s is not None:
                track.end_s = track.times_s[-1] + length_s
            if track.end_s <= track.times_s[-1]:
                # The last packet does not say how long it lasts.
                track.end_s = track.times_s[-1] + track.frame_s
            # Sound that a decoder drops (encoder delay) lies before the stream's start.
            first_s = track.times_s[0]
            declared_s = first_s if stream.start_time is None else stream.start_time * ticks[stream.index]
            track.start_s = max(first_s, declared_s)
    starts = [track.start_s for track in tracks.values() if track.start_s is not None]
    zero_s = min(starts, default=0.0)
    if not free_running:
        # Nothing is presented before 0 in MP4 and Matroska.
        zero_s = max(0.0, zero_s)
    end_s = max((track.end_s for track in tracks.values()), default=0.0)
    return ContainerIndex(zero_s, max(0.0, end_s - zero_s), tracks, kept)


def _joined(
    parts: Mapping[int, Sequence[TrackIndex]], pieces: Mapping[int, Sequence[int]], ticks: Mapping[int, float]
) -> dict[int, TrackIndex]:
    """Put the parts of each stream one after the other on one clock, by the pieces of the recording they belong to."""
    count = 1 + max(max(numbers) for numbers in pieces.values())
    if count == 1:
        return {stream: of_stream[0] for stream, of_stream in parts.items()}
    extents_s = [(math.inf, -math.inf)] * count
    for stream, of_stream in parts.items():
        for piece, part in zip(pieces[stream], of_stream, strict=True):
            if part.times_s:
                start_s, end_s = extents_s[piece]
                extents_s[piece] = min(start_s, *part.times_s), max(end_s, part.end_s, *part.times_s)
    offsets_s = piece_offsets_s(extents_s)
    tracks = {}
    for stream, of_stream in parts.items():
        track = tracks[stream] = TrackIndex()
        for piece, part in zip(pieces[stream], of_stream, strict=True):
            shift = Shift(track.packets, round(offsets_s[piece] / ticks[stream]) if ticks[stream] else 0)
            by_s = shift.ticks * ticks[stream]
            track.shifts.append(shift)
            track.packets += part.packets
            track.times_s += [time_s + by_s for time_s in part.times_s]
            track.keyframes_s += [time_s + by_s for time_s in part.keyframes_s]
            track.orientations += [(time_s + by_s, matrix) for time_s, matrix in part.orientations]
            track.end_s = max(track.end_s, part.end_s + by_s)
    return tracks
