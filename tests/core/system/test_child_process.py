"""Child processes: their import path, their session, and that they end with the process they work for."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
from contextlib import closing
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import pytest

from dimml.system.child_process import start_python_child

#: Says what it is, then hangs with every signal ignored that can be.
CHILD = """
import os, signal, sys, time
from multiprocessing.connection import Connection

def main(descriptor):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with Connection(descriptor) as connection:
        connection.send((os.getpid(), os.getsid(0), sys.path, sys.stdin.read(), os.environ.get("OF_ITS_OWN")))
        while True:
            time.sleep(600)
"""
#: Starts the child, and lets its end of the pipe be inherited: a parent that is killed closes nothing for the child.
PARENT = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from dimml.system.child_process import start_python_child
start_python_child("child_of_test", int(sys.argv[2]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the child's module, which nothing else can import."""
    (tmp_path / "child_of_test.py").write_text(CHILD)
    return tmp_path


def received(connection: Connection) -> tuple[int, int, list[str], str, str | None]:
    assert connection.poll(60.0), "the child said nothing"
    answer: tuple[int, int, list[str], str, str | None] = connection.recv()
    return answer


def ended(pidfd: int) -> bool:
    """Whether the process ends soon; closes its descriptor, and leaves no process behind."""
    try:
        if select.select([pidfd], [], [], 30.0)[0]:
            return True
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return False
    finally:
        os.close(pidfd)


def test_a_child_imports_what_its_parent_can_and_has_a_session_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder)
    ours, theirs = Pipe()
    with closing(ours), closing(theirs):
        process = start_python_child("child_of_test", theirs.fileno(), environment=os.environ | {"OF_ITS_OWN": "yes"})
        with process:
            try:
                pid, session, path, read, variable = received(ours)
            finally:
                process.kill()
    assert (pid, session) == (process.pid, process.pid)
    assert path == sys.path
    assert read == "", "it has no standard input"
    assert variable == "yes"


def test_a_child_dies_when_its_parent_is_killed(folder: Path) -> None:
    """SIGKILL leaves the parent no chance to end it, and the child does not look at its pipe."""
    ours, theirs = Pipe()
    with closing(ours), closing(theirs):
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(folder), str(theirs.fileno())],
            stdout=subprocess.PIPE,
            pass_fds=(theirs.fileno(),),
        )
        with parent:
            try:
                child = os.pidfd_open(received(ours)[0])
            finally:
                parent.kill()
        assert ended(child)


def test_a_parent_that_went_before_the_child_asked_ends_it_too() -> None:
    code = "import sys; from dimml.system.child_process import *; die_with_parent(int(sys.argv[1])); print(1)"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for parent, said in ((os.getpid(), "1\n"), (other.pid, "")):
            done = subprocess.run([sys.executable, "-c", code, str(parent)], capture_output=True, text=True, check=True)
            assert (done.stdout, done.stderr) == (said, "")
        other.communicate(b"\n")


def test_the_signal_may_be_one_that_the_child_answers(tmp_path: Path) -> None:
    child = textwrap.dedent(
        """
        import os, signal, sys, time
        from pathlib import Path
        from dimml.system.child_process import die_with_parent
        def leave(*_):
            Path(sys.argv[1]).write_text("left")
            os._exit(0)
        signal.signal(signal.SIGTERM, leave)
        die_with_parent(os.getppid(), signal.SIGTERM)
        print(os.getpid(), flush=True)
        time.sleep(600)
        """
    )
    parent = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    path = tmp_path / "left"
    with subprocess.Popen([sys.executable, "-c", parent, child, str(path)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            pidfd = os.pidfd_open(int(process.stdout.readline()))
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert ended(pidfd)
    assert path.read_text() == "left"
