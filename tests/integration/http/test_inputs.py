"""``POST /v1/inputs`` against a real server: what it shows is what decoding in this process gives the encoders."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from dimml.modality import Flow, Frames, Waveform
from support.decoding import decode_source
from support.media_maker import tone, write_clip
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle, tone_hz
from support.tiny_media import coloured, fates, tiny_clip

LABEL = 2
AUDIO = Waveform(name="audio", sample_rate_hz=8000, samples=4000)
VISUAL = Frames(name="visual", frames=4, height=16, width=16)
MOTION = Flow(name="motion", frames=3, height=16, width=16)
CLIP_S = 0.5


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder, modalities=(AUDIO, VISUAL, MOTION), clip_s=CLIP_S)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository) as it:
        yield it


def shown(server: ServerProcess, files: dict[str, bytes], **fields: object) -> dict[str, Any]:
    response = httpx.post(
        f"{server.url}/v1/inputs", files=files, data={n: str(v) for n, v in fields.items()}, timeout=30.0
    )
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def picture(text: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))))


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_the_inputs_are_those_of_the_encoders(server: ServerProcess, tmp_path: Path, suffix: str) -> None:
    codecs = {} if suffix == "mp4" else {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"}
    path = write_clip(tmp_path / f"clip.{suffix}", 2.0, picture=coloured(LABEL), sound=tone(tone_hz(LABEL)), **codecs)
    answer = shown(server, {"media": path.read_bytes()}, start_s=0.5, end_s=1.5)
    decoded = decode_source(path, AUDIO, VISUAL, MOTION, clip_s=CLIP_S, start_s=0.5, end_s=1.5)
    assert (answer["model"], answer["version"]) == ("tiny", 1)
    assert (answer["start_s"], answer["end_s"]) == (decoded.start_s, decoded.end_s) == (0.75, 1.25)
    assert answer["duration_s"] == decoded.duration_s == pytest.approx(2.0, abs=0.1)

    heard, wave = answer["modalities"]["audio"], decoded.tracks["audio"].row
    assert wave is not None
    assert (heard["kind"], heard["status"], heard["sample_rate"], heard["seconds"]) == ("waveform", "ok", 8000, 0.5)
    assert len(heard["peaks"]) == 1000
    np.testing.assert_allclose(
        heard["peaks"], np.stack([wave.reshape(1000, 4).min(1), wave.reshape(1000, 4).max(1)], 1), atol=6e-5
    )
    spectrogram = heard["spectrogram"]
    grey = picture(spectrogram["png"])
    assert grey.shape == (spectrogram["height"], spectrogram["width"])
    loudest = (len(grey) - 0.5 - grey[:, grey.shape[1] // 2].argmax()) / len(grey) * spectrogram["max_hz"]
    assert loudest == pytest.approx(tone_hz(LABEL), abs=40.0)

    seen, frames = answer["modalities"]["visual"], decoded.tracks["visual"]
    assert (seen["kind"], seen["width"], seen["height"], seen["count"]) == ("frames", 16, 16, 4)
    assert seen["times_s"] == pytest.approx(frames.times_s)
    for shown_text, expected in zip(seen["frames"], frames.row, strict=True):
        np.testing.assert_array_equal(picture(shown_text), expected)

    moved = answer["modalities"]["motion"]
    assert (moved["kind"], len(moved["frames"])) == ("flow", 3)
    assert moved["scale_px"] >= 1.0


def test_media_without_a_signal_is_shown_with_its_status(server: ServerProcess, tmp_path: Path) -> None:
    silent = shown(server, {"media": tiny_clip(tmp_path, LABEL, sound="silence", picture="black")})
    assert fates(silent) == {"audio": "unusable:silent", "visual": "unusable:black", "motion": "ok"}
    assert picture(silent["modalities"]["audio"]["spectrogram"]["png"]).max() == 0
    assert picture(silent["modalities"]["visual"]["frames"][0]).max() < 8
    frozen = shown(server, {"media": tiny_clip(tmp_path, LABEL, picture="frozen")})["modalities"]["visual"]
    assert (frozen["status"], frozen["reason"], len(frozen["frames"])) == ("unusable", "frozen", 4)


def test_what_is_not_there_has_no_data(server: ServerProcess, tmp_path: Path) -> None:
    answer = shown(server, {"media": tiny_clip(tmp_path, LABEL, sound=None)}, modalities="audio,visual")
    assert fates(answer) == {"audio": "absent:no_track", "visual": "ok", "motion": "absent:not_requested"}
    assert answer["modalities"]["audio"]["peaks"] is answer["modalities"]["audio"]["spectrogram"] is None
    assert answer["modalities"]["motion"]["frames"] is None
    garbage = shown(server, {"media": b"no recording" * 50})
    assert set(fates(garbage).values()) == {"unusable:undecodable"}
    assert garbage["duration_s"] is None


def test_looking_counts_as_no_prediction(server: ServerProcess, tmp_path: Path) -> None:
    before = server.metric("dimml_requests_total", transport="http_inputs", outcome="ok")
    shown(server, {"media": tiny_clip(tmp_path, LABEL)})
    assert server.metric("dimml_requests_total", transport="http_inputs", outcome="ok") == before + 1
    for name in ("dimml_modality_status_total", "dimml_predictions_total", "dimml_modality_certainty_ratio_count"):
        assert server.metric(name) == 0, name


def test_what_it_does_not_take_is_refused_and_it_can_be_turned_off(
    server: ServerProcess, repository: Path, tmp_path: Path
) -> None:
    clip = tiny_clip(tmp_path, LABEL)
    for fields, name in (({"top_k": "1"}, "top_k"), ({"start_s": "soon"}, "start_s"), ({"end_s": "9"}, "end_s")):
        response = httpx.post(f"{server.url}/v1/inputs", files={"media": clip}, data=fields)
        assert (response.status_code, response.json()["error"]["field"]) == (422, name)
    with running_server(repository, show_inputs=False) as closed:
        response = httpx.post(f"{closed.url}/v1/inputs", files={"media": clip})
        assert response.status_code == 501
        assert "show_inputs" in response.json()["error"]["message"]
