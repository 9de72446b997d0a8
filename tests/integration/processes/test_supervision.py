"""The parent of several processes: what it does where they do not start, end again and again, or outlive it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import light_processes
from support.light_processes import FAILURE, NOTES, PLAN, QUICK
from support.server_process import ServerProcess, running_server, serve_command
from support.tiny_bundle import make_tiny_bundle
from support.waiting import wait_until

#: Some processes are started one after the other, on a machine that others use.
LIMIT_S = 300.0


def made(folder: Path) -> Path:
    """A repository beside a plan by which all is well."""
    make_tiny_bundle(folder / "models")
    (folder / PLAN).write_text("serve")
    (folder / NOTES).touch()
    return folder / "models"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return made(tmp_path)


def plan(repository: Path, what: str) -> None:
    (repository.parent / PLAN).write_text(what)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def server(watched: Path) -> Iterator[ServerProcess]:
    script = light_processes.SCRIPT
    with running_server(watched, script=script, processes=2, watch=True, watch_interval_s=0.05) as it:
        yield it


def refusal(repository: Path, **settings: object) -> str:
    """What a server says that does not start; the last line is the error, and the exit code is 1."""
    command = serve_command(repository, {"processes": 2, **settings}, light_processes.SCRIPT)
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(("what", "said"), [("fail", FAILURE), ("die", "before it could take requests (SIGSEGV)")])
def test_a_server_whose_processes_do_not_start_says_why_and_ends(repository: Path, what: str, said: str) -> None:
    plan(repository, what)
    assert said in refusal(repository)


def test_a_server_says_that_it_is_ready_once_all_processes_take_requests(repository: Path) -> None:
    """A process that has joined may still have to hear that all have."""
    plan(repository, "wait")
    notes = repository.parent / NOTES
    command = serve_command(repository, {"processes": 2}, light_processes.SCRIPT)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        lines = server.stdout
        with ThreadPoolExecutor(1) as reader:
            first = reader.submit(lambda: (lines.readline(), notes.read_text().split("\n")))
            try:
                wait_until(lambda: notes.read_text().count("joined") == 2, seen=notes.read_text)
                plan(repository, "serve")
                line, noted = first.result(LIMIT_S)
            finally:
                server.terminate()  # Which ends the reader, too.
    assert line.startswith("ready http=")
    assert {"0 ready", "1 ready"} <= set(noted)


def test_a_process_that_does_not_start_again_ends_the_server_after_some_tries(repository: Path) -> None:
    settings = {"processes": 2}
    with running_server(repository, script=light_processes.SCRIPT, stop=False, code=1, **settings) as server:
        first = server.children()
        plan(repository, "fail")
        os.kill(first[0], signal.SIGKILL)
        server.process.wait(LIMIT_S)
        server.wait_for_log(FAILURE)
    pauses = [float(pause) for pause in re.findall(r"replaced in ([0-9.]+) s", server.log)]
    # At once after the first, then longer every time; the last try is not followed by another.
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0]


def test_one_that_dies_is_replaced_and_the_other_stays(server: ServerProcess, watched: Path) -> None:
    notes = watched.parent / NOTES
    wait_until(lambda: notes.read_text().count("joined") == 2)
    first = set(server.children())
    victim = min(first)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: notes.read_text().count("joined") == 3)
    assert len(first & set(server.children())) == 1


def test_the_parent_alone_watches_the_repository(server: ServerProcess, watched: Path) -> None:
    make_tiny_bundle(watched)
    notes = watched.parent / NOTES
    wait_until(lambda: notes.read_text().count("commit") == 2)
    seen = [line.partition(" ") for line in notes.read_text().splitlines() if not line.endswith("joined")]
    # One is asked to load, the other to prepare the same; then both switch.
    assert sorted(what for _, _, what in seen) == ["commit", "commit", "prepare exactly", "prepare load"]
    assert [{index for index, _, what in seen if what.startswith(kind)} for kind in ("commit", "prepare")] == [
        {"0", "1"}
    ] * 2
    shutil.rmtree(watched / "tiny" / "2")
    wait_until(lambda: "prepare drop" in notes.read_text())


def test_one_that_hangs_is_replaced_and_none_outlives_a_parent_that_is_killed(repository: Path) -> None:
    with running_server(
        repository,
        script=light_processes.SCRIPT,
        environment={QUICK: "1"},
        stop=False,
        code=-signal.SIGKILL,
        processes=2,
    ) as server:
        victim = min(server.children())
        os.kill(victim, signal.SIGSTOP)
        wait_until(lambda: victim not in server.children() and len(server.children()) == 2, LIMIT_S)
        assert "hangs, and is killed" in server.log
        children = server.children()
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_what_stays_of_one_process_is_refused_before_any_is_started(repository: Path) -> None:
    said = refusal(repository, shadows={"tiny": 1})
    assert "a shadow needs a server of one process" in said
    assert (repository.parent / NOTES).read_text() == ""
