"""``dimml score`` killed, stopped and continued: the same rows as in one go, and never another run's."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dimml_client.scoring.parts import folder_of
from support.scoring import REPOSITORY, SAMPLES, assert_same_rows, rows_of, score, start_with_small_parts

pytestmark = pytest.mark.timeout(300)
COPIES = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough recordings that a kill falls in the middle, bad ones among them."""
    made = tmp_path_factory.mktemp("many")
    for copy in range(COPIES):
        for name in ("clean_five.mp4", "no_sound.mp4", "broken.mp4", "black_picture.mp4"):
            shutil.copy(SAMPLES / name, made / f"{copy:02d}_{name}")
    return made


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole") / "t.parquet"
    assert score(folder, "--out", out, "--quiet").returncode == 3
    return rows_of(out)


def parts_of(out: Path) -> list[Path]:
    return sorted(folder_of(out).glob("part-*.parquet"))


def interrupt(folder: Path, out: Path, number: signal.Signals, after_parts: int) -> tuple[int, str]:
    """Send a signal once there are so many parts; the exit code and stderr."""
    run = start_with_small_parts(folder, "--out", out)
    end = time.monotonic() + 120.0
    while len(parts_of(out)) < after_parts and run.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    run.send_signal(number)
    _, stderr = run.communicate(timeout=120.0)
    return run.returncode, stderr


def test_killed_again_and_again_it_ends_with_the_same_rows(
    folder: Path, whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    chance = random.Random(6)
    for _ in range(2):
        before = len(parts_of(out))
        code, _ = interrupt(folder, out, signal.SIGKILL, before + chance.randint(1, 4))
        assert code == -signal.SIGKILL
        assert not out.exists()
        assert len(parts_of(out)) > before
    done = score(folder, "--out", out, "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["done_before"] >= 4
    assert_same_rows(rows_of(out), whole)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    folder: Path, whole: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "t.parquet"
    run = start_with_small_parts(folder, "--out", out)
    end = time.monotonic() + 120.0
    while not parts_of(out) and run.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    run.send_signal(signal.SIGINT)
    stdout, stderr = run.communicate(timeout=120.0)
    assert run.returncode == 130, stderr
    assert "finishing what is under way" in stderr
    assert "the same command goes on from there" in stdout
    assert not out.exists()

    changed = tmp_path / "repository"
    shutil.copytree(REPOSITORY, changed)
    for manifest in changed.rglob("bundle.json"):
        text = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({**text, "description": "another one"}))
    refused = score(folder, "--out", out, repository=changed)
    assert refused.returncode == 1
    assert "bundle.sha256 was" in refused.stderr

    more = score(folder, SAMPLES / "clean_three.mp4", "--out", out)
    assert (more.returncode, "clean_three.mp4 was not among them" in more.stderr) == (1, True), more.stderr

    done = score(folder, "--out", out, "--json")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["done_before"] > 0
    assert_same_rows(rows_of(out), whole)


def test_two_at_once_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    run = start_with_small_parts(folder, "--out", out)
    try:
        end = time.monotonic() + 120.0
        while not (folder_of(out) / "run.json").exists() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.005)
        run.send_signal(signal.SIGSTOP)
        other = score(folder, "--out", out)
    finally:
        run.kill()
        run.communicate(timeout=120.0)
    assert other.returncode == 1
    assert "another `dimml score` is writing" in other.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    code = (
        "import time; from dimml_client.scoring.stopping import StopRequest\n"
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
