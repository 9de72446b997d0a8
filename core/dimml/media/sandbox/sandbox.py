"""Restrictions that a decode worker puts on itself before it reads untrusted bytes, as far as the kernel allows.

No privileges are needed, and they work in a container whose own filter allows ``seccomp`` and ``landlock_…`` (those of
Docker, Podman and containerd do). A restriction that is refused is reported, and the worker goes on without it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dimml.media.sandbox import landlock, seccomp

#: Folders of shared libraries that may be loaded later.
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Isolation:
    """Restrictions in force, and those that could not be put in place, each with its reason."""

    enforced: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    def __str__(self) -> str:
        enforced = ", ".join(self.enforced) or "nothing"
        return f"enforced: {enforced}" + (f"; NOT enforced: {'; '.join(self.missing)}" if self.missing else "")


def isolate(readable: Sequence[Path] | None) -> Isolation:
    """Restrict this process for the rest of its life. Call it after imports, while there is one thread.

    ``readable`` lists the only folders, besides Python's own, from which it may read files; None means any.
    """
    # Works on every kernel: no file grows, not even one opened before. Pipes are not files.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    roots = None if readable is None else [*_import_roots(), *readable]
    reading = "no reading of other files, " if readable is not None else ""
    # The filter comes last: it refuses the calls that Landlock is set up with.
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
    """List folders of modules and libraries that may be loaded later, without the current one."""
    here = Path.cwd()
    paths = [Path(entry) for entry in sys.path if entry]
    return [Path(p) for p in (sys.prefix, sys.base_prefix, *_LIBRARIES)] + [p for p in paths if p != here]
