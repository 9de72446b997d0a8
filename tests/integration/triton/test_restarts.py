"""A Triton that is killed, in three ways, and started again; and a gateway before it, under load.

One test, since each start takes seconds: what one server leaves behind, the next clears away. None of its servers can
be the shared one, since each is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from dimml_server.triton_server.shared_memory import SHARED_MEMORY, RunName
from support.fresh_home import files_below
from support.gateway import answered_whole, encoders_and_fusion, gateway, load, only, print_row
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.triton_process import TritonServer, refusal, running_triton
from support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)


def test_killed_and_started_again(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    make_tiny_bundle(repository)
    models = encoders_and_fusion(repository)
    in_use = RunName()
    port = free_port()
    gone = (("audio", "failed:encoder_gone"), ("visual", "failed:encoder_gone"))
    with (
        gateway(repository, f"127.0.0.1:{port}", models="tiny", triton_wait_s=0.5) as server,
        load(server, tiny_clip(tmp_path, 2)) as made,
    ):

        def ready() -> bool:
            return httpx.get(f"{server.url}/health/ready").status_code == 200

        made.wait_for(4, time.monotonic())
        assert set(only(made.answers)) == {(503, False, gone)}
        assert not ready()
        with running_triton(repository, killed=True, model=models, grpc_port=port) as first:
            recovered = answered_whole(made, time.monotonic())
            wait_until(ready)
            made.wait_for(6, recovered)
            killed = time.monotonic()
            os.kill(first.server_pid(), signal.SIGKILL)
            made.wait_for(6, killed + 0.5)
            assert set(only(made.since(killed + 0.5))) == {(503, False, gone)}
            # Not those that were on their way when the first one was answered: they may have been given up already.
            assert {a.status for a in made.answers if a.began >= recovered and a.at < killed} == {200}
            wait_until(lambda: not ready())
            first.process.wait(60)
        with running_triton(repository, killed=True, model=models, grpc_port=port) as second:
            back = time.monotonic()
            recovered = answered_whole(made, back)
            print_row("Triton killed, started again", made, recovered - back)
            made.wait_for(6, recovered + 1)
            assert {(a.status, a.degraded) for a in made.since(recovered + 1)} == {(200, False)}
            wait_until(ready)
            left = kill_command(second, triton_too=False)
    assert {a.status for a in made.answers} == {200, 503}
    with running_triton(repository, killed=True, model="tiny_visual") as third:
        check_cleared(left)
        assert third.stubs("tiny_visual")
        assert not third.stubs("tiny_audio"), "only the model that was named"
        left = kill_command(third, triton_too=True)
    check_models_that_do_not_load_are_named(repository)
    check_cleared(left)
    assert list(SHARED_MEMORY.glob(f"{in_use.prefix}*")), "what is in use stays"
    in_use.close()


def check_models_that_do_not_load_are_named(repository: Path) -> None:
    """Of all models of a repository, each with its reason."""
    for entry in ("tiny", "tiny_media"):
        shutil.rmtree(repository / entry)
    (repository / "tiny_audio" / "1" / "model.onnx").write_bytes(b"garbage")
    with (repository / "tiny_fusion" / "config.pbtxt").open("a") as config:
        config.write('parameters { key: "intra_op_thread_count" value { string_value: "many" } }\n')
    (repository / "tiny_visual" / "config.pbtxt").write_text("garbage {")
    message = refusal(repository)
    assert "tiny_audio: ONNX Runtime cannot load" in message
    assert "tiny_fusion: parameter intra_op_thread_count must be a whole number, not 'many'" in message
    assert "tiny_visual: failed to read text proto" in message


def kill_command(server: TritonServer, *, triton_too: bool) -> str:
    """Kill `dimml triton`, which takes the server along; the prefix of what is left of both."""
    prefix, triton = server.prefix, server.server_pid()
    processes = [triton, *children_of(triton)]
    assert len(processes) > 1
    if triton_too:
        os.kill(triton, signal.SIGKILL)
    server.process.send_signal(signal.SIGKILL)
    server.process.wait(30.0)
    for process in processes:
        wait_until(lambda process=process: is_gone(process))
    assert list(SHARED_MEMORY.glob(f"{prefix}*"))
    return prefix


def check_cleared(prefix: str) -> None:
    """By the start that came after it."""
    assert not list(SHARED_MEMORY.glob(f"{prefix}*"))
    assert not (Path(tempfile.gettempdir()) / prefix).exists()


def children_of(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def is_gone(process: int) -> bool:
    """A zombie that nobody has collected yet is gone all the same."""
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_onnx_runtime_in_triton_sends_nothing(triton: TritonServer, home_of_triton: Path) -> None:
    """The shared server, which a new user has started."""
    (stub,) = triton.stubs("tiny_audio")
    environment = Path(f"/proc/{stub}/environ").read_text().split("\0")
    assert "ORT_DISABLE_TELEMETRY=1" in environment
    assert files_below(home_of_triton) == []
