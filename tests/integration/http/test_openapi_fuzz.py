"""Schemathesis on the API's own description: whatever it makes up, there is no fault of the server.

Its pytest plugin does not run with the pytest that is pinned here, so its strategies are given to Hypothesis by hand.
"""

from __future__ import annotations

from pathlib import Path

import schemathesis
from hypothesis import HealthCheck, given, settings

from support.server_process import running_server
from support.tiny_bundle import make_tiny_bundle

#: Of 5xx, those that are answers rather than faults (docs/http_api.md).
DOCUMENTED = {501, 503, 504}
FUZZ = settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    with running_server(tmp_path, model_control="explicit", log_level="warning") as server:
        api = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        operations = [result.ok() for result in api.get_all_operations()]
        assert len(operations) > 20
        for operation in operations:

            @FUZZ
            @given(operation.as_strategy())
            def answers(case: schemathesis.Case) -> None:
                response = case.call(timeout=60)
                assert response.status_code < 500 or response.status_code in DOCUMENTED, response.text

            answers()
        assert "Traceback" not in server.log
