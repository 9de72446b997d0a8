"""Decode workers of this process, forked from another that has imported what they need, and nothing else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping

import pytest

from support.forked import ForkedProcess, template
from support.forked_children import asked


class ForkedWorker(ForkedProcess):
    """In place of what ``start_python_child`` gives. Its parent, which it dies with, is a process that dies with us."""

    def __init__(
        self, module: str, descriptor: int, *, environment: Mapping[str, str] | None = None, stdout: int | None = None
    ) -> None:
        self.args = [module]
        self.returncode: int | None = None
        self._waiting = threading.Lock()
        self._reports, theirs = socket.socketpair()
        request = json.dumps(asked(module, environment, stdout)).encode()
        with theirs:
            socket.send_fds(template(module), [request], [descriptor, theirs.fileno()])
        self.pid = self._report()


@pytest.fixture(scope="module", autouse=True)
def forked_workers() -> Iterator[None]:
    """For tests that decode by the way; those of the pool, in other modules, have workers that start as users' do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dimml.media.workers.process.start_python_child", ForkedWorker)
        yield
