"""What ``benchmarks/compare_checkouts.py`` calls a difference, and how it finds a checkout's own entry points."""

from __future__ import annotations

import importlib.metadata
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from checkouts.checkout import write_metadata
from checkouts.comparison import Comparison, differences, without_durations, without_noise
from checkouts.cost import processor_s, ratio
from checkouts.served import metrics

from support.data import REPOSITORY_ROOT


@pytest.mark.parametrize(
    ("before", "after", "place"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, "a[1].b"),
        ({"a": 1.0}, {"a": 1.0 + 1e-9}, "a"),
        ({"a": 1}, {"a": 1.0}, "a"),
        ({"a": True}, {"a": 1}, "a"),
        ({"a": 1}, {}, "a"),
        ({}, {"a": None}, "a"),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ""),
        ([1, 2], [1], ""),
        ("one\ntwo", "one\nthree", ""),
        ("the same", "the  same", ""),
    ],
)
def test_a_difference_has_a_place(before: Any, after: Any, place: str) -> None:
    assert [where for where, _ in differences(before, after)] == [place]
    assert list(differences(before, before)) == []


def test_nan_is_nan_and_a_tolerance_is_kept() -> None:
    assert list(differences([float("nan")], [float("nan")])) == []
    assert list(differences([0.5], [0.5 + 1e-7], tolerance=1e-6)) == []
    assert list(differences([0.5], [0.5 + 1e-5], tolerance=1e-6)) != []


def test_what_is_meant_is_named_by_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = Comparison(aside=["metric *: help"])
    before, after = {"help": "old", "type": "gauge"}, {"help": "new", "type": "gauge"}
    comparison.compare("metric a", before, after)
    comparison.compare("metric b", before, {**after, "type": "counter"})
    comparison.compare_all({"c": 1}, {"d": 1})
    assert capsys.readouterr().out.splitlines() == [
        "metric a: equal",
        "metric b: differs: type: 'gauge' became 'counter'",
        "c: differs: 1 became None",
        "d: differs: None became 1",
    ]
    assert comparison.summary().startswith("1 comparisons equal, 3 differ\nmeant: 2 differences of 'metric *: help'")


def test_only_noise_is_left_out() -> None:
    identity = "4b2512b7b4e247b28db16df654e3c4c4"
    answer = {"request_id": identity, "timings_ms": {"total": 3.1}, "message": "lasts 99.0 s", "probability": 0.25}
    assert without_noise(answer) == {**answer, "request_id": "ID", "timings_ms": "(aside)"}
    assert without_durations("0.4 s, 36.7 recordings/s by 127.0.0.1:8000") == "N s, N recordings/s by HOST"
    assert without_durations('<path id="m8b1f284f06" d="M 0 0"/>') == '<path id="ID" d="M 0 0"/>'


def test_metrics_keep_words_labels_and_counts() -> None:
    text = "# HELP dimml_a_total How many.\n# TYPE dimml_a_total counter\n" + 'dimml_a_total{x="1"} 2.0\n'
    text += "# HELP dimml_b_seconds How long.\n# TYPE dimml_b_seconds gauge\ndimml_b_seconds 0.3\n"
    assert metrics(text) == {
        "metric dimml_a_total": {"help": "How many.", "type": "counter", "samples": {'dimml_a_total{x="1"}': "2.0"}},
        "metric dimml_b_seconds": {"help": "How long.", "type": "gauge", "samples": {"dimml_b_seconds": "(aside)"}},
    }


def test_entry_points_are_those_of_the_checkout(tmp_path: Path) -> None:
    write_metadata(REPOSITORY_ROOT, tmp_path)
    (found,) = importlib.metadata.distributions(path=[str(tmp_path)])
    project = tomllib.loads((REPOSITORY_ROOT / "pyproject.toml").read_text())["project"]
    commands = {entry.name: entry.value for entry in found.entry_points if entry.group == "dimml.commands"}
    assert commands == project["entry-points"]["dimml.commands"]
    assert {entry.name: entry.value for entry in found.entry_points if entry.group == "console_scripts"} == project[
        "scripts"
    ]
    extras = project["optional-dependencies"].values()
    assert len(found.requires or ()) == len(project["dependencies"]) + sum(map(len, extras))


def test_a_ratio_is_of_pairs_and_says_when_it_cannot_tell() -> None:
    drifting = [(float(ms), 1.05 * ms) for ms in range(1, 41)]
    assert ratio(drifting).value == pytest.approx(1.05)
    assert "WORSE" in ratio(drifting).verdict
    assert ratio([(a, a) for a, _ in drifting]).verdict == "no worse than 1.02"
    assert "undecided" in ratio([(1.0, 0.9), (1.0, 1.2)] * 20).verdict


def test_processor_time_is_the_kernel_s() -> None:
    before = time.process_time()
    found = processor_s(os.getpid())
    assert before <= found <= time.process_time()
