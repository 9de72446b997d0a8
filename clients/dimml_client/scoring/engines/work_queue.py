"""Recordings for many threads from one iterator, which is not safe to share."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable, Sequence
from itertools import islice

from dimml_client.scoring.recording import Recording


class WorkQueue:
    """Each recording goes to one of the threads that take, and comes again where that one gives it back.

    What is given back comes before all that has not been taken yet, the lowest index first: a thread that waits for
    earlier recordings to be done (``Room``) must not have one of them in its own hands, or leave it here.
    """

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._recordings = iter(recordings)
        #: Index, recording, and whether it is to be taken alone.
        self._returned: list[tuple[int, Recording, bool]] = []
        #: Lists of several that are out: some of them may come back.
        self._out = 0
        self._changed = threading.Condition()

    def take(self, count: int, timeout_s: float) -> list[Recording] | None:
        """The next so many, or fewer; none at the end. None where nothing is there within ``timeout_s`` and it is not
        the end, since another thread may still give something back. A list of several must be settled.
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
        """A list of several is done but for these; the last ones are to be taken alone."""
        with self._changed:
            self._out -= 1
            for recordings, by_itself in ((undone, False), (alone, True)):
                for recording in recordings:
                    heapq.heappush(self._returned, (recording.index, recording, by_itself))
            self._changed.notify_all()

    def _alone(self) -> bool:
        """Whether what comes next is to be taken alone."""
        return self._returned[0][2]

    def _pop(self) -> Recording:
        return heapq.heappop(self._returned)[1]
