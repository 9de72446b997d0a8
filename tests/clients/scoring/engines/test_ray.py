"""``dimml score --engine ray``: the local engine's table, although a worker is killed in the middle."""

from __future__ import annotations

import importlib.util
import os
import signal
from pathlib import Path

import pytest

from dimml_client.scoring.engines.ray_start import cloud_not_asked
from support.broken_places import broken_manifest
from support.data import unavailable
from support.fresh_home import files_below, fresh_home
from support.scoring import assert_same_rows, command, parts_of, rows_of, score, started

pytestmark = pytest.mark.timeout(300)


def descendants(root: int) -> dict[int, str]:
    """Names of the processes below one, by process id."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(folder.name)] = (folder / "cmdline").read_text()
        except OSError:
            continue
    ours = {root}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: names[pid] for pid in ours - {root} if pid in names}


def test_a_user_who_wants_usage_statistics_gets_their_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("ray") is None:
        unavailable("ray is not installed: pip install 'dimml[ray]'")
    from ray._private import services

    start = services.start_api_server
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with cloud_not_asked():
        assert services.start_api_server is start
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with cloud_not_asked():
        assert services.start_api_server is not start
    assert services.start_api_server is start


@pytest.mark.slow(reason="starts Ray")
def test_ray_gives_the_local_table_though_a_worker_is_killed(
    tiny_repository: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("ray") is None:
        unavailable("ray is not installed: pip install 'dimml[ray]'")
    broken, codes = broken_manifest(tmp_path, (mixed / "red_000.mp4").read_bytes())
    inputs = [mixed, *[str(mixed / "*.mp4")] * 3, broken]
    whole, out = tmp_path / "local.parquet", tmp_path / "ray.parquet"
    assert score(*inputs, "--out", whole, "-q", repository=tiny_repository) == 3
    home = fresh_home(tmp_path, monkeypatch)
    words = command(
        *inputs, "--engine", "ray", "--workers", "1", "--cores", "1", "--out", out, repository=tiny_repository
    )
    run = started(words, out, 1)
    try:
        processes = descendants(run.pid)
        workers = [pid for pid, name in processes.items() if name.startswith("ray::MapWorker")]
        assert len(workers) == 1
        reporters = [name for name in processes.values() if "dashboard/dashboard.py" in name]
        assert reporters == [], "it asks clouds' metadata services where it runs"
        os.kill(workers[0], signal.SIGKILL)
        assert len(parts_of(out)) < 40
        _, said = run.communicate(timeout=250)
    finally:
        run.kill()
    assert run.returncode == 3, said
    assert "Traceback" not in said
    assert_same_rows(rows_of(out), rows_of(whole))
    assert [row["error"] for row in rows_of(out)[-len(codes) :]] == codes
    # The secret by which processes of one cluster know each other, Ray's own; nothing is sent.
    assert set(files_below(home)) <= {".ray/auth_token"}
