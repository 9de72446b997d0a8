"""Rows come out in the order of the inputs, and nobody runs too far ahead of a recording that hangs."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from dimml_client.scoring.engines.two_stage_pipeline import Pipeline
from dimml_client.scoring.engines.work_queue import WorkQueue
from dimml_client.scoring.recording import Recording, Scored
from dimml_client.scoring.run.reorder_buffer import ReorderBuffer


def test_any_order_becomes_that_of_the_inputs() -> None:
    order = ReorderBuffer(5)
    indices = list(range(5, 105))
    random.Random(1).shuffle(indices)
    given = [row["n"] for index in indices for row, last in order.take(Scored(index, 0, {"n": index})) if last]
    assert given == list(range(5, 105))
    assert order.index == 105


def test_windows_of_recordings_come_by_recording_and_then_by_number() -> None:
    order = ReorderBuffer(0)
    scored = [
        Scored(index, number, {"n": (index, number)}, last=number == 3) for index in range(9) for number in range(4)
    ]
    random.Random(2).shuffle(scored)
    given = [(row["n"], last) for one in scored for row, last in order.take(one)]
    assert given == [((index, number), number == 3) for index in range(9) for number in range(4)]


def test_room_ends_so_far_ahead_and_moves_on_with_the_first() -> None:
    order = ReorderBuffer(0, recordings_ahead=2)
    assert [order.room(index, 0.0) for index in range(4)] == [True, True, False, False]
    assert list(order.take(Scored(1, 0, {}))) == []
    assert not order.room(2, 0.0)
    assert len(list(order.take(Scored(0, 0, {})))) == 2
    assert [order.room(index, 0.0) for index in range(2, 5)] == [True, True, False]


def test_a_long_recording_holds_back_the_rows_of_later_ones_and_never_its_own() -> None:
    order = ReorderBuffer(0, rows_ahead=3)
    for number in range(3):
        list(order.take(Scored(1, number, {}, last=False)))
    assert [order.room(index, 0.0) for index in (0, 1)] == [True, False]
    list(order.take(Scored(0, 0, {})))
    assert [order.room(index, 0.0) for index in (1, 2)] == [True, True]


def test_an_error_in_one_stage_ends_the_run_although_the_other_waits_for_room() -> None:
    line: Pipeline[int, int] = Pipeline(2, batch=2, linger_s=0.01)
    order = ReorderBuffer(0, recordings_ahead=1)

    def produce() -> None:
        line.hand_on(1)
        line.wait_for(lambda seconds: order.room(7, seconds))

    def consume() -> None:
        line.gather()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(line.run(produce, consume))


def test_every_job_is_consumed_once_and_batches_are_bounded() -> None:
    line: Pipeline[int, int] = Pipeline(3, batch=4, linger_s=0.05)
    numbers = iter(range(200))
    sizes: list[int] = []

    def produce() -> None:
        for number in numbers:
            line.hand_on(number)

    def consume() -> None:
        while jobs := line.gather():
            sizes.append(len(jobs))
            for job in jobs:
                line.give(job)

    assert sorted(line.run(produce, consume)) == list(range(200))
    assert max(sizes) <= 4


def numbered(count: int) -> list[Recording]:
    return [Recording(index, str(index), {}) for index in range(count)]


def test_what_is_given_back_comes_next_and_the_lowest_first() -> None:
    recordings = numbered(12)
    work_queue = WorkQueue(recordings)
    first, second = work_queue.take(4, 0.0), work_queue.take(4, 0.0)
    assert (first, second) == (recordings[:4], recordings[4:8])
    work_queue.settle(undone=recordings[1:4])
    work_queue.settle(undone=recordings[5:8])
    assert work_queue.take(2, 0.0) == recordings[1:3]
    assert work_queue.take(8, 0.0) == [recordings[3], *recordings[5:12]]
    work_queue.settle()
    work_queue.settle()
    assert work_queue.take(5, 0.0) == []


def test_what_is_to_be_taken_alone_is() -> None:
    recordings = numbered(6)
    work_queue = WorkQueue(recordings)
    assert work_queue.take(6, 0.0) == recordings
    work_queue.settle(undone=[recordings[0], recordings[4], recordings[5]], alone=recordings[1:3])
    assert work_queue.take(9, 0.0) == [recordings[0]]
    assert [work_queue.take(9, 0.0), work_queue.take(9, 0.0)] == [[recordings[1]], [recordings[2]]]
    assert work_queue.take(9, 0.0) == recordings[4:]
    work_queue.settle()
    assert work_queue.take(9, 0.0) == []


def test_the_end_is_not_the_end_while_something_may_come_back() -> None:
    recordings = numbered(3)
    work_queue = WorkQueue(recordings)
    work_queue.take(3, 0.0)
    assert work_queue.take(1, 0.0) is None
    with ThreadPoolExecutor(1) as other:
        waiting = other.submit(work_queue.take, 1, 20.0)
        work_queue.settle(undone=recordings[1:])
        # It may have been told before it waited, or after.
        assert (waiting.result() or work_queue.take(1, 0.0)) == [recordings[1]]
    assert work_queue.take(1, 0.0) == [recordings[2]]
    assert work_queue.take(1, 0.0) == []
