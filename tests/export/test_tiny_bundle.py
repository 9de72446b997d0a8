"""The tiny bundle that other tests stand on: it tells its classes apart, and misbehaves exactly when told to."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from dimml.bundle import Bundle
from dimml.modality import Flow
from dimml.signal_check import no_signal
from support.tiny_bundle import AUDIO, NAN_PIXEL, NAN_SAMPLE, REAR, VISUAL, make_tiny_bundle, tiny_row

FLOW = Flow(name="motion", frames=3, height=16, width=16)


def encoder(repository: Path, bundle: Bundle, modality: str) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # runs that are meant to fail need not be logged
    path = bundle.model_file(repository, bundle.encoder_model(modality))
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("labels", [("red", "green", "blue"), tuple("abcdef")])
def test_every_encoder_recognises_its_own_rows(tmp_path: Path, labels: tuple[str, ...]) -> None:
    bundle = make_tiny_bundle(tmp_path, modalities=(AUDIO, VISUAL, REAR, FLOW), labels=labels)
    for modality in bundle.modalities:
        rows = np.stack([tiny_row(modality, index, len(labels)) for index in range(len(labels))])
        assert all(no_signal(modality, row, bundle.quality) is None for row in rows)
        features, logits = encoder(tmp_path, bundle, modality.name).run(None, {modality.tensor: rows})
        assert features.shape == (len(labels), bundle.encoder(modality.name).features)
        np.testing.assert_array_equal(logits.argmax(axis=1), np.arange(len(labels)))


def test_a_stalled_encoder_stops_when_told_to(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, stall="audio")
    session = encoder(tmp_path, bundle, "audio")
    options, ended = ort.RunOptions(), []

    def run() -> None:
        try:
            session.run(None, {"WAVEFORM": tiny_row(AUDIO, 0)[None]}, options)
        except Exception as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive(), "the stalled encoder gave an answer"
    options.terminate = True
    began = time.perf_counter()
    thread.join(10)
    assert time.perf_counter() - began < 1.0
    assert "terminate flag" in ended[0]


def test_the_raising_and_the_nan_encoder(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path, raises="visual", nan="audio")
    with pytest.raises(Exception, match="out of data bounds"):
        encoder(tmp_path, bundle, "visual").run(None, {"FRAMES": tiny_row(VISUAL, 0)[None]})
    rows = np.stack([tiny_row(AUDIO, 1)] * 2)
    rows[0, 17] = NAN_SAMPLE
    logits = encoder(tmp_path, bundle, "audio").run(["LOGITS"], {"WAVEFORM": rows})[0]
    assert np.isnan(logits[0]).all()
    assert logits[1].argmax() == 1
    bundle = make_tiny_bundle(tmp_path, nan="visual")
    frames = tiny_row(VISUAL, 2)[None].copy()
    frames[0, 2, 5, 5, 1] = NAN_PIXEL
    assert np.isnan(encoder(tmp_path, bundle, "visual").run(["LOGITS"], {"FRAMES": frames})[0]).all()
