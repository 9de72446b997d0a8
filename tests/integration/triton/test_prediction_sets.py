"""Prediction sets from inside a real Triton server: those of the embedded engine, per row and request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc

from dimml_server.local import LocalPredictor
from support.tiny_bundle import VISUAL, tiny_row
from support.tiny_media import LABELS, tiny_clip
from support.tiny_sets import SETS, grey_row, set_by_hand
from support.triton_process import TritonServer

pytestmark = pytest.mark.timeout(600)
PB = tritonclient.grpc


@pytest.mark.parametrize("label", range(3))
def test_a_recording_has_the_set_of_the_embedded_engine(
    triton: TritonServer, repository: Path, tmp_path: Path, label: int
) -> None:
    clip = tiny_clip(tmp_path, label)
    with LocalPredictor(repository, models=("sets",), decode_workers=1) as local:
        for name in ("MEDIA", f"{VISUAL.tensor}_FILE"):
            sent = None if name == "MEDIA" else ("visual",)
            wanted = local.predict(clip, modalities=sent, top_k=3)
            media = PB.InferInput(name, [1], "BYTES")
            media.set_data_from_numpy(np.array([clip], np.object_))
            with PB.InferenceServerClient(triton.grpc) as client:
                answer = client.infer("sets_media", [media])
            assert wanted.set == set_by_hand(wanted)
            inside = answer.as_numpy("SET")[0]
            assert {LABELS[i] for i in np.flatnonzero(inside)} == set(wanted.set)
            assert answer.as_numpy("ABSTAINED").tolist() == [[False]]


def test_requests_in_one_batch_abstain_each_by_its_own_limits(triton: TritonServer) -> None:
    rows = np.stack([tiny_row(VISUAL, 0), tiny_row(VISUAL, 1), grey_row()])

    def ask(**parameters: Any) -> Any:
        tensor = PB.InferInput(VISUAL.tensor, rows.shape, "UINT8")
        tensor.set_data_from_numpy(rows)
        with PB.InferenceServerClient(triton.grpc) as client:
            return client.infer("sets", [tensor], parameters=parameters)

    free, strict = ask(), ask(max_set_size=1)
    inside = 1 - free.as_numpy("PROBABILITIES").astype(float) <= SETS["visual"] + 1e-6
    assert np.array_equal(free.as_numpy("SET"), inside)
    assert np.array_equal(strict.as_numpy("SET"), inside)
    assert free.as_numpy("ABSTAINED_REASON").tolist() == [[b""], [b""], [b"unknown_class"]]
    assert strict.as_numpy("ABSTAINED_REASON").tolist() == [[b"large_set"], [b"large_set"], [b"unknown_class"]]


def test_a_bundle_without_sets_refuses_limits(triton: TritonServer) -> None:
    media = PB.InferInput("MEDIA", [1], "BYTES")
    media.set_data_from_numpy(np.array([b"never decoded"], np.object_))
    with (
        PB.InferenceServerClient(triton.grpc) as client,
        pytest.raises(PB.InferenceServerException, match="has no prediction sets"),
    ):
        client.infer("avdigits_media", [media], parameters={"max_set_size": 1})


@pytest.mark.parametrize("name", ["sets_later", "sets_before"])
def test_versions_with_and_without_sets_answer_under_one_configuration(triton: TritonServer, name: str) -> None:
    """The first version's configuration stays: without the outputs Triton gives none, with them it misses none."""
    tensor = PB.InferInput(VISUAL.tensor, [1, *VISUAL.shape], "UINT8")
    tensor.set_data_from_numpy(tiny_row(VISUAL, 1)[None])
    with PB.InferenceServerClient(triton.grpc) as client:
        answer = client.infer(name, [tensor])
    assert answer.get_response().model_version == "2"
    assert answer.as_numpy("PROBABILITIES")[0].argmax() == 1
    assert answer.as_numpy("SET") is None
