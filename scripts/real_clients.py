"""Let the clients that people use ask a server with the demo bundle, directly and through nginx; judge the answers.

    python scripts/real_clients.py [--only WORD ...] [--strict] [--record FOLDER]

Starts ``dimml serve`` on free loopback ports and nginx before it in several ways, and runs every client that is
installed: curl, httpx, requests, aiohttp, Node, Java, the four of tritonclient, grpc.health.v1, Chromium. Prints the
Markdown table of docs/evidence/clients.md. A relay before the server counts connections and answers, and sees what
is sent.
Exit code: 0 where all is right, 1 where something is not; with ``--strict`` also where a client is not installed.
``--record`` keeps what each client sends in short requests, for tests/integration/http/test_recorded_clients.py.
Debian's packages: curl, nodejs, default-jdk-headless, nginx-light, chromium, chromium-driver.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from callers import browser, kserve_clients, nginx, programs, python_clients
from callers.cases import MAX_BODY_BYTES, Answer, Case, closing_cases, kept_cases, problems, small_cases
from callers.recorder import Connection, messages_in, recording

from support.server_process import ServerProcess, running_server

ROOT = Path(__file__).resolve().parents[1]
DIRECT = "direct"
#: By what is sent: how the table calls it.
SIGNS = {
    rb"(?i)\r\nexpect: *100-continue\r\n": "`Expect: 100-continue`",
    rb"(?i)\r\ntransfer-encoding: *chunked\r\n": "chunked",
    rb"(?i)\r\nupgrade: *h2c\r\n": "`Upgrade: h2c`",
    rb"POST \S+ HTTP/1\.0\r\n": "HTTP/1.0",
    rb"\A\x16\x03": "TLS",
}
RunHttp = Callable[[str, Sequence[Case], Path | None], list[Answer]]
FACES = ("http", "http.aio", "grpc", "grpc.aio")


@dataclass(frozen=True)
class HttpClient:
    """One way of speaking HTTP; ``connections`` is how many its kept cases may take, None: each its own."""

    name: str
    version: str | None
    run: RunHttp
    connections: int | None = 1
    #: What must be seen on the wire when it speaks to the server directly.
    signs: frozenset[str] = frozenset()


@dataclass
class Row:
    """One line of the table: what was wrong with a client, by the front that it went through."""

    client: str
    version: str | None
    seen: str = ""
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        return any(self.problems.values())

    def markdown(self) -> str:
        cells = [self.client, self.version or "", self.seen]
        if self.version is None:
            return f"| {' | '.join(cells)} | not installed, skipped | |"
        behind = {front: found for front, found in self.problems.items() if front != DIRECT}
        wrong = [f"{front}: {'; '.join(found)}" for front, found in behind.items() if found]
        cells.append("; ".join(self.problems[DIRECT]) or "ok")
        cells.append("<br>".join(wrong) or (f"ok, {len(behind)} way{'s' * (len(behind) > 1)}" if behind else "-"))
        return f"| {' | '.join(cells)} |"


def http_clients() -> list[HttpClient]:
    """Every one that there is a way to run, installed or not."""
    curl = programs.version("curl", "--version")
    java = programs.version("java", "-version")
    expect, chunked, h2c = "`Expect: 100-continue`", "chunked", "`Upgrade: h2c`"
    return [
        HttpClient("curl", curl, programs.curl("--http1.1"), signs=frozenset({expect, chunked})),
        HttpClient("curl --http2", curl, programs.curl("--http2"), signs=frozenset({expect, chunked, h2c})),
        HttpClient("curl --http1.0", curl, programs.curl("--http1.0"), None, frozenset({"HTTP/1.0"})),
        HttpClient("Python httpx", python_clients.version("httpx"), python_clients.httpx, signs=frozenset({chunked})),
        HttpClient("Python requests", python_clients.version("requests"), python_clients.requests),
        HttpClient("Python aiohttp", python_clients.version("aiohttp"), python_clients.aiohttp),
        HttpClient("Node fetch", programs.version("node", "--version"), programs.node, 2, frozenset({chunked})),
        HttpClient("Java HttpClient", java, programs.java("HTTP_2"), signs=frozenset({expect, chunked, h2c})),
        HttpClient("Java HttpClient, HTTP/1.1", java, programs.java("HTTP_1_1"), signs=frozenset({expect, chunked})),
    ]


def ask_http(client: HttpClient, front: nginx.Front, folder: Path) -> tuple[list[str], str, list[Answer]]:
    """Run one client through one front: what is wrong, what was seen on the wire, and the answers of its kept cases."""
    kept, closing = kept_cases(folder), closing_cases(folder)
    if client.connections is None:
        kept = [case for case in kept if "chunked" not in case.ways]
    try:
        with recording(front.address) as recorder:
            url = f"{'https' if front.ca else 'http'}://{recorder.address}{front.path}"
            answers = client.run(url, kept, front.ca)
            connections = list(recorder.connections)
            found = problems(kept, answers) + problems(closing, client.run(url, closing, front.ca))
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)], "", []
    signs = {name for pattern, name in SIGNS.items() if any(re.search(pattern, one.sent) for one in connections)}
    if "TLS" not in signs:
        found += miscounted(connections, len(kept))
    if front.name == DIRECT:
        found += [f"{sign} was not sent" for sign in client.signs - signs]
    if client.connections is not None and len(connections) > client.connections:
        found.append(f"took {len(connections)} connections")
    count = f"{len(connections)} connection{'s' * (len(connections) > 1)} for {len(kept)} requests"
    return found, ", ".join([count, *sorted(signs)]), answers


def miscounted(connections: Sequence[Connection], asked: int) -> list[str]:
    """Whether a connection gave more or fewer final answers than it was asked for."""
    found = []
    for one in connections:
        requests = len(messages_in(bytes(one.sent)))
        finals = [
            message for message in messages_in(bytes(one.received)) if b" 100 " not in message.partition(b"\r\n")[0]
        ]
        if len(finals) != requests:
            found.append(f"{len(finals)} answers to {requests} requests on one connection")
    if (sent := sum(len(messages_in(bytes(one.sent))) for one in connections)) != asked:
        found.append(f"{sent} requests were sent in place of {asked}")
    return found


def differences(direct: Sequence[Answer], behind: Sequence[Answer]) -> list[str]:
    """Cases whose answers differ behind a proxy, request ids and times aside."""
    return [
        f"{one.case}: another answer than directly"
        for one, other in zip(direct, behind, strict=False)
        if one.comparable() != other.comparable()
    ]


def rows(server: ServerProcess, fronts: dict[str, nginx.Front], page: browser.Page, only: list[str]) -> Iterator[Row]:
    """Every client, through every front that fits it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for client in http_clients():
            if chosen(only, client.name):
                yield http_row(client, [nginx.Front(DIRECT, server.http), *fronts.values()], folder)
    for face in FACES:
        if chosen(only, f"tritonclient {face}"):
            yield triton_row(face, server, fronts)
    if chosen(only, "grpc.health.v1"):
        row = Row("grpc.health.v1", python_clients.version("grpcio-health-checking"), "Check, Watch, per model")
        for front in [nginx.Front(DIRECT, server.grpc), *(f for f in fronts.values() if f.grpc)]:
            row.problems[front.name] = kserve_clients.health(front.address)
        yield row
    if chosen(only, "Chromium"):
        row = Row("Chromium", browser.version() if browser.installed() else None, "form, `fetch`, `/docs`")
        if browser.installed():
            row.problems[DIRECT] = browser.all_of_them(page, server.url)
        yield row


def http_row(client: HttpClient, fronts: Sequence[nginx.Front], folder: Path) -> Row:
    """One HTTP client; the first front is the server itself."""
    row = Row(client.name, client.version)
    if client.version is None:
        return row
    direct: list[Answer] = []
    for front in fronts:
        if front.grpc:
            continue
        found, seen, answers = ask_http(client, front, folder)
        if front.name == DIRECT:
            row.seen, direct = seen, answers
        row.problems[front.name] = found + differences(direct, answers)
    return row


def triton_row(face: str, server: ServerProcess, fronts: dict[str, nginx.Front]) -> Row:
    """One of the four of tritonclient, which trust no authority of ours."""
    row = Row(f"tritonclient.{face}", python_clients.version("tritonclient"), "7 calls, one in gzip")
    of_http = face.startswith("http")
    direct = nginx.Front(DIRECT, server.http if of_http else server.grpc, grpc=not of_http)
    for front in [direct, *fronts.values()]:
        if front.ca is None and front.grpc != of_http:
            with recording(front.address) as recorder:
                address = f"{recorder.address}{front.path}"
                found = kserve_clients.tritonclient(face, address, address)
            if len(recorder.connections) != 1:
                found.append(f"took {len(recorder.connections)} connections")
            row.problems[front.name] = found
    return row


def record(server: ServerProcess, folder: Path, only: list[str]) -> None:
    """Keep what clients send for short requests: one file a request, for gRPC one a connection."""
    with tempfile.TemporaryDirectory() as name:
        for client in http_clients():
            if client.version is None or not chosen(only, client.name):
                continue
            cases = [case for case in small_cases(Path(name)) if client.connections or "chunked" not in case.ways]
            with recording(server.http) as recorder:
                # One by one, since a client may spread its requests over several connections.
                for case in cases:
                    found = problems([case], client.run(f"http://{recorder.address}", [case], None))
                    if found:
                        raise OSError(f"{client.name}: {found}")
                sent = [message for one in recorder.connections for message in messages_in(bytes(one.sent))]
            keep(folder, client.name, [case.name for case in cases], sent, recorder.address)
    for face in FACES:
        if chosen(only, f"tritonclient {face}"):
            with recording(server.http if face.startswith("http") else server.grpc) as recorder:
                kserve_clients.short_calls(face, recorder.address, recorder.address)
                (connection,) = recorder.connections
            sent = messages_in(bytes(connection.sent)) if face.startswith("http") else [bytes(connection.sent)]
            keep(folder, f"tritonclient {face}", ["kserve"] * len(sent), sent, recorder.address)


def keep(folder: Path, client: str, names: Sequence[str], sent: Sequence[bytes], address: str) -> None:
    """Write one client's requests in place of those that are there."""
    own = folder / re.sub(r"\W+", "_", client.lower()).strip("_")
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    for number, (name, request) in enumerate(zip(names, sent, strict=True)):
        suffix = "h2" if request.startswith(b"PRI * HTTP/2.0") else "http"
        # The port is drawn anew each time; in HTTP/2 it may be packed, and its length counts.
        kept = request if suffix == "h2" else request.replace(address.encode(), b"127.0.0.1:8000")
        (own / f"{number}_{name.replace(' ', '_')}.{suffix}").write_bytes(kept)


def chosen(only: Sequence[str], name: str) -> bool:
    return not only or any(word.lower() in name.lower() for word in only)


def main() -> int:
    """Run all, print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="clients whose names have one of these")
    parser.add_argument("--strict", action="store_true", help="a client that is not installed counts as wrong")
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="keep what HTTP clients send, and do no more")
    given = parser.parse_args()
    began = time.monotonic()
    done: list[Row] = []
    with ExitStack() as stack:
        page = browser.Page()
        stack.callback(page.close)
        server = stack.enter_context(
            running_server(
                ROOT / "model_repository",
                root_path=nginx.PREFIX,
                cors_origins=page.origin,
                max_body_bytes=MAX_BODY_BYTES,
                log_level="warning",
            )
        )
        if given.record is not None:
            record(server, given.record, given.only)
            return 0
        fronts: dict[str, nginx.Front] = {}
        if nginx.installed():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fronts = stack.enter_context(nginx.nginx_before(folder, server.http, server.grpc))
        else:
            done.append(Row("nginx", None))
        print("| client | version | seen on the wire | direct | through nginx |\n|---|---|---|---|---|", flush=True)
        for row in rows(server, fronts, page, given.only):
            done.append(row)
            print(row.markdown(), flush=True)
        if "Traceback" in server.log:
            done.append(Row("server", "", problems={DIRECT: ["a traceback is in its log"]}))
            print(server.log, file=sys.stderr)
    wrong = [row for row in done if row.wrong or (given.strict and row.version is None)]
    print(f"{len(done)} rows, {len(wrong)} wrong, {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
