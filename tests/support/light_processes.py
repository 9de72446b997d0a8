"""``dimml serve --processes N`` whose serving processes load nothing: they note what they are asked, or fail.

Run as a script it is the server. A process does what the file ``PLAN`` of the folder ``repository/..`` says when it
starts: ``serve``, ``fail`` with a message, ``die``, or ``wait`` with taking requests until it says so; what it is
asked goes to the file ``notes`` there.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dimml_server.processes import parent
from dimml_server.processes.channel import Channel
from dimml_server.processes.entrypoint import run_processes
from dimml_server.processes.start import Start, receive_start
from dimml_server.settings.settings import load_settings
from support.waiting import wait_until

SCRIPT = Path(__file__).resolve()
PLAN, NOTES = "plan", "notes"
#: Variable that makes the parent find a process that hangs within seconds, not a minute.
QUICK = "LIGHT_QUICK"
FAILURE = "bundle 'tiny' does not load"


def main(descriptor: int) -> None:
    """Be a serving process."""
    end = socket.socket(fileno=descriptor)
    start, _, _ = receive_start(end)
    asyncio.run(_serve(start, end))
    os._exit(0)


async def _serve(start: Start, end: socket.socket) -> None:
    folder = start.settings.repository.parent
    served: dict[str, Any] = start.served or {"versions": {"tiny": {"1": "a"}}, "splits": {}}

    def note(what: str) -> None:
        with (folder / NOTES).open("a") as notes:
            notes.write(f"{start.index} {what}\n")

    async def answer(method: str, arguments: dict[str, Any]) -> Any:
        if method == "snapshot":
            return {"families": [], "drift": [], "accuracy": [], "statistics": []}
        note(f"{method} {arguments['kind']}" if "kind" in arguments else method)
        if method == "prepare":
            return {"name": "tiny", "versions": {"2": "b"}}
        return {} if method == "commit" else None

    channel = Channel(answer)
    running = asyncio.ensure_future(channel.run(end))
    match (folder / PLAN).read_text():
        case "fail":
            await channel.call("failed", message=FAILURE, field=None)
            os._exit(1)
        case "die":
            os.kill(os.getpid(), signal.SIGSEGV)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    assert await channel.call("join", served=served) is None
    note("joined")
    if (folder / PLAN).read_text() == "wait":
        await asyncio.to_thread(wait_until, lambda: (folder / PLAN).read_text() == "serve")
        note("ready")
    await channel.call("ready")
    await asyncio.wait({running, asyncio.ensure_future(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED)


def _run() -> None:
    if QUICK in os.environ:
        parent.SNAPSHOT_S, parent.SNAPSHOT_LIMIT_S = 0.1, 0.3
    parser = argparse.ArgumentParser()
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    run_processes(
        load_settings(repository=given.repository, **dict(pair.split("=", 1) for pair in given.set)),
        "support.light_processes",
    )


if __name__ == "__main__":
    _run()
