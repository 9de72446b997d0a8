"""A decode function that makes the calls which no decoder needs, and reports which of them were refused."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dimml.errors import InvalidParameterError
from dimml.media import Decoded, DecodeRequest
from dimml.media.sandbox import seccomp

_PR_SET_PDEATHSIG = 1


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _forks() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _raises_its_memory_limit() -> None:
    # More than anybody has: what is set already may be set again.
    limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    try:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    except ValueError as error:
        raise OSError(str(error)) from error


def _survives_its_parent() -> None:
    _checked(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0))


def _opens_for_writing(path: Path, flags: int) -> None:
    os.close(os.open(path, flags, 0o600))


def attempts(port: int, folder: Path, secret: Path) -> dict[str, Callable[[], Any]]:
    """By name; each raises OSError where it is refused. ``folder`` holds a file ``kept`` and may be changed."""
    kept, parent = folder / "kept", os.getppid()
    return {
        "connects": lambda: socket.create_connection(("127.0.0.1", port), 5).close(),
        "makes a datagram socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        "makes a unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "makes a pair of sockets": lambda: [end.close() for end in socket.socketpair()],
        "makes a file": lambda: _opens_for_writing(folder / "new", os.O_WRONLY | os.O_CREAT),
        "makes a file without a name": lambda: _opens_for_writing(folder, os.O_RDWR | os.O_TMPFILE),
        "writes to a file": lambda: _opens_for_writing(kept, os.O_RDWR),
        "empties a file": lambda: _opens_for_writing(kept, os.O_RDONLY | os.O_TRUNC),
        "cuts a file": lambda: os.truncate(kept, 1),
        "makes a folder": (folder / "folder").mkdir,
        "links a file": lambda: (folder / "link").symlink_to(kept),
        "changes a file's rights": lambda: kept.chmod(0o600),
        "changes a file's times": lambda: os.utime(kept),
        "renames a file": lambda: kept.rename(kept),
        "makes a file in memory": lambda: os.close(os.memfd_create("x")),
        "forks": _forks,
        "runs a program": lambda: subprocess.run([sys.executable, "-c", ""], check=True, timeout=60),
        "becomes a program": lambda: os.execv("/nonexistent", ["/nonexistent"]),  # noqa: S606 (that is the point)
        "signals its parent": lambda: os.kill(parent, 0),
        "raises its memory limit": _raises_its_memory_limit,
        "survives its parent": _survives_its_parent,
        "removes a file": kept.unlink,
        "reads another file": secret.read_bytes,
        "lists another folder": lambda: list(secret.parent.iterdir()),
        "reads its parent's environment": Path(f"/proc/{parent}/environ").read_bytes,
        "reads its parent's memory": lambda: os.close(os.open(f"/proc/{parent}/mem", os.O_RDONLY)),
    }


def refused(port: int, folder: Path, secret: Path) -> dict[str, str]:
    """What was refused, and with which error; try it in a folder that may be lost."""
    found = {}
    for name, attempt in attempts(port, folder, secret).items():
        try:
            attempt()
        except OSError as error:
            found[name] = type(error).__name__
    return found


def trespasses(request: DecodeRequest) -> Decoded:
    """The decode function: its source is the arguments of ``refused`` as JSON, its answer the message of an error."""
    (source,) = request.sources.values()
    assert isinstance(source, bytes)
    port, folder, secret = json.loads(source)
    found = refused(port, Path(folder), Path(secret))
    thread = threading.Thread(target=found.update, args=({"a thread": "ran"},))
    thread.start()
    thread.join()
    raise InvalidParameterError(json.dumps(found))


def shuts_out_landlock_and_seccomp() -> None:
    """Make this process one to which the kernel refuses both, as an old kernel or a strict container would."""
    numbers = {"landlock_create_ruleset": (444, 444), "seccomp": seccomp.CHECKED["seccomp"]}
    seccomp.REFUSED.clear()
    seccomp.REFUSED.update(numbers)
    for name in set(seccomp.CHECKED) - {"seccomp"}:
        seccomp.CHECKED[name] = (None, None)
    seccomp.install(os.getpid())
