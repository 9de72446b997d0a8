"""A series inside a real Triton server: its files and its tensors answer as the embedded engine does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc
import yaml

from dimml.cli import main
from dimml_server.local import LocalPredictor
from support.shaken import config, npy, shaken, text, wav, write_clips
from support.triton_process import TritonServer, running_triton

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    write_clips(folder)
    short = {"epochs": 2, "warmup_epochs": 1, "batch_size": 4}
    (folder / "shaken.yaml").write_text(yaml.safe_dump(config(folder / "clips.csv") | {"stage1": short}))
    words = ["--out", str(folder / "run"), "--cache-dir", str(folder / "cache")]
    assert main(["train", str(folder / "shaken.yaml"), *words]) == 0
    assert main(["export", str(folder / "run"), "--repository", str(folder / "bundles")]) == 0
    return folder / "bundles"


@pytest.fixture(scope="module")
def triton(bundles: Path) -> Iterator[TritonServer]:
    with running_triton(bundles) as server:
        yield server


@pytest.mark.parametrize("form", [npy, text, wav])
@pytest.mark.parametrize("hole", [0, 8, 40])
def test_files_answer_as_the_embedded_engine_does(bundles: Path, triton: TritonServer, form: object, hole: int) -> None:
    values = shaken("fast", 99)
    values[10 : 10 + hole] = np.nan
    data = form(values)  # type: ignore[operator]
    sound = (bundles.parent / "1.wav").read_bytes()
    inputs = []
    for name, content in (("SERIES_FILE", data), ("WAVEFORM_FILE", sound)):
        tensor = tritonclient.grpc.InferInput(name, [1], "BYTES")
        tensor.set_data_from_numpy(np.array([content], np.object_))
        inputs.append(tensor)
    with LocalPredictor(bundles) as predictor:
        expected = predictor.predict({"imu": data, "audio": sound}, model="shaken", top_k=2)
    with tritonclient.grpc.InferenceServerClient(triton.grpc) as client:
        found = client.infer("shaken_media", inputs)
    status = found.as_numpy("STATUS").ravel().tolist()
    assert status == [b"unusable:gaps" if hole == 40 else b"ok", b"ok"]
    wanted = {one.label: one.probability for one in expected.predictions}
    np.testing.assert_allclose(found.as_numpy("PROBABILITIES").ravel(), [wanted["fast"], wanted["slow"]], atol=1e-3)
