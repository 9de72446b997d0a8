"""How the limits of a server are divided among its processes, and what such a server refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimml.errors import ConfigurationError
from dimml_server.processes.shares import DIVIDED, check_processes, in_words, settings_of, share
from dimml_server.settings.settings import load_settings


@given(st.integers(1, 1000), st.integers(1, 64))
def test_shares_add_up_and_differ_by_one_at_most(total: int, processes: int) -> None:
    shares = [share(total, processes, index) for index in range(processes)]
    assert sum(shares) == max(total, processes)
    assert min(shares) >= 1
    assert max(shares) - min(shares) <= 1


def test_totals_are_divided_and_the_rest_is_everybodys() -> None:
    settings = load_settings(
        processes=3, concurrency=8, decode_workers=4, intra_op_threads=8, max_stray_runs=2, queue_length=10, watch=True
    )
    parts = [settings_of(settings, index, http_port=1, grpc_port=2) for index in range(3)]
    assert [part.concurrency for part in parts] == [3, 3, 2]
    assert [part.decode_workers for part in parts] == [2, 1, 1]
    assert [part.intra_op_threads for part in parts] == [2, 2, 2]
    assert [part.max_stray_runs for part in parts] == [1, 1, 1]
    # One queue and one bound on connections, which all count towards.
    assert {part.queue_length for part in parts} == {10}
    assert {part.max_connections for part in parts} == {settings.max_connections}
    assert not any(part.watch for part in parts)
    assert in_words(settings) == "3 processes: concurrency 3+3+2, decode_workers 2+1+1; one queue of 10"


def test_each_process_has_rows_enough_for_drift() -> None:
    settings = load_settings(processes=4, drift_window=500, drift_minimum=100)
    assert settings_of(settings, 0, http_port=1, grpc_port=2).drift_window == 125
    settings = load_settings(processes=8, drift_window=500, drift_minimum=100)
    assert settings_of(settings, 0, http_port=1, grpc_port=2).drift_window == 100


def test_what_is_divided_is_a_setting_with_a_default_above_none() -> None:
    assert all(getattr(load_settings(), name) >= 1 for name in DIVIDED)


def test_a_shadow_in_the_settings_or_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one process") as refused:
        check_processes(load_settings(processes=2, shadows={"tiny": 1}))
    assert refused.value.field == "shadows"
    file = tmp_path / "routing.json"
    file.write_text('{"tiny": {"split": {"1": 100}, "shadow": 2}}')
    with pytest.raises(ConfigurationError, match="'tiny' a shadow"):
        check_processes(load_settings(processes=2, routing_file=file))
    file.write_text('{"tiny": {"split": {"1": 100}}}')
    check_processes(load_settings(processes=2, routing_file=file))


def test_counts_in_files_of_prometheus_client_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with pytest.raises(ConfigurationError, match="PROMETHEUS_MULTIPROC_DIR"):
        check_processes(load_settings(processes=2))


@pytest.mark.parametrize("processes", [0, 65, "two"])
def test_a_number_that_makes_no_sense_is_named(processes: object) -> None:
    with pytest.raises(ConfigurationError, match="processes"):
        load_settings(processes=processes)
