"""``POST /v1/timeline`` against a real server: the rows of ``dimml score --window``, as a stream that can be left."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest

from support.media_maker import write_clip
from support.scoring import rows_of, score
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle, tone_hz
from support.tiny_media import LABELS, coloured, tiny_clip
from support.waiting import wait_until

WINDOW_S, HOP_S, SECONDS, FPS = 1.0, 0.5, 8.0, 25
#: Limit on windows of the server.
MOST = 40


def picture(number: int) -> npt.NDArray[np.uint8]:
    """Red, green, black, blue: two seconds each."""
    place = number // (2 * FPS)
    return np.zeros((64, 96, 3), np.uint8) if place == 2 else coloured((0, 1, 0, 2)[place])(number)


def sound(time_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Each class's tone in turn, and none from the fourth second to the sixth."""
    hertz = np.select([time_s < 2, time_s < 4, time_s < 6], [tone_hz(0), tone_hz(1), 0.0], tone_hz(2))
    return 0.4 * np.sin(2 * np.pi * hertz * time_s)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timeline")
    make_tiny_bundle(folder / "models")
    (folder / "clips").mkdir()
    write_clip(folder / "clips" / "long.mp4", SECONDS, picture=picture, sound=sound, fps=FPS)
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with running_server(folder / "models", timeline_windows=MOST, queue_wait_s=20) as it:
        yield it


def lines(server: ServerProcess, media: bytes, **fields: object) -> list[dict[str, Any]]:
    data = {name: str(value) for name, value in fields.items()}
    response = httpx.post(f"{server.url}/v1/timeline", files={"media": media}, data=data, timeout=60.0)
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_windows_are_the_rows_of_dimml_score(server: ServerProcess, folder: Path) -> None:
    table = folder / "table.parquet"
    words = ["--window", str(WINDOW_S), "--stride", str(HOP_S), "--out", table]
    # A window of it has no answer, which is what its exit code says.
    assert score(folder / "clips", *words, repository=folder / "models") == 3
    rows = rows_of(table)
    media = (folder / "clips" / "long.mp4").read_bytes()
    *found, last = lines(server, media, window_s=WINDOW_S, hop_s=HOP_S, top_k=3)
    assert last == {"done": True, "windows": len(rows)}
    assert len(found) == len(rows) == 15
    seen = set()
    for one, row in zip(found, rows, strict=True):
        assert (one["start_s"], one["end_s"]) == pytest.approx((row["start_s"], row["end_s"]))
        if "error" in one:
            assert one["error"]["code"] == row["error"] == "unusable_media"
            statuses = {n: ":".join(filter(None, s.values())) for n, s in one["error"]["modalities"].items()}
            assert statuses == {name: row[f"{name}_status"] for name in ("audio", "visual")}
            seen.add("nothing")
            continue
        answer = one["prediction"]
        seen.add(answer["label"])
        assert (answer["label"], answer["degraded"]) == (row["label"], row["degraded"])
        for listed in answer["predictions"]:
            assert listed["probability"] == pytest.approx(row[f"probability_{listed['label']}"], abs=1e-5)
        for name, own in answer["modalities"].items():
            assert ":".join(filter(None, (own["status"], own["reason"]))) == row[f"{name}_status"]
            if own["status"] == "ok":
                assert own["certainty"] == pytest.approx(row[f"{name}_certainty"], abs=1e-5)
                assert own["weight"] == pytest.approx(row[f"{name}_weight"], abs=1e-5)
    assert seen == {*LABELS, "nothing"}


def test_windows_count_in_no_metric_of_answers(server: ServerProcess, tmp_path: Path) -> None:
    before = server.metric("dimml_requests_total", transport="http_timeline", outcome="ok")
    found = lines(server, tiny_clip(tmp_path, 1, 2.0))
    # By default windows of the bundle's clip_s, one after the other.
    assert [(one["start_s"], one["end_s"]) for one in found[:-1]] == [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.0)]
    assert server.metric("dimml_requests_total", transport="http_timeline", outcome="ok") == before + 1
    for name in ("dimml_modality_status_total", "dimml_predictions_total", "dimml_modality_certainty_ratio_count"):
        assert server.metric(name) == 0, name


def test_media_without_time_is_one_window_and_what_is_no_media_an_error_of_it(server: ServerProcess) -> None:
    one, last = lines(server, b"no recording" * 50)
    assert (one["start_s"], one["end_s"], one["error"]["code"]) == (None, None, "unusable_media")
    assert last == {"done": True, "windows": 1}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"window_s": "0"}, "window_s"),
        ({"window_s": "nan"}, "window_s"),
        ({"hop_s": "-1"}, "hop_s"),
        ({"hop_s": "soon"}, "hop_s"),
        ({"window_s": "0.1"}, "hop_s"),
        ({"start_s": "9"}, "start_s"),
        ({"top_k": "4"}, "top_k"),
        ({"timeout_ms": "0"}, "timeout_ms"),
        ({"modalities": "smell"}, "modalities"),
    ],
    ids=str,
)
def test_what_is_wrong_as_a_whole_is_an_error_and_no_stream(
    server: ServerProcess, folder: Path, fields: dict[str, str], field: str
) -> None:
    media = (folder / "clips" / "long.mp4").read_bytes()
    response = httpx.post(f"{server.url}/v1/timeline", files={"media": media}, data=fields, timeout=60.0)
    assert response.status_code == 422, response.text
    assert response.json()["error"]["field"] == field
    if fields == {"window_s": "0.1"}:
        assert "timeline_windows = 40" in response.json()["error"]["message"]


def test_a_part_of_a_recording(server: ServerProcess, folder: Path) -> None:
    media = (folder / "clips" / "long.mp4").read_bytes()
    found = lines(server, media, start_s=2.0, end_s=3.0, modalities="audio")
    assert [one["prediction"]["label"] for one in found[:-1]] == ["green", "green"]
    assert [(one["start_s"], one["end_s"]) for one in found[:-1]] == [(2.0, 2.5), (2.5, 3.0)]
    assert found[0]["prediction"]["modalities"]["visual"]["reason"] == "not_requested"


def test_a_caller_that_leaves_makes_room_for_the_next(server: ServerProcess, folder: Path) -> None:
    media = (folder / "clips" / "long.mp4").read_bytes()

    def cancelled() -> float:
        return server.metric("dimml_requests_total", transport="http_timeline", outcome="cancelled")

    before, left = cancelled(), 0
    # Whether the server sees it go before it has sent the few lines there are is chance: one of several tries does.
    for _ in range(10):
        with httpx.stream("POST", f"{server.url}/v1/timeline", files={"media": media}, data={"hop_s": "0.2"}) as answer:
            next(answer.iter_raw())
            left += 1
        if cancelled() > before:
            break
    wait_until(lambda: cancelled() > before, 10.0)
    assert lines(server, media)[-1] == {"done": True, "windows": 16}


def test_predictions_go_on_beside_a_timeline(server: ServerProcess, folder: Path, tmp_path: Path) -> None:
    media, clip = (folder / "clips" / "long.mp4").read_bytes(), tiny_clip(tmp_path, 0)
    found: list[dict[str, Any]] = []
    beside = threading.Thread(target=lambda: found.extend(lines(server, media, hop_s=0.2)))
    beside.start()
    for _ in range(3):
        assert httpx.post(f"{server.url}/v1/predict", files={"media": clip}, timeout=30.0).status_code == 200
    beside.join(30.0)
    assert found[-1] == {"done": True, "windows": 38}
