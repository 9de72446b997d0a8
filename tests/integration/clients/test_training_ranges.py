"""Every way to serve cuts a labelled range as training did: the same rows, bit for bit, as in the cache of clips."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dimml.bundle import Bundle, Encoder
from dimml.errors import InvalidParameterError
from dimml.media import DecodeRequest, MediaLimits, decode
from dimml.repository import load_bundle
from dimml_client.scoring.engines.decode_request import decode_request
from dimml_client.scoring.recording import Recording
from dimml_server.prediction.request import MediaPrediction
from dimml_training.data.prepare import prepare
from support.media_maker import tone, write_clip
from support.tiny_training import configured, stripes

#: Ranges of a recording of 2 s, for rows of 0.5 s: inside, at both ends, longer than a row, and past the end by a bit.
RANGES = [(0.8, 1.0), (0.1, 0.2), (1.6, 1.95), (0.3, 1.6), (1.9, 2.05)]


def of_server(bundle: Bundle, path: Path, start_s: float, end_s: float) -> DecodeRequest:
    request = MediaPrediction(request_id="r", sources={"media": path}, start_s=start_s, end_s=end_s)
    return request.decode_request(bundle, MediaLimits())


def of_scoring(bundle: Bundle, path: Path, start_s: float, end_s: float) -> DecodeRequest:
    recording = Recording(0, "r", {"media": str(path)}, start_s, end_s)
    return decode_request(bundle, recording, {"media": path}, MediaLimits())


@pytest.fixture(scope="module")
def prepared(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, Any]:
    """A bundle with the training's modalities and margin, the clip table, and the training's rows."""
    folder = tmp_path_factory.mktemp("ranges")
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["media", "label", "split", "subject", "start_s", "end_s"])
        for part, split in enumerate(("train", "validation", "test")):
            for number, (start_s, end_s) in enumerate(RANGES):
                name = f"{split}_{number}.mp4"
                write_clip(
                    folder / name, 2.0, sound=tone(300 + 90 * number + 17 * part, 0.4), picture=stripes(5 + number)
                )
                table.writerow([name, "high" if number % 2 else "low", split, name, start_s, end_s])
    config = configured(folder / "clips.csv")
    tiny = load_bundle(tiny_repository, "tiny")
    encoders = tuple(Encoder(modality=modality, features=8) for modality in config.inputs)
    bundle = tiny.model_copy(update={"encoders": encoders, "clip_s": config.clip_s, "margin_s": config.data.margin_s})
    return bundle, folder / "clips.csv", prepare(config, folder / "cache").splits["test"]


@pytest.mark.parametrize("request_of", [of_server, of_scoring])
def test_a_labelled_range_gives_the_rows_of_training(prepared: tuple[Bundle, Path, Any], request_of: Any) -> None:
    bundle, _, data = prepared
    for index, clip in enumerate(data.clips):
        path = clip.media["audio"]
        served = decode(request_of(bundle, path, *clip.labelled_s))
        unmoved = decode(request_of(bundle.model_copy(update={"margin_s": 0.0}), path, *clip.labelled_s))
        for name in ("audio", "visual"):
            trained = data.rows.rows(name, [index])[0]
            np.testing.assert_array_equal(served.tracks[name].row, trained)
        same = [np.array_equal(unmoved.tracks[n].row, served.tracks[n].row) for n in ("audio", "visual")]
        assert not all(same) or index == RANGES.index((0.3, 1.6)), (
            "a margin moves nothing in the middle of a long range"
        )


def test_a_range_past_the_end_is_refused_whatever_the_margin(prepared: tuple[Bundle, Path, Any]) -> None:
    bundle, _, data = prepared
    with pytest.raises(InvalidParameterError, match="end_s"):
        decode(of_server(bundle, data.clips[0].media["audio"], 1.0, 2.4))
