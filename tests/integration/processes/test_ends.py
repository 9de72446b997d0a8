"""Processes that end: each costs its own requests, and another takes its place."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from support.server_process import ServerProcess
from support.several_processes import (
    OPS,
    Pinned,
    begun,
    load,
    metrics,
    one_client_each,
    versions,
)
from support.tiny_bundle import make_tiny_bundle
from support.waiting import wait_until


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
        kept, rest = begun(server, clip, whole=False, process=survivor.process)
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
