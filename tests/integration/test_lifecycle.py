"""Start and stop of the server process: readiness, errors a person can act on, and nothing lost at the end."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc

from support import faulty_decoding, faulty_server
from support.forked import run_forked
from support.server_process import READY, STOP_LIMIT_S, ServerProcess, running_server, serve_command
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, marked, tiny_clip
from support.waiting import wait_until


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


def refusal(repository: Path, **settings: object) -> str:
    """What a server says that does not start; it must be one line, and the exit code 1."""
    done = run_forked(serve_command(repository, settings))
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if " INFO " not in line]
    assert len(errors) == 1, done.stderr
    return errors[0]


@pytest.mark.parametrize(("option", "code"), [("--print-config", 0), ("--repository=nowhere", 1)])
def test_a_fork_says_what_a_process_of_its_own_says(tmp_path: Path, option: str, code: int) -> None:
    """Most servers of these tests are forks (``support.forked``)."""
    command = [sys.executable, "-m", "dimml", "serve", "--http-port=9", option]
    own = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    fork = run_forked(command, tmp_path)
    assert (fork.returncode, fork.stdout, fork.stderr) == (code, own.stdout, own.stderr)
    assert own.returncode == code


@pytest.mark.parametrize("setting", ["http_port", "grpc_port"])
def test_a_port_that_is_taken_is_named_with_its_flag(repository: Path, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(repository, **{setting: port})
    assert said.startswith("error: ")
    assert f"port {port} on 127.0.0.1 is taken" in said
    assert f"--{setting.replace('_', '-')} (DIMML_{setting.upper()})" in said


def test_two_servers_do_not_share_a_grpc_port(repository: Path) -> None:
    with running_server(repository) as first:
        assert "is taken" in refusal(repository, grpc_port=first.grpc.rpartition(":")[2])


def test_a_repository_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    assert "holds no bundle" in refusal(tmp_path)


def test_a_changed_file_is_named(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path)
    model = bundle.model_file(tmp_path, "tiny_visual")
    model.write_bytes(model.read_bytes() + b" ")
    said = refusal(tmp_path)
    assert "tiny_visual/1/model.onnx" in said
    assert "SHA-256" in said


def test_a_bundle_or_host_that_is_not_there_is_named(repository: Path) -> None:
    assert "no bundle 'huge'" in refusal(repository, models="huge")
    assert "not an address of this machine" in refusal(repository, host="203.0.113.7")


def test_live_before_ready_and_ready_after_warm_up(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        serve_command(repository, {"http_port": port}), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    seen: list[tuple[int, int, int]] = []
    announced = threading.Event()

    def watch() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            while not (announced.is_set() and seen and seen[-1][1] == 200):
                try:
                    live = http.get("/health/live").status_code
                    predicted = http.post("/v1/predict", files={"media": b"x"}).status_code
                    seen.append((live, http.get("/health/ready").status_code, predicted))
                except httpx.TransportError:
                    announced.wait(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        assert READY.fullmatch(process.stdout.readline().strip())
        announced.set()
        watcher.join(10.0)
        assert not watcher.is_alive()
    finally:
        announced.set()
        process.terminate()
        assert process.wait(STOP_LIMIT_S) == 0
        process.stdout.close()
    assert seen[0] == (200, 503, 503)
    assert seen[-1][:2] == (200, 200)
    readiness = [ready for _, ready, _ in seen]
    assert readiness == sorted(readiness, reverse=True)


def takes_no_connection(server: ServerProcess) -> bool:
    host, _, port = server.http.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_answered(repository: Path, tmp_path: Path, number: signal.Signals) -> None:
    clip = marked(tiny_clip(tmp_path, 1), faulty_decoding.SLOW)
    settings = {"concurrency": 2, "decode_workers": 2, "queue_wait_s": 20}
    with running_server(repository, script=faulty_server.SCRIPT, stop=False, **settings) as server:

        def predict(_: int) -> httpx.Response:
            return httpx.post(f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0)

        with ThreadPoolExecutor(4) as clients:
            answers = clients.map(predict, range(4))
            server.wait_for_load(2, 2)
            server.process.send_signal(number)
            server.wait_for_log("stopping")
            wait_until(lambda: takes_no_connection(server), 0.5)
            with pytest.raises(httpx.ConnectError):
                httpx.get(f"{server.url}/health/live")
            assert [(a.status_code, a.json().get("label")) for a in answers] == [(200, LABELS[1])] * 4


def test_calls_in_flight_over_grpc_are_answered(repository: Path, tmp_path: Path) -> None:
    clip = marked(tiny_clip(tmp_path, 1), faulty_decoding.SLOW)
    with running_server(repository, script=faulty_server.SCRIPT, stop=False) as server:
        media = tritonclient.grpc.InferInput("MEDIA", [1], "BYTES")
        media.set_data_from_numpy(np.array([clip], np.object_))
        with tritonclient.grpc.InferenceServerClient(server.grpc) as client, ThreadPoolExecutor(1) as clients:
            answer = clients.submit(client.infer, "tiny_media", [media])
            server.wait_for_load(1, 0)
            server.process.terminate()
            probabilities = answer.result().as_numpy("PROBABILITIES")
            assert probabilities is not None
            assert LABELS[probabilities[0].argmax()] == LABELS[1]


def test_an_encoder_that_stalls_does_not_hold_the_stop(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "repository", stall="visual", deadline_ms=60_000)
    clip = tiny_clip(tmp_path, 1)
    settings = {"grace_s": 0.5, "intra_op_threads": 1}
    with (
        running_server(tmp_path / "repository", stop=False, **settings) as server,
        ThreadPoolExecutor(1) as clients,
    ):
        answer = clients.submit(httpx.post, f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0)
        server.wait_for_load(1, 0)
        server.process.terminate()
        assert answer.result().status_code == 503


def test_a_signal_while_starting_stops_it(repository: Path) -> None:
    process = subprocess.Popen(serve_command(repository, {}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    # The decode workers are mostly still on their way then.
    assert any("loaded bundle" in line for line in process.stderr)
    process.terminate()
    _, said = process.communicate(timeout=STOP_LIMIT_S)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def test_a_request_past_the_grace_period_is_told_so_and_does_not_hold_the_stop(
    repository: Path, tmp_path: Path
) -> None:
    clip = marked(tiny_clip(tmp_path, 1), faulty_decoding.PICTURE_HANGS)
    with running_server(repository, script=faulty_server.SCRIPT, stop=False, grace_s=1) as server:
        with ThreadPoolExecutor(1) as clients:
            answer = clients.submit(httpx.post, f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0)
            server.wait_for_load(1, 0)
            began = time.monotonic()
            server.process.terminate()
            server.process.wait(STOP_LIMIT_S)
            assert time.monotonic() - began < 4.0
        assert answer.result().status_code == 503
        assert answer.result().json()["error"]["code"] == "unavailable"


def test_a_server_that_is_killed_leaves_no_worker_behind(repository: Path, tmp_path: Path) -> None:
    clip = marked(tiny_clip(tmp_path, 1), faulty_decoding.PICTURE_HANGS)
    command = serve_command(repository, {"decode_workers": 2}, faulty_server.SCRIPT)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    with process.stdout, ThreadPoolExecutor(1) as clients:
        ready = READY.fullmatch(process.stdout.readline().strip())
        assert ready is not None
        server = ServerProcess(process, ready[1], ready[2])
        workers = server.children()
        assert len(workers) == 2
        # One of them hangs in a decoder, where it hears of nothing; the other waits.
        answer = clients.submit(httpx.post, f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0)
        server.wait_for_load(1, 0)
        process.kill()
        process.wait(STOP_LIMIT_S)
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), STOP_LIMIT_S, str(workers))
        with pytest.raises(httpx.TransportError):
            answer.result()


def test_decode_workers_are_shut_in_and_the_log_says_how(repository: Path, tmp_path: Path) -> None:
    """Recordings past the spool's threshold reach them nevertheless, and nothing of them stays. What reads recordings
    is loaded in them alone."""
    clip = tiny_clip(tmp_path, 1)
    folder = tmp_path / "temporary"
    folder.mkdir()
    with running_server(repository, environment={"TMPDIR": str(folder)}, spool_bytes=1000) as server:
        server.wait_for_log("decode workers: enforced: files cannot grow")
        answer = httpx.post(f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0)
        assert answer.json()["degraded"] is False, answer.text
        (worker,) = server.children()
        loaded = [Path(f"/proc/{process}/maps").read_text() for process in (worker, server.process.pid)]
        decoders = [[name in maps for name in ("libavcodec", "/cv2/", "/PIL/", "heif", "sndfile")] for maps in loaded]
        assert decoders == [[True] * 5, [False] * 5]
        (uploads,) = folder.glob("dimml-uploads-*")
        assert list(uploads.iterdir()) == []
    assert list(folder.glob("dimml-*")) == []
