"""What the benchmarks of performance count, time and call a server's own: against sockets, processes and files."""

from __future__ import annotations

import io
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import av
import pytest
from harness import processes, stacks
from harness.clips import without
from harness.load import Measured, closed_loop, exchange_status, http_request, open_loop
from harness.peer_rounds import Found, case_table
from harness.servers import Round

from dimml.repository import load_bundle
from support.data import REPOSITORY_ROOT


class _Answers(socketserver.StreamRequestHandler):
    """Every third request is refused, every fourth connection's answer is cut off; bodies must be complete."""

    def handle(self) -> None:
        while head := self._head():
            body = self.rfile.read(int(head["content-length"]))
            assert body.endswith(b"--\r\n")
            with self.server.lock:  # type: ignore[attr-defined]
                self.server.seen += 1  # type: ignore[attr-defined]
                number = self.server.seen  # type: ignore[attr-defined]
            if number % 4 == 0:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
                return
            status = b"429 Too Many Requests" if number % 3 == 0 else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\nok")

    def _head(self) -> dict[str, str]:
        lines = []
        while (line := self.rfile.readline().strip()) != b"":
            lines.append(line.decode())
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}


@pytest.fixture
def server() -> Iterator[tuple[str, int]]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        seen, lock = 0, threading.Lock()

    with Server(("127.0.0.1", 0), _Answers) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found.server_address  # type: ignore[misc]
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("send", [closed_loop, lambda *given: open_loop(*given[:3], per_s=1000.0, clients=given[3])])
def test_load_counts_every_request_once(server: tuple[str, int], send: Any) -> None:
    measured: Measured = send(server, [http_request(b"x" * 50_000), http_request(b"")], 24, 3)
    # Of 24: 6 are cut off; of the other 18, those whose number 3 divides (3, 6, 9, 15, 18, 21) are refused.
    assert measured.failures == {"429": 6, "ConnectionError": 6}
    assert set(measured.answers.values()) == {b"ok"}
    assert len(measured.seconds) == len(measured.answers) == 12
    assert measured.wall_s > 0.0


def test_an_open_loop_times_a_request_from_when_it_was_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """One client, and answers that take 0.1 s by its clock: the third of three that are due at once waits for two."""
    clock = [0.0]

    def answer(connection: Any, request: bytes) -> tuple[int, bytes]:
        clock[0] += 0.1
        return 200, b""

    class Connection:
        def close(self) -> None:
            pass

    monkeypatch.setattr("harness.load.exchange_status", answer)
    monkeypatch.setattr("harness.load.connected", lambda address, limit_s: Connection())
    monkeypatch.setattr("harness.load.time.perf_counter", lambda: clock[0])
    measured = open_loop(("127.0.0.1", 9), [b""], 3, per_s=1e9, clients=1)
    assert measured.seconds == pytest.approx([0.1, 0.2, 0.3])


def test_a_tree_has_children_of_children_and_their_time_and_cores() -> None:
    core = min(os.sched_getaffinity(0))
    inner = "import threading; threading.Thread(target=input).start(); print('up', flush=True)"
    outer = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {inner!r}]).returncode)"
    process = subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"up\n"
    members = processes.tree(process.pid)
    assert len(members) == 2
    processes.pin(members, core)
    assert processes.pinned(members, core)
    assert not processes.pinned(members, core + 1)
    assert processes.spent_s(members) > 0.0
    # An interpreter's own pages are some MB; both share most of theirs.
    assert 2**20 < processes.pss_bytes(members) < 2**30
    by_thread = processes.thread_times(members[1])
    assert len(by_thread) == 2
    # The scheduler's account of the threads is the process's, less those that have ended.
    assert sum(found.seconds for found in by_thread.values()) <= processes.processor_s(members[1])
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(30) == 0
    process.stdout.close()
    with pytest.raises(RuntimeError, match="ended"):
        processes.spent_s(members)


def test_a_core_is_not_idle_while_it_works() -> None:
    """However busy the machine is: 0.3 s of this thread's work are no idle time of its core."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    os.sched_setaffinity(0, {core})
    try:
        began, idle_s, worked_s = time.perf_counter(), processes.idle_s(core), time.thread_time()
        while time.thread_time() < worked_s + 0.3:
            pass
        idle_s = processes.idle_s(core) - idle_s
        assert 0.0 <= idle_s <= time.perf_counter() - began - 0.3 + 0.02
    finally:
        os.sched_setaffinity(0, cores)
    assert processes.idle_s(core) > 0.0


def test_stacks_are_counted_once_for_every_function_in_them() -> None:
    lines = [
        "thread (70);run (/a/b/uvicorn/main.py:5);step (/a/b/loop.py:1) 3",
        "thread (70);run (/a/b/uvicorn/main.py:5);run (/a/b/uvicorn/main.py:9) 1",
        "thread (71);work (/a/c.py:2) 2",
        "thread (72);work (/a/c.py:3) 4",
    ]
    found = stacks.by_thread(lines, {"70": "event loop", "71": "dimml-x-1", "72": "dimml-x-12"})
    assert {name: samples.total for name, samples in found.items()} == {"event loop": 4, "dimml-x": 6}
    assert found["event loop"].within == {"run (uvicorn/main.py)": 4, "step (b/loop.py)": 3}
    assert found["event loop"].own == {"step (b/loop.py)": 3, "run (uvicorn/main.py)": 1}
    first = stacks.rows(found, 1)[0]
    assert first == ["dimml-x", "60 %", "`work (a/c.py)`", "100.0 %", "100.0 %"]


@pytest.mark.parametrize(("modality", "left"), [("audio", {"video"}), ("visual", {"audio"})])
def test_a_clip_without_a_track_has_the_other_bit_for_bit(modality: str, left: set[str]) -> None:
    bundle = load_bundle(REPOSITORY_ROOT / "model_repository", "avdigits")
    data = (REPOSITORY_ROOT / "samples" / "clean_three.mp4").read_bytes()
    (cut,) = without(bundle, [data], modality)

    def packets(recording: bytes, kind: str) -> list[bytes]:
        with av.open(io.BytesIO(recording)) as container:
            return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]

    with av.open(io.BytesIO(cut)) as container:
        assert {stream.type for stream in container.streams} == left
    (kind,) = left
    assert packets(cut, kind) == packets(data, kind)


def test_a_round_that_others_spoiled_is_in_no_median_and_no_ratio() -> None:
    def one(rate: float, spoiled: str = "") -> Round:
        return Round(
            rate=rate,
            cpu_ms=1000 / rate,
            p50_ms=1.0,
            p99_ms=2.0,
            memory_bytes=10**6,
            answered=10,
            failed=0,
            others=(0.0, 0.0),
            spoiled=spoiled,
        )

    found = Found({"dimml": {"both": {0: one(30.0), 1: one(1.0, "others"), 2: one(60.0)}}})
    found.rounds["peer"] = {"both": {0: one(20.0), 1: one(20.0), 2: one(40.0)}}
    own, peer = case_table(found, "both", ["dimml", "peer"], "dimml").splitlines()[2:]
    assert own.startswith("| **dimml** | 45.0 |")
    assert "| 2 of 3 |" in own
    assert "| 3 of 3 | 1.50 (1.50 to 1.50) | 0.67 (0.67 to 0.67) |" in peer


def test_an_answer_that_stops_half_way_is_an_error(server: tuple[str, int]) -> None:
    from harness.load import connected

    with connected(server) as connection:
        request = http_request(b"")
        assert [exchange_status(connection, request)[0] for _ in range(3)] == [200, 200, 429]
        with pytest.raises(ConnectionError, match="before its answer was complete"):
            exchange_status(connection, request)
