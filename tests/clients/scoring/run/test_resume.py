"""``dimml score`` killed, stopped and continued: the same rows as in one go, and never another run's."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.scoring import GOOD, assert_same_rows, command, parts_of, rows_of, score, started
from support.tiny_bundle import make_tiny_bundle

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def whole(tiny_repository: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "t.parquet"
    assert score(mixed, "--out", out, "-q", repository=tiny_repository) == 3
    return rows_of(out)


def killed(words: list[str], out: Path, parts: int) -> None:
    """Run a command until there are so many parts, and end it by SIGKILL."""
    process = started(words, out, parts)
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=60.0)
    assert not out.exists()
    assert len(parts_of(out)) >= parts


@pytest.mark.slow(reason="scores in processes that are killed")
def test_killed_again_and_again_it_ends_with_the_same_rows(
    tiny_repository: Path,
    mixed: Path,
    whole: list[dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "t.parquet"
    chance = random.Random(6)
    for _ in range(2):
        killed(
            command(mixed, "--out", out, "-q", repository=tiny_repository),
            out,
            len(parts_of(out)) + chance.randint(1, 4),
        )
    assert score(mixed, "--out", out, "--json", repository=tiny_repository) == 3
    assert json.loads(capsys.readouterr().out)["done_before"] >= 6
    assert_same_rows(rows_of(out), whole)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.slow(reason="scores in processes that are stopped")
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.parquet"
    many = [str(mixed / "*.mp4")] * 10
    run = started(command(*many, "--out", out, repository=tiny_repository), out, 1)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=120.0)
    assert run.returncode == 130, said
    assert "finishing what is under way" in said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert not out.exists()
    kept = sum(pq.read_metadata(path).num_rows for path in parts_of(out))
    assert 0 < kept < 10 * (GOOD + 1)
    assert f"{kept} of {10 * (GOOD + 1)} recordings are safe" in said

    assert score(*many[:9], "--out", out, repository=tiny_repository) == 1
    assert "is not among them any more" in capsys.readouterr().err
    assert score(*many, mixed / "bad" / "text.mp4", "--out", out, repository=tiny_repository) == 1
    assert "text.mp4 was not among them" in capsys.readouterr().err
    assert score(*many, "--out", out, "--json", repository=tiny_repository) == 0
    assert json.loads(capsys.readouterr().out)["done_before"] == kept
    assert len({row["id"] for row in rows_of(out)}) == 10 * (GOOD + 1)


def test_another_bundle_is_refused_and_a_vanished_file_has_its_row(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    repository, out, mine = tmp_path / "models", tmp_path / "scores.parquet", tmp_path / "clips"
    make_tiny_bundle(repository)
    mine.mkdir()
    for path in sorted(mixed.glob("[a-z]*.mp4"))[:30]:
        (mine / path.name).write_bytes(path.read_bytes())
    killed(command(mine, "--out", out, repository=repository), out, 1)
    manifest = repository / "tiny" / "1" / "bundle.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps({**json.loads(text), "description": "another one"}))
    assert score(mine, "--out", out, repository=repository) == 1
    assert "another run: bundle.sha256 was" in capsys.readouterr().err
    manifest.write_text(text)
    make_tiny_bundle(repository, temperature=2.0)
    assert score(mine, "--out", out, repository=repository) == 1
    assert "another run: bundle.version was 1 and is now 2" in capsys.readouterr().err
    sorted(mine.iterdir())[-1].unlink()
    assert score(mine, "--version", "1", "--out", out, "-q", repository=repository) == 3
    rows = rows_of(out)
    assert len(rows) == 30
    assert [row["error"] for row in rows] == [None] * 29 + ["unreadable"]


def test_two_at_once_are_refused(
    tiny_repository: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.parquet"
    run = started(command(mixed, "--out", out, repository=tiny_repository), out, 1)
    run.send_signal(signal.SIGSTOP)
    try:
        assert score(mixed, "--out", out, repository=tiny_repository) == 1
    finally:
        run.kill()
        run.communicate(timeout=120.0)
    assert "another `dimml score` is writing" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    code = (
        "import time; from dimml_client.scoring.run.signals import StopRequest\n"
        "with StopRequest(quiet=False) as stop:\n"
        "    print('ready', flush=True)\n"
        "    while not stop.asked: time.sleep(0.01)\n"
        "    print('asked', flush=True)\n"
        "    time.sleep(100)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    for word in ("ready", "asked"):
        assert run.stdout.readline().strip() == word
        run.send_signal(number)
    _, stderr = run.communicate(timeout=60.0)
    assert run.returncode == -number
    assert stderr.strip() == "finishing what is under way; once more to stop at once"
