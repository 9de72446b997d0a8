"""Predictions in this process: the same answers and errors as a server's, from any thread, and a clean end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dimml.errors import BundleError, InvalidParameterError, UnreadableError, UnusableMediaError
from dimml.media import DecodeRequest, decode
from dimml.prediction import Prediction
from dimml_server.local import LocalBundle, LocalPredictor
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip
from support.waiting import wait_until


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPredictor]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with LocalPredictor(repository, concurrency=2, decode_workers=2) as it:
        yield it


def test_files_bytes_and_parts(predictor: LocalPredictor, tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path, 2)
    file = tmp_path / "clip.mp4"
    file.write_bytes(clip)
    assert [bundle.name for bundle in predictor.bundles] == ["tiny"]
    for media in (clip, file, str(file), {"audio": file, "visual": clip}, {"audio": str(file), "visual": str(file)}):
        answer = predictor.predict(media, top_k=1)
        assert (answer.label, answer.degraded, len(answer.predictions)) == (LABELS[2], False, 1)
    assert predictor.predict({"visual": clip}).degraded


def test_here_everything_may_be_asked_for(predictor: LocalPredictor, tmp_path: Path) -> None:
    answer = predictor.predict(tiny_clip(tmp_path, 2), explain="occlusion", damage="audio:noise:40")
    assert answer.explanation is not None
    assert answer.explanation.occlusion is not None
    assert answer.damage == {"audio": "noise:40"}


def test_text_is_a_path_and_one_that_is_not_there_is_named(predictor: LocalPredictor, tmp_path: Path) -> None:
    for media in (str(tmp_path / "gone.mp4"), {"audio": str(tmp_path / "gone.mp4")}):
        with pytest.raises(UnreadableError, match=r"cannot read .*gone\.mp4: No such file"):
            predictor.predict(media)


def test_a_repository_as_text(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(tiny_clip(tmp_path, 1))
    with LocalBundle(str(tmp_path)) as local:
        request = DecodeRequest(
            modalities=local.bundle.modalities,
            sources={modality.name: str(clip) for modality in local.bundle.modalities},
            clip_s=local.bundle.clip_s,
        )
        (answer,) = local.predict([decode(request)])
    with LocalPredictor(str(tmp_path), decode_workers=1) as predictor:
        assert isinstance(answer, Prediction)
        assert predictor.predict(str(clip)).label == answer.label == LABELS[1]


def test_errors_are_those_of_a_server(predictor: LocalPredictor, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="top_k"):
        predictor.predict(tiny_clip(tmp_path, 0), top_k=0)
    with pytest.raises(UnusableMediaError):
        predictor.predict(b"garbage")


def test_more_threads_than_permits_wait_for_their_turn(predictor: LocalPredictor, tmp_path: Path) -> None:
    clips = [tiny_clip(tmp_path, label) for label in range(3)] * 8
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(predictor.predict, clips))
    assert [answer.label for answer in answers] == list(LABELS) * 8


def test_threads_and_workers_end_with_it(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(BundleError, match="no bundle"), LocalPredictor(tmp_path, decode_workers=1):
        pytest.fail("there is nothing to load")
    assert threading.active_count() == before
    make_tiny_bundle(tmp_path / "repository")
    with LocalPredictor(tmp_path / "repository", decode_workers=1) as predictor:
        predictor.predict(tiny_clip(tmp_path, 0))
    wait_until(lambda: threading.active_count() == before, 2.0)  # Idle encoder threads have been told to end.
    with pytest.raises(RuntimeError, match="with statement"):
        predictor.predict(b"")
