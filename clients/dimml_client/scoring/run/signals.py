"""Handling of Ctrl-C and SIGTERM: the first finishes what is in progress, the second ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType, TracebackType
from typing import Final, Self

_WORDS: Final = b"\nfinishing what is under way; once more to stop at once\n"
_STDERR: Final = 2


class StopRequest:
    """A context manager for the main thread; ``asked`` turns true at the first signal.

    The second ends the process as that signal does by default. Only rows in no complete part are lost: a run must be
    safe against ``kill -9`` anyway.
    """

    def __init__(self, *, quiet: bool) -> None:
        self.asked = False
        self._quiet = quiet
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # signal.signal returned it

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.asked = True
        if not self._quiet:
            # Not through rich: the signal may have interrupted one of its writes.
            with contextlib.suppress(OSError):
                os.write(_STDERR, _WORDS)
