"""In an empty home, no command leaves a file: no device id, no store of events (training: test_training_fresh_home)."""

from __future__ import annotations

import json
import subprocess
import sys
from multiprocessing.connection import Pipe
from pathlib import Path

import httpx
import pytest

from dimml.repository import load_bundle
from dimml_server.shadow.worker import Ready, WorkerSettings
from support.fresh_home import files_below, fresh_home
from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip

IN_PYTHON = """
import sys
from pathlib import Path
from dimml_server.local import LocalPredictor
with LocalPredictor(sys.argv[1], models="tiny", decode_workers=1) as predictor:
    print(predictor.predict(Path(sys.argv[2])).label)
"""
#: Without its lowest priority, with which it starts late on a busy machine.
SHADOW = """
import sys
from dimml_server.shadow import worker
worker._give_way = lambda: None
worker.main(int(sys.argv[1]))
"""
#: ONNX Runtime's answers against a plan that gives zeros.
COMPARED_IN_PYTHON = """
import sys
from pathlib import Path
import numpy as np
from dimml.errors import BundleError
from dimml_export.tensorrt.plan_parity import check_plan
model, clips = Path(sys.argv[1], "tiny_audio/1/model.onnx").read_bytes(), np.ones((2, 4000), np.float32)
plan = lambda rows: (np.zeros((len(rows), 8), np.float32), np.zeros((len(rows), 3), np.float32))
try:
    check_plan("tiny_audio", model, plan, clips, precision="fp32", max_batch_size=2)
except BundleError as error:
    print(error.message)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle, and one of its recordings."""
    folder = tmp_path_factory.mktemp("made")
    make_tiny_bundle(folder / "models")
    tiny_clip(folder, 1)
    return folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return fresh_home(tmp_path, monkeypatch)


def said(*words: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_server(made: Path, home: Path) -> None:
    with running_server(made / "models", decode_workers=1) as server:
        answer = httpx.post(f"{server.url}/v1/predict", files={"media": (made / "1.mp4").read_bytes()}, timeout=30.0)
        assert answer.json()["label"] == "green"
    assert files_below(home) == []


def test_a_shadow_s_process_by_itself(made: Path, home: Path) -> None:
    ours, theirs = Pipe()
    with ours, theirs:
        words = [sys.executable, "-c", SHADOW, str(theirs.fileno())]
        process = subprocess.Popen(words, pass_fds=(theirs.fileno(),))
        try:
            bundle = load_bundle(made / "models", "tiny")
            ours.send(WorkerSettings(bundle, made / "models", device="cpu", intra_op_threads=1))
            assert ours.poll(60.0)
            assert isinstance(ours.recv(), Ready)
        finally:
            process.kill()
            process.wait()
    assert files_below(home) == []


def test_commands(made: Path, home: Path) -> None:
    models, clip = made / "models", made / "1.mp4"
    assert "outbound" in said("-m", "dimml", "doctor", "--repository", models, "--set=http_port=0", "--set=grpc_port=0")
    assert files_below(home) == []
    assert "green" in said("-m", "dimml", "predict", clip, "--repository", models)
    assert files_below(home) == []
    said("-m", "dimml", "score", clip, "--repository", models, "--out", home.parent / "scores.jsonl", "-q")
    assert json.loads((home.parent / "scores.jsonl").read_text().splitlines()[-1])["label"] == "green"
    assert files_below(home) == []


def test_python_without_a_command(made: Path, home: Path) -> None:
    assert said("-c", IN_PYTHON, made / "models", made / "1.mp4").strip() == "green"
    assert "another label than ONNX Runtime" in said("-c", COMPARED_IN_PYTHON, made / "models")
    assert files_below(home) == []


def test_a_user_who_wants_it_sent_is_left_alone(made: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so the tests above look where the library would write."""
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    doctor = [
        "-m",
        "dimml",
        "doctor",
        "--repository",
        made / "models",
        "--json",
        "--set=http_port=0",
        "--set=grpc_port=0",
    ]
    findings = json.loads(said(*doctor))["findings"]
    (found,) = (one for one in findings if one["check"] == "outbound" and one["found"].startswith("onnxruntime "))
    assert found["level"] == "note"
    assert "ORT_DISABLE_TELEMETRY=0" in found["found"]
    assert "unset ORT_DISABLE_TELEMETRY" in found["fix"]
    assert any(name.endswith("deviceid") for name in files_below(home))
