"""``dimml serve --processes 2``: one address, one queue, one set of metrics and models, whichever process answers."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
import tritonclient.grpc
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dimml_server.security.keys import new_key
from support import faulty_decoding, faulty_server
from support.connections import Pinned, clients_of, one_client_each, owner_of
from support.kserve_clients import frames, waveform
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, marked, tiny_clip
from support.waiting import wait_until

LABEL = 1
OPS, OPS_LINE = new_key("ops", admin=True)
NARROW, NARROW_LINE = new_key("narrow", concurrent=1)
LATER, LATER_LINE = new_key("later")
BUNDLES = ("tiny", "growing", "broken", "split", "gone", "kept", "metered")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    for name in BUNDLES:
        make_tiny_bundle(folder / "models", name=name)
    (folder / "keys").write_text(f"{OPS_LINE.line}\n{NARROW_LINE.line}\n")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    """Works on one request in each process, and lets one more wait in all."""
    settings: dict[str, object] = {
        **{"processes": 2, "concurrency": 2, "queue_length": 1, "decode_workers": 2, "intra_op_threads": 1},
        **{"model_control": "explicit", "routing_file": str(folder / "routing.json")},
        **{"api_keys_file": str(folder / "keys"), "metrics_open": True},
        # What hangs does so until its caller hangs up.
        **{"timeout_s": 60, "queue_wait_s": 60, "decode_timeout_s": 30},
    }
    (folder / "tmp").mkdir()
    environment = {"TMPDIR": str(folder / "tmp")}
    with running_server(folder / "models", script=faulty_server.SCRIPT, environment=environment, **settings) as it:
        yield it
        started = it.descendants()
        _drain(it, tiny_clip(folder, LABEL))
        assert "Traceback" not in it.log
    assert [process for process in started if Path(f"/proc/{process}").exists()] == []
    assert list((folder / "tmp").iterdir()) == []


def _drain(server: ServerProcess, clip: bytes) -> None:
    """Stop the server while a request is half sent: it takes no other, and answers this one. Its exit code is 0."""
    connection, rest = begun(server, clip, whole=False)
    with connection:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.log.count("stopping; requests in flight") >= 2)
        host, port = server.http.split(":")

        def refused() -> bool:
            try:
                socket.create_connection((host, int(port))).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused)
        connection.sendall(rest)
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.fixture
def both(server: ServerProcess) -> Iterator[list[Pinned]]:
    """A client of each process."""
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    with one_client_each(server, OPS) as clients:
        yield clients


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_clip(tmp_path_factory.mktemp("clip"), LABEL)


@pytest.fixture(scope="module")
def hanging(clip: bytes) -> bytes:
    return marked(clip, faulty_decoding.PICTURE_HANGS)


def metrics(client: Pinned) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(client.http.get("/metrics").text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def versions(client: Pinned, bundle: str) -> list[int]:
    return [m["version"] for m in client.http.get("/v1/models").json()["models"] if m["name"] == bundle]


def load(client: Pinned, bundle: str, *chosen: int) -> httpx.Response:
    config = json.dumps({"version_policy": {"specific": {"versions": chosen}}})
    parameters = {"parameters": {"config": config}} if chosen else {}
    return client.http.post(f"/v2/repository/models/{bundle}/load", json=parameters)


def test_the_parent_starts_as_many_processes_and_serves_no_traffic(server: ServerProcess, both: list[Pinned]) -> None:
    assert {client.process for client in both} == set(server.children())
    assert "2 processes: concurrency 1+1, decode_workers 1+1; one queue of 1" in server.log


def test_connections_are_spread_evenly(server: ServerProcess) -> None:
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    with ExitStack() as stack:
        clients = [Pinned(server, OPS) for _ in range(8)]
        for client in clients:
            stack.callback(client.http.close)
        assert sorted(Counter(client.process for client in clients).values()) == [4, 4]


def test_every_process_gives_the_same_answer(both: list[Pinned], clip: bytes) -> None:
    answers = [client.predict(clip, model="tiny").json() for client in both]
    assert [answer["label"] for answer in answers] == [LABELS[LABEL]] * 2
    assert answers[0]["probability"] == answers[1]["probability"]


def test_grpc_channels_reach_every_process(server: ServerProcess) -> None:
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    port = int(server.grpc.rpartition(":")[2])
    owners: set[int | None] = set()
    with ExitStack() as stack:
        # The kernel spreads them by a hash of both ports: the chance that 40 go to one process is 2^-39.
        for _ in range(40):
            # Channels with the same options would share a connection.
            own_pool = [("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(server.grpc, own_pool))
            assert (
                service_pb2_grpc.GRPCInferenceServiceStub(channel)
                .ServerReady(pb.ServerReadyRequest(), metadata=[("x-api-key", OPS)])
                .ready
            )
            owners |= {owner_of(server, client, port) for client in clients_of(port)}
            if set(server.children()) <= owners:
                return
    pytest.fail(f"gRPC reached only {owners}")


def test_grpc_answers(server: ServerProcess) -> None:
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        inputs = []
        for name, rows, datatype in (("WAVEFORM", waveform([LABEL]), "FP32"), ("FRAMES", frames([LABEL]), "UINT8")):
            inputs.append(tritonclient.grpc.InferInput(name, rows.shape, datatype))
            inputs[-1].set_data_from_numpy(rows)
        assert client.infer("tiny", inputs, headers={"x-api-key": OPS}).as_numpy("PROBABILITIES")[0].argmax() == LABEL


def test_metrics_of_all_are_at_each(both: list[Pinned], clip: bytes) -> None:
    labels = {"model": "metered", "version": "1", "transport": "http"}
    key = ("dimml_requests_total", frozenset({**labels, "outcome": "ok"}.items()))
    count = ("dimml_request_seconds_count", frozenset(labels.items()))
    before = metrics(both[0])
    for number, client in enumerate(both):
        for _ in range(number + 1):
            assert client.predict(clip, model="metered").status_code == 200
    after = [metrics(client) for client in both]
    for found in after:
        assert found[key] - before.get(key, 0.0) == found[count] - before.get(count, 0.0) == 3
    # What only one process knows or all know alike is not added up; what is divided is.
    nothing: frozenset[tuple[str, str]] = frozenset()
    assert after[0]["dimml_processes", nothing] == 2
    assert after[0]["dimml_requests_in_flight_limit", nothing] == 2
    assert after[0]["dimml_requests_queued_limit", nothing] == 1
    infos = [value for (name, _), value in after[0].items() if name in ("dimml_build_info", "dimml_bundle_info")]
    assert set(infos) == {1.0}
    assert set(after[0]) == set(after[1])


def test_a_scrape_has_every_metric_of_one_process_and_two_more(server: ServerProcess, both: list[Pinned]) -> None:
    families = {family.name for family in text_string_to_metric_families(both[0].http.get("/metrics").text)}
    from dimml_server.observability.metrics import Metrics

    own = Metrics()
    own.watch(in_flight=lambda: 0, queued=lambda: 0, stray_runs=lambda: 0, decode_workers_lost=lambda: 0)
    alone = {family.name for family in text_string_to_metric_families(own.exposition().decode())}
    assert families == alone | {"dimml_processes", "dimml_processes_lost"}


def test_statistics_of_models_are_added_up(both: list[Pinned]) -> None:
    def successes(client: Pinned) -> int:
        (stats,) = client.http.get("/v2/models/metered_audio/stats").json()["model_stats"]
        return int(stats["inference_stats"]["success"]["count"])

    before = successes(both[0])
    tensor = {"name": "WAVEFORM", "shape": [1, 4000], "datatype": "FP32", "data": waveform([LABEL]).ravel().tolist()}
    for client in (both[0], both[0], both[1]):
        assert client.http.post("/v2/models/metered_audio/infer", json={"inputs": [tensor]}).status_code == 200
    assert [successes(client) - before for client in both] == [3, 3]


def test_a_version_is_loaded_and_rolled_back_in_all(both: list[Pinned], folder: Path) -> None:
    first = versions(both[0], "growing")
    new = make_tiny_bundle(folder / "models", name="growing").version
    one, other = both
    assert load(one, "growing").status_code == 200
    assert [versions(client, "growing") for client in both] == [[new]] * 2
    assert load(other, "growing", *first).status_code == 200
    assert [versions(client, "growing") for client in both] == [first] * 2


def test_grpc_loads_in_all_as_well(server: ServerProcess, both: list[Pinned], folder: Path) -> None:
    new = make_tiny_bundle(folder / "models", name="growing").version
    with tritonclient.grpc.InferenceServerClient(server.grpc) as client:
        client.load_model("growing", headers={"x-api-key": OPS})
    assert [versions(client, "growing") for client in both] == [[new]] * 2


def test_a_version_that_does_not_load_changes_nothing_anywhere(both: list[Pinned], folder: Path) -> None:
    bad = make_tiny_bundle(folder / "models", name="broken")
    model = bad.model_file(folder / "models", "broken_visual")
    model.write_bytes(model.read_bytes() + b" ")
    for client in both:
        refused = load(client, "broken")
        assert refused.status_code == 400
        assert "version 1 goes on" in refused.json()["error"]
    assert [versions(client, "broken") for client in both] == [[1], [1]]
    for client in both:
        entries = client.http.post("/v2/repository/index", json={}).json()
        (entry,) = (e for e in entries if (e["name"], e["version"]) == ("broken", str(bad.version)))
        assert "SHA-256" in entry["reason"]


def test_a_bundle_is_unloaded_and_loaded_in_all(both: list[Pinned], clip: bytes) -> None:
    one, other = both
    assert one.http.post("/v2/repository/models/gone/unload").status_code == 200
    assert [client.predict(clip, model="gone").status_code for client in both] == [404, 404]
    refused = other.http.post("/v2/repository/models/nowhere/load")
    assert refused.status_code == 404
    assert load(other, "gone").status_code == 200
    assert [client.predict(clip, model="gone").status_code for client in both] == [200, 200]


def test_a_split_holds_in_all_and_is_stored_once(both: list[Pinned], folder: Path) -> None:
    newest = make_tiny_bundle(folder / "models", name="split").version
    one, other = both
    assert load(one, "split", 1, newest).status_code == 200
    shares = {"1": 30.0, str(newest): 70.0}
    changed = one.http.patch("/v1/models/split/routing", json={"split": shares})
    assert (changed.status_code, changed.json()["split"]) == (200, shares)
    assert other.http.get("/v1/models/split/routing").json()["split"] == shares
    assert json.loads((folder / "routing.json").read_text())["split"] == {"split": shares, "shadow": None}
    refused = other.http.patch("/v1/models/split/routing", json={"split": {"9": 100}})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "split")
    assert load(other, "split", newest).status_code == 400
    assert other.http.patch("/v1/models/split/routing", json={"split": None}).status_code == 200
    assert one.http.get("/v1/models/split/routing").json()["split"] == {}


def test_a_key_chooses_the_same_version_in_all(both: list[Pinned], folder: Path, clip: bytes) -> None:
    newest = make_tiny_bundle(folder / "models", name="split").version
    assert load(both[0], "split", 1, newest).status_code == 200
    shares = {"1": 50.0, str(newest): 50.0}
    assert both[1].http.patch("/v1/models/split/routing", json={"split": shares}).status_code == 200
    seen = [
        [client.predict(clip, model="split", route_key=f"caller {n}").json()["version"] for n in range(6)]
        for client in both
    ]
    assert seen[0] == seen[1]
    assert set(seen[0]) == {1, newest}
    assert both[0].http.patch("/v1/models/split/routing", json={"split": {}}).status_code == 200


def test_a_shadow_is_refused_with_the_way_out(both: list[Pinned]) -> None:
    refused = both[0].http.patch("/v1/models/tiny/routing", json={"shadow": 1})
    assert refused.status_code == 501
    assert "one process" in refused.json()["error"]["message"]
    assert both[0].http.patch("/v1/models/tiny/routing", json={"shadow": None}).status_code == 200
    assert both[0].http.patch("/v1/models/nothing/routing", json={"shadow": None}).status_code == 404


def begun(server: ServerProcess, clip: bytes, key: str = OPS, *, whole: bool = True) -> tuple[socket.socket, bytes]:
    """A connection on which a prediction has been sent, or half of it, and the rest of it."""
    headers = {"X-API-Key": key}
    request = httpx.Request(
        "POST", f"{server.url}/v1/predict", files={"media": clip}, data={"model": "tiny"}, headers=headers
    )
    body = request.read()
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    host, port = server.http.split(":")
    connection = socket.create_connection((host, int(port)), timeout=60.0)
    sent = len(body) if whole else len(body) // 2
    connection.sendall(f"POST /v1/predict HTTP/1.1\r\n{head}\r\n".encode() + body[:sent])
    return connection, body[sent:]


def test_one_queue_bounds_all(server: ServerProcess, both: list[Pinned], hanging: bytes, clip: bytes) -> None:
    with ExitStack() as stack:
        for number in range(3):
            connection, _ = begun(server, hanging)
            stack.callback(connection.close)
            # A process that works on one leaves the second to the other; the third waits for its turn.
            server.wait_for_load(min(number + 1, 2), number // 2)
        for client in both:
            refused = client.predict(clip, model="tiny")
            assert refused.status_code == 429, refused.text
            assert refused.json()["error"]["code"] == "queue_full"
    server.wait_for_load(0, 0)
    assert [client.predict(clip, model="tiny").status_code for client in both] == [200, 200]


def test_bodies_being_sent_are_bounded_over_all(server: ServerProcess, both: list[Pinned], clip: bytes) -> None:
    """As many as can be worked on and wait, 2 and 1; each process alone has room for one and the queue."""
    with ExitStack() as stack:
        for number in range(4):
            connection, _ = begun(server, clip, whole=False)
            stack.callback(connection.close)
            if number < 2:
                # None of them is answered before its body is there.
                assert [client.predict(clip, model="tiny").status_code for client in both] == [200, 200]
        # Of four one was refused; while three are on their way, there is no room in either process.
        wait_until(lambda: {client.predict(clip, model="tiny").status_code for client in both} == {429})
    wait_until(lambda: {client.predict(clip, model="tiny").status_code for client in both} == {200})


def test_a_keys_limit_is_one_for_all(server: ServerProcess, both: list[Pinned], hanging: bytes, clip: bytes) -> None:
    connection, _ = begun(server, hanging, NARROW)
    with connection:
        server.wait_for_load(1, 0)
        for client in both:
            refused = client.predict(clip, key=NARROW, model="tiny")
            assert refused.status_code == 429, refused.text
            assert "1 requests with this API key" in refused.json()["error"]["message"]
    server.wait_for_load(0, 0)
    assert [client.predict(clip, key=NARROW, model="tiny").status_code for client in both] == [200, 200]


def test_keys_are_read_again_by_all(server: ServerProcess, both: list[Pinned], folder: Path) -> None:
    keys = (folder / "keys").read_text()

    def statuses() -> set[int]:
        return {client.http.get("/v1/models", headers={"X-API-Key": LATER}).status_code for client in both}

    assert statuses() == {401}
    for text, status in ((keys + LATER_LINE.line, 200), (keys, 401)):
        (folder / "keys").write_text(text)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda status=status: statuses() == {status})  # type: ignore[misc]


def requests_counted(client: Pinned) -> float:
    return sum(value for (name, _), value in metrics(client).items() if name == "dimml_requests_total")


def test_a_killed_process_costs_its_own_requests_and_is_replaced(
    server: ServerProcess, both: list[Pinned], folder: Path, hanging: bytes, clip: bytes
) -> None:
    survivor, victim = both
    # What the replacement must know: a version and a split that are not those of the start.
    newest = make_tiny_bundle(folder / "models", name="kept").version
    assert load(victim, "kept", 1, newest).status_code == 200
    split = {"1": 100.0}
    assert victim.http.patch("/v1/models/kept/routing", json={"split": split}).status_code == 200
    lost = server.metric("dimml_processes_lost_total")
    assert [client.predict(clip, model="tiny").status_code for client in both] == [200, 200]
    counted = [requests_counted(survivor)]
    (uploads,) = (folder / "tmp").glob("dimml-uploads-*")
    for own in uploads.iterdir():
        (own / "left").touch()  # As of a body that was on its way.
    with ThreadPoolExecutor(2) as threads, one_client_each(server, OPS) as more, ExitStack() as stack:
        waiter = next(client for client in more if client.process == victim.process)
        doomed = threads.submit(victim.predict, hanging, model="tiny")
        server.wait_for_load(1, 0)
        waiting = threads.submit(waiter.predict, clip, model="tiny")
        server.wait_for_load(1, 1)
        # Half of a request: the victim is full, so the other process has it.
        kept, rest = begun(server, clip, whole=False)
        stack.callback(kept.close)
        os.kill(victim.process, signal.SIGKILL)
        for future in (doomed, waiting):
            with pytest.raises(httpx.TransportError):
                future.result()
        kept.sendall(rest)
        assert kept.recv(12) == b"HTTP/1.1 200"
    # Connections that come meanwhile go to the other, and none is refused.
    key = {"X-API-Key": OPS}
    for _ in range(4):
        response = httpx.post(
            f"{server.url}/v1/predict", files={"media": clip}, data={"model": "tiny"}, headers=key, timeout=60.0
        )
        assert response.status_code == 200
        counted.append(requests_counted(survivor))

    def replaced() -> bool:
        counted.append(requests_counted(survivor))
        return len(set(server.children()) - {victim.process}) == 2 and server.metric("dimml_processes") == 2

    wait_until(replaced, 60.0, lambda: server.log[-2000:], every_s=0.25)
    assert counted == sorted(counted), "a counter went back"
    assert server.metric("dimml_processes_lost_total") == lost + 1
    server.wait_for_load(0, 0)
    assert sorted((own / "left").exists() for own in uploads.iterdir()) == [False, True]
    with one_client_each(server, OPS) as again:
        (new,) = (client for client in again if client.process != survivor.process)
        assert versions(new, "kept") == [1, newest]
        assert new.http.get("/v1/models/kept/routing").json()["split"] == split
        assert new.predict(clip, model="kept").json()["version"] == 1
        assert new.http.get("/health/ready").status_code == 200
        for client in again:
            assert requests_counted(client) >= counted[-1]
    assert f"(pid {victim.process}) ended by itself (SIGKILL); it is replaced in" in server.log


def test_changes_during_a_restart_reach_the_new_process(
    server: ServerProcess, both: list[Pinned], folder: Path
) -> None:
    """The list changes while the replacement loads."""
    survivor, victim = both
    newest = make_tiny_bundle(folder / "models", name="growing").version
    os.kill(victim.process, signal.SIGTERM)  # As an operator may: it finishes its requests first.
    server.wait_for_log(f"(pid {victim.process}) ended by itself", limit_s=60.0)
    assert load(survivor, "growing").status_code == 200
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    with one_client_each(server, OPS) as again:
        assert [versions(client, "growing") for client in again] == [[newest]] * 2


def processor_s(process: int) -> float:
    """Processor time of a process's threads, in seconds."""
    tasks = Path(f"/proc/{process}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def test_the_parent_has_no_part_in_the_work(server: ServerProcess, both: list[Pinned], clip: bytes) -> None:
    """At most 5 % of the requests' work is done where it cannot be replicated."""
    parent = server.process.pid
    others = [process for process in server.descendants() if process != parent]
    before, before_all = processor_s(parent), sum(map(processor_s, others))

    def post(client: Pinned) -> None:
        for _ in range(30):
            assert client.predict(clip, model="tiny").status_code == 200

    threads = [threading.Thread(target=post, args=[client]) for client in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own, rest = processor_s(parent) - before, sum(map(processor_s, others)) - before_all
    assert own < 0.05 * (own + rest), f"{own:.3f} s of {own + rest:.3f} s"
