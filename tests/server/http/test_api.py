"""The API's description agrees with the code, and the docs with both."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from dimml import errors
from dimml.errors import BundleError, DimmlError, SetupError
from dimml.status import REASON_STATUS, ModalityStatus, Status
from dimml_server.http.errors import DESCRIPTIONS, INTERNAL, install_error_handlers
from dimml_server.http.middleware.access import AccessMiddleware
from dimml_server.observability.metrics import Metrics
from dimml_server.prediction.error_status import http_status
from dimml_server.process.http_app import create_app
from dimml_server.process.wiring import build_service
from dimml_server.security.guard import Guard
from dimml_server.settings.settings import load_settings
from support.data import REPOSITORY_ROOT

PAGE = (REPOSITORY_ROOT / "docs" / "http_api.md").read_text()


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    settings = load_settings(repository=tmp_path_factory.mktemp("repository"), decode_workers=1)
    metrics = Metrics()
    service = build_service(settings, metrics)
    yield create_app(service, metrics, settings, Guard(settings)).openapi()
    asyncio.run(service.close())


def request_errors() -> list[type[DimmlError]]:
    """Every error that a request can meet."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DimmlError)]
    return [kind for kind in kinds if kind is not DimmlError and not issubclass(kind, SetupError)]


def test_every_error_has_its_own_status_and_stands_in_the_docs() -> None:
    for kind in request_errors():
        instance = kind("", retry_after_s=1.0) if issubclass(kind, errors.QueueFullError) else kind("")
        status = http_status(instance)
        assert 400 <= status < 600
        assert status != 500, kind
        assert re.search(rf"^\| {status} \| `{kind.code}` \|", PAGE, re.MULTILINE), f"{kind.code} is not documented"
    assert f"| 500 | `{INTERNAL}` |" in PAGE


def test_every_status_and_reason_stands_in_the_docs() -> None:
    page = (REPOSITORY_ROOT / "docs" / "statuses.md").read_text()
    documented = re.findall(r"^#{2,3} ([a-z]+(?::\w+)?)$", page, re.MULTILINE)
    statuses = [str(ModalityStatus(status, reason)) for reason, status in REASON_STATUS.items()]
    assert len(documented) == len(set(documented))
    assert set(documented) == {*Status, *statuses}
    assert "[statuses and reasons](statuses.md)" in " ".join(PAGE.split())


def test_openapi_describes_the_body_and_every_error_of_a_prediction(description: dict[str, Any]) -> None:
    operation = description["paths"]["/v1/predict"]["post"]
    body = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    for part in body["properties"]:
        assert f"`{part}`" in PAGE, f"docs/http_api.md lacks the part {part}"
    assert body["properties"]["media"]["format"] == body["additionalProperties"]["format"] == "binary"
    # What /docs fills a field in with: an empty one counts as not sent.
    assert all(field["examples"] == [""] for name, field in body["properties"].items() if name != "media")
    answers = operation["responses"]
    assert set(answers) == {"200", *map(str, DESCRIPTIONS)}
    assert answers["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Prediction")
    assert "Retry-After" in answers["429"]["headers"]
    for status in DESCRIPTIONS:
        assert answers[str(status)]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorBody")


def test_every_own_path_stands_in_the_docs(description: dict[str, Any]) -> None:
    for path in description["paths"]:
        assert path.startswith("/v2") or f" {path}" in PAGE, f"docs/http_api.md lacks {path}"


@pytest.mark.parametrize("error", [RuntimeError("secret"), BundleError("secret")])
def test_an_unexpected_error_answers_with_its_request_id_and_nothing_internal(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.add_middleware(AccessMiddleware)
    install_error_handlers(app)

    @app.get("/broken")
    async def broken() -> None:
        raise error

    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
            return await http.get("/broken", headers={"X-Request-Id": "night-7"})

    response = asyncio.run(scenario())
    assert response.status_code == 500
    assert response.headers["X-Request-Id"] == "night-7"
    assert response.json()["error"]["code"] == INTERNAL
    assert response.json()["error"]["request_id"] == "night-7"
    assert "secret" not in response.text
    # The log has both, so that the one leads to the other.
    record = next(record for record in caplog.records if record.exc_info)
    assert "night-7" in record.getMessage()
