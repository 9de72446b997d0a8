"""Clients and files that mean harm, one after another; after each a good request must be answered at once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import struct
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

from hardening import recordings
from hardening.raw import head, multipart, post, read_answer
from hardening.report import Report
from hardening.watching import resident_peak_mb, usage
from support.media_maker import write_clip
from support.server_process import ServerProcess, running_server

HEADER_TIMEOUT_S = 2.0
GIGABYTES_10 = 10 * 10**9
#: What all of it together may add to the peak of the server's memory.
MEMORY_SLACK_MB = 200.0

Attack = Callable[[ServerProcess], Awaitable[str]]


async def _connect(server: ServerProcess) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = server.http.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def _last_words(reader: asyncio.StreamReader, limit_s: float) -> str:
    """The status that a connection ends with."""
    try:
        async with asyncio.timeout(limit_s):
            try:
                status = str((await read_answer(reader))[0])
            except (EOFError, ConnectionError):
                return "closed"
            with contextlib.suppress(ConnectionError):
                await reader.read()
            return f"{status}, closed"
    except TimeoutError:
        return "still open"


async def slow_loris(server: ServerProcess, *, clients: int = 100) -> str:
    """Heads that come a byte at a time and never end."""
    began = perf_counter()

    async def one() -> str:
        reader, writer = await _connect(server)
        ending = asyncio.ensure_future(_last_words(reader, HEADER_TIMEOUT_S + 10))
        writer.write(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        while not ending.done():
            with contextlib.suppress(ConnectionError):
                writer.write(b"a")
            await asyncio.sleep(0.2)
        writer.close()
        return await ending

    found = set(await asyncio.gather(*(one() for _ in range(clients))))
    return f"{clients} connections: {', '.join(sorted(found))} after {perf_counter() - began:.1f} s"


async def idle_connections(server: ServerProcess, *, clients: int = 500) -> str:
    """Connections that say nothing; a good client among them."""
    connections = [await _connect(server) for _ in range(clients)]
    among = await _good(server)
    began = perf_counter()
    found = set(await asyncio.gather(*(_last_words(reader, HEADER_TIMEOUT_S + 10) for reader, _ in connections)))
    for _, writer in connections:
        writer.close()
    return (
        f"a good one among {clients}: {among}; they: {', '.join(sorted(found))} within {perf_counter() - began:.1f} s"
    )


async def _declared(server: ServerProcess, path: str) -> str:
    reader, writer = await _connect(server)
    kind = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": GIGABYTES_10}
    writer.write(head(path, kind))
    began = perf_counter()
    status, _, _ = await asyncio.wait_for(read_answer(reader), 10)
    took = perf_counter() - began
    sent = 0
    with contextlib.suppress(ConnectionError):
        while perf_counter() - began < 15:
            writer.write(b"x" * 2**20)
            await writer.drain()
            sent += 2**20
    later = perf_counter() - began
    return f"{status} after {took * 1000:.0f} ms; cut off {later:.1f} s later, {sent / 2**20:.0f} MiB passed over"


async def _streamed(server: ServerProcess, path: str) -> str:
    """The same without a Content-Length, in chunks, until it is told to stop."""
    reader, writer = await _connect(server)
    writer.write(head(path, {"Content-Type": "multipart/form-data; boundary=b", "Transfer-Encoding": "chunked"}))
    ending = asyncio.ensure_future(read_answer(reader))
    piece = b'--b\r\nContent-Disposition: form-data; name="media"; filename="x"\r\n\r\n'
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not ending.done() and sent < GIGABYTES_10:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
            sent += len(piece)
            piece = b"x" * 2**18
    status, _, _ = await asyncio.wait_for(ending, 10)
    writer.close()
    return f"{status} after {sent / 2**20:.0f} MiB"


async def ten_gigabytes(server: ServerProcess) -> str:
    """A body of 10 GB, declared, on both HTTP interfaces."""
    both = [await _declared(server, path) for path in ("/v1/predict", "/v2/models/avdigits_media/infer")]
    return "; ".join(both)


async def ten_gigabytes_in_chunks(server: ServerProcess) -> str:
    """The same, not declared."""
    return "; ".join([await _streamed(server, p) for p in ("/v1/predict", "/v2/models/avdigits_media/infer")])


async def _sent(server: ServerProcess, data: bytes, **fields: object) -> str:
    answer = await post(server.http, "/v1/predict", *multipart({"media": data}, fields), limit_s=60)
    return f"{answer.status} in {answer.total_s:.1f} s"


async def bombs(server: ServerProcess) -> str:
    """Small files that are large when decoded: an hour of black, a picture of 60 000 by 60 000, gzip of zeros."""
    with tempfile.TemporaryDirectory() as folder:
        # A picture a second, which nobody sees change; 4096 by 2304 is just what is allowed.
        times = [float(t) for t in range(0, 110, 10)]
        large = write_clip(
            Path(folder) / "large.mp4", 110, picture="black", sound=None, width=4096, height=2304, picture_times_s=times
        ).read_bytes()
        long = write_clip(Path(folder) / "long.mp4", 3600, picture=None, sound="silence", rate_hz=8000).read_bytes()
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII5B", 13, b"IHDR", 60_000, 60_000, 8, 2, 0, 0, 0) + b"\0" * 100
    squeezed = gzip.compress(bytes(2**30), 1)
    answer = await post(
        server.http,
        "/v2/models/avdigits/infer",
        squeezed,
        "application/json",
        limit_s=60,
        headers={"Content-Encoding": "gzip"},
    )
    parts = [
        f"1 h of silence ({len(long) // 1024} KiB): {await _sent(server, long)}",
        f"4096 × 2304 of black ({len(large) // 1024} KiB): {await _sent(server, large)}",
        f"60 000 × 60 000 PNG: {await _sent(server, png)}",
        f"1 GiB of zeros as gzip ({len(squeezed) // 1024} KiB): {answer.status} in {answer.total_s:.1f} s",
    ]
    return "; ".join(parts)


async def path_in_a_file_name(server: ServerProcess) -> str:
    """Names that would write elsewhere, where a server believed them."""
    target = Path(tempfile.gettempdir()) / "dimml-hardening-escaped"
    found = set()
    clip = recordings.GOOD.read_bytes() + bytes(2**21)  # Past the spool's threshold: it does become a file.
    for name in (f"../../../../../..{target}", str(target), "..%2f..%2fx", "a\\..\\b", "x" * 5000, "con\x01"):
        body = (
            f'--b\r\nContent-Disposition: form-data; name="media"; filename="{name}"\r\n\r\n'.encode()
            + clip
            + b"\r\n--b--\r\n"
        )
        found.add((await post(server.http, "/v1/predict", body, "multipart/form-data; boundary=b", limit_s=60)).status)
    escaped = target.exists()
    target.unlink(missing_ok=True)
    return f"answers {sorted(found)}, {'A FILE APPEARED' if escaped else 'no file elsewhere'}"


async def header_bomb(server: ServerProcess) -> str:
    """One header of 100 MB, headers without end, a request line of 100 MB, trailers without end."""
    starts = {
        "one header": (b"GET /health/live HTTP/1.1\r\nX: ", b"a" * 2**18),
        "headers": (b"GET /health/live HTTP/1.1\r\n", b"X-Some-Header: value\r\n" * 4096),
        "request line": (b"GET /", b"a" * 2**18),
        "trailers": (
            b"POST /v1/predict HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\n--b\r\n\r\n0\r\n",
            b"X-Trailer: value\r\n" * 4096,
        ),
    }
    found = []
    for name, (start, more) in starts.items():
        reader, writer = await _connect(server)
        ending = asyncio.ensure_future(_last_words(reader, 20))
        writer.write(start)
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not ending.done() and sent < 100 * 2**20:
                writer.write(more)
                await writer.drain()
                sent += len(more)
        found.append(f"{name}: {await ending}")
        writer.close()
    return "; ".join(found)


async def _good(server: ServerProcess) -> int:
    body, kind = multipart({"media": recordings.GOOD.read_bytes()})
    return (await post(server.http, "/v1/predict", body, kind, limit_s=30)).status


#: Each with what its outcome must hold, and must not.
ATTACKS: tuple[tuple[str, Attack, str, str], ...] = (
    ("slow loris", slow_loris, "408, closed", "still open"),
    ("500 idle connections", idle_connections, "closed", "still open"),
    ("10 GB body, declared", ten_gigabytes, "413", "200"),
    ("10 GB body, in chunks", ten_gigabytes_in_chunks, "413", "200"),
    ("bombs", bombs, "413", ": 0 "),
    ("path in a file name", path_in_a_file_name, "200", "APPEARED"),
    ("header bombs", header_bomb, "431", "still open"),
)


def hostile(*, only: str = "") -> Report:
    """All attacks on one server, or the one that is named."""
    report = Report("Hostile clients")
    settings = {"header_timeout_s": HEADER_TIMEOUT_S, "log_level": "error"}
    with running_server(recordings.REPOSITORY, **settings) as server:

        async def everything() -> None:
            await _good(server)
            before = usage(server)
            peak = resident_peak_mb(server.process.pid)
            for name, attack, wanted, unwanted in ATTACKS:
                if only not in ("", name):
                    continue
                outcome = await attack(server)
                report.check(name, outcome, "refused", wanted in outcome and unwanted not in outcome)
                status = await _good(server)
                report.check(f"a good request after: {name}", status, "200", status == 200)
            grown = resident_peak_mb(server.process.pid) - peak
            report.check(
                "the peak of the server's memory rose by",
                f"{grown:.0f} MB",
                f"≤ {MEMORY_SLACK_MB:g} MB",
                grown <= MEMORY_SLACK_MB,
            )
            await asyncio.sleep(6.0)
            after = usage(server)
            report.check(
                "open files before, after",
                f"{before.files}, {after.files}",
                "the same",
                after.files <= before.files + 2,
            )

        asyncio.run(everything())
        tracebacks = server.log.count("Traceback")
    report.check("tracebacks in the log", tracebacks, "0", tracebacks == 0)
    return report
