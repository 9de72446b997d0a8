"""``POST /v1/predict`` against a real server: answers, degraded ones, and everything that the caller gets wrong."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from support.media_maker import damage_packets, tone, write_clip
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle, tone_hz
from support.tiny_media import LABELS, coloured, fates, tiny_clip

LABEL = 2
MAX_BODY_BYTES = 200_000
MAX_MEDIA_S = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository, max_body_bytes=MAX_BODY_BYTES, max_media_s=MAX_MEDIA_S, spool_bytes=4096) as it:
        yield it


@pytest.fixture(scope="module")
def http(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30.0) as client:
        yield client


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    whole = write_clip(folder / "whole.mp4", 2.0, picture=coloured(LABEL), sound=tone(tone_hz(LABEL)))
    wave = io.BytesIO()
    soundfile.write(wave, 0.4 * np.sin(2 * np.pi * tone_hz(LABEL) * np.arange(8000) / 8000), 8000, format="WAV")
    return {
        "whole": whole.read_bytes(),
        "no_sound": tiny_clip(folder, LABEL, sound=None),
        "no_picture": tiny_clip(folder, LABEL, picture=None),
        "silent": tiny_clip(folder, LABEL, sound="silence"),
        "black": tiny_clip(folder, LABEL, picture="black"),
        "frozen": tiny_clip(folder, LABEL, picture="frozen"),
        "nothing": tiny_clip(folder, LABEL, picture="black", sound="silence"),
        "broken_picture": damage_packets(whole, "video"),
        "wave": wave.getvalue(),
        "long": tiny_clip(folder, LABEL, MAX_MEDIA_S + 2.0),
        "garbage": b"this is no recording" * 50,
        "empty": b"",
    }


def post(http: httpx.Client, files: dict[str, bytes], **fields: object) -> httpx.Response:
    # Names that look like paths must not matter.
    parts = {name: ("../../etc/passwd", data) for name, data in files.items()}
    return http.post("/v1/predict", files=parts, data={name: str(value) for name, value in fields.items()})


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["code"] == code
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert error["message"]
    return error


@pytest.mark.parametrize("label", range(3))
def test_a_whole_recording(http: httpx.Client, tmp_path_factory: pytest.TempPathFactory, label: int) -> None:
    clip = tiny_clip(tmp_path_factory.mktemp("clip"), label)
    response = http.post("/v1/predict", files={"media": clip}, headers={"X-Request-Id": "night-7"})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["label"] == LABELS[label]
    assert (answer["model"], answer["version"], answer["degraded"]) == ("tiny", 1, False)
    assert answer["request_id"] == response.headers["X-Request-Id"] == "night-7"
    listed = answer["predictions"]
    assert [p["probability"] for p in listed] == sorted((p["probability"] for p in listed), reverse=True)
    assert sum(p["probability"] for p in listed) == pytest.approx(1.0, abs=1e-5)
    assert answer["probability"] == listed[0]["probability"]
    for modality in answer["modalities"].values():
        assert modality["status"] == "ok"
        assert modality["label"] == LABELS[label]
        assert 0.0 < modality["certainty"] <= 1.0
    weights = [m["weight"] for m in answer["modalities"].values()] + [answer["fused_head"]["weight"]]
    assert sum(weights) == pytest.approx(1.0, abs=1e-5)
    assert answer["end_s"] - answer["start_s"] == pytest.approx(0.5, abs=0.01)
    timings = answer["timings_ms"]
    assert timings["total"] >= timings["decode"] + timings["encode"] + timings["fuse"] > 0.0


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"media": "no_sound"}, {"audio": "absent:no_track", "visual": "ok"}),
        ({"media": "no_picture"}, {"audio": "ok", "visual": "absent:no_track"}),
        ({"media": "silent"}, {"audio": "unusable:silent", "visual": "ok"}),
        ({"media": "black"}, {"audio": "ok", "visual": "unusable:black"}),
        ({"media": "frozen"}, {"audio": "ok", "visual": "unusable:frozen"}),
        ({"media": "broken_picture"}, {"audio": "ok", "visual": "unusable:undecodable"}),
        ({"audio": "wave"}, {"audio": "ok", "visual": "absent:not_sent"}),
        ({"audio": "empty", "visual": "no_sound"}, {"audio": "unusable:empty", "visual": "ok"}),
        ({"audio": "garbage", "media": "whole"}, {"audio": "unusable:undecodable", "visual": "ok"}),
    ],
    ids=lambda value: "+".join(value.values()) if isinstance(value, dict) and "media" not in value else None,
)
def test_what_is_left_answers_and_says_so(
    http: httpx.Client, clips: dict[str, bytes], files: dict[str, str], expected: dict[str, str]
) -> None:
    response = post(http, {name: clips[clip] for name, clip in files.items()})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert fates(answer) == expected
    assert answer["degraded"] is True
    assert answer["label"] == LABELS[LABEL]
    out = next(name for name, fate in expected.items() if fate != "ok")
    left = next(name for name, fate in expected.items() if fate == "ok")
    assert answer["modalities"][left]["weight"] == pytest.approx(1.0)
    assert answer["modalities"][out] | {"status": "", "reason": "", "detail": ""} == {
        "status": "", "reason": "", "detail": "", "certainty": None, "weight": 0.0, "label": None, "probability": None,
        "channel": None,
    }  # fmt: skip
    if "garbage" in files.values():
        assert answer["modalities"][out]["detail"] == "its first bytes are those of no media format"
    assert answer["fused_head"] == {"certainty": None, "weight": 0.0}


def test_a_part_per_modality(http: httpx.Client, clips: dict[str, bytes]) -> None:
    answer = post(http, {"audio": clips["wave"], "visual": clips["no_sound"]}).json()
    assert fates(answer) == {"audio": "ok", "visual": "ok"}
    assert (answer["label"], answer["degraded"]) == (LABELS[LABEL], False)


def test_a_modality_left_out_by_the_caller_does_not_degrade(http: httpx.Client, clips: dict[str, bytes]) -> None:
    answer = post(http, {"media": clips["whole"]}, modalities="visual").json()
    assert fates(answer) == {"audio": "absent:not_requested", "visual": "ok"}
    assert answer["degraded"] is False


def test_range_and_top_k(http: httpx.Client, clips: dict[str, bytes]) -> None:
    answer = post(http, {"media": clips["whole"]}, start_s=1.0, end_s=1.4, top_k=2, model="tiny", version=1).json()
    assert (answer["start_s"], answer["end_s"]) == (1.0, 1.4)
    assert len(answer["predictions"]) == 2


@pytest.mark.parametrize("clip", ["garbage", "empty", "nothing"])
def test_nothing_to_use_is_the_callers_fault(http: httpx.Client, clips: dict[str, bytes], clip: str) -> None:
    response = post(http, {"media": clips[clip]})
    error = error_of(response, 422, "unusable_media")
    expected = {
        "garbage": {"audio": "unusable:undecodable", "visual": "unusable:undecodable"},
        "empty": {"audio": "unusable:empty", "visual": "unusable:empty"},
        "nothing": {"audio": "unusable:silent", "visual": "unusable:black"},
    }
    assert fates({"error": error}) == expected[clip]


def test_a_file_of_the_wrong_kind(http: httpx.Client, clips: dict[str, bytes]) -> None:
    error = error_of(post(http, {"visual": clips["wave"]}), 422, "unusable_media")
    assert fates({"error": error})["visual"] == "absent:no_track"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"modalities": "smell"}, "modalities"),
        ({"modalities": " , "}, "modalities"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 4}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"start_s": 1.0, "end_s": 1.0}, "end_s"),
        ({"end_s": 0}, "end_s"),
        ({"end_s": 4}, "end_s"),
        ({"start_s": 60}, "start_s"),
        ({"start_s": -1}, "start_s"),
        ({"start_s": "nan"}, "start_s"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": 10_000_000}, "timeout_ms"),
        ({"version": "new"}, "version"),
        ({"audio_track": "-1"}, "audio_track"),
        ({"audio_track": "sound"}, "audio_track"),
        ({"video_track": "loudest"}, "video_track"),
        ({"explain": "shap"}, "explain"),
        ({"explain": "occlusion"}, "explain"),
        ({"damage": "audio:blur:1"}, "damage"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(
    http: httpx.Client, clips: dict[str, bytes], fields: dict[str, object], field: str
) -> None:
    error = error_of(post(http, {"media": clips["whole"]}, **fields), 422, "invalid_parameter")
    assert error["field"] == field
    assert field in error["message"]


def test_a_track_that_is_not_there_says_what_is(http: httpx.Client, clips: dict[str, bytes]) -> None:
    answer = post(http, {"media": clips["whole"]}, audio_track="deu", video_track=0).json()
    assert fates(answer) == {"audio": "absent:no_track", "visual": "ok"}
    assert answer["modalities"]["audio"]["detail"].startswith(
        "it has no sound track in 'deu' (audio_track): there is 0"
    )
    assert answer["degraded"]
    assert fates(post(http, {"media": clips["whole"]}, audio_track="").json()) == {"audio": "ok", "visual": "ok"}


def test_why_is_in_the_answer_where_it_was_asked_for(http: httpx.Client, clips: dict[str, bytes]) -> None:
    plain = post(http, {"media": clips["whole"]}, explain="", damage="").json()
    assert not {"explanation", "damage"} & plain.keys()
    answer = post(http, {"media": clips["whole"]}, explain="shapley", damage="audio:noise:10").json()
    assert answer["damage"] == {"audio": "noise:10"}
    explanation = answer["explanation"]
    assert (explanation["label"], explanation["occlusion"]) == (answer["label"], None)
    total = sum(one["shapley"] for one in explanation["modalities"].values())
    assert total == pytest.approx(explanation["log_probability"] + np.log(3), abs=1e-6)
    alone = post(http, {"media": clips["whole"]}, damage="audio:noise:10", modalities="visual").json()
    assert explanation["modalities"]["audio"]["without"] == {
        "label": alone["label"],
        "probability": pytest.approx(alone["probability"], abs=1e-6),
    }
    black = post(http, {"media": clips["black"]}, explain="shapley").json()["explanation"]
    assert list(black["modalities"]) == ["audio"]
    assert black["modalities"]["audio"]["without"] is None


def test_an_unknown_part_is_named(http: httpx.Client, clips: dict[str, bytes]) -> None:
    error = error_of(post(http, {"media": clips["whole"], "smell": b"x"}), 422, "invalid_parameter")
    assert error["field"] == "smell"
    assert error_of(post(http, {}, model="tiny"), 422, "invalid_parameter")["field"] == "Content-Type"


def test_a_recording_by_its_url_is_refused_where_no_host_is_allowed(
    http: httpx.Client, clips: dict[str, bytes]
) -> None:
    for files in ({}, {"audio": clips["wave"]}):
        parts = {"media_url": (None, "https://localhost/clip.mp4"), **files}
        error = error_of(http.post("/v1/predict", files=parts), 422, "invalid_parameter")
        assert error["field"] == "media_url"
        assert "media_url_hosts" in error["message"]


def test_an_unknown_bundle_or_version_is_not_found(http: httpx.Client, clips: dict[str, bytes]) -> None:
    assert error_of(post(http, {"media": clips["whole"]}, model="huge"), 404, "not_found")["field"] == "model"
    assert error_of(post(http, {"media": clips["whole"]}, version=9), 404, "not_found")["field"] == "version"
    error_of(http.get("/v1/models/huge"), 404, "not_found")


def test_paths_and_methods_that_are_not_there(http: httpx.Client) -> None:
    error_of(http.get("/v1/nothing"), 404, "not_found")
    error_of(http.get("/v1/predict"), 405, "method_not_allowed")
    assert error_of(http.get("/v1/models/tiny?version=new"), 422, "invalid_parameter")["field"] == "version"


def test_models_are_listed_and_described(http: httpx.Client) -> None:
    (listed,) = http.get("/v1/models").json()["models"]
    described = http.get("/v1/models/tiny", params={"version": 1}).json()
    assert listed.items() <= described.items()
    assert listed["labels"] == list(LABELS)
    assert [(m["name"], m["kind"], m["tensor"]) for m in listed["modalities"]] == [
        ("audio", "waveform", "WAVEFORM"),
        ("visual", "frames", "FRAMES"),
    ]
    assert described["deadlines_ms"] == {"audio": 2000.0, "visual": 2000.0}


def test_too_long_a_recording_is_refused_and_a_part_of_it_is_not(http: httpx.Client, clips: dict[str, bytes]) -> None:
    error = error_of(post(http, {"media": clips["long"]}), 413, "too_large")
    assert "5" in error["message"]
    assert post(http, {"media": clips["long"]}, start_s=1, end_s=3).status_code == 200


def test_too_large_a_body_is_refused_on_its_header_and_while_it_comes(http: httpx.Client) -> None:
    error = error_of(post(http, {"media": b"x" * (MAX_BODY_BYTES + 1)}), 413, "too_large")
    assert str(MAX_BODY_BYTES) in error["message"]

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="media"; filename="x"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}  # No Content-Length: the body comes in chunks.
    error_of(http.post("/v1/predict", content=endless(), headers=headers), 413, "too_large")
    assert http.get("/health/ready").status_code == 200


def test_a_request_that_runs_out_of_time_is_late_not_bad(http: httpx.Client, clips: dict[str, bytes]) -> None:
    error_of(post(http, {"media": clips["whole"]}, timeout_ms=1), 504, "deadline_exceeded")


def test_a_hostile_request_id_is_replaced(http: httpx.Client) -> None:
    for hostile in ("x" * 500, "two words", 'quote"'):
        given = http.get("/health/live", headers={"X-Request-Id": hostile}).headers["X-Request-Id"]
        assert given != hostile
        assert len(given) == 32


def test_the_log_has_a_line_per_request_and_nothing_of_the_media(
    server: ServerProcess, http: httpx.Client, clips: dict[str, bytes]
) -> None:
    response = http.post("/v1/predict", files={"media": clips["garbage"]}, headers={"X-Request-Id": "seen-once"})
    assert response.status_code == 422
    server.wait_for_log("seen-once")
    lines = [line for line in server.log_lines if "seen-once" in line]
    assert len(lines) == 1
    assert "POST /v1/predict 422" in lines[0]
    assert "no recording" not in server.log
    assert "Traceback" not in server.log


def test_a_recording_that_was_cut_off_answers_and_says_how_much_is_there(
    http: httpx.Client, clips: dict[str, bytes]
) -> None:
    whole = post(http, {"media": clips["wave"]}).json()
    assert (whole["truncated"], whole["truncations"]) == (False, {})
    half = clips["wave"][: 44 + 8000]
    answer = post(http, {"media": half}).json()
    assert answer["modalities"]["audio"]["status"] == "ok"
    assert answer["truncated"] is True
    # 8000 bytes of 16 bits at 8 kHz, of a second.
    assert answer["truncations"] == {"audio": {"held_s": 0.5, "promised_s": 1.0}}
    metrics = http.get("/metrics").text
    assert 'dimml_truncated_total{modality="audio",model="tiny",version="1"} 1.0' in metrics
    assert 'dimml_truncated_total{modality="visual",model="tiny",version="1"} 0.0' in metrics
