"""``dimml serve`` in which one encoder's every run takes ``STALL_S`` longer and heeds no request to stop.

The modality is given by the environment, the rest as to ``dimml serve``. A run on zeros, as of the warm-up, is quick.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from dimml.cli import run
from dimml_server.engines import ort_session
from peer_servers.pipeline import STALL, STALL_S


class _Stalled:
    def __init__(self, session: Any) -> None:
        self._session = session

    def run(self, outputs: Any, tensors: Any, options: Any) -> Any:
        if any(np.any(tensor) for tensor in tensors.values()):
            time.sleep(STALL_S)
        return self._session.run(outputs, tensors, options)


def _stall(modality: str) -> None:
    made = ort_session.ModelSession.__init__

    def init(self: Any, path: Any, spec: Any, **options: Any) -> None:
        made(self, path, spec, **options)
        if spec.modality == modality:
            self._session = _Stalled(self._session)

    ort_session.ModelSession.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    _stall(os.environ[STALL])
    run()
