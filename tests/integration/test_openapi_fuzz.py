"""Schemathesis on the API's own description: whatever it makes up, there is no fault of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from support.server_process import ServerProcess, running_server
from support.tiny_bundle import make_tiny_bundle

#: Of 5xx, those that are answers rather than faults (docs/http_api.md).
DOCUMENTED = {501, 503, 504}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    repository = tmp_path_factory.mktemp("repository")
    make_tiny_bundle(repository)
    with running_server(repository, model_control="explicit", log_level="warning") as it:
        yield it
        assert "Traceback" not in it.log


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_request_breaks_the_server(case: schemathesis.Case) -> None:
    response = case.call(timeout=60)
    assert response.status_code < 500 or response.status_code in DOCUMENTED, response.text
