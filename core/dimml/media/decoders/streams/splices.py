"""Transport streams that were joined: time stamps begin again, or jump, where the next piece begins.

Stamps are compared by decoding time, which never goes back within a piece. The limits are those of the ffmpeg command
(``ts_discontinuity_process``); its offset follows from whichever stream comes first, ours from all of them, so that no
stream of the next piece begins before the end of the last.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

#: A decoding time this much before the last one begins a new piece, one this much after the expected one too.
RESTART_S: Final = 0.1
JUMP_S: Final = 10.0
#: Demuxers of formats whose clock may begin again. It starts anywhere, and runs from negative times where it wraps
#: shortly after the start (FFmpeg's ``correct_ts_overflow``).
FREE_RUNNING: Final = frozenset({"mpegts", "mpeg"})


@dataclass(frozen=True, slots=True)
class Shift:
    """From packet number ``packet`` of a stream on, ``ticks`` are added to its stamps."""

    packet: int
    ticks: int


class SpliceDetector:
    """Sorts the packets of all streams, in the order of the file, into pieces. Times are seconds.

    ``pieces`` holds, for each stream, the numbers of the pieces that its packets belong to, in order.
    """

    def __init__(self, streams: Iterable[int]) -> None:
        self.pieces: dict[int, list[int]] = {stream: [0] for stream in streams}
        self._last_s: dict[int, float] = {}
        self._expected_s: dict[int, float] = {}
        #: Latest decoding time of each piece, of whatever stream.
        self._reached_s = [-math.inf]

    def see(self, stream: int, dts_s: float, duration_s: float) -> bool:
        """Add the next packet; return whether another piece of its stream begins with it."""
        pieces = self.pieces[stream]
        breaks = self._breaks(stream, pieces[-1], dts_s)
        if breaks:
            pieces.append(self._piece_after(pieces[-1], dts_s))
        self._last_s[stream], self._expected_s[stream] = dts_s, dts_s + duration_s
        self._reached_s[pieces[-1]] = max(self._reached_s[pieces[-1]], dts_s)
        return breaks

    def _breaks(self, stream: int, piece: int, dts_s: float) -> bool:
        last_s = self._last_s.get(stream)
        if last_s is None:
            # A stream that appears after a splice belongs to the piece whose clock it shares.
            return piece < len(self._reached_s) - 1
        if dts_s < last_s - RESTART_S:
            return True
        # A stream of rare packets, such as slides, jumps no further than the other streams have come.
        return dts_s > max(self._expected_s[stream], self._reached_s[piece]) + JUMP_S

    def _piece_after(self, piece: int, dts_s: float) -> int:
        """Number of the piece that begins: the latest one where another stream is there already, else a new one."""
        latest = len(self._reached_s) - 1
        if latest > piece and abs(dts_s - self._reached_s[latest]) <= JUMP_S:
            return latest
        self._reached_s.append(-math.inf)
        return latest + 1


def piece_offsets_s(extents_s: Sequence[tuple[float, float]]) -> list[float]:
    """Seconds to add to each piece's times, given their first and last ones, so that each begins where one ends."""
    gaps = [end_s - start_s for (_, end_s), (start_s, _) in pairwise(extents_s)]
    return list(accumulate((gap if math.isfinite(gap) else 0.0 for gap in gaps), initial=0.0))


def move_stamps(packet: Any, number: int, shifts: Sequence[Shift]) -> None:
    """Correct the stamps of a stream's packet with this number, from 0, where the first shift begins."""
    ticks = shifts[bisect.bisect_right(shifts, number, key=lambda shift: shift.packet) - 1].ticks
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
