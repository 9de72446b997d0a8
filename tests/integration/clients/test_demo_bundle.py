"""The committed demo bundle and its samples: whole, small, and answering as samples.csv says."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dimml.errors import UnusableMediaError
from dimml.repository import load_bundle
from dimml_client import Client
from dimml_server.local import LocalPredictor
from support.data import REPOSITORY_ROOT, shared_data
from support.server_process import ServerProcess, running_server
from support.waiting import wait_until

REPOSITORY, SAMPLES = REPOSITORY_ROOT / "model_repository", REPOSITORY_ROOT / "samples"
DEMO = (sys.executable, "-m", "dimml", "demo")

with (SAMPLES / "samples.csv").open(newline="") as rows:
    LISTED = list(csv.DictReader(rows))


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running_server(REPOSITORY) as running:
        yield running


def stretch(sample: dict[str, str]) -> dict[str, float]:
    return {key: float(sample[key]) for key in ("start_s", "end_s") if sample[key]}


def expected_statuses(sample: dict[str, str]) -> dict[str, str]:
    return {name: sample[name] for name in ("audio", "visual")}


def check(sample: dict[str, str], client: Client | LocalPredictor) -> None:
    path = SAMPLES / sample["file"]
    if not sample["label"]:
        with pytest.raises(UnusableMediaError) as caught:
            client.predict(path, **stretch(sample))
        assert {name: str(status) for name, status in caught.value.statuses.items()} == expected_statuses(sample)
        return
    answer = client.predict(path, **stretch(sample))
    assert {name: str(own.modality_status) for name, own in answer.modalities.items()} == expected_statuses(sample)
    assert answer.degraded == (set(expected_statuses(sample).values()) != {"ok"})
    assert answer.label == sample["label"]


@pytest.mark.parametrize("sample", LISTED, ids=lambda sample: f"{sample['file']}-{sample['start_s']}")
@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_samples_over_the_wire(server: ServerProcess, transport: str, sample: dict[str, str]) -> None:
    with Client(server.url if transport == "http" else f"grpc://{server.grpc}") as client:
        check(sample, client)


def test_samples_in_this_process() -> None:
    with LocalPredictor(REPOSITORY) as predictor:
        for sample in LISTED:
            check(sample, predictor)


def test_the_bundle_is_whole_and_says_how_it_was_made() -> None:
    bundle = load_bundle(REPOSITORY, "avdigits")
    assert bundle.labels == ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    assert [modality.kind for modality in bundle.modalities] == ["waveform", "frames"]
    assert set(bundle.metrics) >= {"validation", "test"}
    assert bundle.metrics["test"]["accuracy"] > 0.95
    # Voices are split: training would have stopped, or warned, at one in two splits.
    assert bundle.training["config"]["data"]["split_by"] == "subject"
    assert bundle.training["warnings"] == []


def test_what_is_committed_is_small() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "model_repository", "samples"], cwd=REPOSITORY_ROOT, capture_output=True, check=True
    )
    sizes = {name: (REPOSITORY_ROOT / os.fsdecode(name)).stat().st_size for name in listed.stdout.split(b"\0") if name}
    assert max(sizes.values()) < 4 * 2**20
    assert sum(sizes.values()) < 10 * 2**20
    assert sum(size for name, size in sizes.items() if name.startswith(b"samples/")) < 2 * 2**20


def test_every_sample_is_listed() -> None:
    assert {sample["file"] for sample in LISTED} == {path.name for path in SAMPLES.iterdir()} - {"samples.csv"}


def free_ports() -> dict[str, str]:
    with socket.socket() as http, socket.socket() as grpc:
        for probe in (http, grpc):
            probe.bind(("127.0.0.1", 0))
        return {"DEMO_HTTP_PORT": str(http.getsockname()[1]), "DEMO_GRPC_PORT": str(grpc.getsockname()[1])}


def servers_of(ports: dict[str, str]) -> list[str]:
    """Command lines of the servers that a demo with these ports has started and that are still there."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and ports["DEMO_HTTP_PORT"].encode() in words:
            found.append(b" ".join(words).decode())
    return found


def test_the_demo_runs_twice_and_cleans_up() -> None:
    ports = free_ports()
    for _ in range(2):
        done = subprocess.run([*DEMO], env=os.environ | ports, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        for sample in LISTED:
            assert sample["file"] in done.stdout
        assert "NO" not in done.stdout
        assert servers_of(ports) == []


@pytest.mark.parametrize("column", ["label", "audio"])
def test_the_demo_fails_where_an_answer_is_not_the_samples(tmp_path: Path, column: str) -> None:
    # The same program on the same bundle; only what is expected of one clip is untrue.
    shutil.copytree(SAMPLES, tmp_path / "samples")
    listed = [dict(sample) for sample in LISTED if sample["file"] in ("clean_three.mp4", "no_picture.mp4")]
    listed[0][column] = {"label": "four", "audio": "unusable:silent"}[column]
    with (tmp_path / "samples" / "samples.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(listed[0]))
        table.writeheader()
        table.writerows(listed)
    done = subprocess.run(
        [*DEMO, "--samples", str(tmp_path / "samples")],
        env=os.environ | free_ports(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "some answers are not as expected" in done.stdout
    assert done.stdout.count(" NO ") == 1


@pytest.mark.parametrize("which", ["DEMO_HTTP_PORT", "DEMO_GRPC_PORT"])
def test_the_demo_says_when_its_port_is_taken(which: str) -> None:
    ports = free_ports()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(ports[which])))
        taken.listen()
        done = subprocess.run([*DEMO], env=os.environ | ports, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {ports[which]} on 127.0.0.1 is taken" in done.stderr
    assert which in done.stderr
    assert "Traceback" not in done.stderr
    assert servers_of(ports) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_stopped_demo_leaves_no_server(how: signal.Signals) -> None:
    ports = free_ports()
    demo = subprocess.Popen([*DEMO], env=os.environ | ports, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: bool(servers_of(ports)))
    demo.send_signal(how)
    assert demo.wait(40.0) != 0
    wait_until(lambda: not servers_of(ports))


def test_a_camera_that_is_gone_does_not_go_on_saying_what_it_saw() -> None:
    """The picture ends at 1.2 s and showed "zero"; what is spoken from 2.4 s on is "four"."""
    with LocalPredictor(REPOSITORY) as predictor:
        answer = predictor.predict(shared_data("mediarecorder") / "camera_gone.mp4", start_s=2.4, end_s=3.6)
    assert (answer.label, answer.degraded) == ("four", True)
    assert str(answer.modalities["visual"].modality_status) == "absent:track_ended"
