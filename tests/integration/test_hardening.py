"""The scripts of docs/evidence/hardening.md, for seconds: that they run, and that nothing is lost, leaked or stuck.

Latency and throughput are theirs to judge, on a machine of their own.
"""

from __future__ import annotations

import re

import pytest
from hardening import hostile
from hardening.fuzz import fuzz
from hardening.kill import kill
from hardening.load import load
from hardening.report import Report
from hardening.soak import soak

from support.data import REPOSITORY_ROOT

#: The attacks that are over soon.
QUICK = {"slow loris", "path in a file name", "header bombs"}
PAGE = (REPOSITORY_ROOT / "docs" / "evidence" / "hardening.md").read_text()


def check(report: Report, *, but: str = "$.") -> None:
    """Nothing missed its bound, other than what ``but`` matches."""
    assert len(report.rows) > 3
    assert not [failure for failure in report.failures if not re.search(but, failure)], str(report)


def test_fuzz() -> None:
    check(fuzz(count=60, requests=60))


def test_load() -> None:
    check(load(seconds=3.0, peak_s=1.0, spells=1), but="429 after|throughput|p99")


def test_soak() -> None:
    check(soak(seconds=6.0), but="medians|workers")


@pytest.mark.timeout(240)
def test_kill() -> None:
    for seconds in (8.0, 20.0):  # More where starting a server takes a busy machine so long that none is started again.
        report = kill(seconds=seconds, restart_every_s=3.0)
        check(report)
        (counts,) = (found for what, found, _ in report.rows if what == "workers killed, servers started")
        workers, servers = map(int, counts.split(", "))
        if servers >= 2:
            break
    assert workers >= 2
    assert servers >= 2


def test_hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile, "ATTACKS", tuple(attack for attack in hostile.ATTACKS if attack[0] in QUICK))
    report = hostile.hostile()
    check(report)
    assert {what for what, _, bound in report.rows if bound == "refused"} == QUICK


def test_every_attack_stands_in_the_docs() -> None:
    for name, *_ in hostile.ATTACKS:
        assert f"| {name} |" in PAGE
