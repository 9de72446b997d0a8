"""Runs that were cancelled and go on: when they keep others from beginning."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from dimml.engine import EngineError
from dimml.status import Reason
from dimml_server.engines import runs
from dimml_server.engines.runs import Run, StrayRuns


class Clock:
    now = 100.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    it = Clock()
    monkeypatch.setattr(runs, "perf_counter", lambda: it.now)
    return it


def begun(strays: StrayRuns) -> Run:
    return Run(SimpleNamespace(run=lambda *_: [1]), ["Y"], SimpleNamespace(terminate=False), strays)


def busy(strays: StrayRuns) -> bool:
    try:
        strays.check_room()
    except EngineError as error:
        return error.reason is Reason.ENCODER_BUSY
    return False


def test_a_run_whose_client_left_keeps_no_other_from_beginning(clock: Clock) -> None:
    strays = StrayRuns(4, late_after_s=0.2)
    run = begun(strays)
    clock.now += 0.15
    run.stop()
    assert not busy(strays)
    clock.now += 0.05  # It is as late now as any, and nothing else has ended.
    assert busy(strays)
    run.end()
    assert not busy(strays)


def test_a_model_that_is_late_and_goes_on_ending_others_does_not_stall(clock: Clock) -> None:
    """As where more runs share the processor than it can do in time: each is late, and one after another ends."""
    strays = StrayRuns(4, late_after_s=0.2)
    before = begun(strays)
    clock.now += 0.01
    late = begun(strays)
    clock.now += 0.01
    assert before.here({}) == {"Y": 1}, "it ends while the other goes on"
    clock.now += 0.25
    late.stop()
    assert not busy(strays)
    stalled = begun(strays)
    clock.now += 0.2
    stalled.stop()
    assert busy(strays), "nothing has ended since that one began"
    begun(strays).here({})
    assert not busy(strays)


def test_a_run_that_never_ends_does_not_keep_the_model_from_being_tried(clock: Clock) -> None:
    strays = StrayRuns(4, late_after_s=0.25)
    hung = begun(strays)
    clock.now += 0.25
    hung.stop()
    tried = []
    for _ in range(12):
        if not busy(strays):
            tried.append(clock.now - 100.25)
        clock.now += 0.25
    assert tried == [1.25, 2.5], "one in five deadlines"
    begun(strays).here({})
    assert not any(busy(strays) for _ in range(3)), "one that ends well is enough"


def test_a_run_that_fails_shows_nothing(clock: Clock) -> None:
    strays = StrayRuns(4, late_after_s=0.2)
    late = begun(strays)
    clock.now += 0.1
    failing = Run(SimpleNamespace(), ["Y"], SimpleNamespace(terminate=False), strays)
    clock.now += 0.2
    late.stop()
    assert isinstance(failing.here({}), EngineError)
    assert busy(strays)


def test_without_a_deadline_only_their_number_counts(clock: Clock) -> None:
    strays = StrayRuns(2, late_after_s=None)
    going = [begun(strays), begun(strays)]
    clock.now += 1000.0
    going[0].stop()
    assert not busy(strays)
    going[1].stop()
    assert busy(strays)
