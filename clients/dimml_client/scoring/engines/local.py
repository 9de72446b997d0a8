"""Scoring in this process: decode workers → batches → ONNX Runtime → rows, as a pipeline with bounded queues.

There are as many decode workers as cores, and as many concurrent batches, with one thread per encoder: whichever stage
is the bottleneck gets all cores, since the other waits at a queue, so threads within a run would gain nothing. Both
take turns: never more run at a time than there are cores, which costs less processor time than competition.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from dimml.errors import ConfigurationError, DimmlError, UnavailableError
from dimml.media import decode
from dimml.media.decoders.time_range import WindowPlan
from dimml.media.types import Decoded, DecodeRequest
from dimml.media.workers.messages import SEVERAL_S, DecodeFunction, DecodeResult, Lost, most_together
from dimml.media.workers.pool import DecodePool
from dimml.media.workers.timeline import decode_timeline
from dimml.prediction import Prediction
from dimml.system.installation import install_command
from dimml_client.scoring.engines.decode_request import (
    DECODE_LIMIT_S,
    WindowOptions,
    decode_request,
    in_process_settings,
    limits_of,
    parts_at_hand,
)
from dimml_client.scoring.engines.protocol import Room, no_limit
from dimml_client.scoring.engines.two_stage_pipeline import Pipeline
from dimml_client.scoring.engines.work_queue import WorkQueue
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.table.rows import scored_row
from dimml_client.scoring.table.schema import ScoredBundle

#: Rows of one run of the encoders. More gained nothing on a CPU (benchmarks/batch.py).
BATCH_ROWS: Final = 16
#: How long an incomplete batch waits for more rows. No caller waits for a single answer here.
LINGER_S: Final = 0.2
#: Recordings that go to a decode worker together: as many as were decoded in SEVERAL_S of late, but no more than
#: these, which are decoded again where one of them kills the worker…
MOST_TOGETHER: Final = 16
#: …or they take so long, all of them.
SEVERAL_LIMIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _DecodedRecording:
    """A decoded recording that waits for its answer; ``window`` is its number, start and end."""

    recording: Recording
    decoded: Decoded
    spent_s: float
    window: tuple[int, float, float] | None = None
    last: bool = True


class LocalEngine:
    """Scores with a bundle of a repository, on ``cores`` cores. Entering loads it and starts the decode workers.

    Raises BundleError, and ConfigurationError if dimml's server component is not installed.
    """

    takes_all_at_once = False

    def __init__(
        self,
        repository: Path,
        model: str | None = None,
        version: int | None = None,
        *,
        cores: int,
        batch_rows: int = BATCH_ROWS,
        window: WindowOptions | None = None,
        decode_function: DecodeFunction = decode,
    ) -> None:
        try:
            from dimml_server.local import LocalBundle

            # ONNX Runtime is imported here, not above.
            self._runner = LocalBundle(repository, model, version, concurrency=cores)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"scoring in this process needs {error.name}, which is not installed: {install_command('serve,score')}",
                field="--engine",
            ) from error
        #: The bundle used for scoring.
        self.bundle = ScoredBundle.of(self._runner.bundle)
        self._cores = cores
        self._batch_rows = min(batch_rows, self._runner.bundle.max_batch_size)
        self._limits = limits_of(window)
        #: Settings that rows depend on, beside the bundle and the recording.
        self.settings: dict[str, Any] = in_process_settings(window)
        self._plan = None if window is None else WindowPlan(window.window_s, window.stride_s)
        self._decode_function = decode_function
        self._most_together = 1 if self._plan else most_together(self._runner.bundle.modalities, MOST_TOGETHER)
        # For whole recordings only: windows are decoded ahead of their encoding.
        self._turns = threading.BoundedSemaphore(cores)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._pool = stack.enter_context(DecodePool(self._cores, decode_function=self._decode_function))
            stack.enter_context(self._runner)
            self._pool.warm_up()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def score(self, recordings: Iterable[Recording], room: Room = no_limit) -> Generator[Scored, None, None]:
        """Yield rows as they are ready. Raises UnavailableError without decode workers; a bad recording is a row."""
        line: Pipeline[_DecodedRecording, Scored] = Pipeline(self._cores, batch=self._batch_rows, linger_s=LINGER_S)
        work_queue = WorkQueue(recordings)
        return line.run(lambda: self._decode(work_queue, line, room), lambda: self._predict(line))

    def _decode(self, work_queue: WorkQueue, line: Pipeline[_DecodedRecording, Scored], room: Room) -> None:
        several = 1
        while recordings := line.wait_to_get(partial(work_queue.take, several)):
            # The first has the lowest index: waiting for a later one's room could wait for one that this thread itself
            # holds.
            line.wait_for(partial(room, recordings[0].index))
            with ExitStack() as files:
                began = time.perf_counter()
                ready = [one for recording in recordings if (one := self._prepare(recording, files, line)) is not None]
                if self._plan is not None:
                    for recording, request in ready:
                        self._decode_windows(recording, request, self._plan, line, room)
                    continue
                results = self._results([request for _, request in ready])
            each_s = (time.perf_counter() - began) / max(1, len(results))
            several = min(self._most_together, max(1, int(SEVERAL_S / each_s)))
            decoded = list(zip([recording for recording, _ in ready], results, strict=False))
            if len(recordings) > 1:
                # Before waiting for anything: other threads may have nothing else to do.
                work_queue.settle(
                    undone=[recording for recording, _ in ready[len(results) :]],
                    alone=[recording for recording, result in decoded if isinstance(result.outcome, Lost)],
                )
            for recording, result in decoded:
                if isinstance(result.outcome, DimmlError):
                    self._give_error(line, recording, result.outcome, result.seconds)
                elif isinstance(result.outcome, Decoded):
                    line.hand_on(_DecodedRecording(recording, result.outcome, result.seconds))

    def _results(self, requests: Sequence[DecodeRequest]) -> list[DecodeResult]:
        """Decode as many of the first requests as possible; a Lost among several must be decoded alone."""
        if not requests:
            return []
        with self._turns:
            if len(requests) > 1:
                return self._pool.decode_several(requests, limit_s=SEVERAL_LIMIT_S, timeout_s=DECODE_LIMIT_S)
            began = time.perf_counter()
            outcome: Decoded | DimmlError
            try:
                outcome = self._pool.decode_blocking(requests[0], timeout_s=DECODE_LIMIT_S)
            except UnavailableError:
                # Not the recording's fault: without workers every other one would fail too.
                raise
            except DimmlError as error:
                outcome = error
            return [DecodeResult(outcome, time.perf_counter() - began)]

    def _prepare(
        self, recording: Recording, files: ExitStack, line: Pipeline[_DecodedRecording, Scored]
    ) -> tuple[Recording, DecodeRequest] | None:
        """Build a recording's decode request; on error yield the error's row and return None.

        ``files`` keeps the recording's files.
        """
        began = time.perf_counter()
        try:
            parts = files.enter_context(parts_at_hand(recording, self._limits.max_bytes))
            return recording, decode_request(self._runner.bundle, recording, parts, self._limits)
        except DimmlError as error:
            self._give_error(line, recording, error, time.perf_counter() - began)
        return None

    def _give_error(
        self,
        line: Pipeline[_DecodedRecording, Scored],
        recording: Recording,
        error: DimmlError,
        spent_s: float,
        position: int = 0,
    ) -> None:
        line.give(Scored(recording.index, position, scored_row(recording, self.bundle, error, 1000.0 * spent_s)))

    def _decode_windows(
        self,
        recording: Recording,
        request: DecodeRequest,
        plan: WindowPlan,
        line: Pipeline[_DecodedRecording, Scored],
        room: Room,
    ) -> None:
        limit_s = max(DECODE_LIMIT_S, 2.0 * plan.stride_s)
        began = time.perf_counter()
        following = 0
        try:
            for one in decode_timeline(self._pool, request, plan, timeout_s=limit_s):
                line.wait_for(partial(room, recording.index))
                place = None if one.window is None else (one.number, one.window.start_s, one.window.end_s)
                spent_s = time.perf_counter() - began
                line.hand_on(
                    _DecodedRecording(recording, one.decoded, spent_s, place, last=one.number == one.count - 1)
                )
                following = one.number + 1
                began = time.perf_counter()
        except UnavailableError:
            raise
        except DimmlError as error:
            # Windows already read stay; a file lost on the way gets one more row, with the error.
            self._give_error(line, recording, error, time.perf_counter() - began, following)

    def _predict(self, line: Pipeline[_DecodedRecording, Scored]) -> None:
        while decoded := line.gather():
            began = time.perf_counter()
            with self._turns:
                results = self._runner.predict([item.decoded for item in decoded])
            share_s = (time.perf_counter() - began) / len(decoded)
            for item, result in zip(decoded, results, strict=True):
                line.give(_scored(item, self.bundle, result, 1000.0 * (item.spent_s + share_s)))


def _scored(item: _DecodedRecording, bundle: ScoredBundle, result: Prediction | DimmlError, ms: float) -> Scored:
    position = 0 if item.window is None else item.window[0]
    return Scored(
        item.recording.index,
        position,
        scored_row(item.recording, bundle, result, ms, window=item.window),
        item.last,
    )
