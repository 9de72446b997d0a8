"""How long a picture stays on screen after its track has ended, or stands for the time before the track begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dimml.media.decoders.packet_index import TrackIndex
from dimml.status import Reason

#: Tracks of so few pictures are stills beside the sound: how long they last, their packets do not say. A browser
#: records a canvas at rest as one or two packets.
STILLS: Final = 2


def off_screen(wanted_s: Sequence[float], index: TrackIndex, hold_s: float | None) -> Reason | None:
    """Reason why no picture is on screen for most of these ascending times on the container's clock; None if one is.

    The last picture of a track lasts as long as any before it has: slides stay. ``hold_s`` seconds are added to that,
    and to the time before the first picture; None: without end.
    """
    if hold_s is None or not wanted_s or index.first_s is None or index.last_s is None:
        return None
    # More than half of them: the later of two.
    first_s, last_s = wanted_s[(len(wanted_s) - 1) // 2], wanted_s[len(wanted_s) // 2]
    if last_s < index.first_s - hold_s:
        return Reason.TRACK_NOT_STARTED
    if first_s <= index.last_s + hold_s or index.packets <= STILLS:
        return None
    if first_s > max(index.end_s, index.last_s + index.longest_s) + hold_s:
        return Reason.TRACK_ENDED
    return None
