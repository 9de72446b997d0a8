"""Recordings for many threads from one iterator, which is not safe to share."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from dimml_client.scoring.recording import Recording


class Feed:
    """Each recording goes to one of the threads that iterate."""

    def __init__(self, recordings: Iterable[Recording]) -> None:
        self._recordings = iter(recordings)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Recording]:
        while True:
            with self._lock:
                recording = next(self._recordings, None)
            if recording is None:
                return
            yield recording
