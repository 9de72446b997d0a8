"""After requests that are known, ``/metrics`` says exactly what they were, and promtool agrees with its form."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.data import unavailable
from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import tiny_clip


def test_counts_equal_the_requests(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "repository")
    whole = tiny_clip(tmp_path, 0)
    no_sound, silent = tiny_clip(tmp_path, 0, sound=None), tiny_clip(tmp_path, 0, sound="silence")
    sent: list[tuple[bytes, dict[str, str], int]] = [
        *[(whole, {}, 200)] * 5,
        *[(no_sound, {}, 200)] * 3,
        *[(silent, {}, 200)] * 2,
        (whole, {"modalities": "audio"}, 200),
        (silent, {"modalities": "audio"}, 422),
        (b"garbage", {}, 422),
        (whole, {"top_k": "0"}, 422),
        (whole, {"model": "other"}, 404),
    ]
    with running_server(tmp_path / "repository") as server, httpx.Client(base_url=server.url) as http:
        for clip, fields, status in sent:
            assert http.post("/v1/predict", files={"media": clip}, data=fields).status_code == status
        exposition = http.get("/metrics").text
    found: dict[str, Counter[tuple[str, ...]]] = {}
    keys = {
        "dimml_requests_total": ("model", "outcome"),
        "dimml_modality_status_total": ("modality", "status", "reason"),
        "dimml_modality_certainty_ratio_count": ("modality",),
        "dimml_modality_weight_ratio_count": ("modality",),
        "dimml_stage_seconds_count": ("stage", "modality"),
        "dimml_request_seconds_count": ("transport",),
    }
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name in keys and sample.value:
                labels = tuple(sample.labels[key] for key in keys[sample.name])
                found.setdefault(sample.name, Counter())[labels] += int(sample.value)
    assert found == {
        "dimml_requests_total": {
            ("tiny", "ok"): 6,
            ("tiny", "degraded"): 5,
            ("tiny", "unusable_media"): 2,
            ("tiny", "invalid_parameter"): 1,
            ("", "not_found"): 1,
        },
        "dimml_modality_status_total": {
            ("audio", "ok", ""): 6,
            ("audio", "absent", "no_track"): 3,
            ("audio", "unusable", "silent"): 3,
            ("audio", "unusable", "undecodable"): 1,
            ("visual", "ok", ""): 10,
            ("visual", "absent", "not_requested"): 2,
            ("visual", "unusable", "undecodable"): 1,
        },
        "dimml_modality_certainty_ratio_count": {("audio",): 6, ("visual",): 10, ("fused",): 5},
        "dimml_modality_weight_ratio_count": {("audio",): 6, ("visual",): 10, ("fused",): 5},
        "dimml_stage_seconds_count": {
            ("queue", ""): 13,
            ("decode", ""): 13,
            ("encode", "audio"): 6,
            ("encode", "visual"): 10,
            ("fuse", ""): 11,
        },
        "dimml_request_seconds_count": {("http",): 15},
    }
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not installed (Debian package prometheus)")
    checked = subprocess.run(
        [str(promtool), "check", "metrics"], input=exposition, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
