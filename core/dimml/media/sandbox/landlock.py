"""Landlock for the calling thread: the files that may be opened. See landlock(7); Linux 5.13 and later."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from dimml.media.sandbox.seccomp import no_new_privileges

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
#: How many rights over files each version of the interface knows, from 1 on.
_FILE_RIGHTS: Final = (13, 14, 15, 15, 16)
#: From these versions on: bind and connect of TCP; signals and abstract Unix sockets beyond the sandbox.
_NETWORK_FROM, _NETWORK = 4, 0b11
_SCOPES_FROM, _SCOPES = 6, 0b11


def version() -> int:
    """Query the version of the kernel's interface. Raises OSError without one, or if it is switched off."""
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def restrict(readable: Sequence[Path] | None) -> None:
    """Restrict this thread, and threads it starts later, to reading beneath ``readable``; none may change a file.

    ``readable`` None leaves reading as it is. Paths that do not exist are skipped. Tracing other processes and reading
    their memory are refused too. Raises OSError if the kernel does not offer Landlock.
    """
    known = version()
    files = (1 << _FILE_RIGHTS[min(known, len(_FILE_RIGHTS)) - 1]) - 1
    if readable is None:
        files &= ~(_READ_FILE | _READ_DIR)
    attributes = struct.pack("=Q", files)
    if known >= _NETWORK_FROM:
        attributes += struct.pack("=Q", _NETWORK)
    if known >= _SCOPES_FROM:
        attributes += struct.pack("=Q", _SCOPES)
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable or ():
            _allow_reading(ruleset, path)
        no_new_privileges(ctypes.CDLL(None, use_errno=True))
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | (_READ_DIR if path.is_dir() else 0)
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(number, *_as_longs(arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _as_longs(arguments: Iterable[int | bytes | None]) -> list[ctypes.c_long | bytes | None]:
    # What ctypes passes as an int by itself has its upper half undefined.
    return [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
