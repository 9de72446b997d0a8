"""Bounds of several processes: one number, to which all count."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path

from support.server_process import ServerProcess
from support.several_processes import (
    LATER,
    LATER_LINE,
    NARROW,
    Pinned,
    begun,
)
from support.waiting import wait_until


def test_one_queue_bounds_all(server: ServerProcess, both: list[Pinned], hanging: bytes, clip: bytes) -> None:
    with ExitStack() as stack:
        for number, process in enumerate((both[0].process, both[1].process, None)):
            connection, _ = begun(server, hanging, process=process)
            stack.callback(connection.close)
            # One in each process; the third waits for its turn.
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
