"""Mixed traffic for a long while: what the server holds must stay flat."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from statistics import median
from time import perf_counter

from hardening import recordings
from hardening.raw import head, multipart, post, read_answer
from hardening.report import Report
from hardening.watching import Usage, usage
from support.server_process import ServerProcess, running_server

#: Arrivals per second; well below capacity, so that it is time that tells and not load.
PER_S = 8.0
#: The second half may lie so far above the second quarter, on average.
MEMORY_SLACK_MB = 20.0


async def _good(server: ServerProcess, random_: random.Random) -> str:
    name = random_.choice(("clean_seven.mp4", "no_sound.mp4", "silent_sound.mp4", "spoken_nine.wav", "long.mp4"))
    files = {"media": (recordings.SAMPLES / name).read_bytes()}
    return f"good: {(await post(server.http, '/v1/predict', *multipart(files), limit_s=60)).status}"


async def _bad(server: ServerProcess, random_: random.Random) -> str:
    seed = recordings.GOOD.read_bytes()
    files = {"media": recordings.mutated(seed, seed, random_)}
    status = (await post(server.http, "/v1/predict", *multipart(files), limit_s=60)).status
    return f"damaged: {status}"


async def _aborted(server: ServerProcess, random_: random.Random) -> str:
    """Hangs up in the middle of its body, or before its answer."""
    body, kind = multipart({"media": recordings.GOOD.read_bytes()})
    host, _, port = server.http.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    whole = random_.random() < 0.5
    writer.write(head("/v1/predict", {"Content-Type": kind, "Content-Length": len(body)}))
    writer.write(body if whole else body[: len(body) // 2])
    await writer.drain()
    await asyncio.sleep(random_.random() * 0.05)
    writer.transport.abort()
    return "hung up"


async def _slow(server: ServerProcess, random_: random.Random) -> str:
    """Sends its body over two seconds."""
    body, kind = multipart({"media": recordings.GOOD.read_bytes()})
    host, _, port = server.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    headers = {"Content-Type": kind, "Content-Length": len(body), "Connection": "close"}
    writer.write(head("/v1/predict", headers))
    step = len(body) // 20 + 1
    for at in range(0, len(body), step):
        writer.write(body[at : at + step])
        await writer.drain()
        await asyncio.sleep(0.1)
    status, _, _ = await read_answer(reader)
    writer.close()
    return f"slow: {status}"


async def _traffic(server: ServerProcess, seconds: float, every_s: float) -> tuple[Counter[str], list[Usage]]:
    random_, seen, samples = random.Random(1), Counter[str](), list[Usage]()
    kinds = (_good, _good, _good, _bad, _aborted, _slow)
    running: set[asyncio.Task[None]] = set()

    async def one() -> None:
        name = "broken off"
        with contextlib.suppress(OSError, EOFError):
            name = await random_.choice(kinds)(server, random_)
        seen[name] += 1

    began, number, sampled = perf_counter(), 0, 0
    while (now := perf_counter() - began) < seconds:
        task = asyncio.ensure_future(one())
        running.add(task)
        task.add_done_callback(running.discard)
        number += 1
        if now >= sampled * every_s:
            samples.append(await asyncio.to_thread(usage, server))
            sampled += 1
        await asyncio.sleep(max(0.0, began + number / PER_S - perf_counter()))
    await asyncio.gather(*running)
    return seen, samples


def soak(*, seconds: float) -> Report:
    """Good, damaged, aborted and slow requests for ``seconds``."""
    report = Report(f"Soak: mixed traffic, {PER_S:g} arrivals a second, for {seconds:g} s")
    with running_server(recordings.REPOSITORY, log_level="error") as server:
        seen, samples = asyncio.run(_traffic(server, seconds, max(1.0, seconds / 120)))
        tracebacks = server.log.count("Traceback")
    report.note("requests", ", ".join(f"{name}: {count}" for name, count in sorted(seen.items())))
    wrong = [name for name in seen if name.endswith((": 0", ": 500", ": 502")) or name == "broken off"]
    report.check("unanswered or 500", len(wrong), "0", not wrong)
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[2 * quarter :]
    for what, slack, unit in (
        ("memory_mb", MEMORY_SLACK_MB, " MB"),
        ("workers_mb", MEMORY_SLACK_MB, " MB"),
        ("threads", 2.0, ""),
        ("files", 4.0, ""),
    ):
        then, now = ([float(getattr(sample, what)) for sample in part] for part in (early, late))
        report.check(
            f"{what}: second quarter, second half (medians)",
            f"{median(then):.1f}, {median(now):.1f}{unit}",
            f"at most {slack:g}{unit} more",
            median(now) - median(then) <= slack,
        )
    workers = [sample.workers for sample in samples]
    report.check(
        "workers (median, most)", f"{median(workers):g}, {max(workers)}", "the same", max(workers) == median(workers)
    )
    report.check("tracebacks in the log", tracebacks, "0", tracebacks == 0)
    return report
