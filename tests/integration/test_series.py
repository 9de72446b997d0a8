"""A sensor and sound, all the way: train, export, serve over HTTP, gRPC and KServe, score from Parquet."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http
import yaml

from dimml.cli import main
from dimml.media import DecodeRequest, decode
from dimml.modality import Series, Waveform
from support.forked import run_forked
from support.server_process import ServerProcess, running_server
from support.shaken import CLASSES, IMU, SOUND, config, npy, text, wav, write_clips

# A training and an export come before the first test.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, a run, what ``evaluate`` answers, and an exported bundle."""
    folder = tmp_path_factory.mktemp("series")
    write_clips(folder)
    cache = ["--cache-dir", str(folder / "cache")]
    (folder / "shaken.yaml").write_text(yaml.safe_dump(config(folder / "clips.csv")))
    run = str(folder / "run")
    assert main(["train", str(folder / "shaken.yaml"), "--out", run, *cache]) == 0
    assert main(["evaluate", run, "--predictions", str(folder / "answers.csv"), *cache]) == 0
    assert main(["export", run, "--repository", str(folder / "bundles")]) == 0
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> list[dict[str, str]]:
    with (folder / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with running_server(folder / "bundles", explain="occlusion") as process:
        yield process


def post(server: ServerProcess, path: str = "/v1/predict", status: int = 200, **parts: Any) -> dict[str, Any]:
    files = {name: data for name, data in parts.items() if isinstance(data, bytes)}
    fields = {name: value for name, value in parts.items() if isinstance(value, str)}
    response = httpx.post(f"{server.url}{path}", files=files, data=fields, timeout=30.0)
    assert response.status_code == status, response.text
    found: dict[str, Any] = response.json()
    return found


def same(answer: dict[str, Any], row: dict[str, str]) -> None:
    assert answer["label"] == row["predicted"]
    for found in answer["predictions"]:
        assert found["probability"] == pytest.approx(float(row[f"probability_{found['label']}"]), abs=1e-4)


def test_it_has_learnt_something(folder: Path, answers: list[dict[str, str]]) -> None:
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert metrics["test"]["heads"]["imu"]["accuracy"] == 1.0
    assert len(answers) == 8


@pytest.mark.parametrize("form", [npy, text, wav])
def test_every_form_of_file_answers_as_the_training_said(
    server: ServerProcess, answers: list[dict[str, str]], form: Any
) -> None:
    for row in (answers[0], answers[-1]):
        values = np.load(row["path_imu"])
        answer = post(server, imu=form(values), audio=Path(row["path_audio"]).read_bytes(), top_k="2")
        same(answer, row)
        assert not answer["degraded"]
        assert {name: one["status"] for name, one in answer["modalities"].items()} == {"imu": "ok", "audio": "ok"}


def test_grpc_answers_alike(server: ServerProcess, answers: list[dict[str, str]]) -> None:
    row = answers[0]
    where = ["--url", f"grpc://{server.grpc}", "--model", "shaken", "--json", "--top-k", "2"]
    files = ["--modality", f"imu={row['path_imu']}", "--modality", f"audio={row['path_audio']}"]
    done = run_forked([sys.executable, "-m", "dimml", "predict", *where, *files])
    assert done.returncode == 0, done.stdout + done.stderr
    same(json.loads(done.stdout), row)


def test_kserve_takes_tensors_with_missing_values(server: ServerProcess, answers: list[dict[str, str]]) -> None:
    row = answers[0]
    given = (Series.model_validate(IMU), Waveform.model_validate(SOUND))
    sources = {"imu": Path(row["path_imu"]), "audio": Path(row["path_audio"])}
    tracks = decode(DecodeRequest(given, sources, 1.0)).tracks
    client = tritonclient.http.InferenceServerClient(server.http)
    try:
        metadata = client.get_model_metadata("shaken")
        assert {"name": "SERIES", "datatype": "FP32", "shape": [-1, 50, 3]} in metadata["inputs"]
        for lost in (0, 20):
            inputs = []
            for modality in given:
                values = np.array(tracks[modality.name].row)[None]
                if modality.name == "imu":
                    values[:, 10 : 10 + lost] = np.nan
                tensor = tritonclient.http.InferInput(modality.tensor, list(values.shape), "FP32")
                tensor.set_data_from_numpy(values)
                inputs.append(tensor)
            found = client.infer("shaken", inputs)
            assert found.as_numpy("STATUS").tolist() == [[b"ok", b"ok"]]
            probabilities = found.as_numpy("PROBABILITIES")[0]
            assert np.isfinite(probabilities).all()
            expected = [float(row[f"probability_{label}"]) for label in ("fast", "slow")]
            assert (np.abs(probabilities - expected).max() < 1e-4) == (lost == 0)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("series", "status"),
    [
        (np.zeros((60, 3)), "unusable:flat"),
        (np.full((60, 3), np.nan), "unusable:gaps"),
        (np.tile([[8.0, -8.0, 8.0], [-8.0, 8.0, -8.0]], (30, 1)), "unusable:saturated"),
        (np.zeros((60, 4)), "unusable:undecodable"),
        (None, "absent:not_sent"),
    ],
)
def test_a_dead_sensor_costs_itself_alone(
    server: ServerProcess, answers: list[dict[str, str]], series: npt.NDArray[Any] | None, status: str
) -> None:
    row = answers[0]
    audio = Path(row["path_audio"]).read_bytes()
    parts = {} if series is None else {"imu": npy(series)}
    answer = post(server, audio=audio, **parts)
    own = answer["modalities"]["imu"]
    assert f"{own['status']}:{own['reason']}" == status
    assert answer["degraded"]
    assert answer["modalities"]["audio"]["weight"] == 1.0
    if series is not None:
        error = post(server, status=422, imu=npy(series))["error"]
        assert error["modalities"]["imu"]["reason"] == own["reason"]


def test_it_is_explained_damaged_and_shown(server: ServerProcess, answers: list[dict[str, str]]) -> None:
    row = answers[0]
    values = np.load(row["path_imu"])
    parts: dict[str, Any] = {"imu": npy(values), "audio": Path(row["path_audio"]).read_bytes()}
    answer = post(server, **parts, explain="occlusion")
    assert set(answer["explanation"]["modalities"]) == {"imu", "audio"}
    curve = answer["explanation"]["occlusion"]["modalities"]["imu"]["log_probability"]
    assert len(curve) == 10
    assert all(point is not None for point in curve)
    damaged = post(server, **parts, damage="imu:noise:-20,imu:lose:0.5")
    assert damaged["damage"] == {"imu": "noise:-20,lose:0.5"}
    assert damaged["modalities"]["imu"]["certainty"] != answer["modalities"]["imu"]["certainty"]
    values[20:30] = np.nan
    shown = post(server, "/v1/inputs", imu=npy(values))["modalities"]["imu"]
    assert (shown["kind"], shown["count"], shown["sample_rate"], shown["seconds"]) == ("series", 3, 50.0, 1.0)
    assert [(one["name"], one["unit"]) for one in shown["channels"]] == [("ax", "g"), ("ay", "g"), ("az", "g")]
    # 60 samples, of which the middle 50 are judged.
    peaks = shown["channels"][2]["peaks"]
    assert [n for n, pair in enumerate(peaks) if pair is None] == list(range(15, 25))
    assert peaks[0] == pytest.approx([values[5, 2]] * 2, rel=1e-4)


def test_a_table_that_holds_the_series_trains_the_same(folder: Path, tmp_path: Path) -> None:
    content = config(folder / "clips.parquet")
    (tmp_path / "shaken.yaml").write_text(yaml.safe_dump(content))
    words = [str(tmp_path / "shaken.yaml"), "--out", str(tmp_path / "run"), "--cache-dir", str(tmp_path / "cache")]
    assert main(["train", *words]) == 0
    one, other = (json.loads((run / "metrics.json").read_text())["test"] for run in (folder / "run", tmp_path / "run"))
    assert one["heads"] == other["heads"]


@pytest.mark.parametrize("engine", ["local", "server"])
@pytest.mark.parametrize("table", ["clips.csv", "clips.parquet"])
def test_tables_are_scored(
    folder: Path, server: ServerProcess, answers: list[dict[str, str]], tmp_path: Path, *, engine: str, table: str
) -> None:
    where = ["--url", server.url] if engine == "server" else ["--repository", str(folder / "bundles")]
    columns = ["--column", "path_imu=imu", "--column", "path_audio=audio"]
    words = ["score", str(folder / table), *columns, "--model", "shaken", *where, "--out", str(tmp_path / "t.jsonl")]
    assert main([*words, "-q"]) == 0
    scored = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()][-len(answers) :]
    assert [row["label"] for row in scored] == [row["predicted"] for row in answers]
    for found, row in zip(scored, answers, strict=True):
        for label in CLASSES:
            assert found[f"probability_{label}"] == pytest.approx(float(row[f"probability_{label}"]), abs=1e-4)


def test_the_signal_check_is_reported_and_the_suite_runs(folder: Path) -> None:
    quality = json.loads((folder / "run" / "run.json").read_text())["quality_report"]
    assert quality["imu"] == {"false_alarms": {"flat": 0, "gaps": 0, "saturated": 0}, "lowest_share_there": 1.0}
    words = ["evaluate", str(folder / "run"), "--cache-dir", str(folder / "cache"), "--corruptions"]
    assert main([*words, "--families", "seen", "--split", "validation"]) == 0
