"""``dimml serve --processes 2``: one address and one set of metrics, whichever process answers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from dimml_server.observability.metrics import Metrics
from support.kserve_clients import frames, waveform
from support.server_process import ServerProcess
from support.several_processes import (
    LABEL,
    OPS,
    Pinned,
    clients_of,
    metrics,
    owner_of,
)
from support.tiny_media import LABELS
from support.waiting import wait_until


def test_the_parent_starts_as_many_processes_and_serves_no_traffic(server: ServerProcess, both: list[Pinned]) -> None:
    assert {client.process for client in both} == set(server.children())
    assert "2 processes: concurrency 1+1, decode_workers 1+1; one queue of 1" in server.log


def test_connections_are_spread(server: ServerProcess) -> None:
    """Evenly if both are as quick; left alone, the kernel wakes the same one for most of them."""
    server.wait_for_metric("dimml_processes", 2, limit_s=60.0)
    with ExitStack() as stack:
        clients = [Pinned(server, OPS) for _ in range(8)]
        for client in clients:
            stack.callback(client.http.close)
        counts = Counter(client.process for client in clients)
        assert len(counts) == 2
        assert min(counts.values()) >= 2


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


def test_the_last_hour_is_that_of_all(both: list[Pinned], clip: bytes) -> None:
    def answered(client: Pinned) -> int:
        statuses = client.http.get("/v1/now").json()["models"]["metered:1"]["modalities"]["audio"]["statuses"]
        return int(statuses.get("ok", 0))

    time.sleep(1.1)  # A sample is taken for an answer once the last one is a second old: then it is of now.
    before = answered(both[0])
    for number, client in enumerate(both):
        for _ in range(number + 1):
            assert client.predict(clip, model="metered").status_code == 200
    for client in both:
        wait_until(partial(lambda one: answered(one) == before + 3, client), 10.0, every_s=0.3)


def test_a_scrape_has_every_metric_of_one_process_and_two_more(server: ServerProcess, both: list[Pinned]) -> None:
    families = {family.name for family in text_string_to_metric_families(both[0].http.get("/metrics").text)}
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
