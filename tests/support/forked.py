"""``dimml`` commands forked from a process that has imported what they need: imports are most of what a start costs.

A fork runs the same command with the same arguments, environment and folder, and has its own sockets, signals, threads
and decode workers, which are forked too (``support.forked_children``). It differs in what is decided while modules are
imported: a test of that starts its command from nothing (for a server, ``running_server(..., fresh=True)``).
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from support.forked_children import become_child, fork_children

#: Every server of the tests has this in its environment.
SERVER_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
_TESTS = Path(__file__).resolve().parents[1]
_BOOT = "import sys; sys.path[0] = sys.argv[1]; from support.forked import serve_forks; serve_forks(int(sys.argv[2]))"
#: What a server has imported once it is ready, and `dimml predict` once it has answered, beside the commands.
_OF_COMMANDS = (
    "onnxruntime",
    "pydantic.v1",
    "rich.progress",
    "dimml_server.process.entrypoint",
    "dimml_server.local",
    "dimml_server.shadow.worker",
    "dimml.media.workers.main",
    "dimml_client.cli.predict",
    "dimml_client.cli.table",
    "support.faulty_decoding",
)
#: Variable that tells the process that forks what to import.
_MODULES = "SUPPORT_FORKED_MODULES"
#: A request is one packet: arguments and environment.
_REQUEST_BYTES = 2**18
#: A process's number, and later how it ended.
_REPORT = struct.Struct("i")


class ForkedProcess:
    """The part of ``subprocess.Popen`` that tests use, for ``-m dimml`` or a script of our tests.

    ``args`` are those of a Python process, the interpreter first; ``folder`` is another one than ours, ``environment``
    on top of our own.
    """

    def __init__(
        self, args: Sequence[str], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.args = list(args)
        self.returncode: int | None = None
        self._waiting = threading.Lock()
        self._reports, theirs = socket.socketpair()
        (out, out_there), (err, err_there) = os.pipe(), os.pipe()
        self.stdout: IO[str] = os.fdopen(out)
        self.stderr: IO[str] = os.fdopen(err)
        request = {
            "args": self.args,
            "environment": os.environ | SERVER_ENVIRONMENT | dict(environment or {}),
            "folder": str(folder or Path.cwd()),
        }
        with theirs:
            socket.send_fds(
                template("dimml.cli", *_OF_COMMANDS),
                [json.dumps(request).encode()],
                [out_there, err_there, theirs.fileno()],
            )
        os.close(out_there)
        os.close(err_there)
        #: As the kernel knows it.
        self.pid = self._report()

    def poll(self) -> int | None:
        """The exit code, negative after a signal; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Block until it has ended; the exit code. Raises TimeoutExpired."""
        if not self._waiting.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        try:
            if self.returncode is None:
                self._reports.settimeout(timeout)
                self.returncode = os.waitstatus_to_exitcode(self._report())
                self._reports.close()
        except (TimeoutError, BlockingIOError):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
        else:
            return self.returncode
        finally:
            self._waiting.release()

    def send_signal(self, number: int) -> None:
        """As ``os.kill``, but nothing where it has ended."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _report(self) -> int:
        packed = self._reports.recv(_REPORT.size)
        assert packed, "the process that forks servers has died"
        return int(_REPORT.unpack(packed)[0])


def run_forked(args: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; what it says and its exit code, as ``subprocess.run`` has them."""
    process = ForkedProcess(args, folder)
    with process.stdout, process.stderr, ThreadPoolExecutor(1) as beside:
        errors = beside.submit(process.stderr.read)
        said = process.stdout.read()
        return subprocess.CompletedProcess(process.args, process.wait(), said, errors.result())


@cache
def template(*modules: str) -> socket.socket:
    """The socket that takes requests for forks, of a process that has these modules and lives as long as this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(_TESTS), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            # Not among its words, by which tests find workers.
            env=os.environ | SERVER_ENVIRONMENT | {_MODULES: " ".join(modules)},
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


def serve_forks(descriptor: int) -> None:
    """Import modules, then fork a process for each request until the socket is closed."""
    from dimml.system.outbound import import_quietly

    modules = os.environ.pop(_MODULES).split()
    for name in modules:
        import_quietly(name)
    if "dimml.cli" in modules:
        sys.modules["dimml.cli"].build_app()
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads: only the one that forks would go on in a fork"
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reports: dict[int, socket.socket] = {}
    us = os.getpid()
    with socket.socket(fileno=descriptor) as requests:
        while True:
            ready, _, _ = select.select([requests, ended], [], [])
            if ended in ready:
                os.read(ended, 1024)
                _report_the_dead(reports)
            if requests in ready:
                packet, given, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
                if not packet:
                    return
                *given, report = given
                if (process := os.fork()) == 0:
                    for number in (requests.detach(), ended, wake, report, *(one.detach() for one in reports.values())):
                        os.close(number)
                    _forget_signals()
                    asked = json.loads(packet)
                    become_child(*given, us, **asked) if "module" in asked else _become(*given, **asked)
                for number in given:
                    os.close(number)
                reports[process] = socket.socket(fileno=report)
                reports[process].send(_REPORT.pack(process))


def _report_the_dead(reports: dict[int, socket.socket]) -> None:
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            process, status = found
            with reports.pop(process) as report, suppress(BrokenPipeError):
                report.send(_REPORT.pack(status))


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _become(out: int, err: int, *, args: list[str], environment: dict[str, str], folder: str) -> NoReturn:
    """Run ``-m dimml`` or a script with these arguments, as a new interpreter would."""
    for descriptor, number in ((out, 1), (err, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    run: Callable[[], Any]
    if args[1:3] == ["-m", "dimml"]:
        from dimml import __main__ as program

        sys.argv, sys.path[0], run = [str(program.__file__), *args[3:]], folder, program.run
    else:
        sys.argv, sys.path[0] = args[1:], str(Path(args[1]).parent)
        run = lambda: runpy.run_path(args[1], run_name="__main__")  # noqa: E731
    serves = args[1:2] != ["-m"] or args[3:4] == ["serve"]
    if serves and not any(word.startswith("--set=processes=") for word in args):
        fork_children()
    run()
    sys.exit()
