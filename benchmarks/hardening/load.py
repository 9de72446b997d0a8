"""Open-loop arrivals beyond capacity: who is taken is answered in time, everybody else is told at once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import mean, median
from time import perf_counter

from hardening import recordings
from hardening.raw import Answer, multipart, post
from hardening.report import Report, ms, quantile
from support.server_process import ServerProcess, running_server

DEADLINE_S = 10.0
#: Clients of the closed loop that measures the peak: enough to keep every turn taken.
CLOSED_CLIENTS = 12


async def _peak_per_s(server: ServerProcess, body: bytes, kind: str, seconds: float) -> float:
    """Answers per second with a fixed number of clients, each of which waits for its answer."""
    end = perf_counter() + seconds
    answers: list[Answer] = []

    async def client() -> None:
        while perf_counter() < end:
            answers.append(await post(server.http, "/v1/predict", body, kind, limit_s=60.0))

    await asyncio.gather(*(client() for _ in range(CLOSED_CLIENTS)))
    return _rate_per_s(answers)


async def _open_loop(server: ServerProcess, body: bytes, kind: str, per_s: float, seconds: float) -> list[Answer]:
    """Arrivals at even distances, whatever becomes of those before."""
    began, running = perf_counter(), []
    for number in range(int(per_s * seconds)):
        await asyncio.sleep(max(0.0, began + number / per_s - perf_counter()))
        running.append(asyncio.ensure_future(post(server.http, "/v1/predict", body, kind, limit_s=60.0)))
    return list(await asyncio.gather(*running))


@contextmanager
def _server_on_its_own_cores(report: Report, **settings: object) -> Iterator[ServerProcess]:
    """A server on all cores but the last, the client's: what an arrival costs its sender is none of the server's."""
    cores = sorted(os.sched_getaffinity(0))
    apart = len(cores) > 1
    try:
        if apart:
            os.sched_setaffinity(0, cores[:-1])  # Which the server inherits.
            report.note("cores of the server, of the client", f"{len(cores) - 1}, 1")
        with running_server(recordings.REPOSITORY, **settings) as server:
            if apart:
                os.sched_setaffinity(0, cores[-1:])
            yield server
    finally:
        os.sched_setaffinity(0, cores)


def load(
    *, seconds: float, factor: float = 2.0, peak_s: float = 10.0, spells: int = 6, queue_length: int = 64
) -> Report:
    """``seconds`` of arrivals at ``factor`` times the peak, in ``spells``, with the peak measured around each."""
    report = Report(f"Load: open-loop arrivals at {factor:g} × the peak for {seconds:g} s, in {spells} spells")
    body, kind = multipart({"media": recordings.GOOD.read_bytes()})
    settings = {"timeout_s": DEADLINE_S, "queue_length": queue_length, "log_level": "warning"}
    with _server_on_its_own_cores(report, **settings) as server:

        async def everything() -> tuple[list[float], list[list[Answer]]]:
            await _peak_per_s(server, body, kind, min(3.0, peak_s))
            peaks, by_spell = [await _peak_per_s(server, body, kind, peak_s)], []
            for _ in range(spells):
                by_spell.append(await _open_loop(server, body, kind, factor * peaks[-1], seconds / spells))
                peaks.append(await _peak_per_s(server, body, kind, peak_s))
            return peaks, by_spell

        peaks, by_spell = asyncio.run(everything())
    answers = [answer for spell in by_spell for answer in spell]
    taken = [a for a in answers if a.status == 200]
    refused = [a for a in answers if a.status == 429]
    report.note("peaks", f"{min(peaks):.1f} to {max(peaks):.1f}/s")
    statuses = ", ".join(f"{s}: {n}" for s, n in sorted(Counter(a.status for a in answers).items()))
    report.check("answers by status", statuses, "200 and 429 alone", len(taken) + len(refused) == len(answers))
    unanswered = sum(a.status == 0 for a in answers)
    report.check("left without an answer", unanswered, "0", unanswered == 0)
    late = quantile([a.total_s for a in taken], 0.99)
    report.check(
        "accepted: median, p99",
        f"{ms([a.total_s for a in taken], 0.5)}, {late * 1000:.0f} ms",
        "p99 < 10 s",
        late < DEADLINE_S,
    )
    after = [a.after_last_byte_s for a in refused]
    report.check("429 after the last byte: median", ms(after, 0.5), "≤ 50 ms", not after or median(after) <= 0.05)
    report.check(
        "429 after the last byte: p99", ms(after, 0.99), "≤ 250 ms", not after or quantile(after, 0.99) <= 0.25
    )
    told = all((a.headers or {}).get("retry-after", "").isdecimal() for a in refused)
    report.check("every 429 has Retry-After", told, "true", told)
    rates = [_rate_per_s(spell) for spell in by_spell]
    # Each beside the peaks around it: how fast a machine is changes within minutes.
    shares = [rate / mean(around) for rate, around in zip(rates, pairwise(peaks), strict=True)]
    report.check(
        "throughput at overload, of the peaks around: median, all spells",
        f"{median(shares):.0%} ({', '.join(f'{share:.0%}' for share in shares)})",
        "≥ 95 %",
        median(shares) >= 0.95,
    )
    return report


def _rate_per_s(answers: list[Answer]) -> float:
    """Answers a second while requests are sent, once it is as busy as it gets: at first nothing is under way."""
    first, last = min(a.began for a in answers), max(a.began for a in answers)
    first += min(2.0, (last - first) / 4)
    return sum(a.status == 200 and first <= a.answered <= last for a in answers) / (last - first)
