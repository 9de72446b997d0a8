"""Python processes that work for this one: its import path, a session of their own, and no life after its end."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
# The parent's import path, so that whatever it could import, the child can. The imports of the module take seconds,
# in which the parent may die, so they come last.
_BOOTSTRAP: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from dimml.system.child_process import die_with_parent; die_with_parent(int(sys.argv[2])); "
    "from {module} import main; main(int(sys.argv[3]))"
)


def start_python_child(
    module: str, descriptor: int, *, environment: Mapping[str, str] | None = None, stdout: int | None = None
) -> subprocess.Popen[bytes]:
    """Start a Python process that runs ``main(descriptor)`` of a module, the descriptor inherited.

    It is killed when the thread that called this ends, so that thread must outlive it. Raises OSError where no process
    can be started.
    """
    code = _BOOTSTRAP.format(module=module)
    return subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(sys.path), str(os.getpid()), str(descriptor)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        pass_fds=(descriptor,),
        env=environment,
        # A group of its own: Ctrl-C at the terminal goes to the parent alone.
        start_new_session=True,
    )


def die_with_parent(parent: int, how: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent is gone, even while it hangs in foreign code.

    ``parent`` is the process that started it: where that is gone already, this process ends here. The kernel counts
    the thread that started this process as its parent (prctl(2)).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
    if os.getppid() != parent:
        # It ended before prctl took effect.
        os._exit(0)
