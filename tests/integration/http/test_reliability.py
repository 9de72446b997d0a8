"""A bundle whose certainty is learned, behind ``POST /v1/predict``: its answers are those of ``dimml.fusion``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import pytest

from dimml.bundle import Bundle
from dimml.fusion import Fused, fuse, heads_present
from support.decoding import decode_source, row_of
from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle, tiny_parameters
from support.tiny_media import tiny_clip

RANGE = {"start_s": 0.25, "end_s": 0.75}


def by_numpy(repository: Path, bundle: Bundle, clip: Path, present: list[bool]) -> Fused:
    """What the bundle's encoders and ``dimml.fusion`` make of a recording."""
    wanted = [m for m, there in zip(bundle.modalities, present, strict=True) if there]
    decoded = decode_source(clip, *wanted, clip_s=bundle.clip_s, **RANGE)
    features, logits = [], []
    for encoder, there in zip(bundle.encoders, present, strict=True):
        if not there:
            features.append(np.full((1, encoder.features), np.nan, np.float32))
            logits.append(np.full((1, bundle.classes), np.nan, np.float32))
            continue
        name, tensor = encoder.modality.name, encoder.modality.tensor
        path = bundle.model_file(repository, bundle.encoder_model(name))
        session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        own_features, own_logits = session.run(["FEATURES", "LOGITS"], {tensor: row_of(decoded, name)[None]})
        features.append(own_features)
        logits.append(own_logits)
    # The tiny bundle's fused head is the mean of the two others.
    features.append(np.concatenate(features, axis=1))
    logits.append(np.mean(logits, axis=0))
    return fuse(
        np.stack(logits, axis=1),
        heads_present(np.array([present]), fused_head=True),
        bundle.fusion,
        tiny_parameters(bundle),
        features,
    )


def test_certainty_is_the_reliability_and_probabilities_are_numpys(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    bundle = make_tiny_bundle(repository, certainty="reliability", temperature=0.1, pooling="product")
    (tmp_path / "whole").mkdir()
    (tmp_path / "deaf").mkdir()
    tiny_clip(tmp_path / "whole", 1)
    tiny_clip(tmp_path / "deaf", 2, sound=None)
    with running_server(repository) as server, httpx.Client(base_url=server.url, timeout=30.0) as http:
        served = http.get("/v1/models/tiny").json()["fusion"]
        assert (served["certainty"], served["pooling"]) == ("reliability", "product")
        for clip, present in [
            (tmp_path / "whole" / "1.mp4", [True, True]),
            (tmp_path / "deaf" / "2.mp4", [False, True]),
        ]:
            form = {name: str(value) for name, value in RANGE.items()}
            response = http.post("/v1/predict", files={"media": clip.read_bytes()}, data=form)
            assert response.status_code == 200, response.text
            compare(bundle, response.json(), by_numpy(repository, bundle, clip, present))


def compare(bundle: Bundle, answer: dict[str, Any], expected: Fused) -> None:
    probabilities = {p["label"]: p["probability"] for p in answer["predictions"]}
    wanted = dict(zip(bundle.labels, expected.probabilities_BC[0].tolist(), strict=True))
    assert probabilities == pytest.approx(wanted, abs=1e-3)
    heads = [answer["modalities"]["audio"], answer["modalities"]["visual"], answer["fused_head"]]
    for head, certainty, weight in zip(heads, expected.certainty_BH[0], expected.weights_BH[0], strict=True):
        assert head["weight"] == pytest.approx(weight, abs=1e-3)
        if head["certainty"] is None:
            assert weight == 0.0
        else:
            assert 0.0 < head["certainty"] < 1.0
            assert head["certainty"] == pytest.approx(certainty, abs=1e-3)
