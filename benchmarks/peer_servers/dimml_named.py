"""``dimml serve`` whose threads carry their Python names in the kernel too, so that their time can be separated."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from dimml.cli import run

#: What the kernel keeps of a name; the ends of Python's tell threads apart.
_CHARS = 15


def _name_threads() -> None:
    bootstrap = threading.Thread._bootstrap_inner  # type: ignore[attr-defined]

    def named(self: threading.Thread) -> None:
        with suppress(OSError):
            Path("/proc/thread-self/comm").write_text(self.name[-_CHARS:])
        bootstrap(self)

    threading.Thread._bootstrap_inner = named  # type: ignore[attr-defined]


if __name__ == "__main__":
    _name_threads()
    run()
