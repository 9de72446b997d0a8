"""Queue that shares one iterator of recordings, itself not thread-safe, among many threads."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Sequence
from itertools import islice

from dimml_client.scoring.recording import Recording


class WorkQueue:
    """Gives each recording to one of the taking threads, and again if that one gives it back.

    Returned recordings come before all that have not been taken yet, the lowest index first: a thread that waits for
    earlier recordings to be done (``Room``) must not hold one of them itself, or leave it here.
    """

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._recordings = iter(recordings)
        #: Index, recording, and whether it must be taken alone.
        self._returned: list[tuple[int, Recording, bool]] = []
        #: Number of lists of several that are out: some of their recordings may come back.
        self._out = 0
        self._changed = threading.Condition()

    def take(self, count: int, timeout_s: float) -> list[Recording] | None:
        """Take the next ``count`` recordings, or fewer; an empty list at the end.

        Returns None if nothing is available within ``timeout_s`` but another thread may still give something back. A
        list of several recordings must be settled.
        """
        with self._changed:
            if self._returned and self._alone():
                return [self._pop()]
            taken: list[Recording] = []
            while len(taken) < count and self._returned and not self._alone():
                taken.append(self._pop())
            taken += islice(self._recordings, count - len(taken))
            if len(taken) > 1:
                self._out += 1
            if not taken and self._out:
                self._changed.wait(timeout_s)
                return None
            return taken

    def settle(self, undone: Sequence[Recording] = (), alone: Sequence[Recording] = ()) -> None:
        """Report a list of several as done, except for these; those in ``alone`` must be taken one at a time."""
        with self._changed:
            self._out -= 1
            for recordings, by_itself in ((undone, False), (alone, True)):
                for recording in recordings:
                    heapq.heappush(self._returned, (recording.index, recording, by_itself))
            self._changed.notify_all()

    def _alone(self) -> bool:
        """Whether the next recording must be taken alone."""
        return self._returned[0][2]

    def _pop(self) -> Recording:
        return heapq.heappop(self._returned)[1]
