"""How much of a request's work is done once for the whole server, with 1, 2 and 4 serving processes.

    python benchmarks/processes.py --repository bundles --bundle grid_digit --out processes.md

Servers with each number of processes take the same load in turn, all of their processes on one core and the load on
another, so that it is work that is counted and not cores. Of each: processor time a request of the parent, which alone
is not replicated, of the serving processes and of their decode workers, by each process's clock; and memory (PSS). From
the parent's time follows what it allows on more cores, as arithmetic: cores times the rate of one, until the parent has
no time left. What cores share beside that, memory and caches, is not in it.

The server of one process has no parent: its event loop is what bounds it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import processes
from harness.clips import default_clips, read_clips
from harness.load import closed_loop, http_request
from harness.report import ROOT, Page, machine, table
from harness.servers import Running, free_port, started, two_cores

CORES = (8, 16, 64)
#: Largest share of a request's work that may be done once for the whole server.
LIMIT = 0.05
PARENT, SERVING, DECODING = "parent", "serving processes", "decode workers"


def parts(server: Running, number: int) -> dict[str, list[int]]:
    """Processes of a server by what they do."""
    root = server.process.pid
    serving = [root] if number == 1 else processes.children(root)
    rest = set(server.processes()) - {root, *serving}
    return {PARENT: [] if number == 1 else [root], SERVING: serving, DECODING: sorted(rest)}


def one_round(
    server: Running, number: int, uploads: Sequence[bytes], arguments: argparse.Namespace
) -> dict[str, float]:
    """Processor milliseconds a request of each part."""
    members = parts(server, number)
    before = {name: processes.spent_s(found) for name, found in members.items()}
    measured = closed_loop(server.address, uploads, arguments.requests, arguments.clients)
    if measured.failed:
        raise SystemExit(f"requests failed: {measured.failures}")
    if parts(server, number) != members:
        raise SystemExit("a process of the server began or ended")
    return {
        name: 1000 * (processes.spent_s(found) - before[name]) / arguments.requests for name, found in members.items()
    }


def report(page: Page, found: dict[int, list[dict[str, float]]], memory: dict[int, int]) -> bool:
    """Print both tables; return whether the parent's share is within the limit."""
    rows, allowed, within = [], [], True
    for number, rounds in found.items():
        ms = {name: statistics.median(one[name] for one in rounds) for name in (PARENT, SERVING, DECODING)}
        total = sum(ms.values())
        share = statistics.median(one[PARENT] / sum(one.values()) for one in rounds)
        within &= share <= LIMIT
        cells = [f"{ms[name]:.2f}" for name in (SERVING, DECODING, PARENT)]
        rows.append([str(number), f"{total:.2f}", *cells, f"{100 * share:.2f} %", f"{memory[number] / 1e6:.0f} MB"])
        if number > 1:
            most = 1000 / ms[PARENT] if ms[PARENT] else float("inf")
            allowed.append([str(number), *(f"{min(cores * 1000 / total, most):.0f}" for cores in CORES), f"{most:.0f}"])
    head = ["processes", "processor ms a request", SERVING, DECODING, PARENT, "share of the parent", "memory"]
    page.add(table(head, rows))
    head = ["processes", *(f"requests/s on {cores} cores" for cores in CORES), "most that the parent allows"]
    page.add("What that allows, as arithmetic:\n\n" + table(head, allowed))
    return within


def main() -> int:
    """Measure; print Markdown; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--bundle", default="avdigits")
    parser.add_argument("--clips", type=Path, default=default_clips(), help="folder of .mp4 files")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--requests", type=int, default=300, help="of a round (300)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--out", type=Path, help="file for the Markdown, in addition to stdout")
    arguments = parser.parse_args()

    server_core, load_core = two_cores()
    page = Page(arguments.out)
    clips = read_clips(arguments.clips, 50)
    uploads = [http_request(clip) for clip in clips]
    page.add(
        f"{arguments.bundle}, {len(clips)} clips of {arguments.clips.parent.name}, {arguments.clients} clients, "
        f"{arguments.rounds} rounds of {arguments.requests}; {machine()}"
    )
    with ExitStack() as stack:
        servers = {}
        for number in arguments.processes:
            port = free_port()
            words = ["--repository", str(arguments.repository), "--model", arguments.bundle, "--processes", str(number)]
            # Totals, of which every process has at least one.
            words += ["--set", "decode_workers=4", "--set", "concurrency=16", "--http-port", str(port)]
            command = [sys.executable, "-m", "dimml", "serve", *words, "--grpc-port", "0", "--log-level", "warning"]
            one = started(command, os.environ, port=port, probe=uploads[0], core=server_core)
            servers[number] = stack.enter_context(one)
        os.sched_setaffinity(0, {load_core})
        found: dict[int, list[dict[str, float]]] = {number: [] for number in servers}
        for server in servers.values():
            closed_loop(server.address, uploads, 5 * arguments.clients, arguments.clients)
            processes.pin(server.processes(), server_core)
        for turn in range(arguments.rounds):
            order = list(servers) if turn % 2 == 0 else list(servers)[::-1]
            for number in order:
                found[number].append(one_round(servers[number], number, uploads, arguments))
        memory = {number: processes.pss_bytes(server.processes()) for number, server in servers.items()}
    return 0 if report(page, found, memory) else 1


if __name__ == "__main__":
    sys.exit(main())
