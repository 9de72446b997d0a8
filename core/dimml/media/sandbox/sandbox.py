"""What a decode worker takes away from itself before it reads the first hostile byte, as far as the kernel allows.

No privileges are needed, and it holds in a container whose own filter lets ``seccomp`` and ``landlock_…`` through
(Docker's, Podman's and containerd's do). Whatever is refused is reported, and the worker goes on without it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dimml.media.sandbox import landlock, seccomp

#: Where shared libraries lie that are loaded late.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What stands, and what could not be had, each with its reason."""

    enforced: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        enforced = ", ".join(self.enforced) or "nothing"
        return f"enforced: {enforced}" + (f"; NOT enforced: {'; '.join(self.missing)}" if self.missing else "")


def isolate(readable: Sequence[Path] | None) -> Isolation:
    """Shut this process in, for good: after its imports, while it has one thread.

    ``readable`` are the only folders, besides Python's own, from which it may read a file; None means any.
    """
    # Needs nothing of the kernel: no file grows, whoever opened it. Pipes are no files.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    roots = None if readable is None else [*_import_roots(), *readable]
    reading = "no reading of other files, " if readable is not None else ""
    # The filter last: it refuses the calls of the other as well.
    layers: list[tuple[str, Callable[[], None]]] = [
        (f"{reading}no changing of files (Landlock)", lambda: landlock.restrict(roots)),
        (
            "no network, no new files, no new processes (seccomp)",
            lambda: seccomp.install(os.getpid()),
        ),
    ]
    enforced, missing = ["files cannot grow (RLIMIT_FSIZE)"], []
    for what, install in layers:
        try:
            install()
        except OSError as error:
            missing.append(f"{what}: {error.strerror}")
        else:
            enforced.append(what)
    return Isolation(tuple(enforced), tuple(missing))


def _import_roots() -> list[Path]:
    """Where modules and libraries are that may be loaded later; not the current folder, which holds anything."""
    here = Path.cwd()
    paths = [Path(entry) for entry in sys.path if entry]
    return [Path(p) for p in (sys.prefix, sys.base_prefix, *_LIBRARIES)] + [p for p in paths if p != here]
