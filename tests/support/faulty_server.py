"""``dimml serve`` with ``faulty_decode`` in its decode workers, and soon done with a body that goes on unwanted.

Takes ``--repository`` and ``--set`` alone.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dimml.media.workers.pool import DecodePool
from dimml_server.http.connection import protocol
from dimml_server.process.entrypoint import run_until_stopped
from dimml_server.processes.entrypoint import run_processes
from dimml_server.settings.settings import load_settings
from support.faulty_decoding import faulty_decode

SCRIPT = Path(__file__).resolve()
LINGER_S = 1.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    protocol.LINGER_S = LINGER_S
    settings = load_settings(repository=given.repository, **dict(pair.split("=", 1) for pair in given.set))
    if settings.processes > 1:
        run_processes(settings, "support.faulty_child")
        return
    run_until_stopped(settings, DecodePool(settings.decode_workers, decode_function=faulty_decode))


if __name__ == "__main__":
    main()
