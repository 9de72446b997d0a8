"""Scoring in this process: decode workers → batches → ONNX Runtime → rows, as a pipeline with bounded queues.

As many decode workers as cores, and as many batches at a time, each encoder with one thread: whichever of the two is
the bottleneck has all cores, since the other waits at a queue. Nothing is gained by threads within a run then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dimml.errors import ConfigurationError, DimmlError, UnavailableError
from dimml.media.pool import DecodePool
from dimml.media.types import Decoded, MediaLimits
from dimml_client.scoring.media import decode_request, parts_at_hand
from dimml_client.scoring.pipeline import Pipeline
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.rows import scored_row
from dimml_client.scoring.schema import ScoredBundle

#: Time limit of decoding one recording.
DECODE_LIMIT_S: Final = 60.0
#: Rows of one run of the encoders.
BATCH_ROWS: Final = 16
#: How long a batch that is not full waits for more rows. Nobody waits for a single answer here.
LINGER_S: Final = 0.2

#: Whether the recording with this index may be taken up; waits for it so many seconds.
Room = Callable[[int, float], bool]


@dataclass(frozen=True, slots=True)
class _Job:
    """A recording that is decoded and waits for its answer."""

    recording: Recording
    decoded: Decoded
    spent_s: float


class LocalScorer:
    """Scores with a bundle of a repository, on ``cores`` cores. Entering loads it, and starts the decode workers.

    Raises BundleError, and ConfigurationError where the serving part of dimml is not installed.
    """

    def __init__(
        self,
        repository: Path,
        model: str | None = None,
        version: int | None = None,
        *,
        cores: int,
        limits: MediaLimits = MediaLimits(),
    ) -> None:
        try:
            from dimml_server.local import LocalBundle
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"scoring in this process needs {error.name}, which is not installed: pip install 'dimml[serve,score]'"
            ) from error
        self._runner = LocalBundle(repository, model, version, concurrency=cores)
        #: What it scores with.
        self.bundle = ScoredBundle.of(self._runner.bundle)
        self._cores = cores
        self._batch_rows = min(BATCH_ROWS, self._runner.bundle.max_batch_size)
        self._limits = limits
        self._stack = ExitStack()

    @property
    def settings(self) -> dict[str, Any]:
        """What rows depend on beside the bundle and the recording."""
        return {"decode_limit_s": DECODE_LIMIT_S, **asdict(self._limits)}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._pool = stack.enter_context(DecodePool(self._cores))
            stack.enter_context(self._runner)
            self._pool.warm_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def score(self, recordings: Iterable[Recording], room: Room) -> Generator[Scored, None, None]:
        """One row of each recording, in any order; a bad recording is a row. ``recordings`` is read lazily, from any
        thread, one at a time. Closing the iterator gives the run up.

        Raises UnavailableError where no decode worker can be had.
        """
        line: Pipeline[_Job, Scored] = Pipeline(self._cores, batch=self._batch_rows, linger_s=LINGER_S)
        feed = _Feed(recordings)
        return line.run(lambda: self._decode(feed, line, room), lambda: self._predict(line))

    def _decode(self, feed: _Feed, line: Pipeline[_Job, Scored], room: Room) -> None:
        for recording in feed:
            line.wait_for(partial(room, recording.index))
            began = time.perf_counter()
            try:
                with parts_at_hand(recording, self._limits.max_bytes) as parts:
                    request = decode_request(self._runner.bundle, recording, parts, self._limits)
                    decoded = self._pool.decode_blocking(request, timeout_s=DECODE_LIMIT_S)
            except UnavailableError:
                # Not the recording's fault: without workers no other would fare better.
                raise
            except DimmlError as error:
                ms = 1000.0 * (time.perf_counter() - began)
                line.give(Scored(recording.index, scored_row(recording, self.bundle, error, ms)))
                continue
            line.hand_on(_Job(recording, decoded, time.perf_counter() - began))

    def _predict(self, line: Pipeline[_Job, Scored]) -> None:
        while jobs := line.gather():
            began = time.perf_counter()
            fates = self._runner.predict([job.decoded for job in jobs])
            share_s = (time.perf_counter() - began) / len(jobs)
            for job, fate in zip(jobs, fates, strict=True):
                ms = 1000.0 * (job.spent_s + share_s)
                line.give(Scored(job.recording.index, scored_row(job.recording, self.bundle, fate, ms)))


class _Feed:
    """Recordings for many threads from one iterator, which is not safe to share."""

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
