"""Predictions bypass FastAPI's routing; it must not show, beside the application without the bypass."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from dimml.media.decoders.recording import decode
from dimml.media.types import Decoded, DecodeRequest
from dimml.prediction import Prediction
from dimml_server.http.middleware.direct import DirectMiddleware
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.service import PredictionService
from dimml_server.process.http_app import create_app
from dimml_server.process.wiring import build_service
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import load_settings
from support.tiny_bundle import make_tiny_bundle
from support.tiny_media import LABELS, tiny_clip

REQUEST_ID = "the-same"


class InProcess:
    """Decodes where it is called."""

    workers_lost = 0
    workers_running = 0

    async def decode(self, request: DecodeRequest, *, timeout_s: float) -> Decoded:
        return decode(request)

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


def without_timings(answer: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], str]:
    body = re.sub(r'"timings_ms":{[^}]*}', "", answer.text)
    return answer.status_code, [header for header in answer.headers.raw if header[0] != b"content-length"], body


async def ask(app: FastAPI, clip: bytes, method: str, url: str, **options: object) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        headers = {"X-Request-Id": REQUEST_ID, **options.pop("headers", {})}  # type: ignore[dict-item]
        return await http.request(method, url, headers=headers, **options)  # type: ignore[arg-type]


def test_the_bypass_answers_as_the_router_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle = make_tiny_bundle(tmp_path / "repository")
    clip = tiny_clip(tmp_path, 1)
    settings = load_settings(
        repository=tmp_path / "repository",
        decode_workers=1,
        cors_origins=["https://page.example"],
        max_body_bytes=10**6,
    )

    async def scenario() -> None:
        metrics = Metrics()
        service = build_service(settings, metrics, InProcess())
        direct, routed = (create_app(service, metrics, settings, Guard(settings)) for _ in range(2))
        routed.user_middleware = [one for one in routed.user_middleware if one.cls is not DirectMiddleware]
        assert len(routed.user_middleware) == len(direct.user_middleware) - 1
        try:
            await compare(service, direct, routed)
        finally:
            await service.close()

    async def compare(service: PredictionService, direct: FastAPI, routed: FastAPI) -> None:
        async def same(
            status: int, method: str = "POST", url: str = "/v1/predict", **options: object
        ) -> httpx.Response:
            answers = [await ask(app, clip, method, url, **options) for app in (direct, routed)]
            assert without_timings(answers[0]) == without_timings(answers[1])
            assert answers[0].status_code == status
            return answers[0]

        media = {"media": ("a.mp4", clip)}
        await same(503, files=media)
        await service.start()
        answer = await same(200, files=media)
        assert answer.json()["label"] == LABELS[1]
        whole = Prediction.model_validate_json(answer.content)
        assert whole.model_dump_json(exclude=whole.not_asked_for).encode() == answer.content
        left_out = {"explanation", "damage", "set", "abstained", "abstained_reason"}
        assert answer.json().keys() == Prediction.model_fields.keys() - left_out
        await same(200, files=media, headers={"Origin": "https://page.example"})
        await same(200, files={**media, "version": (None, str(bundle.version))})
        assert (await same(422, files={"media": b"no recording"})).json()["error"]["modalities"]
        await same(422, files={**media, "top_k": (None, "many")})
        await same(422, files=media, url="/v1/predict?top_k=1")
        await same(422, content=b"{}", headers={"Content-Type": "application/json"})
        await same(404, files={**media, "model": (None, "other")})
        await same(413, files={"media": bytes(2 * 10**6)})
        await same(415, files=media, headers={"Content-Encoding": "br"})
        await same(405, method="GET")
        await same(307, files=media, url="/v1/predict/")
        # Nothing internal of an unexpected error, whoever raises it.
        service.check_accepting = [].pop  # type: ignore[method-assign]
        assert (await same(500, files=media)).json()["error"]["request_id"] == REQUEST_ID

    with caplog.at_level(logging.INFO, "dimml_server.access"):
        asyncio.run(scenario())
    lines = [
        re.sub(r"[\d.]+ms", "", record.getMessage())
        for record in caplog.records
        if record.name == "dimml_server.access"
    ]
    assert lines[::2] == lines[1::2] != []
