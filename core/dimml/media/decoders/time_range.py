"""Windows of a recording that rows cover. All times are seconds from the start of the recording. Loads no decoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from dimml.errors import InvalidParameterError, TooLargeError
from dimml.media.types import Decoded, DecodeRequest

#: How far a range may reach past the end of the media: containers round durations, and labels round times.
END_TOLERANCE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Window:
    """A range of time; ``end_s >= start_s``, equal only in a recording of no duration."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Windows of ``window_s`` seconds, one every ``stride_s``. The last one ends with the recording.

    ``most`` bounds their number: the setting ``timeline_windows``.
    """

    window_s: float
    stride_s: float
    most: int | None = None

    def count(self, span: Window) -> int:
        """Count the windows that cover ``span``, at least one; a rest below the tolerance gets no window."""
        seconds = span.seconds - END_TOLERANCE_S
        # As many as begin before the end, but none after the first that reaches it.
        return max(1, min(math.ceil(seconds / self.stride_s), 1 + math.ceil((seconds - self.window_s) / self.stride_s)))

    def check(self, count: int) -> None:
        """Check a number of windows. Raises InvalidParameterError."""
        if self.most is not None and count > self.most:
            raise InvalidParameterError(
                f"the recording has {count} windows, more than timeline_windows = {self.most}; ask for a longer hop_s, "
                "or for less with start_s and end_s",
                field="hop_s",
            )

    def window(self, span: Window, number: int) -> Window:
        """Place window ``number``, counted from 0."""
        start_s = span.start_s + number * self.stride_s
        return Window(start_s, min(start_s + self.window_s, span.end_s))


@dataclass(slots=True)
class WindowDecoded:
    """One decoded window of ``count``.

    ``window`` and ``span`` are None for media without time (a picture, or nothing that decodes), which has one window.
    """

    number: int
    count: int
    window: Window | None
    span: Window | None
    decoded: Decoded


def judged_part(window: Window, clip_s: float) -> Window:
    """Choose the middle ``clip_s`` seconds of a window, or all of a shorter one."""
    spare_s = max(0.0, window.seconds - clip_s) / 2.0
    return Window(window.start_s + spare_s, window.end_s - spare_s)


def check_range(request: DecodeRequest) -> None:
    """Check ``start_s`` and ``end_s`` as far as possible before a file is opened.

    Raises InvalidParameterError, which names the field, or TooLargeError.
    """
    for field, value in (("start_s", request.start_s), ("end_s", request.end_s)):
        if value is not None and not (math.isfinite(value) and value >= 0.0):
            raise InvalidParameterError(f"{field} must be a finite number of seconds from 0, got {value}", field=field)
    if request.end_s is None:
        return
    start_s = request.start_s or 0.0
    if request.end_s <= start_s:
        raise InvalidParameterError(f"end_s ({request.end_s:g}) must be after start_s ({start_s:g})", field="end_s")
    _check_length(request.end_s - start_s, request, "the range from start_s to end_s")


def clip_window(duration_s: float, request: DecodeRequest, frame_s: float = 0.0) -> Window:
    """Choose the middle ``clip_s`` seconds of the requested range with its margin, or all of a shorter one.

    A margin ends where the media does. ``frame_s`` is the duration of a picture: an end this far past the media counts
    as its end.
    Raises InvalidParameterError for a range outside the media, TooLargeError for one longer than the limit.
    """
    tolerance_s = max(END_TOLERANCE_S, frame_s)
    start_s, end_s = request.start_s or 0.0, duration_s
    if start_s > 0.0 and start_s >= duration_s:
        raise InvalidParameterError(
            f"start_s ({start_s:g}) is past the end of the media ({duration_s:.3f} s)", field="start_s"
        )
    if request.end_s is not None:
        if request.end_s > duration_s + tolerance_s:
            raise InvalidParameterError(
                f"end_s ({request.end_s:g}) is past the end of the media ({duration_s:.3f} s)", field="end_s"
            )
        end_s = min(request.end_s, duration_s)
    ranged = request.start_s is not None or request.end_s is not None
    _check_length(end_s - start_s, request, "the range" if ranged else "the recording")
    if ranged and request.margin_s > 0.0:
        start_s, end_s = widened(start_s, end_s if request.end_s is None else request.end_s, request.margin_s)
        end_s = min(end_s, duration_s)
    spare_s = max(0.0, end_s - start_s - request.clip_s)
    return Window(start_s + spare_s / 2.0, end_s - spare_s / 2.0)


def widened(start_s: float, end_s: float, margin_s: float) -> tuple[float, float]:
    """Widen a range by a margin on both sides, but not to before 0; rounded, so that a table can state it exactly."""
    return round(max(0.0, start_s - margin_s), 6), round(end_s + margin_s, 6)


def _check_length(seconds: float, request: DecodeRequest, what: str) -> None:
    if seconds > request.limits.max_seconds:
        raise TooLargeError(
            f"{what} lasts {seconds:.1f} s, longer than max_seconds = {request.limits.max_seconds:g}; "
            "ask for a shorter one with start_s and end_s"
        )
