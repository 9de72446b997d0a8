"""Threads in two stages with a bounded queue after each: the faster stage waits, and memory stays bounded."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Something = TypeVar("Something")

#: How often a thread waiting at a queue checks whether the run was stopped.
_LOOK_S: Final = 0.1


class StoppedError(Exception):
    """Raised to end a thread, since the run was stopped."""


class _End:
    """Marks the end of a queue."""


class _Late:
    """Marks that no item arrived in time."""


class Pipeline(Generic[Item, Result]):
    """``produce`` makes items (``hand_on``); ``consume`` takes batches of them (``gather``), yields results (``give``).

    Both run in ``threads`` threads each, and end by returning; what they raise ends the run.
    """

    def __init__(self, threads: int, *, batch: int, linger_s: float) -> None:
        self._threads = threads
        self._batch = batch
        self._linger_s = linger_s
        self._stop = threading.Event()
        self._gathering = threading.Lock()
        self._counting = threading.Lock()
        # Room for a batch that is gathered while another one runs.
        self._items: queue.Queue[Item | _End] = queue.Queue(2 * batch)
        self._results: queue.Queue[Result | _End | BaseException] = queue.Queue(16 * batch)

    def hand_on(self, item: Item) -> None:
        """Pass an item on to the second stage. Raises StoppedError."""
        self._put(self._items, item)

    def give(self, result: Result) -> None:
        """Yield a result of the run, from either stage. Raises StoppedError."""
        self._put(self._results, result)

    def wait_for(self, came: Callable[[float], bool]) -> None:
        """Wait until ``came``, called with the seconds it may wait, returns true. Raises StoppedError."""
        self.wait_to_get(lambda seconds: came(seconds) or None)

    def wait_to_get(self, give: Callable[[float], Something | None]) -> Something:
        """Wait until ``give``, called with the seconds it may wait, returns something. Raises StoppedError."""
        while (something := give(_LOOK_S)) is None:
            if self._stop.is_set():
                raise StoppedError
        return something

    def gather(self) -> list[Item]:
        """Return the next items: a full batch if enough are there or arrive soon; empty at the end.

        Raises StoppedError.
        """
        with self._gathering:
            items: list[Item] = []
            end: float | None = None
            while len(items) < self._batch:
                item = self._get(end)
                if isinstance(item, _End):
                    self._items.put(item)  # For the next thread.
                    break
                if isinstance(item, _Late):
                    break
                items.append(item)
                end = end or time.monotonic() + self._linger_s
            return items

    def nothing_more(self) -> None:
        """Serve as the second stage of a run whose first stage gives all results."""
        while self.gather():
            pass

    def run(self, produce: Callable[[], None], consume: Callable[[], None]) -> Generator[Result, None, None]:
        """Run both stages and yield results. Raises what a stage raised. Closing the iterator stops the run."""
        stages: list[tuple[Callable[[], None], queue.Queue[Any]]] = [(produce, self._items), (consume, self._results)]
        left = [self._threads, self._threads]

        def work(stage: int) -> None:
            doing, after = stages[stage]
            try:
                doing()
            except StoppedError:
                return
            except BaseException as error:
                self._put_anyway(error)
                return
            with self._counting:
                left[stage] -= 1
                if left[stage] > 0:
                    return
            try:
                self._put(after, _End())
            except StoppedError:
                return

        threads = [
            threading.Thread(target=work, args=(stage,), name=f"dimml-score-{stage}-{number}", daemon=True)
            for stage in (0, 1)
            for number in range(self._threads)
        ]
        for thread in threads:
            thread.start()
        try:
            while not isinstance(result := self._results.get(), _End):
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _put(self, to: queue.Queue[Any], item: object) -> None:
        while not self._stop.is_set():
            try:
                to.put(item, timeout=_LOOK_S)
            except queue.Full:
                continue
            return
        raise StoppedError

    def _put_anyway(self, error: BaseException) -> None:
        try:
            self._put(self._results, error)
        except StoppedError:
            return

    def _get(self, end: float | None) -> Item | _End | _Late:
        """Return the next item, unless ``end`` passes before there is one."""
        while not self._stop.is_set():
            left_s = _LOOK_S if end is None else min(_LOOK_S, end - time.monotonic())
            try:
                return self._items.get(timeout=left_s) if left_s > 0.0 else self._items.get_nowait()
            except queue.Empty:
                if end is not None and time.monotonic() >= end:
                    return _Late()
        raise StoppedError
