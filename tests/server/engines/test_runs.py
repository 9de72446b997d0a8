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


def test_a_late_run_that_others_have_outrun_keeps_none_from_beginning(clock: Clock) -> None:
    strays = StrayRuns(4, late_after_s=0.2)
    before = begun(strays)
    clock.now += 0.01
    late = begun(strays)
    clock.now += 0.01
    after = begun(strays)
    clock.now += 0.25
    late.stop()
    assert before.here({}) == {"Y": 1}
    assert busy(strays), "what began before it says nothing of the model now"
    assert after.here({}) == {"Y": 1}
    assert not busy(strays)


def test_a_run_that_fails_outruns_none(clock: Clock) -> None:
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
