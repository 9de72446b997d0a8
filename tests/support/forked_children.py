"""The decode workers and the shadow's process of a forked server: forked too, for what they import costs a second each.

They are children of the server that asks for them, as those that it starts from nothing are: it waits for them, and
they die with it. A process of ours stands between, forked while the server had one thread, since a server with several
could not fork; ``server_process`` does not count it among the server's children.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from dimml.system.child_process import die_with_parent

#: What the kernel calls the process between.
BETWEEN = "forks-children"
#: Modules that start children of a server of one process. One of several starts its own from nothing.
_STARTING = ("dimml.media.workers.process", "dimml_server.shadow.process")
_PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 15, 36
_REQUEST_BYTES = 2**18


class _Child(subprocess.Popen[bytes]):
    """A process that has been forked elsewhere and is this one's child."""

    def __init__(self, pid: int, module: str) -> None:
        self.args, self.pid, self.returncode = [module], pid, None  # type: ignore[assignment]
        self.stdin = self.stdout = self.stderr = None
        self._child_created, self._waitpid_lock = True, threading.Lock()


def fork_children() -> None:
    """Have what this process starts with ``start_python_child`` be forked. Call it while there is one thread."""
    server, (ours, theirs) = os.getpid(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    libc = ctypes.CDLL(None)
    # A process whose parent has ended becomes this one's child.
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0
    if os.fork() == 0:
        ours.close()
        die_with_parent(server)
        _call_this(BETWEEN)
        # Signals of a terminal, or of a test, go to the server.
        os.setsid()
        _serve(theirs, server)
    theirs.close()
    asking = threading.Lock()

    def start(
        module: str, descriptor: int, *, environment: Mapping[str, str] | None = None, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        given = asked(module, environment, stdout)
        with asking:
            socket.send_fds(ours, [json.dumps(given).encode()], [descriptor])
            return _Child(int(ours.recv(64)), module)

    for name in _STARTING:
        vars(importlib.import_module(name))["start_python_child"] = start


def _serve(requests: socket.socket, server: int) -> NoReturn:
    """Fork for every request, until the server is gone. What is forked has lost its parent at once."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 1)
        if not packet:
            os._exit(0)
        (descriptor,) = descriptors
        back, tell = os.pipe()
        if (short_lived := os.fork()) == 0:
            if (child := os.fork()) == 0:
                for done_with in (requests.detach(), back, tell):
                    os.close(done_with)
                become_child(descriptor, server, **json.loads(packet))
            os.write(tell, str(child).encode())
            os._exit(0)
        for done_with in (descriptor, tell):
            os.close(done_with)
        os.waitpid(short_lived, 0)
        with os.fdopen(back, "rb") as answer:
            requests.send(answer.read())


def _call_this(name: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode())


def asked(module: str, environment: Mapping[str, str] | None, stdout: int | None) -> dict[str, Any]:
    """What ``become_child`` takes, of what ``start_python_child`` takes."""
    environment = dict(os.environ if environment is None else environment)
    return {
        "module": module,
        "environment": environment,
        "mute": stdout is not None,
        "paths": sys.path,
        "folder": str(Path.cwd()),
    }


def become_child(
    descriptor: int,
    server: int,
    *,
    module: str,
    environment: dict[str, str],
    mute: bool,
    paths: list[str],
    folder: str,
) -> NoReturn:
    """What ``start_python_child`` has a new interpreter do."""
    code: Any = 0
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1) if mute else (0,):
            os.dup2(nothing, number)
        os.close(nothing)
        os.setsid()
        os.chdir(folder)
        sys.path[:] = paths
        os.environ.clear()
        os.environ.update(environment)
        while os.getppid() != server:
            time.sleep(0.001)
        die_with_parent(server)
        _call_this(Path(sys.executable).name)
        importlib.import_module(module).main(descriptor)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
