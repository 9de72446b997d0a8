"""``GET /v1/now`` of a real server: it moves under traffic, and asks for a key as ``/metrics`` does."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dimml_server.security.keys import new_key
from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip
from support.waiting import wait_until

LABEL = 1
READER, READER_LINE = new_key("reader")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    with running_server(repository) as it:
        yield it


def now(server: ServerProcess) -> dict[str, Any]:
    response = httpx.get(f"{server.url}/v1/now")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def counted(answer: dict[str, Any], name: str, began_s: float) -> float:
    """What rates add up to over their times; the first point is about the time since the start."""
    times = [began_s, *answer["times"]]
    return sum(rate * (end - begin) for rate, (begin, end) in zip(answer[name], itertools.pairwise(times), strict=True))


def test_the_last_hour_moves_under_traffic(server: ServerProcess, tmp_path: Path) -> None:
    began_s = time.time()
    whole, silent = tiny_clip(tmp_path, LABEL), tiny_clip(tmp_path, LABEL, sound="silence")
    for clip in (whole, whole, silent, b"no recording"):
        httpx.post(f"{server.url}/v1/predict", files={"media": clip})

    def seen() -> dict[str, int]:
        statuses: dict[str, int] = now(server)["models"]["tiny:1"]["modalities"]["audio"]["statuses"]
        return statuses

    # A point comes once a second has passed since the one before.
    wait_until(lambda: sum(seen().values()) == 4, 10.0, every_s=0.3)
    answer = now(server)
    assert seen() == {"ok": 2, "unusable:silent": 1, "unusable:undecodable": 1}
    assert len(answer["requests_per_s"]) == len(answer["times"]) >= 1
    # The start of the first point's time is not in the answer, but is no later than the first request.
    assert counted(answer, "requests_per_s", began_s) <= 4.0 + 1e-3
    assert answer["queue_limit"] == 64
    assert answer["decode_workers"]["running"][-1] == 1.0
    moved = next(point for point, rate in enumerate(answer["requests_per_s"]) if rate)
    assert answer["degraded_share"][moved] == pytest.approx(1 / 3, rel=1e-4)
    assert answer["rejected_per_s"][moved] == pytest.approx(answer["requests_per_s"][moved] / 4, rel=1e-3)
    for stage in ("queue", "decode", "encode", "fuse", "total"):
        assert 0.0 < answer["latency_ms"][stage]["p50"][moved] <= answer["latency_ms"][stage]["p99"][moved]
    audio = answer["models"]["tiny:1"]["modalities"]["audio"]
    assert audio["ok_share"][moved] == 0.5
    ok = {"model": "tiny", "modality": "audio"}
    mean = server.metric("dimml_modality_certainty_ratio_sum", **ok) / server.metric(
        "dimml_modality_certainty_ratio_count", **ok
    )
    assert audio["certainty"][moved] == pytest.approx(mean, rel=1e-4)
    assert answer["models"]["tiny:1"]["fused_head"]["weight"][moved] > 0.0
    assert answer["alerts"] == []


def test_it_takes_a_key_where_metrics_do(repository: Path) -> None:
    with running_server(repository, api_keys=READER_LINE.line) as closed:
        assert httpx.get(f"{closed.url}/v1/now").status_code == 401
        assert httpx.get(f"{closed.url}/v1/now", headers={"X-API-Key": READER}).status_code == 200
        assert httpx.get(f"{closed.url}/v1/now?since=1", headers={"X-API-Key": READER}).status_code == 422
