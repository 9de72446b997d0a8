"""The ``tritonserver`` process: its command line, its log, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import IO, Final

from dimml.system.child_process import die_with_parent
from dimml_server.triton_server.failure import NO_GPU
from dimml_server.triton_server.installation import Installation
from dimml_server.triton_server.options import ModelControl, TritonOptions
from dimml_server.triton_server.ports import Ports
from dimml_server.triton_server.run_folder import RunFolder
from dimml_server.triton_server.shared_memory import RunName

#: Time for requests in flight after SIGTERM; then Triton ends regardless.
GRACE_S: Final = 20
#: Additional time for models to be unloaded and processes to end.
_KILL_AFTER_S: Final = 25.0
_STOP_POLL_S: Final = 0.1
#: If no model's process has existed for this long, there is nothing left to wait for.
_IDLE_S: Final = 2.0
_LOG_LINES: Final = 5000


class TritonProcess:
    """A running server. Its log is kept back until ``show_log`` is called, and goes to stderr from then on."""

    def __init__(self, command: list[str], environment: dict[str, str], lock: int) -> None:
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # We pass a Ctrl-C at the terminal on ourselves, once.
            start_new_session=True,
            pass_fds=(lock,),
            # preexec_fn is safe here: no threads are running yet.
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509
        )
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._shown = False
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), name="triton-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the server itself; its stubs are its children."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs, negative for a signal."""
        return self._process.poll()

    @property
    def log(self) -> list[str]:
        """The last lines of its log."""
        return list(self._log)

    def show_log(self) -> None:
        """Copy its log to stderr from now on."""
        self._shown = True

    def stop(self) -> int:
        """Let requests in flight finish, then end the process; return its exit code."""
        if self.exit_code is None:
            self._process.terminate()
        idle_s, end = 0.0, time.monotonic() + GRACE_S + _KILL_AFTER_S
        while self.exit_code is None:
            time.sleep(_STOP_POLL_S)
            # After a failed load, Triton 2.51 believes that a model is still alive, and waits for it.
            idle_s = 0.0 if stub_processes(self.pid) else idle_s + _STOP_POLL_S
            if idle_s > _IDLE_S or time.monotonic() > end:
                _kill_group(self.pid)
                break
        code = self._process.wait()
        # Triton ends its stubs; one that hangs keeps its shared memory regions, and the log, open.
        self._reader.join(1.0)
        if self._reader.is_alive():
            _kill_group(self._process.pid)
            self._reader.join(10.0)
        return code

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self._read_lines(stream)

    def _read_lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._log.append(line.rstrip("\n"))
            if self._shown and not NO_GPU.search(line):
                sys.stderr.write(line)
                sys.stderr.flush()


def server_command(
    options: TritonOptions,
    models: list[str],
    ports: Ports,
    *,
    installation: Installation,
    run: RunFolder,
    name: RunName,
) -> list[str]:
    """Build the command line of the server. ``models`` are the ones to load; empty for all."""
    python = {"shm-region-prefix-name": f"{name.prefix}-"}
    command = [
        str(installation.server),
        f"--model-repository={options.repository.resolve()}",
        f"--backend-directory={run.backends}",
        f"--http-address={options.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={options.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={options.host}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={GRACE_S}",
        "--allow-gpu-metrics=false",
        *(f"--backend-config=python,{key}={value}" for key, value in python.items()),
    ]
    if options.model_control is ModelControl.EXPLICIT or models:
        command += ["--model-control-mode=explicit", *(f"--load-model={model}" for model in models or ["*"])]
    return command


def stub_processes(pid: int) -> dict[int, list[str]]:
    """Return the command lines of a server's living stubs by process id."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may contain spaces; state and parent follow it.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found[int(stat.parent.name)] = (stat.parent / "cmdline").read_text().rstrip("\0").split("\0")
        except OSError:
            continue
    return found


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
