"""What a request, a command and a start cost each of two checkouts, in turn, as ratios with their intervals."""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import httpx
from harness.processes import processor_s
from harness.ratios import LIMIT, ratio

from checkouts.checkout import SAMPLES, Checkout
from checkouts.http_calls import form

if TYPE_CHECKING:
    from support.server_process import ServerProcess

T = TypeVar("T")


def in_turn(measures: Sequence[Callable[[], T]], count: int) -> list[tuple[T, T]]:
    """A B, B A, A B, …: what makes the machine faster or slower for a while meets both alike."""
    pairs = []
    for number in range(count):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        found = {which: measures[which]() for which in order}
        pairs.append((found[0], found[1]))
    return pairs


class Blocks:
    """Rounds of the same uploads to one server; each gives the processor time of a request in milliseconds."""

    def __init__(self, server: ServerProcess, uploads: Sequence[tuple[str, dict[str, str], bytes]]) -> None:
        self._processes = [server.process.pid, *server.children()]
        self._server, self._uploads = server, uploads
        self._client = httpx.Client(base_url=server.url, timeout=60.0)

    def __call__(self) -> float:
        """One round."""
        before = self._spent_s()
        for path, headers, body in self._uploads:
            self._client.post(path, headers=headers, content=body).raise_for_status()
        return 1000.0 * (self._spent_s() - before) / len(self._uploads)

    def _spent_s(self) -> float:
        if self._processes != [self._server.process.pid, *self._server.children()]:
            raise RuntimeError("a child process of the server ended or began meanwhile: its time is not known")
        return sum(map(processor_s, self._processes))


@contextmanager
def apart() -> Iterator[Callable[[], None]]:
    """Servers started within share the first core; calling what this gives puts this process on the last one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])  # Which servers inherit.
    try:
        yield lambda: os.sched_setaffinity(0, cores[-1:])
    finally:
        os.sched_setaffinity(0, cores)


def of_requests(before: Checkout, after: Checkout, requests: int) -> list[tuple[float, float]]:
    """Processor milliseconds per request of both, a pair for each round of the samples that have an answer."""
    with apart() as move, ExitStack() as stack:
        servers = [stack.enter_context(checkout.server()) for checkout in (before, after)]
        move()
        uploads = []
        for path in sorted((before.folder / SAMPLES).iterdir()):
            call = form(path.name, {"media": path.read_bytes()})
            if (
                httpx.post(servers[0].url + call.path, headers=call.headers, content=call.body).status_code
                == httpx.codes.OK
            ):
                uploads.append((call.path, dict(call.headers), call.body or b""))
        blocks = [Blocks(server, uploads) for server in servers]
        in_turn(blocks, 3)  # To warm both up.
        return in_turn(blocks, -(-requests // len(uploads)))


def of_commands(before: Checkout, after: Checkout, times: int) -> dict[str, list[tuple[float, float]]]:
    """Processor and wall seconds of ``dimml --help``, and of ``dimml serve`` until it is ready."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name, measure in (("dimml --help", _help_s), ("dimml serve until ready", _start_s)):
        for checkout in (before, after):
            measure(checkout)  # Byte code is written, files are in memory.
        pairs = in_turn([partial(measure, before), partial(measure, after)], times)
        for number, kind in enumerate(("processor", "wall")):
            found[f"{name}, {kind}"] = [(first[number], second[number]) for first, second in pairs]
    return found


def _help_s(checkout: Checkout) -> tuple[float, float]:
    began, spent = time.perf_counter(), _children_s()
    checkout.must("--help")
    return _children_s() - spent, time.perf_counter() - began


def _start_s(checkout: Checkout) -> tuple[float, float]:
    began = time.perf_counter()
    with checkout.server(log_level="warning") as server:
        wall = time.perf_counter() - began
        return sum(map(processor_s, [server.process.pid, *server.children()])), wall


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def report(before: Checkout, after: Checkout, *, requests: int, times: int) -> bool:
    """Print every ratio; whether the one of requests is within the limit, or undecided."""
    print(f"load average {os.getloadavg()[0]:.2f}, {len(os.sched_getaffinity(0))} cores", flush=True)
    pairs = of_requests(before, after, requests)
    found = ratio(pairs)
    first, second = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
    cost = f"{first:.3f} → {second:.3f} processor ms"
    print(f"a request, {len(pairs)} rounds each: {cost}, {found}: {found.verdict}", flush=True)
    for name, measured in of_commands(before, after, times).items():
        first, second = (statistics.median(pair[side] for pair in measured) for side in (0, 1))
        print(f"{name}, {len(measured)} times each: {first:.3f} → {second:.3f} s, {ratio(measured)}", flush=True)
    print(f"load average {os.getloadavg()[0]:.2f}")
    return found.low <= LIMIT
