"""Counts in shared memory: bounds over all processes, and nothing left of one that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dimml_server.counts import CONNECTIONS, RUNNING, WAITING
from dimml_server.processes.board import ACCEPTING, CONCURRENCY, Board, make_board


@pytest.fixture
def descriptor() -> Iterator[int]:
    descriptor = make_board(3)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def boards(descriptor: int) -> list[Board]:
    """As three processes map it."""
    return [Board(descriptor, 3, index) for index in range(3)]


@pytest.mark.parametrize("name", [WAITING, "key ops", "key \N{GREEK SMALL LETTER ALPHA}"])
def test_a_limit_is_one_for_all(boards: list[Board], name: str) -> None:
    counts = [board.count(name) for board in boards]
    assert [counts[0].take(3), counts[1].take(3), counts[1].take(3)] == [True, True, True]
    assert [count.take(3) for count in counts] == [False, False, False]
    assert [count.own for count in counts] == [1, 2, 0]
    assert {count.total for count in counts} == {3}
    counts[1].give_back()
    assert counts[2].take(3)
    assert {count.total for count in counts} == {3}


def test_names_do_not_mix(boards: list[Board]) -> None:
    names = [RUNNING, WAITING, CONNECTIONS, *(f"key {number}" for number in range(20))]
    for number, name in enumerate(names):
        for _ in range(number):
            assert boards[number % 3].count(name).take(100)
    assert [boards[0].count(name).total for name in names] == list(range(len(names)))


def test_a_killed_process_leaves_nothing(descriptor: int, boards: list[Board]) -> None:
    code = (
        "import os, signal, sys\n"
        "from dimml_server.processes.board import Board\n"
        "board = Board(int(sys.argv[1]), 3, 1)\n"
        "for name in ('waiting', 'running', 'key ops'): board.count(name).take(9)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    boards[0].count(WAITING).take(9)
    ended = subprocess.run([sys.executable, "-c", code, str(descriptor)], pass_fds=(descriptor,), check=False)
    assert ended.returncode == -9
    assert [boards[0].count(name).total for name in (WAITING, RUNNING, "key ops")] == [2, 1, 1]
    Board(descriptor, 3).clear(1)
    assert [boards[0].count(name).total for name in (WAITING, RUNNING, "key ops")] == [1, 0, 0]
    assert boards[1].count(WAITING).take(2)


@pytest.mark.parametrize(
    ("own", "other", "freer"),
    [
        ((0, 0), (0, 0), False),
        ((0, 1), (0, 0), True),
        ((0, 1), (0, 2), False),
        # A full process leaves the next one to another, however many connections that has.
        ((2, 1), (1, 9), True),
        ((1, 9), (2, 1), False),
        ((2, 1), (2, 1), False),
    ],
    ids=["alike", "more_connections", "fewer_connections", "full", "other_is_full", "all_full"],
)
def test_who_takes_the_next_connection(
    boards: list[Board], own: tuple[int, int], other: tuple[int, int], freer: bool
) -> None:
    for board, (running, connections) in zip(boards, (own, other), strict=False):
        board.set(CONCURRENCY, 2)
        board.set(ACCEPTING, 1)
        for name, value in ((RUNNING, running), (CONNECTIONS, connections)):
            for _ in range(value):
                board.count(name).take(100)
    # The third process does not accept: it is starting.
    assert boards[0].freer_elsewhere() is freer
    boards[1].set(ACCEPTING, 0)
    assert not boards[0].freer_elsewhere()


def test_memory_is_taken_only_for_what_is_used(descriptor: int, boards: list[Board]) -> None:
    assert os.fstat(descriptor).st_size > 2**20
    for number in range(10):
        boards[0].count(f"key {number}").take(1)
    assert os.fstat(descriptor).st_blocks * 512 < 2**18
    Board(descriptor, 3).clear(0)
    assert os.fstat(descriptor).st_blocks * 512 < 2**18
