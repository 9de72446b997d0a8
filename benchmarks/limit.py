"""What a request cannot do without, and where the rest of its processor time goes in ``dimml serve``.

    python benchmarks/limit.py --repository bundles --bundle grid_digit --out limit.md
    python benchmarks/limit.py --functions 15            # and functions, where py-spy is installed

First with nothing around: dimml's decoder, each encoder and the fusion, called in turn in one process on one core.
Their sum is the floor of a request's processor time. Then the server, all its processes on that core, under closed-loop
load from another core: processor time of its event loop, other threads and decode workers, by the kernel's account of
each thread (/proc/PID/task/*/schedstat). A round in which others took more than 3 % of either core is made again.

Without arguments it takes the demo bundle of the repository, and 3 s recordings of GRID beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import processes, stacks
from harness.clips import default_clips, read_clips
from harness.load import closed_loop, http_request
from harness.report import ROOT, Page, machine, table
from harness.servers import OTHERS_LIMIT, Round, Running, free_port, measure, started, two_cores
from peer_servers.pipeline import Pipeline

from dimml.bundle import Bundle
from dimml.contract import model_specs

LOOP, WORKERS = "event loop", "decode workers"
#: Tries at a round that others spoil.
TRIES = 3
#: The kernel's limit on a thread's name.
_NAME_CHARS = 15


def floor_ms(pipeline: Pipeline, clips: Sequence[bytes], requests: int) -> dict[str, list[float]]:
    """Processor milliseconds of each step of each request, called in turn in this process."""
    spent: dict[str, list[float]] = {}

    def timed(step: str, began: float) -> float:
        now = time.process_time()
        spent.setdefault(step, []).append(1000 * (now - began))
        return now

    for number in range(-10, requests):
        if number == 0:
            spent.clear()
        data = clips[number % len(clips)]
        whole = began = time.process_time()
        rows = pipeline.rows(data)
        began = timed("decode", began)
        encoded = {}
        for encoder in pipeline.bundle.encoders:
            name, row = encoder.modality.name, rows[encoder.modality.name]
            if row is None:
                raise SystemExit(f"a clip has no usable {name}: choose others with --clips")
            encoded[name] = pipeline.encode(name, row)
            began = timed(f"encoder {name}", began)
        pipeline.fuse(rows, encoded)
        timed("fusion", began)
        timed("all of it", whole)
    return spent


def part_of(server: Running, bundle: Bundle, thread: processes.ThreadTime) -> str:
    """Which part of the server a thread is."""
    if thread.process != server.process.pid:
        return WORKERS
    if thread.thread == thread.process:
        return LOOP
    for spec in model_specs(bundle):
        if thread.name in {f"dimml-{spec.name}-{number}"[-_NAME_CHARS:] for number in range(1, 65)}:
            return f"threads of {spec.role}s" if spec.role == "encoder" else f"threads of {spec.role}"
    return f"threads `{thread.name}`" if thread.name.startswith("dimml") else "other threads"


def thread_times(server: Running) -> dict[int, processes.ThreadTime]:
    """Of all of its processes."""
    return {
        thread: found for process in server.processes() for thread, found in processes.thread_times(process).items()
    }


def one_round(
    server: Running, bundle: Bundle, uploads: Sequence[bytes], load_core: int, arguments: argparse.Namespace
) -> tuple[Round, dict[str, float]]:
    """A round of load, and the processor milliseconds a request of each part."""
    before = thread_times(server)
    found, _ = measure(
        server,
        load_core,
        lambda: closed_loop(server.address, uploads, arguments.requests, arguments.clients),
        arguments.others,
    )
    if found.failed:
        raise SystemExit(f"requests failed: {found.failures}")
    parts: dict[str, float] = {}
    for thread, after in thread_times(server).items():
        seconds = after.seconds - (before[thread].seconds if thread in before else 0.0)
        part = part_of(server, bundle, after)
        parts[part] = parts.get(part, 0.0) + 1000 * seconds / arguments.requests
    return found, parts


def measure_server(
    page: Page, bundle: Bundle, clips: Sequence[bytes], arguments: argparse.Namespace, floor: float
) -> None:
    """Rounds of load, and the table of parts; then the functions, if they are wanted."""
    server_core, load_core = two_cores()
    uploads = [http_request(clip) for clip in clips]
    port = free_port()
    words = ["--repository", str(arguments.repository), "--model", bundle.name, "--http-port", str(port)]
    script = Path(__file__).parent / "peer_servers" / "dimml_named.py"
    command = [sys.executable, str(script), "serve", *words, "--grpc-port", "0", "--log-level", "warning"]
    with started(command, os.environ, port=port, probe=uploads[0], core=server_core) as server:
        os.sched_setaffinity(0, {load_core})
        closed_loop(server.address, uploads, 5 * arguments.clients, arguments.clients)
        rounds: list[tuple[Round, dict[str, float]]] = []
        spoiled = 0
        for _ in range(arguments.rounds):
            for _ in range(TRIES):
                found, parts = one_round(server, bundle, uploads, load_core, arguments)
                if not found.spoiled:
                    rounds.append((found, parts))
                    break
                spoiled += 1
                print(f"not counted: {found.spoiled}", file=sys.stderr, flush=True)
        if not rounds:
            page.add(f"No round of {spoiled} counted: others took more than {100 * arguments.others:g} % of the cores.")
            return
        medians = {
            part: statistics.median(parts.get(part, 0.0) for _, parts in rounds)
            for part in dict.fromkeys(part for _, parts in rounds for part in parts)
        }
        total = statistics.median(found.cpu_ms for found, _ in rounds)
        listed = [
            [part, f"{ms:.2f}", f"{100 * ms / total:.0f} %"]
            for part, ms in sorted(medians.items(), key=lambda item: -item[1])
            if ms >= 0.005
        ]
        listed += [
            ["**all of the server**", f"**{total:.2f}**", "100 %"],
            ["above the floor", f"{total - floor:.2f}", f"{100 * (total - floor) / total:.0f} %"],
        ]
        rate, p50, p99 = (
            statistics.median(getattr(found, name) for found, _ in rounds) for name in ("rate", "p50_ms", "p99_ms")
        )
        page.add(
            f"`dimml serve`, {arguments.clients} clients, {len(rounds)} rounds of {arguments.requests} that count, "
            f"{spoiled} that do not: {rate:.1f} requests/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms. Its event loop alone "
            f"has room for {1000 / medians[LOOP]:.0f} requests/s.\n\n"
            + table(["part of the server", "processor ms a request", "share"], listed)
        )
        if arguments.functions:
            _functions(page, server, uploads, arguments)


def _functions(page: Page, server: Running, uploads: Sequence[bytes], arguments: argparse.Namespace) -> None:
    program = stacks.program()
    if program is None:
        page.add("Functions: py-spy is not installed here.")
        return
    with ExitStack() as stack:
        found = stack.enter_context(stacks.recorded(server.process.pid, program))
        closed_loop(server.address, uploads, max(200, arguments.requests), arguments.clients)
    head = ["thread", "of all samples", "function", "in it or below", "in it alone"]
    page.add(
        "Functions of the server's own process, by py-spy:\n\n" + table(head, stacks.rows(found, arguments.functions))
    )


def main() -> None:
    """Measure; print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=ROOT / "model_repository")
    parser.add_argument("--bundle", default="avdigits")
    parser.add_argument("--clips", type=Path, default=default_clips(), help="folder of .mp4 files")
    parser.add_argument("--requests", type=int, default=300, help="of a round (300)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--functions", type=int, default=0, help="functions to list of each thread, by py-spy")
    parser.add_argument(
        "--others", type=float, default=OTHERS_LIMIT, help="share of a core that others may take (0.03)"
    )
    parser.add_argument("--out", type=Path, help="file for the Markdown, in addition to stdout")
    arguments = parser.parse_args()

    server_core, _ = two_cores()
    cores = os.sched_getaffinity(0)
    page = Page(arguments.out)
    clips = read_clips(arguments.clips, 50)
    page.add(f"{arguments.bundle}, {len(clips)} clips of {arguments.clips.parent.name}; {machine()}")
    os.sched_setaffinity(0, {server_core})
    import cv2

    cv2.setNumThreads(1)
    pipeline = Pipeline(arguments.repository, arguments.bundle)
    spent = floor_ms(pipeline, clips, arguments.requests)
    os.sched_setaffinity(0, cores)
    rows = [
        [step, f"{statistics.median(ms):.2f}", f"{statistics.quantiles(ms, n=10)[-1]:.2f}"]
        for step, ms in spent.items()
    ]
    floor = statistics.median(spent["all of it"])
    page.add(
        f"With nothing around, {arguments.requests} requests in one process; one core has room for {1000 / floor:.1f} "
        "requests/s:\n\n" + table(["step", "processor ms, median", "p90"], rows)
    )
    measure_server(page, pipeline.bundle, clips, arguments, floor)


if __name__ == "__main__":
    main()
